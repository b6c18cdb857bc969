//! Where the real peers are, after `interop/install` has put them there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder of the scripts in this crate.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop");

/// Paths of what was installed.
#[derive(Clone)]
pub(crate) struct Tools {
    cache: PathBuf,
}

impl Tools {
    /// Runs the script `interop/install`, which does nothing when all is there.
    pub(crate) fn install() -> Result<Self> {
        let script = Self::script("install");
        let status = Command::new(&script).status().with_context(|| format!("run {}", script.display()))?;
        if !status.success() {
            bail!("the peers could not be installed; see above");
        }
        let cache = Self::cache()?;
        // Modules are found beside the script that imports them.
        for entry in std::fs::read_dir(SCRIPTS)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "mjs") {
                std::fs::copy(&file, cache.join("node").join(file.file_name().unwrap_or_default()))?;
            }
        }
        Ok(Self { cache })
    }

    /// Where everything goes that is installed.
    pub(crate) fn cache() -> Result<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        variable("TRADEWIND_INTEROP")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("tradewind-interop")))
            .or_else(|| Some(variable("HOME")?.join(".cache/tradewind-interop")))
            .context("neither TRADEWIND_INTEROP nor HOME is set")
    }

    /// One of our scripts.
    pub(crate) fn script(name: &str) -> PathBuf {
        Path::new(SCRIPTS).join(name)
    }

    /// Something of what was installed.
    pub(crate) fn cached(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    /// Node itself.
    pub(crate) fn node_itself(&self) -> Command {
        Command::new(self.cache.join("node/node"))
    }

    /// A command that runs one of our scripts in Node.
    pub(crate) fn node(&self, script: &str) -> Command {
        let mut command = Command::new(self.cache.join("node/node"));
        command.arg(self.cache.join("node").join(script)).current_dir(self.cache.join("node"));
        command
    }

    /// A command that runs one of our scripts in Python.
    pub(crate) fn python(&self, script: &str) -> Command {
        let mut command = Command::new(self.cache.join("python/bin/python"));
        command.arg(Self::script(script));
        command
    }
}
