//! The library that is loaded into the daemon (`loadtest/powercut/shim.c`): compiled, told, and its log given to [`undo`].
//!
//! [`undo`]: super::undo

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

const SOURCE: &str = include_str!("../../powercut/shim.c");

/// Where the power goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// At the so many-th call from now on that changes or syncs a file or a name. 0: at none.
    pub cut_after: u64,
    /// The so many-th sync from now on fails. 0: none.
    pub fail_after: u64,
    /// 0: before the call; 1: in the middle, so that nothing it promises holds; 2: after it.
    pub phase: u64,
}

/// The compiled library with its files.
pub(super) struct Shim {
    library: PathBuf,
    control: File,
    control_path: PathBuf,
    log: PathBuf,
    orders: u64,
}

impl Shim {
    /// Compiles it in `folder`, which must exist and be on the file system of the data.
    pub(super) fn build(folder: &Path) -> Result<Self> {
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(&source);
        process::output(command.args(["-ldl", "-lpthread"])).context("compile the library that cuts the power")?;
        let control_path = folder.join("control");
        let control = File::options().write(true).create(true).truncate(true).open(&control_path)?;
        let mut shim = Self { library, control, control_path, log: folder.join("log"), orders: 0 };
        shim.order(Order::default())?;
        Ok(shim)
    }

    /// What a process needs in its environment so that the power can be cut for its files below `data`.
    pub(super) fn environment(&self, data: &Path, lying: bool) -> Vec<(OsString, OsString)> {
        let variables = [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("POWERCUT_DIR", data.as_os_str()),
            ("POWERCUT_LOG", self.log.as_os_str()),
            ("POWERCUT_CONTROL", self.control_path.as_os_str()),
        ];
        let mut variables: Vec<_> = variables.into_iter().map(|(name, value)| (name.into(), value.to_owned())).collect();
        if lying {
            variables.push(("POWERCUT_LIE".into(), "1".into()));
        }
        variables
    }

    /// The order holds from the next call on, whether the process runs or is yet to start.
    pub(super) fn order(&mut self, order: Order) -> Result<()> {
        self.orders += 1;
        let Order { cut_after, fail_after, phase } = order;
        let rest = [cut_after, fail_after, phase].map(u64::to_ne_bytes).concat();
        // The number last: by it the other side sees that there is something new.
        self.control.write_all_at(&rest, 8)?;
        Ok(self.control.write_all_at(&self.orders.to_ne_bytes(), 0)?)
    }

    /// What the process wrote down.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}
