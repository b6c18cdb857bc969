//! `tradewind-loadtest`: load, faults and real peers for tradewind, and what was measured with them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::{idle, interop, kill, report};

#[derive(Parser)]
#[command(name = "tradewind-loadtest", version, about)]
struct Program {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What a message costs, beside Postfix in the same run
    Report(report::Arguments),
    /// `kill -9` under load, again and again: nothing lost, no copies but what was in flight
    Kill(kill::Arguments),
    /// A thousand idle TLS sessions and slow-loris clients, and how fast a new submission is meanwhile
    Idle(idle::Arguments),
    /// Real peers: a PDS, Postfix, swaks, msmtp, nodemailer, smtplib, dkimpy, opendkim. Needs root
    Interop(interop::Arguments),
}

fn main() -> ExitCode {
    let done = match Program::parse().command {
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Kill(arguments) => kill::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
        Verb::Interop(arguments) => interop::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
