//! `tradewind-loadtest`: load, faults and real peers for tradewind, and what was measured with them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::{
    backlog, broken, churn, console, disk, economy, handover, idle, interop, kill, labeler, powercut, profile, report, scrape,
    tls_cases,
};

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
    /// What it costs the mail that the console is open and metrics are scraped
    Watched(report::watched::Arguments),
    /// Where the CPU of a message goes, sampled by perf
    Profile(profile::Arguments),
    /// `kill -9` under load, again and again: nothing lost, no copies but what was in flight
    Kill(kill::Arguments),
    /// Losses of power under load, with lost and torn writes: nothing lost that got 250, no copies but what was in flight
    Powercut(powercut::Arguments),
    /// One process takes another's place under load, again and again: nobody refused, nothing lost
    Handover(handover::Arguments),
    /// A thousand idle TLS sessions and slow-loris clients, and how fast a new submission is meanwhile
    Idle(idle::Arguments),
    /// A queue of up to millions of deferred messages: start, memory, answers, and a site that comes back
    Backlog(backlog::Arguments),
    /// How many connections much mail takes, and what an idle site costs
    Economy(economy::Arguments),
    /// What a scrape of /metrics takes, and how many series there are, once mail has gone to a thousand sites
    Scrape(scrape::Arguments),
    /// Thousands of hosts that break off, dawdle, stammer and lie, in virtual time: every fate as they really said
    Broken(broken::Arguments),
    /// Months of mail through the queue alone: file sizes and commit times must level off
    Churn(churn::Arguments),
    /// A disk that is full, read-only, broken or forgetful: nothing that got 250 is lost. Needs root
    Disk(disk::Arguments),
    /// What is demanded of receiving hosts' TLS, case by case, with Knot, Unbound and Postfix's posttls-finger. Needs root
    Tls(tls_cases::Arguments),
    /// Our labeler: to the octet with @atproto's packages, set up on a real PLC directory and PDS, and fast beside @skyware/labeler
    Labeler(labeler::Arguments),
    /// The console in Chromium: every page, plans, actions, members, two operators at once. Needs root
    Console(console::Arguments),
    /// Real receiving hosts: Postfix, Exim, OpenSMTPD, Haraka, aiosmtpd. Needs root
    Receivers(interop::receivers::Arguments),
    /// Real peers: a PDS, Postfix, swaks, msmtp, nodemailer, smtplib, dkimpy, opendkim. Needs root
    Interop(interop::Arguments),
}

fn main() -> ExitCode {
    let done = match Program::parse().command {
        Verb::Report(arguments) => report::run(&arguments),
        Verb::Watched(arguments) => report::watched::run(&arguments),
        Verb::Profile(arguments) => profile::run(&arguments),
        Verb::Kill(arguments) => kill::run(&arguments),
        Verb::Powercut(arguments) => powercut::run(&arguments),
        Verb::Handover(arguments) => handover::run(&arguments),
        Verb::Idle(arguments) => idle::run(&arguments),
        Verb::Backlog(arguments) => backlog::run(&arguments),
        Verb::Economy(arguments) => economy::run(&arguments),
        Verb::Scrape(arguments) => scrape::run(&arguments),
        Verb::Broken(arguments) => broken::run(&arguments),
        Verb::Churn(arguments) => churn::run(&arguments),
        Verb::Disk(arguments) => disk::run(&arguments),
        Verb::Tls(arguments) => tls_cases::run(&arguments),
        Verb::Labeler(arguments) => labeler::run(&arguments),
        Verb::Console(arguments) => console::run(&arguments),
        Verb::Receivers(arguments) => interop::receivers::run(&arguments),
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
