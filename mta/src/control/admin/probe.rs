//! For tests: the admin port with the daemon's own operations behind it, and requests to it octet for octet.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::control::api::AddToken;
use crate::control::operations::tests::World;

/// An admin port that is served.
pub(super) struct Port {
    pub(super) world: World,
    pub(super) address: SocketAddr,
    _folder: tempfile::TempDir,
    _stage: watch::Sender<Stage>,
}

/// What came back. Status 0: the connection ended without an answer.
#[derive(Debug, Default, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Port {
    /// `more` is added to the settings.
    pub(super) async fn start(more: &str) -> Port {
        Port::start_with(more, |port| port).await
    }

    /// The same, with the listener changed.
    pub(super) async fn start_with(more: &str, change: impl FnOnce(AdminPort) -> AdminPort) -> Port {
        let folder = tempfile::tempdir().unwrap();
        let world = World::with(folder.path(), more);
        let (sender, stage) = watch::channel(Stage::Ready);
        let admin = Admin::new(Arc::new(world.daemon.clone()), None, stage, world.daemon.gate());
        let mut port = change(AdminPort::bind("127.0.0.1:0".parse().unwrap()).await.unwrap());
        // What is too slow is told so soon enough for a test.
        port.limits = http::Limits { head: Duration::from_secs(3), answer: Duration::from_secs(4) };
        let address = port.local_addr().unwrap();
        tokio::spawn(port.serve(admin));
        Port { world, address, _folder: folder, _stage: sender }
    }

    /// A new token.
    pub(super) async fn token(&self, name: &str, role: Role) -> String {
        self.world.daemon.add_token(AddToken { name: name.to_owned(), role }, "a test").await.unwrap().token
    }

    /// Sends octets, as they are, and reads what comes until the connection ends.
    pub(super) async fn send(&self, octets: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // Whoever is answered before all was read may break off.
        let _ = stream.write_all(octets).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        parse(&answer)
    }

    /// A request with these fields, and the connection closed after it.
    pub(super) async fn ask(&self, line: &str, fields: &[(&str, &str)], body: &str) -> Reply {
        let mut head = format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{head}\r\n{body}").as_bytes()).await
    }

    /// The same with JSON, by a token.
    pub(super) async fn json(&self, line: &str, token: &str, more: &[(&str, &str)], body: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        let fields = [&[("Authorization", bearer.as_str()), ("Content-Type", "application/json")], more].concat();
        self.ask(line, &fields, body).await
    }

    /// A login: cookie and word.
    pub(super) async fn log_in(&self, token: &str) -> (String, String) {
        let body = serde_json::json!({ "token": token }).to_string();
        let reply = self.ask("POST /login", &[("Content-Type", "application/json")], &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let cookie = reply.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        (cookie, reply.json()["csrf"].as_str().unwrap().to_owned())
    }
}

fn parse(answer: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Reply::default() };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let head = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Reply { status, head, body: body.to_owned() }
}
