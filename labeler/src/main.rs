//! `tradewind-labeler --config labeler.toml`: runs the labeler in the foreground. `tradewind-labeler check DOMAIN` makes a dry run (`check`).
//!
//! Says `ready` on one line of standard output, and to systemd, when queries are answered. SIGTERM and SIGINT stop it cleanly, SIGHUP starts it anew, and it says `ready` again, with the
//! settings read again (wrong ones are refused and the old stay). A wrong configuration exits 2, anything else that ends it 1.

mod check;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use labeler::{Config, Running};
use tokio::signal::unix::{SignalKind, signal};

/// Verifies mail operators and labels their DIDs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings: labeler.toml.
    #[arg(long, required_unless_present = "verb", global = true)]
    config: Option<PathBuf>,
    /// Without one, the labeler runs.
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes every check of a domain now, as the labeler would, and says what to publish. Exits 0 when all is in order, 1 when not. Without
    /// `--config` the system's resolver and the public directory are asked.
    Check(check::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log();
    let config = match arguments.config.as_deref().map(Config::read).transpose() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(Verb::Check(check)) = arguments.verb {
        return runtime.block_on(check::run(config.as_ref(), check));
    }
    let (Some(file), Some(config)) = (arguments.config, config) else { unreachable!("clap asks for the settings") };
    match runtime.block_on(run(&file, config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tradewind-labeler: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(file: &Path, config: Config) -> Result<(), String> {
    let watch = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut terminate, mut interrupt, mut hangup) =
        (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?, watch(SignalKind::hangup())?);
    let mut running = labeler::start(config).await.map_err(|error| error.to_string())?;
    say_ready(&running);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match Config::read(file) {
                Ok(config) => {
                    running.stop().await;
                    running = labeler::start(config).await.map_err(|error| error.to_string())?;
                    say_ready(&running);
                }
                Err(error) => tracing::error!(%error, "the settings stay as they were"),
            },
            () = running.died() => return Err("a part of it has died".into()),
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

fn say_ready(running: &Running) {
    tracing::info!(address = %running.local_addr(), "ready");
    let mut out = std::io::stdout();
    // Whoever started us may not read on; that is no reason to end.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// To standard error: text on a terminal, JSON otherwise. `RUST_LOG` filters.
fn log() {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_proto=warn,hickory_resolver=warn"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { log.init() } else { log.json().flatten_event(true).init() }
}
