//! Programs that the measurements start: found, waited for, and never left behind.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A child process whose output goes to a file; killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; both of its outputs go to `log`, which is appended to.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name} ({:?})", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line that is `word` stands in its output after `from` octets, or it ends, or `within` has passed.
    pub fn wait_for_line(&mut self, word: &str, from: u64, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            if self.output_from(from)?.lines().any(|line| line.trim() == word) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it said {word:?}:\n{}", self.name, self.last_lines());
            }
            if began.elapsed() > within {
                bail!("{} did not say {word:?} within {within:?}:\n{}", self.name, self.last_lines());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Octets of output so far.
    pub fn output_len(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len())
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits until it ends by itself; an error when it does not, or not with success.
    pub fn ends_well(&mut self, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_lines()),
                None if began.elapsed() > within => bail!("{} has not ended after {within:?}", self.name),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// SIGTERM, and no more.
    pub fn terminate(&self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
    }

    /// SIGTERM, and waits for the end; false when it had to be killed.
    pub fn stop(&mut self, within: Duration) -> io::Result<bool> {
        self.terminate();
        let began = Instant::now();
        while began.elapsed() < within {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill()?;
        Ok(false)
    }

    /// The end of its output, for an error message.
    pub fn last_lines(&self) -> String {
        let output = self.output_from(self.output_len().saturating_sub(4096)).unwrap_or_default();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn output_from(&self, from: u64) -> io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(from))?;
        let mut octets = Vec::new();
        file.read_to_end(&mut octets)?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            // Some have children of their own to take along: ask first.
            let _ = self.stop(Duration::from_secs(5));
        }
    }
}

/// Runs a command to its end and returns its standard output; an error carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {:?}", command.get_program()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program in `PATH` or where daemons live.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|directory| Path::new(directory).join(name)).find(|file| file.is_file())
}

/// One of our own programs, beside this executable. Run by cargo, or when it is missing, cargo builds it first: what is
/// measured must not be what was built last week.
pub fn own(name: &str) -> Result<PathBuf> {
    let mut beside = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    if beside.ends_with("deps") {
        beside.pop();
    }
    let file = beside.join(name);
    let by_cargo = std::env::var_os("CARGO");
    if by_cargo.is_some() || !file.exists() {
        let mut cargo = Command::new(by_cargo.unwrap_or_else(|| "cargo".into()));
        // All of them from the root, never one package by `-p`: that would choose other features for the dependencies,
        // and compile most of them a second time.
        cargo.args(["build", "--quiet", "--bins"]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // What `cargo run` told us about our own package would make build scripts (ring's) believe that something changed.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                cargo.env_remove(name);
            }
        }
        let built = cargo.status().context("run cargo; or build the programs first: cargo build --release --bins")?;
        if !built.success() {
            bail!("{name} could not be built");
        }
    }
    Ok(file)
}

/// A free port of 127.0.0.1. Another process may take it before it is used; then the start fails and says so.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Waits until something listens on an address.
pub fn wait_for_listener(address: SocketAddr, within: Duration) -> Result<()> {
    let began = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        if began.elapsed() > within {
            bail!("nothing listens on {address} after {within:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
