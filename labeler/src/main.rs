//! `tradewind-labeler --config labeler.toml`: runs the labeler in the foreground. With a verb it does something else: a dry run of the checks of a domain
//! (`check`), making an account a labeler (`setup`), copies of the store (`backup`, `restore`).
//!
//! Says `ready` on one line of standard output, and to systemd, when queries are answered. SIGTERM and SIGINT stop it cleanly, SIGHUP starts it anew, and it says `ready` again, with the
//! settings read again (wrong ones are refused and the old stay). A wrong configuration exits 2, anything else that ends it 1.

mod check;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use labeler::{Config, Running, setup, store};
use tokio::signal::unix::{SignalKind, signal};

/// Verifies mail operators and labels their DIDs.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The settings: labeler.toml.
    #[arg(long, global = true)]
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
    /// Makes the DID a labeler's: key and endpoint in its document, what the labels mean in its repository
    Setup(SetupArguments),
    /// Copies the store into a new folder, while the labeler runs or not. The signing key is not in it
    Backup {
        /// Made; must not exist yet.
        folder: PathBuf,
    },
    /// Puts a copy in the place of the store. The labeler must not run, and data_dir must hold no store
    Restore {
        /// What `backup` made.
        folder: PathBuf,
    },
}

#[derive(clap::Args)]
struct SetupArguments {
    /// Where the world reaches this labeler: https://labeler.example.org. Needed for a did:plc.
    #[arg(long)]
    endpoint: Option<url::Url>,
    /// The PDS of the labeler's account. Default: what its DID document says.
    #[arg(long)]
    pds: Option<url::Url>,
    /// File with the password of the labeler's account. Without it no record is published.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The code that the PDS mailed when this was run without one.
    #[arg(long)]
    token: Option<String>,
    /// File with a rotation key of the DID, 64 hexadecimal digits, instead of the PDS and its code.
    #[arg(long)]
    rotation_key: Option<PathBuf>,
    /// Folder of lexicons to publish in the account's repository; the DNS record of each is printed.
    #[arg(long)]
    publish_lexicons: Option<PathBuf>,
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
    let settled = arguments.config.zip(config);
    let done = match (arguments.verb, settled) {
        (Some(Verb::Check(check)), settled) => {
            return runtime.block_on(check::run(settled.as_ref().map(|(_, config)| config), check));
        }
        (_, None) => {
            eprintln!("tradewind-labeler: --config labeler.toml is needed");
            return ExitCode::from(2);
        }
        (None, Some((file, config))) => runtime.block_on(run(&file, config)),
        (Some(Verb::Backup { folder }), Some((_, config))) => {
            store::backup(&config.data_dir, &folder).map_err(|error| error.to_string())
        }
        (Some(Verb::Restore { folder }), Some((_, config))) => {
            store::restore(&folder, &config.data_dir).map_err(|error| error.to_string())
        }
        (Some(Verb::Setup(wanted)), Some((_, config))) => runtime.block_on(set_up(&config, wanted)),
    };
    match done {
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
    // The service manager may want to hear that we live (`WatchdogSec=`): four times as often as it wants.
    let patience = sd_notify::watchdog_enabled();
    let mut beats = tokio::time::interval(patience.unwrap_or(Duration::from_secs(3600)) / 4);
    loop {
        tokio::select! {
            _ = beats.tick(), if patience.is_some() => say_alive(),
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

async fn set_up(config: &Config, wanted: SetupArguments) -> Result<(), String> {
    let secret = |file: Option<PathBuf>| {
        file.map(|file| std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))).transpose()
    };
    let options = setup::Options {
        endpoint: wanted.endpoint,
        pds: wanted.pds,
        password: secret(wanted.password_file)?.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        token: wanted.token,
        rotation_key: secret(wanted.rotation_key)?,
        lexicons: wanted.publish_lexicons,
    };
    let mut say = |line: &str| {
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    setup::setup(config, &options, &mut say).await.map_err(|error| error.to_string())
}

fn say_ready(running: &Running) {
    tracing::info!(address = %running.local_addr(), "ready");
    let mut out = std::io::stdout();
    // Whoever started us may not read on; that is no reason to end.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Said by a worker, not by who looks at the clock: when all workers wait for a disk or turn in circles nobody says it, and the
/// service manager ends us.
fn say_alive() {
    tokio::spawn(async {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    });
}

/// To standard error: text on a terminal, JSON otherwise. `RUST_LOG` filters.
fn log() {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hickory_proto=warn,hickory_resolver=warn"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { log.init() } else { log.json().flatten_event(true).init() }
}
