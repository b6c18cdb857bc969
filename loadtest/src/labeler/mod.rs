//! `labeler`: our labeler beside others, and against the implementations that it must agree with to the octet.
//!
//! | verb | asks |
//! |---|---|
//! | `vectors` | are our labels and frames those of @atproto's packages, octet for octet, both ways? |
//! | `setup` | does `tradewind-labeler setup` make a labeler of an account, on a real PLC directory and PDS? |
//! | `life` | do labels follow everything that happens to members, on a real PLC directory and real PDSes? |
//! | `round` | what does it cost to look at all members again? |
//! | `fuzz` | does anything that strangers send break a promise of a parser? |
//! | `hostile` | does it withstand who would deceive or exhaust it? |
//! | `speed` | how fast is it beside @skyware/labeler with the same data, and what do a thousand subscribers cost? |
//!
//! `interop/install-labeler` installs what is missing, from npm.

mod client;
mod fuzz;
mod hostile;
mod life;
mod poll;
mod round;
mod setup;
mod speed;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::interop::install::Tools;

/// What to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Random labels by the reference implementation and by us, octet for octet
    Vectors(vectors::Arguments),
    /// `tradewind-labeler setup` with a real PLC directory and PDS
    Setup(setup::Arguments),
    /// Fuzz targets, each for some minutes
    Fuzz(fuzz::Arguments),
    /// Who would deceive, exhaust or misuse it: case, expected, seen
    Hostile(hostile::Arguments),
    /// Whatever may happen to members, with a real PLC directory, two real PDSes and an MTA that polls
    Life(life::Arguments),
    /// All members looked at again: CPU time and memory
    Round(round::Arguments),
    /// Beside @skyware/labeler with the same data; subscribers; an MTA's poll
    Speed(speed::Arguments),
}

/// Asks.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Vectors(arguments) => vectors::run(arguments),
        What::Setup(arguments) => setup::run(arguments),
        What::Fuzz(arguments) => fuzz::run(arguments),
        What::Hostile(arguments) => hostile::run(arguments),
        What::Life(arguments) => life::run(arguments),
        What::Round(arguments) => round::run(arguments),
        What::Speed(arguments) => speed::run(arguments),
    }
}

/// Node with the packages of `interop/labeler`.
struct Peers(PathBuf);

impl Peers {
    fn install() -> Result<Self> {
        let script = Tools::script("install-labeler");
        let status = Command::new(&script).status().with_context(|| format!("run {}", script.display()))?;
        if !status.success() {
            bail!("the packages could not be installed; see above");
        }
        let folder = Tools::cache()?.join("labeler");
        // Modules are found beside the script that imports them.
        for entry in std::fs::read_dir(Tools::script("labeler"))? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
            }
        }
        Ok(Self(folder))
    }

    /// A command that runs one of the scripts.
    fn node(&self, script: &str) -> Command {
        let mut command = Command::new(self.program());
        command.arg(self.0.join(script)).current_dir(&self.0);
        command
    }

    fn program(&self) -> PathBuf {
        self.0.join("node")
    }

    /// Where the scripts are.
    fn folder(&self) -> &Path {
        &self.0
    }
}

/// The settings of a labeler for tests; `more` is appended.
fn settings(at: &Path, did: &str, listen: &str, plc: &str, more: &str) -> String {
    let at = at.display();
    format!(
        "did = \"{did}\"\nsigning_key = \"{at}/labeler.key\"\ndata_dir = \"{at}/data\"\nlisten = \"{listen}\"\n\
         [identity]\nplc_url = \"{plc}\"\n[ingest]\nfirehose = \"ws://127.0.0.1:9\"\n[dns]\nnameservers = [\"127.0.0.1:9\"]\n{more}"
    )
}
