//! Debian's Exim as a peer: with a configuration, spool and port of its own. It is measured where it is installed;
//! Debian does not install it beside Postfix.
//!
//! It needs root and its own user, `Debian-exim`, which the package makes.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Running};

/// A running instance; stopped when dropped.
pub struct Exim {
    _directory: TempDir,
    address: SocketAddr,
    daemon: Running,
}

impl Exim {
    /// Why it cannot be used here, if so.
    pub fn unavailable() -> Option<String> {
        let Some(program) = process::find("exim4") else { return Some("Exim is not installed".to_owned()) };
        let version = process::output(Command::new(program).args(["-C", "/dev/null", "-bV"]));
        version.err().map(|error| format!("Exim cannot be run: {error:#}"))
    }

    /// Starts an instance with its spool below `parent`, listening on `address`, that hands everything to `next_hop`
    /// without TLS and DNS.
    pub fn start(parent: &Path, address: SocketAddr, next_hop: SocketAddr) -> Result<Self> {
        let program = process::find("exim4").context("Exim is not installed")?;
        let directory = tempfile::Builder::new().prefix("exim-").tempdir_in(parent)?;
        let root = directory.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        for name in ["spool", "log"] {
            fs::create_dir(root.join(name))?;
            process::output(Command::new("chown").arg("Debian-exim:Debian-exim").arg(root.join(name)))?;
        }
        let config = root.join("exim.conf");
        fs::write(&config, configuration(root, address, next_hop))?;
        let mut command = Command::new(program);
        command.arg("-C").arg(&config).arg("-bdf");
        let mut daemon = Running::start("exim", command, &root.join("output"))?;
        if let Err(error) = process::wait_for_listener(address, Duration::from_secs(20)) {
            let _ = daemon.stop(Duration::from_secs(1));
            let log = fs::read_to_string(root.join("log/mainlog")).unwrap_or_default();
            bail!("exim: {error}\n{}\n{log}", daemon.last_lines());
        }
        Ok(Self { _directory: directory, address, daemon })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The daemon above its receiving and delivering processes.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        let _ = self.daemon.stop(Duration::from_secs(10));
    }
}

/// What is left out is Exim's default: fsync before 250, and a delivery begun at once.
fn configuration(root: &Path, address: SocketAddr, next_hop: SocketAddr) -> String {
    let at = root.display();
    format!(
        "spool_directory = {at}/spool\nlog_file_path = {at}/log/%slog\npid_file_path = {at}/exim.pid\n\
         primary_hostname = exim.test\nlocal_interfaces = {}\ndaemon_smtp_ports = {}\n\
         acl_smtp_rcpt = accept\nacl_smtp_data = accept\nhost_lookup =\nrfc1413_query_timeout = 0s\n\
         smtp_accept_max = 200\nsmtp_accept_max_per_connection = 0\nsmtp_accept_queue_per_connection = 0\n\
         tls_advertise_hosts =\nmessage_size_limit = 50M\nkeep_environment =\n\
         begin routers\nall:\n  driver = manualroute\n  route_data = {}\n  self = send\n  transport = onwards\n\
         begin transports\nonwards:\n  driver = smtp\n  port = {}\n  allow_localhost\n  hosts_avoid_tls = *\n\
         begin retry\n* * F,1h,1s\n",
        address.ip(),
        address.port(),
        next_hop.ip(),
        next_hop.port(),
    )
}
