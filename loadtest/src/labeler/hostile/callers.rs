//! MTAs that are none, tokens that were used, stolen or made up, bodies that never come whole: `reportSending` and `getStanding` over HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use atproto::did::{Did, caller_document};
use atproto::key::SigningKey;
use atproto::sending::{GET_STANDING, REPORT_SENDING};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Row;
use super::readers::{exchange, line};
use super::world::{LABELER, Setup, World};

const PATIENCE: Duration = Duration::from_secs(20);
/// A labeler gives a whole request 30 seconds.
const BODY_PATIENCE: Duration = Duration::from_secs(40);
const HEADER: &str = r#"{"typ":"JWT","alg":"ES256K"}"#;

/// Somebody with a did:web of their own, served here.
struct Mta {
    did: Did,
    key: SigningKey,
}

impl Mta {
    async fn start(octet: u8) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let did: Did = format!("did:web:localhost%3A{}", listener.local_addr()?.port()).parse().map_err(anyhow::Error::msg)?;
        let key = SigningKey::from_octets(&[octet; 32])?;
        let document = caller_document(&did, &key.verifying_key());
        let serve = move || {
            let document = document.clone();
            async move { axum::Json(document) }
        };
        let router = axum::Router::new().route("/.well-known/did.json", axum::routing::get(serve));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { did, key })
    }

    /// What a token in order says: another each time.
    fn claims(&self, method: &str) -> Value {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let jti = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
        json!({"iss": self.did.as_str(), "aud": format!("{LABELER}#atproto_labeler"), "iat": now, "exp": now + 60, "lxm": method, "jti": jti})
    }

    fn token(&self, method: &str) -> String {
        sign(&self.key, HEADER, &self.claims(method))
    }

    fn token_with(&self, method: &str, name: &str, value: Value) -> String {
        let mut claims = self.claims(method);
        claims[name] = value;
        sign(&self.key, HEADER, &claims)
    }
}

fn sign(key: &SigningKey, header: &str, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn unsigned(header: &str, claims: &Value) -> String {
    format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.to_string().as_bytes()))
}

pub(super) async fn rows() -> Result<Vec<Row>> {
    let (mta, stranger) = (Mta::start(0x31).await?, Mta::start(0x32).await?);
    let world =
        World::set_up(Setup { more: &format!("[standing]\nmtas = [{:?}]\n", mta.did.as_str()), ..Setup::default() }).await?;
    let address = world.labeler.local_addr();
    let slow = tokio::spawn(bodies(address, mta.token(REPORT_SENDING)));
    let mut rows = Vec::new();
    for (method, other, name) in [(REPORT_SENDING, GET_STANDING, "reportSending"), (GET_STANDING, REPORT_SENDING, "getStanding")]
    {
        for (case, authorization, expected) in tokens(&mta, &stranger, method, other)? {
            let answer = ask(address, method, &authorization, "").await?;
            rows.push(row(&format!("{name}: {case}"), expected, &answer));
        }
    }
    rows.extend(slow.await??);
    Ok(rows)
}

/// Case, fields of the head, status and error.
fn tokens(mta: &Mta, stranger: &Mta, method: &str, other: &str) -> Result<Vec<(&'static str, String, &'static str)>> {
    let bearer = |token: String| format!("Authorization: Bearer {token}\r\n");
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (thief, used) = (SigningKey::from_octets(&[0x33; 32])?, mta.token(method));
    let claims = mta.claims(method);
    Ok(vec![
        ("a token in order", bearer(used.clone()), "200"),
        ("the same token again", bearer(used.clone()), "401 TokenReplayed"),
        ("the same token, spelled otherwise", format!("authorization: BEARER   {used}\r\n"), "401 TokenReplayed"),
        ("no token", String::new(), "401 AuthenticationRequired"),
        (
            "two tokens, one of them in order",
            format!("{}{}", bearer(mta.token(method)), bearer(mta.token(method))),
            "401 AuthenticationRequired",
        ),
        ("rubbish", bearer("a.b.c".into()), "401 BadJwt"),
        (
            "aud of another labeler",
            bearer(mta.token_with(method, "aud", json!("did:web:other.example#atproto_labeler"))),
            "401 BadJwtAudience",
        ),
        (
            "aud of another of our services",
            bearer(mta.token_with(method, "aud", json!(format!("{LABELER}#other")))),
            "401 BadJwtAudience",
        ),
        ("aud of all the world", bearer(mta.token_with(method, "aud", json!("*"))), "401 BadJwtAudience"),
        ("lxm of the other method", bearer(mta.token(other)), "401 BadJwtLexiconMethod"),
        ("lxm of any method", bearer(mta.token_with(method, "lxm", json!("*"))), "401 BadJwtLexiconMethod"),
        ("alg none", bearer(format!("{}.", unsigned(r#"{"typ":"JWT","alg":"none"}"#, &claims))), "401 BadJwt"),
        ("alg HS256", bearer(sign(&mta.key, r#"{"typ":"JWT","alg":"HS256"}"#, &claims)), "401 BadJwt"),
        ("a token that has expired", bearer(mta.token_with(method, "exp", json!(now - 1))), "401 JwtExpired"),
        ("a token for a year", bearer(mta.token_with(method, "exp", json!(now + 31_536_000))), "401 BadJwt"),
        ("a token of the future", bearer(mta.token_with(method, "iat", json!(now + 3000))), "401 BadJwt"),
        ("in its name, by another key", bearer(sign(&thief, HEADER, &claims)), "401 BadJwtSignature"),
        ("in its name, by a stranger's key", bearer(sign(&stranger.key, HEADER, &claims)), "401 BadJwtSignature"),
        ("a stranger", bearer(stranger.token(method)), "403 NotPermitted"),
        (
            "a stranger whose DID cannot be looked up",
            bearer(stranger.token_with(method, "iss", json!("did:web:localhost%3A1"))),
            "403 NotPermitted",
        ),
        ("after all that, a token in order", bearer(mta.token(method)), "200"),
    ])
}

async fn ask(address: SocketAddr, method: &str, fields: &str, query: &str) -> Result<String> {
    let (verb, query, body) = match method {
        REPORT_SENDING => ("POST", query, r#"{"reports":[]}"#),
        _ => ("GET", "?dids=did:plc:7tcx4xxjwidnicieiwtrpyal", ""),
    };
    let head = format!(
        "{verb} /xrpc/{method}{query} HTTP/1.1\r\nHost: labeler\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    );
    Ok(exchange(address, head.as_bytes(), PATIENCE).await?.0)
}

/// `expected` is a status, and the name of an error after it where there is one.
fn row(case: &str, expected: &str, answer: &str) -> Row {
    let status = line(answer).split(' ').nth(1).unwrap_or("(nothing)").to_owned();
    let body: Value = answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default();
    let seen = match body["error"].as_str() {
        Some(error) => format!("{status} {error}"),
        None => status,
    };
    let fine = seen == expected;
    Row::new(case, expected, seen, fine)
}

/// A body that is longer than it may be, one that comes an octet at a time, and one of which a stranger says that it will come.
async fn bodies(address: SocketAddr, token: String) -> Result<Vec<Row>> {
    let head = |length: usize, token: &str| {
        format!("POST /xrpc/{REPORT_SENDING} HTTP/1.1\r\nHost: labeler\r\nContent-Length: {length}\r\n{token}\r\n")
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (slow, stranger) = tokio::try_join!(drip(address, head(10_000, &bearer)), drip(address, head(10_000, "")))?;
    let mut rows = Vec::new();
    for (case, expected, (answer, ended)) in [
        ("a body that comes an octet at a time", "408 RequestTimeout", slow),
        ("a slow body without a token", "401 AuthenticationRequired", stranger),
    ] {
        let mut row = row(case, expected, &answer);
        row.expected.push_str(", closed");
        row.seen.push_str(if ended { ", closed" } else { ", still open" });
        row.fine &= ended;
        rows.push(row);
    }
    Ok(rows)
}

/// Sends the head, and then an octet now and then until the other side has had enough.
async fn drip(address: SocketAddr, head: String) -> Result<(String, bool)> {
    let (mut from, mut to) = TcpStream::connect(address).await?.into_split();
    to.write_all(head.as_bytes()).await?;
    let sending = tokio::spawn(async move {
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut answer = Vec::new();
    let ended = timeout(BODY_PATIENCE, async { while matches!(from.read_buf(&mut answer).await, Ok(1..)) {} }).await.is_ok();
    sending.abort();
    Ok((String::from_utf8_lossy(&answer).into_owned(), ended))
}
