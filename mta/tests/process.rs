//! The program itself: signals, a second one on the same data directory, one that takes another's place.
//!
//! Under load and under a service manager: `tradewind-loadtest handover`.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use loadtest::tls::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// No test waits so long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with settings for a relay listener.
struct Place {
    folder: tempfile::TempDir,
    listener: SocketAddr,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let place = Place { folder, listener };
        place.write("");
        place
    }

    fn write(&self, more: &str) {
        let text = format!(
            r#"hostname = "relay.example.test"
data_dir = "data"
{more}
[[listen]]
address = "{}"
role = "relay"
trusted_networks = ["127.0.0.0/8"]
member = "did:web:member.example"
[dns]
nameservers = ["127.0.0.1:9"]
[signing]
required = false
[[source]]
name = "ip-a"
address = "127.0.0.1"
ehlo = "a.relay.example.test"
"#,
            self.listener
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("mta.toml")
    }

    fn start(&self, more: &[&str]) -> Program {
        Program::start(&self.config(), more)
    }

    fn connect(&self) -> Session {
        let stream = TcpStream::connect(self.listener).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Session(BufReader::new(stream))
    }

    /// Enrols the member by the operator's socket.
    fn enrol(&self) {
        let mut socket = UnixStream::connect(self.folder.path().join("data/admin.sock")).unwrap();
        let body = r#"{"did":"did:web:member.example","domain":"member.example"}"#;
        let head = format!(
            "POST /v1/members HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}",
            body.len()
        );
        write!(socket, "{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
}

/// The daemon, killed if a test fails.
struct Program {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Program {
    fn start(config: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind-mta"));
        let command = command.arg("--config").arg(config).args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.env_remove("NOTIFY_SOCKET").spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (said, hears) = mpsc::channel();
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Program { child, log: hears }
    }

    /// Waits for a line of its log that has all of `words`.
    fn says(&self, words: &[&str]) -> String {
        let mut heard = String::new();
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if words.iter().all(|word| line.contains(word)) => return line,
                Ok(line) => heard += &(line + "\n"),
                Err(_) => panic!("it did not say {words:?}, but:\n{heard}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn code(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        drop(self);
        code
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One SMTP session.
struct Session(BufReader<TcpStream>);

impl Session {
    fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the end of the stream after {text:?}");
            text += &line;
            if line.as_bytes()[3] == b' ' {
                return text;
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        write!(self.0.get_mut(), "{line}\r\n").unwrap();
        self.reply()
    }

    /// Says all that comes before a message's octets.
    fn begin(&mut self) {
        for (line, code) in [
            ("EHLO host.example", "250"),
            ("MAIL FROM:<app@member.example>", "250"),
            ("RCPT TO:<user@else.example>", "250"),
            ("DATA", "354"),
        ] {
            let reply = self.say(line);
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
    }

    fn finish(&mut self) -> String {
        self.say("From: app@member.example\r\nTo: user@else.example\r\nSubject: hello\r\n\r\nHello.\r\n.")
    }

    fn is_over(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

#[test]
fn a_stop_finishes_a_transaction_and_tells_an_idle_session() {
    let place = Place::new();
    let program = place.start(&[]);
    program.says(&["ready"]);
    place.enrol();
    let (mut idle, mut busy) = (place.connect(), place.connect());
    assert!(idle.reply().starts_with("220"));
    idle.begin();
    assert!(idle.finish().starts_with("250"));
    assert!(busy.reply().starts_with("220"));
    busy.begin();
    program.signal("TERM");
    assert!(idle.reply().starts_with("421 4.3.2"), "told without having asked");
    assert!(idle.is_over());
    assert!(busy.finish().starts_with("250"), "what was begun is finished");
    assert!(busy.reply().starts_with("421 4.3.2"));
    assert!(busy.is_over());
    assert_eq!(program.code(), Some(0));
}

#[test]
fn a_session_that_has_just_come_may_still_bring_its_message() {
    let place = Place::new();
    let program = place.start(&[]);
    program.says(&["ready"]);
    place.enrol();
    let mut session = place.connect();
    assert!(session.reply().starts_with("220"));
    program.signal("TERM");
    program.says(&["stopping"]);
    session.begin();
    assert!(session.finish().starts_with("250"));
    assert!(session.reply().starts_with("421 4.3.2"));
    assert_eq!(program.code(), Some(0));
}

#[test]
fn a_second_daemon_is_refused_unless_it_takes_over() {
    let place = Place::new();
    let first = place.start(&[]);
    first.says(&["ready"]);
    place.enrol();
    let second = place.start(&[]);
    second.says(&["another process has this queue open", "--take-over"]);
    assert_eq!(second.code(), Some(1));

    // The first one is busy with somebody. A client that comes meanwhile waits for the second, or has just been early
    // enough for the first: either of them serves it.
    let mut busy = place.connect();
    assert!(busy.reply().starts_with("220"));
    busy.begin();
    let second = place.start(&["--take-over"]);
    first.says(&["another daemon takes over"]);
    let mut waiting = place.connect();
    let served = std::thread::spawn(move || {
        assert!(waiting.reply().starts_with("220"));
        waiting.begin();
        waiting.finish()
    });
    assert!(busy.finish().starts_with("250"));
    assert_eq!(first.code(), Some(0));
    second.says(&["ready"]);
    assert!(served.join().unwrap().starts_with("250"));
    second.signal("TERM");
    assert_eq!(second.code(), Some(0));
}

#[test]
fn a_successor_with_wrong_settings_leaves_the_daemon_alone() {
    let place = Place::new();
    let first = place.start(&[]);
    first.says(&["ready"]);
    place.write("drain_secs = 0");
    let second = place.start(&["--take-over"]);
    second.says(&["mta.toml:3", "drain_secs"]);
    assert_eq!(second.code(), Some(2));
    assert!(place.connect().reply().starts_with("220"));
    // The same file at SIGHUP: the old settings stay, and the line is named.
    first.signal("HUP");
    first.says(&["not replaced", "mta.toml:3", "drain_secs"]);
    place.write("");
    first.signal("HUP");
    first.says(&["read the settings again"]);
    assert!(place.connect().reply().starts_with("220"));
}

/// Whether a listener with TLS from the first octet shows a certificate that this authority vouches for.
fn shows(address: SocketAddr, authority: &Certificate) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "relay.example.test".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while session.is_handshaking() {
        if session.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_renewed_certificate_is_shown_after_a_hangup_and_half_of_one_is_not() {
    let place = Place::new();
    let folder = place.folder.path();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [old, new] = [(); 2].map(|()| Certificate::generate(&["relay.example.test"]).unwrap());
    old.write_to(folder).unwrap();
    place.write(&format!(
        "[tls]\ncertificate = \"cert.pem\"\nprivate_key = \"key.pem\"\n[[listen]]\naddress = \"{address}\"\nrole = \"submissions\""
    ));
    let program = place.start(&[]);
    program.says(&["ready"]);
    assert!(shows(address, &old) && !shows(address, &new));
    fs::write(folder.join("cert.pem"), &new.cert_pem).unwrap();
    program.signal("HUP");
    program.says(&["the certificate is not replaced", "is not the key of"]);
    assert!(shows(address, &old));
    new.write_to(folder).unwrap();
    program.signal("HUP");
    program.says(&["read the settings again"]);
    assert!(shows(address, &new) && !shows(address, &old));
}

#[test]
fn nobody_to_take_over_from_is_an_ordinary_start() {
    let place = Place::new();
    let program = place.start(&["--take-over"]);
    program.says(&["nobody to take over from"]);
    program.says(&["ready"]);
    assert!(place.connect().reply().starts_with("220"));
    program.signal("TERM");
    assert_eq!(program.code(), Some(0));
}
