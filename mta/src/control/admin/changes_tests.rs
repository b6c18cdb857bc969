//! Changes by operators, against the daemon's own operations: nobody loses an update, and everything is in the audit.

use serde_json::json;

use super::probe::Port;
use super::*;
use crate::control::operations::tests::{DID, DOMAIN};

const TIERS: &str = "[[tier]]\nname = \"small\"\n[[tier]]\nname = \"large\"\n";

fn member() -> String {
    format!("/v1/members/{DID}")
}

#[tokio::test]
async fn two_operators_never_lose_an_update_and_the_second_is_told_what_changed() {
    let port = Port::start(TIERS).await;
    port.world.add(DID, DOMAIN).await.unwrap();
    let (anna, bea) = (port.token("anna", Role::Admin).await, port.token("bea", Role::Admin).await);
    let (get, set) = (format!("GET {}", member()), format!("POST {}", member()));
    let (of_anna, of_bea) = (port.json(&get, &anna, &[], "").await, port.json(&get, &bea, &[], "").await);
    let seen = of_anna.field("etag").unwrap().to_owned();
    assert_eq!(of_bea.field("etag"), Some(seen.as_str()));
    // Anna is faster.
    let body = json!({ "tier": "large" }).to_string();
    let done = port.json(&set, &anna, &[("If-Match", &seen), ("X-Why", "she grows")], &body).await;
    assert_eq!((done.status, &done.json()["tier"]), (200, &json!("large")), "{done:?}");
    // Bea has seen what is no longer so.
    let small = json!({ "tier": "small" }).to_string();
    let stale = port.json(&set, &bea, &[("If-Match", &seen)], &small).await;
    assert_eq!(stale.status, 412, "{stale:?}");
    let says = stale.json();
    let error = says["error"].as_str().unwrap();
    assert!(error.contains("tier: \"default\" → \"large\", by anna") && error.contains("(she grows)"), "{error}");
    assert_eq!((&says["since"][0]["who"], says["since"].as_array().unwrap().len()), (&json!("anna"), 1));
    assert_eq!(port.json(&get, &bea, &[], "").await.json()["tier"], "large", "nothing was done");
    // Without a version nothing is done either.
    assert_eq!(port.json(&set, &bea, &[], &small).await.status, 428);
    // The refusal named the present version, and so did the answer to Anna.
    let now = stale.field("etag").unwrap().to_owned();
    assert_eq!(done.field("etag"), Some(now.as_str()));
    let done = port.json(&set, &bea, &[("If-Match", &now)], &small).await;
    assert_eq!((done.status, &done.json()["tier"]), (200, &json!("small")));
    let done = port.json(&format!("{set}/suspend"), &bea, &[("If-Match", "*")], "{}").await;
    assert_eq!(done.status, 200, "whichever there is");
    // Both were there before both came back: all that changed is told, the newest first.
    let stale = port.json(&set, &anna, &[("If-Match", &seen)], &body).await.json();
    let who: Vec<_> = stale["since"].as_array().unwrap().iter().map(|row| row["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["bea", "bea", "anna"]);
    port.world.stop().await;
}

#[tokio::test]
async fn of_two_that_come_at_once_with_one_version_one_is_refused() {
    let port = Port::start(TIERS).await;
    port.world.add(DID, DOMAIN).await.unwrap();
    let (anna, bea) = (port.token("anna", Role::Admin).await, port.token("bea", Role::Admin).await);
    let set = format!("POST {}", member());
    for round in 0..8 {
        let seen = port.json(&format!("GET {}", member()), &anna, &[], "").await.field("etag").unwrap().to_owned();
        let tier = |large: bool| json!({ "tier": if large { "large" } else { "small" } }).to_string();
        let (one, other) = (tier(round % 2 == 0), tier(round % 2 == 0));
        let version = [("If-Match", seen.as_str())];
        let (one, other) = tokio::join!(port.json(&set, &anna, &version, &one), port.json(&set, &bea, &version, &other));
        let mut both = [one.status, other.status];
        both.sort_unstable();
        assert_eq!(both, [200, 412], "round {round}: {one:?} {other:?}");
    }
    port.world.stop().await;
}

#[tokio::test]
async fn every_change_is_in_the_audit_with_who_before_after_and_why_and_without_secrets() {
    let port = Port::start(TIERS).await;
    let added = port.world.add(DID, DOMAIN).await.unwrap();
    let (anna, reader) = (port.token("anna", Role::Admin).await, port.token("reader", Role::Read).await);
    let any = [("If-Match", "*")];
    let body = json!({ "tier": "large" }).to_string();
    assert_eq!(port.json(&format!("POST {}", member()), &anna, &[any[0], ("X-Why", "grows")], &body).await.status, 200);
    let pem = crate::sign::SigningKey::generate("x.example", "x", crate::sign::Algorithm::Ed25519).unwrap().to_pem().unwrap();
    let key = json!({ "domain": DOMAIN, "selector": "own", "pem": &*pem }).to_string();
    assert_eq!(port.json("POST /v1/keys", &anna, &[], &key).await.status, 200);
    let made = port.json("POST /v1/tokens", &anna, &[], &json!({ "name": "carl", "role": "read" }).to_string()).await;
    assert_eq!(made.status, 200);
    assert_eq!(port.json("POST /v1/keys/rotate", &anna, &[], &json!({ "domain": "no.example" }).to_string()).await.status, 404);
    assert_eq!(port.json(&format!("DELETE {}", member()), &anna, &any, "").await.status, 200);
    // Refused before anything was begun: not there.
    assert_eq!(port.json("POST /v1/tokens", &reader, &[], "{}").await.status, 403);
    let page = port.json("GET /v1/audit", &reader, &[], "").await;
    let rows = page.json()["rows"].as_array().unwrap().clone();
    let told: Vec<_> = rows.iter().map(|row| (row["what"].as_str().unwrap(), row["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("DELETE /v1/members/{member}", "done"),
        ("POST /v1/keys/rotate", "refused"),
        ("POST /v1/tokens", "done"),
        ("POST /v1/keys", "done"),
        ("POST /v1/members/{member}", "done"),
    ];
    assert_eq!(told, expected);
    let (gone, set) = (&rows[0], &rows[4]);
    assert_eq!((&gone["after"], &gone["about"]), (&json!(null), &json!(member())));
    assert_eq!((&set["who"], &set["why"]), (&json!("anna"), &json!("grows")));
    assert_eq!((&set["before"]["tier"], &set["after"]["tier"]), (&json!("default"), &json!("large")));
    assert!(set["by"].as_str().unwrap().ends_with("from 127.0.0.1"), "{set}");
    assert_eq!(rows[3]["asked"]["pem"], "(secret)");
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let secrets = [token.as_str(), &anna, &added.password, pem.lines().nth(1).unwrap()];
    for secret in secrets {
        assert!(!page.body.contains(secret), "{secret}");
    }
    // In pages.
    let first = port.json("GET /v1/audit?limit=2", &reader, &[], "").await.json();
    let next = first["next"].as_u64().unwrap();
    let second = port.json(&format!("GET /v1/audit?limit=3&before={next}"), &reader, &[], "").await.json();
    assert_eq!((first["rows"].as_array().unwrap().len(), second["rows"].as_array().unwrap().len()), (2, 3));
    assert_eq!(second["next"], json!(null));
    let about = port.json("GET /v1/audit?about=/v1/keys&who=anna", &reader, &[], "").await.json();
    assert_eq!(about["rows"].as_array().unwrap().len(), 2);
    port.world.stop().await;
}

#[tokio::test]
async fn events_are_streamed_and_go_on_where_they_broke_off() {
    let port = Port::start("").await;
    let reader = port.token("reader", Role::Read).await;
    assert_eq!(port.json("GET /v1/stream?after=x", &reader, &[], "").await.status, 400);
    assert_eq!(port.json("GET /v1/stream", &reader, &[("Last-Event-ID", "-")], "").await.status, 400);
    assert_eq!(port.json("GET /v1/stream?id=nothing", &reader, &[], "").await.status, 400);
    for nth in 0..3 {
        port.world.enqueue(&format!("b{nth}@big.example")).await;
    }
    let mut stream = tokio::net::TcpStream::connect(port.address).await.unwrap();
    let head = format!(
        "GET /v1/stream HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {reader}\r\nLast-Event-ID: 1\r\n\r\n",
        port.address
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut said = String::new();
    while !said.contains("id: 3\nevent: accepted\n") {
        let mut piece = [0; 4096];
        let count = tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await.unwrap();
        assert_ne!(count, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    assert!(said.contains("content-type: text/event-stream") && said.contains("cache-control: no-store"), "{said}");
    assert!(said.contains("id: 2\nevent: accepted\ndata: {") && !said.contains("\"number\":1,"), "{said}");
    // What comes while it is open.
    port.world.enqueue("later@big.example").await;
    while !said.contains("id: 4\nevent: accepted\n") {
        let mut piece = [0; 4096];
        let count = tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await.unwrap();
        assert_ne!(count, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    drop(stream);
    let overview = port.json("GET /v1/overview", &reader, &[], "").await.json();
    assert_eq!((&overview["messages"], &overview["ages"][0]["class"]), (&json!(4), &json!("otp")));
    assert!(overview["ages"][0]["oldest_at"].is_string() && overview["ages"][1]["oldest_at"].is_null(), "{overview}");
    port.world.stop().await;
}
