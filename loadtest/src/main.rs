//! `tradewind-loadtest`: load, faults and real peers for tradewind, and what was measured with them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::report;

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
}

fn main() -> ExitCode {
    let done = match Program::parse().command {
        Verb::Report(arguments) => report::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
