//! Another time of day for a process that is started: a library in front of the C library's clock (`loadtest/clock/shim.c`).
//!
//! What a daemon does once a day is seen in seconds: it is stopped, and started again on the same data some days later.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process;

const SOURCE: &str = include_str!("../clock/shim.c");

/// What a process needs in its environment to live so much later. The library is compiled in `folder`, which must exist.
pub(crate) fn environment(folder: &Path, ahead: Duration) -> Result<Vec<(OsString, OsString)>> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SOURCE)?;
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(&source).arg("-ldl");
    process::output(&mut command).context("compile the library that tells another time")?;
    Ok(vec![("LD_PRELOAD".into(), library.into()), ("CLOCK_AHEAD_SECS".into(), ahead.as_secs().to_string().into())])
}
