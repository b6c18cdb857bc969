//! Debian's Postfix as a peer: with a configuration, queue and port of its own, beside whatever the machine has.
//!
//! As a relay it is what tradewind is compared with; as a receiver it is a real MX for what tradewind sends. It needs
//! root, because Postfix does: its master starts as root and its daemons run as `postfix`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::tls::Certificate;

/// How to get it.
pub const INSTALL: &str = "apt-get install postfix";

/// What this Postfix is for.
pub enum Role<'a> {
    /// Takes mail from loopback and hands everything to one next hop, without DNS.
    Relay {
        /// Where everything goes.
        next_hop: SocketAddr,
        /// Offers STARTTLS with it, and uses it outwards where offered; none: no TLS.
        certificate: Option<&'a Certificate>,
    },
    /// Final destination of these addresses, delivered to maildirs; offers STARTTLS.
    Receiver {
        /// `user@domain`.
        mailboxes: &'a [String],
    },
}

/// A running instance; stopped when dropped.
pub struct Postfix {
    directory: TempDir,
    address: SocketAddr,
    master: Running,
}

impl Postfix {
    /// Why it cannot be used here, if so.
    pub fn unavailable() -> Option<String> {
        if process::find("postfix").is_none() {
            return Some(format!("Postfix is not installed: {INSTALL}"));
        }
        if !fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
            return Some("Postfix's master must be started by root".to_owned());
        }
        None
    }

    /// Debian's version of it.
    pub fn version() -> Result<String> {
        let out = process::output(Command::new(found("postconf")?).args(["-h", "mail_version"]))?;
        Ok(out.trim().to_owned())
    }

    /// Starts an instance with its queue below `parent`, listening on `address`.
    pub fn start(parent: &Path, address: SocketAddr, role: &Role<'_>) -> Result<Self> {
        if let Some(why) = Self::unavailable() {
            bail!("{why}");
        }
        let directory = tempfile::Builder::new().prefix("postfix-").tempdir_in(parent)?;
        let root = directory.path();
        // Daemons run as `postfix` and must reach their queue.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        for name in ["etc", "queue", "data", "mail"] {
            fs::create_dir(root.join(name))?;
        }
        let owner = if matches!(role, Role::Receiver { .. }) { "nobody" } else { "root" };
        process::output(Command::new("chown").args(["postfix"]).arg(root.join("data")))?;
        process::output(Command::new("chown").args([owner]).arg(root.join("mail")))?;
        fs::write(root.join("etc/main.cf"), main_cf(root, role)?)?;
        fs::write(root.join("etc/master.cf"), master_cf(address))?;
        let mut command = Command::new(found("postfix")?);
        command.arg("-c").arg(root.join("etc")).arg("start-fg");
        let mut master = Running::start("postfix", command, &root.join("output"))?;
        if let Err(error) = process::wait_for_listener(address, Duration::from_secs(20)) {
            let _ = master.stop(Duration::from_secs(1));
            bail!("postfix: {error}\n{}\n{}", master.last_lines(), log_of(root));
        }
        Ok(Self { directory, address, master })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process above its master and all its daemons.
    pub fn pid(&self) -> u32 {
        self.master.pid()
    }

    /// Messages that a mailbox has received, in no order.
    pub fn received(&self, mailbox: &str) -> Result<Vec<Vec<u8>>> {
        let Some((user, domain)) = mailbox.split_once('@') else { bail!("{mailbox} is no mailbox") };
        let new = self.directory.path().join("mail").join(domain).join(user).join("new");
        match fs::read_dir(&new) {
            Ok(entries) => entries.map(|entry| Ok(fs::read(entry?.path())?)).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("read {}", new.display())),
        }
    }

    /// Its mail log (receivers only), for error messages.
    pub fn log(&self) -> String {
        log_of(self.directory.path())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // What we started is a shell that waits for master and does not pass signals on: master must be told itself, and
        // takes its daemons along; the queue goes with the directory afterwards.
        if let Ok(postfix) = found("postfix") {
            let etc = self.directory.path().join("etc");
            let _ = process::output(Command::new(postfix).arg("-c").arg(etc).arg("stop"));
        }
        let _ = self.master.stop(Duration::from_secs(10));
    }
}

fn found(name: &str) -> Result<PathBuf> {
    process::find(name).with_context(|| format!("{name} is not installed: {INSTALL}"))
}

fn log_of(root: &Path) -> String {
    fs::read_to_string(root.join("mail.log")).unwrap_or_default()
}

/// What is left out is Postfix's default: fsync before 250 among them.
fn main_cf(root: &Path, role: &Role<'_>) -> Result<String> {
    let root_path = root.display();
    let common = format!(
        "compatibility_level = 3.6\nqueue_directory = {root_path}/queue\ndata_directory = {root_path}/data\n\
         myhostname = postfix.test\nmydestination =\nlocal_recipient_maps =\nalias_maps =\nalias_database =\n\
         inet_protocols = ipv4\ninet_interfaces = all\nmynetworks = 127.0.0.0/8\nbiff = no\n\
         smtpd_peername_lookup = no\nmessage_size_limit = 52428800\nvirtual_mailbox_limit = 0\n"
    );
    Ok(match role {
        // As fast as Postfix goes: no pause for arrivals that outrun deliveries, as many deliveries as we have
        // connections, no DNS. Logging goes to the machine's syslog as usual; what that daemon uses is not counted.
        Role::Relay { next_hop, certificate } => {
            // Outwards Postfix resumes sessions, and by default uses no connection twice that is under TLS.
            let tls = match certificate {
                None => "smtp_tls_security_level = none\nsmtpd_tls_security_level = none\n".to_owned(),
                Some(certificate) => {
                    certificate.write_to(&root.join("etc"))?;
                    format!(
                        "smtp_tls_security_level = may\nsmtpd_tls_security_level = may\n\
                         smtpd_tls_cert_file = {root_path}/etc/cert.pem\nsmtpd_tls_key_file = {root_path}/etc/key.pem\n\
                         smtp_tls_session_cache_database = btree:{root_path}/data/smtp_scache\n"
                    )
                }
            };
            format!(
                "{common}smtpd_relay_restrictions = permit_mynetworks, reject\n\
                 relayhost = [{}]:{}\nin_flow_delay = 0\nsmtp_destination_concurrency_limit = 50\n{tls}",
                next_hop.ip(),
                next_hop.port()
            )
        }
        Role::Receiver { mailboxes } => {
            let certificate = Certificate::generate(&["mx.receiver.test", "localhost"])?;
            certificate.write_to(&root.join("etc"))?;
            let mut domains: Vec<&str> = mailboxes.iter().filter_map(|mailbox| Some(mailbox.split_once('@')?.1)).collect();
            domains.sort_unstable();
            domains.dedup();
            let map: String = mailboxes
                .iter()
                .filter_map(|mailbox| mailbox.split_once('@').map(|(user, domain)| format!("{mailbox} {domain}/{user}/\n")))
                .collect();
            fs::write(root.join("etc/mailboxes"), map)?;
            format!(
                "{common}maillog_file = {root_path}/mail.log\nmaillog_file_prefixes = {root_path}\n\
                 smtpd_relay_restrictions = reject_unauth_destination\n\
                 virtual_mailbox_domains = {}\nvirtual_mailbox_base = {root_path}/mail\n\
                 virtual_mailbox_maps = texthash:{root_path}/etc/mailboxes\nvirtual_uid_maps = static:65534\n\
                 virtual_gid_maps = static:65534\nvirtual_minimum_uid = 100\nsmtpd_tls_security_level = may\n\
                 smtpd_tls_cert_file = {root_path}/etc/cert.pem\nsmtpd_tls_key_file = {root_path}/etc/key.pem\n\
                 default_transport = error:this server relays nothing\n",
                domains.join(" ")
            )
        }
    })
}

/// Debian's services without chroot, so that the queue needs no copies of system files.
fn master_cf(address: SocketAddr) -> String {
    format!(
        "{address} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\ncleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\n\
         tlsmgr unix - - n 1000? 1 tlsmgr\nrewrite unix - - n - - trivial-rewrite\nbounce unix - - n - 0 bounce\n\
         defer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nverify unix - - n - 1 verify\n\
         flush unix n - n 1000? 0 flush\nproxymap unix - - n - - proxymap\nproxywrite unix - - n - 1 proxymap\n\
         smtp unix - - n - - smtp\nrelay unix - - n - - smtp\nshowq unix n - n - - showq\nerror unix - - n - - error\n\
         retry unix - - n - - error\ndiscard unix - - n - - discard\nlocal unix - n n - - local\n\
         virtual unix - n n - - virtual\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\n\
         scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Provider, Script, Sink};
    use crate::source::{Client, Target};

    #[test]
    fn what_a_relay_takes_reaches_the_sink_and_a_receivers_mail_its_maildir() {
        if let Some(why) = Postfix::unavailable() {
            eprintln!("skipped: {why}");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let provider = Provider::new(Script::accepts_all());
        let sink = Sink::start("127.0.0.1:0".parse().unwrap(), provider.clone(), None).unwrap();
        let free = process::free_address().unwrap();
        let relay = Postfix::start(parent.path(), free, &Role::Relay { next_hop: sink.address(), certificate: None }).unwrap();
        let mailboxes = ["alice@receiver.test".to_owned()];
        let free = process::free_address().unwrap();
        let receiver = Postfix::start(parent.path(), free, &Role::Receiver { mailboxes: &mailboxes }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (address, to) in [(relay.address(), "bob@a.test"), (receiver.address(), "alice@receiver.test")] {
                let mut client = Client::connect(&Target::plain(address)).await.unwrap();
                client.send("noreply@member.test", &[to], b"Subject: hello\r\n\r\nworld\r\n").await.unwrap();
                client.quit().await.unwrap();
            }
            assert!(provider.wait_for(1, Duration::from_secs(10)).await);
        });
        assert_eq!(provider.messages()[0].recipients, ["bob@a.test"]);
        assert!(crate::cpu::tree(relay.pid()).1 > 3, "master has daemons below it");
        let began = std::time::Instant::now();
        while receiver.received("alice@receiver.test").unwrap().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "{}", receiver.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
