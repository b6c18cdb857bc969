//! `tradewind-mta --config mta.toml`: runs in the foreground until SIGTERM or SIGINT, or until another one takes over.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use host::Bound;
use host::handover::{self, Offer, Predecessor, Successor};
use host::memory::Counting;
use mta::certificate::{LOOK, Watch};
use mta::config::{Config, LogFormat};
use mta::control::admin::Stage;
use mta::daemon::{self, Environment};
use tokio::signal::unix::{SignalKind, signal};

// Messages are many small allocations that are freed on another thread than they were made on; the
// system's allocator keeps those as fragments. What any allocator keeps is not what we hold: that is counted.
#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

/// The tradewind mail transfer agent.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings; `tradewind config describe` prints an example.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Take the place of the daemon that runs on the same data directory: it hands over its listening sockets, finishes
    /// what it has begun and ends, and then this one serves. Clients that connect meanwhile wait. When nobody runs
    /// there, an ordinary start.
    #[arg(long)]
    take_over: bool,
}

/// Where a running daemon can be asked for its listening sockets, in the data directory.
const HANDOVER_SOCKET: &str = "handover.sock";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    log(config.log.format);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match tokio::task::LocalSet::new().block_on(&runtime, run(config, arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config, arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Arc::new(config);
    let metrics = mta::control::metrics::install()?;
    // Before anything is bound: a signal that comes early must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let (mut environment, fallback) = Environment::of_machine(&config)?;
    if let Some(why) = fallback {
        tracing::warn!("{why}");
    }
    environment.sockets = handover::inherited()?;
    if arguments.take_over {
        // Whatever can be wrong with the settings is found while the other one still serves.
        daemon::check(&config)?;
        tokio::select! {
            sockets = take_over(&config) => environment.sockets.extend(sockets?),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    let io = environment.io.to_string();
    let running = daemon::start(config.clone(), environment).await?;
    let control = running.control(Some(metrics)).await?;
    for (listen, address) in config.listen.iter().zip(&running.addresses) {
        tracing::info!(%address, role = %listen.role, io, "listening");
    }
    running.sockets().store();
    let handover = config.data_dir.join(HANDOVER_SOCKET);
    let offer = Offer::bind(&handover).map_err(|error| {
        tracing::warn!(path = %handover.display(), %error, "this daemon cannot be asked to hand over its sockets");
    });
    control.set_stage(Stage::Ready);
    ready();

    // In a block of its own: with it goes our second copy of the sockets, so that they close if nobody else has one.
    let successor = {
        let mut watch = Watch::default();
        let mut config = config;
        config.tls.iter().for_each(|files| watch.handle_read(files));
        let mut looks = tokio::time::interval(LOOK);
        let mut taken = std::pin::pin!(taken(offer.ok(), running.sockets().copies()?));
        loop {
            tokio::select! {
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = hangup.recv() => {
                    if let Some(new) = reload(&running, &arguments.config) {
                        config = new;
                        config.tls.iter().for_each(|files| watch.handle_read(files));
                    }
                }
                _ = looks.tick() => {
                    if config.tls.as_ref().is_some_and(|files| watch.look(files)) {
                        renew(&running, &config);
                    }
                }
                successor = &mut taken => break Some(successor),
            }
        }
    };
    match &successor {
        Some(successor) => tracing::info!(?successor, "stopping: another daemon takes over"),
        None => tracing::info!("stopping"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    control.set_stage(Stage::Draining);
    running.stop().await;
    tracing::info!("stopped");
    // It sees that we are gone, and opens the queue.
    drop(successor);
    Ok(())
}

/// Asks the daemon that runs on this data directory for its sockets, and waits until it has ended.
async fn take_over(config: &Config) -> std::io::Result<Vec<Bound>> {
    let path = config.data_dir.join(HANDOVER_SOCKET);
    let named = |error: std::io::Error| {
        std::io::Error::new(error.kind(), format!("the daemon behind {} cannot be taken over: {error}", path.display()))
    };
    let Some(predecessor) = Predecessor::ask(&path).await.map_err(named)? else {
        tracing::info!("nobody to take over from");
        return Ok(Vec::new());
    };
    tracing::info!(?predecessor, "taking over; waiting for the other daemon to finish");
    predecessor.relieve().await.map_err(named)
}

/// Waits until another process has taken the listening sockets. Without a socket to ask at that is never.
async fn taken(offer: Option<Offer>, sockets: Vec<Bound>) -> Successor {
    match offer {
        Some(offer) => offer.taken(&sockets, |error| tracing::warn!(%error, "the listening sockets were not handed over")).await,
        None => std::future::pending().await,
    }
}

/// What can be changed without a restart: the certificate, which labels a member needs, tiers and duplicates, sources, pools and
/// shaping. Whatever is wrong with one of the new files, the old settings stay.
fn reload(running: &daemon::Running, path: &Path) -> Option<Arc<Config>> {
    let config = match Config::load(path) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            tracing::error!(%error, "the settings are not replaced");
            return None;
        }
    };
    match running.reload(config.clone()) {
        Ok(()) => {
            tracing::info!(
                "read the settings again: certificate, required labels, tiers, duplicates, sources, pools, shaping, what the log \
                 shows; all others need a restart"
            );
            Some(config)
        }
        Err(error) => {
            tracing::error!(%error, "the certificate is not replaced");
            None
        }
    }
}

/// Reads a certificate that somebody has renewed.
fn renew(running: &daemon::Running, config: &Config) {
    match running.renew(config) {
        Ok(()) => tracing::info!("the certificate was renewed, and is read again"),
        Err(error) => tracing::error!(%error, "the certificate was renewed and cannot be used; the old one stays"),
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

/// `RUST_LOG` chooses what is shown; `info` by default.
fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let text = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        // Colours are for a terminal.
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
