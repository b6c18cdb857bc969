//! `tradewind-mta --config mta.toml`: runs in the foreground until SIGTERM or SIGINT.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mta::config::Config;
use mta::control::admin::Stage;
use mta::daemon::{self, Environment};
use tokio::signal::unix::{SignalKind, signal};

// Messages are many small allocations that are freed on another thread than they were made on; the
// system's allocator keeps those as fragments.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The tradewind mail transfer agent.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings; `tradewind config describe` prints an example.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    log();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, run(config, arguments.config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config, path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let config = Arc::new(config);
    let metrics = mta::control::metrics::install()?;
    // Before anything is bound: a signal that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let (environment, fallback) = Environment::of_machine(&config)?;
    if let Some(why) = fallback {
        tracing::warn!("{why}");
    }
    let io = environment.io.to_string();
    let running = daemon::start(config.clone(), environment).await?;
    let control = running.control(Some(metrics)).await?;
    for (listen, address) in config.listen.iter().zip(&running.addresses) {
        tracing::info!(%address, role = %listen.role, io, "listening");
    }
    control.set_stage(Stage::Ready);
    ready();

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&running, &path),
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    control.set_stage(Stage::Draining);
    running.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// What can be changed without a restart: the certificate, which labels a member needs, tiers and duplicates. Whatever is wrong
/// with the new file, the old settings stay.
fn reload(running: &daemon::Running, path: &Path) {
    match Config::load(path) {
        Ok(config) => match running.reload(Arc::new(config)) {
            Ok(()) => tracing::info!(
                "read the settings again: certificate, required labels, tiers, duplicates; all others need a restart"
            ),
            Err(error) => tracing::error!(%error, "the certificate is not replaced"),
        },
        Err(error) => tracing::error!(%error, "the settings are not replaced"),
    }
}

/// One line for people and harnesses, and a word for systemd.
fn ready() {
    eprintln!("ready");
    if !std::io::stdout().is_terminal() {
        let mut out = std::io::stdout();
        // Whoever closed our standard output does not wait for this line.
        let _ = writeln!(out, "ready").and_then(|()| out.flush());
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Text for a person, JSON for a collector. `RUST_LOG` chooses what is shown; `info` by default.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
