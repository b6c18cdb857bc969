//! More than two hundred requests that nobody honest makes, each with what it must be answered, against a real listener on loopback
//! with the daemon's own operations behind it. All are printed with what was expected and what was seen
//! (`cargo test hostile -- --nocapture`); one difference fails. Afterwards nothing is other than before.
//!
//! Status 0 says that the connection ends without an answer.

use futures_util::StreamExt;
use serde_json::json;

use super::probe::Port;
use super::*;
use crate::control::daemon::Daemon;
use crate::control::operations::tests::{DID, DOMAIN};

struct Case {
    name: String,
    octets: Vec<u8>,
    expected: u16,
}

/// The cases, and what is known to write them.
struct Book {
    host: String,
    cases: Vec<Case>,
    /// Tokens of each role.
    read: String,
    operate: String,
    admin: String,
}

impl Book {
    fn raw(&mut self, name: impl Into<String>, octets: impl Into<Vec<u8>>, expected: u16) {
        self.cases.push(Case { name: name.into(), octets: octets.into(), expected });
    }

    /// A request with these fields and this body, whose length is told.
    fn add(&mut self, name: impl Into<String>, line: &str, fields: &[(&str, &str)], body: &str, expected: u16) {
        let mut text = format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        fields.iter().for_each(|(key, value)| text.push_str(&format!("{key}: {value}\r\n")));
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.raw(name, format!("{text}\r\n{body}"), expected);
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A path of the table with something in the place of its arguments.
fn filled(path: &str) -> String {
    path.replace("{member}", DID).replace(['{', '}'], "")
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn nobody(book: &mut Book) {
    for route in table::table::<Daemon>() {
        let line = format!("{} {}", route.rule.method, filled(route.rule.path));
        book.add(format!("no token: {line}"), &line, &[], "", 401);
    }
}

fn lesser_roles(book: &mut Book) {
    for route in table::table::<Daemon>() {
        let line = format!("{} {}", route.rule.method, filled(route.rule.path));
        for (role, token) in [(Role::Read, book.read.clone()), (Role::Operate, book.operate.clone())] {
            if role < route.rule.role {
                book.add(format!("{role} only: {line}"), &line, &[("Authorization", &bearer(&token)), JSON], "{}", 403);
            }
        }
    }
}

fn proofs(book: &mut Book, password: &str, revoked: &str, cookie: &str) {
    let good = book.read.clone();
    let word = cookie.split_once('=').unwrap().1.to_owned();
    let hash = data_encoding::HEXLOWER.encode(&tokens::OperatorKey::new(&[0; 32]).hash("token", &good));
    let long = format!("Bearer {}", "x".repeat(20_000));
    let shown = [
        ("empty", String::new()),
        ("scheme only", "Bearer".to_owned()),
        ("scheme and space", "Bearer ".to_owned()),
        ("prefix only", bearer("twop_")),
        ("no scheme", good.clone()),
        ("Basic", format!("Basic {}", data_encoding::BASE64.encode(format!("anna:{good}").as_bytes()))),
        ("Digest", format!("Digest username=\"anna\", response=\"{good}\"")),
        ("another scheme", format!("Token {good}")),
        ("cut short", bearer(&good[..good.len() - 1])),
        ("one more octet", bearer(&format!("{good}x"))),
        ("lower case", bearer(&good.to_lowercase())),
        ("upper case", bearer(&good.to_uppercase())),
        ("in quotes", bearer(&format!("\"{good}\""))),
        ("with a comma", bearer(&format!("{good}, {good}"))),
        ("a NUL behind", format!("Bearer {good}%00")),
        ("a hash", bearer(&hash)),
        ("a member's password", bearer(password)),
        ("a cookie's word", bearer(&word)),
        ("revoked", bearer(revoked)),
        ("SQL", bearer("' OR 1=1 --")),
        ("very long", long),
        ("tab for space", format!("Bearer\t{good}")),
        ("JWT without a signature", bearer("eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.")),
    ];
    for (name, value) in shown {
        book.add(format!("proof: {name}"), "GET /v1/status", &[("Authorization", &value)], "", 401);
    }
    let authorization = bearer(&good);
    let twice = [("Authorization", authorization.as_str()), ("Authorization", authorization.as_str())];
    book.add("proof: twice", "GET /v1/status", &twice, "", 400);
    let (wrong, right) = (bearer("twop_wrong"), authorization.as_str());
    book.add("proof: wrong, then right", "GET /v1/status", &[("Authorization", &wrong), ("authorization", right)], "", 400);
    book.add(
        "proof: wrong token beside a good cookie",
        "GET /v1/status",
        &[("Authorization", &wrong), ("Cookie", cookie)],
        "",
        401,
    );
    for (name, field, value) in [
        ("X-API-Key", "X-API-Key", good.clone()),
        ("X-Auth-Token", "X-Auth-Token", good.clone()),
        ("Proxy-Authorization", "Proxy-Authorization", bearer(&good)),
        ("X-Forwarded-User", "X-Forwarded-User", "uid 0".to_owned()),
        ("X-Real-IP of loopback", "X-Real-IP", "127.0.0.1".to_owned()),
        ("X-Forwarded-For of loopback", "X-Forwarded-For", "127.0.0.1".to_owned()),
        ("Forwarded", "Forwarded", "for=127.0.0.1;by=unix".to_owned()),
        ("Remote-User", "Remote-User", "root".to_owned()),
        ("a token as cookie", "Cookie", format!("tradewind={good}")),
        ("a token as cookie of another name", "Cookie", format!("token={good}")),
    ] {
        book.add(format!("proof by {name}"), "GET /v1/status", &[(field, &value)], "", 401);
    }
    book.add("proof in the query", &format!("GET /v1/status?access_token={good}&token={good}"), &[], "", 401);
    book.add("proof in the body", "GET /v1/status", &[JSON], &json!({ "token": good }).to_string(), 401);
}

fn cookies(book: &mut Book, live: &str, gone: &str, of_revoked: &str) {
    let word = live.split_once('=').unwrap().1.to_owned();
    for (name, value, expected) in [
        ("after logout", gone.to_owned(), 401),
        ("of a revoked token", of_revoked.to_owned(), 401),
        ("empty", "tradewind=".to_owned(), 401),
        ("no value", "tradewind".to_owned(), 401),
        ("cut short", live[..live.len() - 1].to_owned(), 401),
        ("one more octet", format!("{live}x"), 401),
        ("upper case name", format!("TRADEWIND={word}"), 401),
        ("another name", format!("session={word}"), 401),
        ("name as suffix", format!("xtradewind={word}"), 401),
        ("the name that TLS has", format!("__Host-tradewind={word}"), 401),
        ("in quotes", format!("tradewind=\"{word}\""), 401),
        ("twice in one line", format!("{live}; {live}"), 401),
        ("a wrong one before it", format!("tradewind=x; {live}"), 401),
        ("by a comma", format!("a=b, {live}"), 401),
        ("of zeros", format!("tradewind={}", "0".repeat(43)), 401),
        ("very long", format!("tradewind={}", "x".repeat(20_000)), 401),
        ("among others, which is honest", format!("a=b; {live}; c=d"), 200),
    ] {
        book.add(format!("cookie {name}"), "GET /v1/session", &[("Cookie", &value)], "", expected);
    }
    book.add("cookie in two fields", "GET /v1/session", &[("Cookie", live), ("Cookie", live)], "", 400);
}

fn forgeries(book: &mut Book, cookie: &str, csrf: &str, other_csrf: &str) {
    let host = book.host.clone();
    let (name, port) = host.split_once(':').unwrap();
    let ours = ("Sec-Fetch-Site", "same-origin");
    let (c, word, any) = (("Cookie", cookie), ("X-CSRF-Token", csrf), ("If-Match", "*"));
    let line = format!("POST /v1/members/{DID}/suspend");
    let mut add = |name: String, fields: &[(&str, &str)]| book.add(format!("forged: {name}"), &line, fields, "", 403);
    for origin in [
        "null".to_owned(),
        String::new(),
        "http://evil.example".to_owned(),
        format!("http://{name}"),
        format!("http://{name}:1"),
        format!("http://{host}.evil.example"),
        format!("http://evil.example/{host}"),
        format!("http://evil.example?{host}"),
        format!("http://evil.example#{host}"),
        format!("http://a@{host}"),
        format!("http://{host}@evil.example"),
        format!("http://{host}/"),
        format!("ftp://{host}"),
        format!("file://{host}"),
        format!("javascript://{host}"),
        format!("http:{host}"),
        host.clone(),
        format!("http://localhost:{port}"),
        format!("http://[::1]:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://{host} http://{host}"),
    ] {
        add(format!("Origin {origin:?}"), &[c, word, any, ("Origin", &origin)]);
        add(format!("Origin {origin:?} with Sec-Fetch-Site"), &[c, word, any, ours, ("Origin", &origin)]);
    }
    for site in ["cross-site", "same-site", "none", "", "SAME-ORIGIN", "same-origin, same-origin", "same-origin;"] {
        add(format!("Sec-Fetch-Site {site:?}"), &[c, word, any, ("Sec-Fetch-Site", site)]);
    }
    add("neither Origin nor Sec-Fetch-Site".into(), &[c, word, any]);
    add("Referer for Origin".into(), &[c, word, any, ("Referer", &format!("http://{host}/"))]);
    for (name, word) in [
        ("none", ""),
        ("of another login", other_csrf),
        ("of zeros", &"0".repeat(64)),
        ("cut short", &csrf[..63]),
        ("upper case", &csrf.to_uppercase()),
        ("the cookie", cookie),
    ] {
        add(format!("word {name}"), &[c, any, ours, ("X-CSRF-Token", word)]);
    }
    add("word missing".into(), &[c, any, ours]);
    add("word as X-XSRF-Token".into(), &[c, any, ours, ("X-XSRF-Token", csrf)]);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    book.add("forged: form without the word", &line, &[c, any, ours, form], "why=a", 403);
    book.add("forged: word in the query", &format!("{line}?csrf={csrf}"), &[c, any, ours], "", 403);
    book.add("forged: two words", &line, &[c, any, ours, word, ("X-CSRF-Token", "x")], "", 400);
    book.add("forged: two Origins", &line, &[c, any, word, ("Origin", "http://a.example"), ("Origin", "null")], "", 400);
    book.add("forged: logout from elsewhere", "POST /logout", &[c, ("Origin", "http://evil.example")], "", 403);
    book.add("forged: logout without a word of where", "POST /logout", &[c], "", 403);
    let login = json!({ "token": book.read }).to_string();
    book.add("forged: login from elsewhere", "POST /login", &[JSON, ("Origin", "http://evil.example")], &login, 403);
    book.add("forged: login across sites", "POST /login", &[JSON, ("Sec-Fetch-Site", "cross-site")], &login, 403);
    book.add("a preflight gets no leave", "OPTIONS /v1/status", &[("Origin", "http://evil.example")], "", 401);
}

fn paths(book: &mut Book) {
    let admin = bearer(&book.admin);
    let proof = [("Authorization", admin.as_str())];
    for (path, nobody, known) in [
        ("//v1/status", 404, 404),
        ("/v1//status", 401, 404),
        ("/V1/status", 404, 404),
        ("/v1/Status", 401, 404),
        ("/v1/status/", 401, 404),
        ("/v1", 401, 404),
        ("/v1/", 401, 404),
        ("/v2/status", 404, 404),
        ("/./v1/status", 404, 404),
        ("/v1/./status", 401, 404),
        ("/metrics/../v1/status", 404, 404),
        ("/v1/../v1/status", 401, 404),
        ("/healthz/..%2fv1/status", 404, 404),
        ("/%761/status", 404, 404),
        ("/v1%2fstatus", 404, 404),
        ("/v1/%73tatus", 401, 404),
        ("/v1/status%00", 401, 404),
        ("/v1/status;a=b", 401, 404),
        ("/v1/status%20", 401, 404),
        ("/v1/status.json", 401, 404),
        ("/v1/queue/..%2f..%2fetc%2fpasswd", 401, 400),
        ("/v1/plans/..%2f..%2fmta", 401, 404),
        ("/v1/plans/%00", 401, 404),
        ("/v1/members/..%2ftokens", 401, 400),
        ("/v1/members/%ff%fe", 401, 400),
        ("/v1/why/%0d%0aSet-Cookie:%20a=b", 401, 400),
        ("/v1/tokens/..", 401, 405),
        ("/etc/passwd", 404, 404),
        ("/.git/config", 404, 404),
    ] {
        book.add(format!("path {path}"), &format!("GET {path}"), &[], "", nobody);
        book.add(format!("path {path} by admin"), &format!("GET {path}"), &proof, "", known);
    }
}

fn methods(book: &mut Book) {
    let (read, admin) = (bearer(&book.read), bearer(&book.admin));
    let proof = ("Authorization", admin.as_str());
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW", "get", "DELETE", "POST"] {
        book.add(format!("method {method}"), &format!("{method} /v1/status"), &[proof, JSON], "", 405);
    }
    let line = format!("GET /v1/members/{DID}");
    for field in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        book.add(
            format!("{field} is not heard: it stays a look"),
            &line,
            &[("Authorization", &read), (field, "DELETE")],
            "",
            200,
        );
    }
    book.add("_method in the query is not heard", &format!("{line}?_method=DELETE"), &[("Authorization", &read)], "", 200);
    book.add(
        "override on POST stays POST",
        "POST /v1/tokens",
        &[("Authorization", &read), ("X-HTTP-Method-Override", "GET")],
        "",
        403,
    );
    for line in ["PUT /healthz", "DELETE /metrics", "POST /", "PUT /login", "PATCH /logout"] {
        book.add(format!("method {line}"), line, &[], "", 405);
    }
}

fn bodies(book: &mut Book) {
    let admin = bearer(&book.admin);
    let proof = ("Authorization", admin.as_str());
    let token = json!({ "name": "mallory", "role": "admin" }).to_string();
    let line = "POST /v1/tokens";
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonx",
        "*/*",
        "",
    ] {
        book.add(format!("type {kind:?}"), line, &[proof, ("Content-Type", kind)], &token, 415);
    }
    book.add("no type", line, &[proof], &token, 415);
    book.add("two types", line, &[proof, JSON, ("Content-Type", "text/plain")], &token, 400);
    for (name, body) in [
        ("not JSON", "name=mallory".to_owned()),
        ("cut short", token[..token.len() - 1].to_owned()),
        ("something behind", format!("{token}{token}")),
        ("an array", format!("[{token}]")),
        ("null", "null".to_owned()),
        ("a string", "\"admin\"".to_owned()),
        ("an unknown field", json!({ "name": "mallory", "role": "admin", "by": "root" }).to_string()),
        ("a field twice", r#"{"name":"mallory","role":"read","role":"admin"}"#.to_owned()),
        ("a role that is none", json!({ "name": "mallory", "role": "root" }).to_string()),
        ("a role as number", json!({ "name": "mallory", "role": 2 }).to_string()),
        ("a name with a line break", json!({ "name": "mal\r\nlory", "role": "read" }).to_string()),
        ("a name of dots and slashes", json!({ "name": "../../x", "role": "read" }).to_string()),
        ("an empty name", json!({ "name": "", "role": "read" }).to_string()),
        ("a long name", json!({ "name": "m".repeat(65), "role": "read" }).to_string()),
        ("markup as name", json!({ "name": "<script>", "role": "read" }).to_string()),
        ("deep", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
        ("a BOM", format!("\u{feff}{token}")),
        ("a prototype", r#"{"__proto__":{"role":"admin"},"name":"mallory"}"#.to_owned()),
    ] {
        book.add(format!("body: {name}"), line, &[proof, JSON], &body, 400);
    }
    let mut octets =
        format!("{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: {admin}\r\nConnection: close\r\n", book.host).into_bytes();
    octets.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"\xff\"}");
    book.raw("body: not UTF-8", octets, 400);
    book.add("body: huge", line, &[proof, JSON], &format!("{{\"name\":\"{}\"}}", "x".repeat(70_000)), 413);
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nAuthorization: {admin}\r\nConnection: close\r\nContent-Type: application/json\r\n",
        book.host
    );
    book.raw("body: huge by its own word", format!("{head}Content-Length: 99999999999\r\n\r\n{{"), 413);
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    book.raw("body: huge in chunks", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(20)), 413);
    book.raw("body: a chunk of a negative size", format!("{head}Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n"), 400);
    book.raw(
        "body: a chunk of an endless size",
        format!("{head}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n"),
        400,
    );
    book.raw("body: never comes", format!("{head}Content-Length: 40\r\n\r\n"), 504);
    book.raw("body: begins and stops", format!("{head}Content-Length: 40\r\n\r\n{{\"name\":"), 504);
    book.raw("body: chunks that stop", format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"), 504);
    for (name, path) in [("limit", "/v1/queue?limit=-1"), ("twice", "/v1/queue?limit=1&limit=2"), ("unknown", "/v1/audit?all=1")]
    {
        book.add(format!("query: {name}"), &format!("GET {path}"), &[proof], "", 400);
    }
    book.add("query: a huge number", "GET /v1/events?after=99999999999999999999999", &[proof], "", 400);
    let login = |token: &str| json!({ "token": token }).to_string();
    book.add("login: a type that is none", "POST /login", &[("Content-Type", "text/plain")], &login("x"), 415);
    book.add("login: more than asked", "POST /login", &[JSON], &json!({ "token": "x", "role": "admin" }).to_string(), 401);
    book.add("login: huge", "POST /login", &[JSON], &login(&"x".repeat(70_000)), 413);
}

fn heads(book: &mut Book) {
    let (host, admin) = (book.host.clone(), bearer(&book.admin));
    let start = format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    let proof = format!("Authorization: {admin}\r\n");
    let no_host = format!("GET /v1/status HTTP/1.1\r\nConnection: close\r\n{proof}");
    for (name, octets, expected) in [
        ("no Host", format!("{no_host}\r\n"), 400),
        ("empty Host", format!("{no_host}Host:\r\n\r\n"), 400),
        ("two Hosts", format!("{no_host}Host: {host}\r\nHost: {host}\r\n\r\n"), 400),
        ("a space before the colon", format!("{start}Authorization : {admin}\r\n\r\n"), 400),
        ("a folded line", format!("{start}Authorization: Bearer\r\n {}\r\n\r\n", book.admin), 400),
        ("a name with a space", format!("{start}{proof}X Y: z\r\n\r\n"), 400),
        ("no name", format!("{start}{proof}: z\r\n\r\n"), 400),
        ("no colon", format!("{start}{proof}nonsense\r\n\r\n"), 400),
        ("a NUL in a value", format!("{start}{proof}X: a\0b\r\n\r\n"), 400),
        ("a bare CR in a value", format!("{start}{proof}X: a\rb\r\n\r\n"), 400),
        ("two lengths", format!("{start}{proof}Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello"), 400),
        ("a negative length", format!("{start}{proof}Content-Length: -1\r\n\r\n"), 400),
        ("a length with a sign", format!("{start}{proof}Content-Length: +5\r\n\r\nhello"), 400),
        ("a length that is none", format!("{start}{proof}Content-Length: five\r\n\r\nhello"), 400),
        ("a coding that is none", format!("{start}{proof}Transfer-Encoding: gzip\r\n\r\n"), 400),
        ("chunked twice", format!("{start}{proof}Transfer-Encoding: chunked, gzip\r\n\r\n"), 400),
        ("too many fields", format!("{start}{}{proof}\r\n", "X: y\r\n".repeat(200)), 431),
        ("a long field, which is read and proves nothing", format!("{start}X: {}\r\n\r\n", "y".repeat(40_000)), 401),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", "x".repeat(40_000)), 404),
        ("HTTP/0.9", "GET /v1/status\r\n\r\n".to_owned(), 400),
        ("HTTP/3.0", format!("GET /v1/status HTTP/3.0\r\nHost: {host}\r\n\r\n"), 400),
        ("HTTP/2 at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        ("no target", format!("GET HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400),
        ("a target with a space", format!("GET /v1/ status HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400),
        ("the asterisk", format!("OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), 404),
        ("SMTP", "EHLO evil.example\r\nMAIL FROM:<>\r\n".to_owned(), 400),
        ("nothing", String::new(), 0),
        ("half a head", start.clone(), 0),
        ("line breaks only", "\r\n\r\n\r\n\r\n".to_owned(), 0),
    ] {
        book.raw(format!("head: {name}"), octets, expected);
    }
    book.raw("head: a ClientHello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec(), 400);
    book.raw("head: octets at random", (0..=255u8).chain(0..=255).collect::<Vec<_>>(), 400);
    let both =
        format!("{start}{proof}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/tokens HTTP/1.1\r\n\r\n");
    // RFC 9112 §6.1: the chunks count, and the connection ends, so that what stands behind is never heard.
    book.raw("head: length and chunks, a request behind", both, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_hostile_requests_get_what_they_deserve_and_change_nothing() {
    let port = Port::start("").await;
    let added = port.world.add(DID, DOMAIN).await.unwrap();
    let (read, operate) = (port.token("reader", Role::Read).await, port.token("operator", Role::Operate).await);
    let (admin, revoked) = (port.token("boss", Role::Admin).await, port.token("gone", Role::Admin).await);
    let (cookie, csrf) = port.log_in(&admin).await;
    let (other, other_csrf) = port.log_in(&operate).await;
    let (of_revoked, _) = port.log_in(&revoked).await;
    port.world.daemon.revoke_token("gone").await.unwrap();
    let out = port.ask("POST /logout", &[("Cookie", &other), ("Sec-Fetch-Site", "same-origin")], "").await;
    assert_eq!(out.status, 204);

    let mut book = Book { host: port.address.to_string(), cases: Vec::new(), read, operate, admin: admin.clone() };
    nobody(&mut book);
    lesser_roles(&mut book);
    proofs(&mut book, &added.password, &revoked, &cookie);
    cookies(&mut book, &cookie, &other, &of_revoked);
    forgeries(&mut book, &cookie, &csrf, &other_csrf);
    paths(&mut book);
    methods(&mut book);
    bodies(&mut book);
    heads(&mut book);
    assert!(book.cases.len() >= 200, "{}", book.cases.len());

    let mut wrong = Vec::new();
    println!("{:>8} {:>5}  request", "expected", "seen");
    let replies = futures_util::stream::iter(book.cases.iter().map(|case| port.send(&case.octets))).buffered(16);
    let replies: Vec<_> = replies.collect().await;
    for (Case { name, expected, .. }, reply) in book.cases.iter().zip(replies) {
        let mark = if reply.status == *expected { " " } else { "!" };
        println!("{expected:>8} {:>5} {mark} {name}", reply.status);
        if reply.status != *expected {
            wrong.push(format!("{name}: expected {expected}, seen {} {}", reply.status, reply.body));
        }
        // No answer carries a secret, and no browser may read or keep it.
        for secret in [&admin, &added.password, cookie.split_once('=').unwrap().1] {
            assert!(!reply.body.contains(secret), "{name}");
        }
        assert!(!reply.body.contains("HTTP/1.1 "), "{name}: one request, one answer");
        assert_eq!(reply.field("access-control-allow-origin"), None, "{name}");
    }
    println!("{} requests", book.cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), book.cases.len(), wrong.join("\n"));

    let member = port.world.daemon.member(DID).await.unwrap();
    assert!(!member.suspended && member.domains == [DOMAIN]);
    let names: Vec<_> = port.world.daemon.tokens().await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["reader", "operator", "boss"]);
    assert_eq!(port.ask("GET /v1/session", &[("Cookie", &cookie)], "").await.status, 200, "the honest login goes on");
    port.world.stop().await;
}
