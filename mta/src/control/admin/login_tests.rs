//! Logins, as a browser has them.

use serde_json::json;

use super::probe::Port;
use super::*;
use crate::control::operations::tests::{DID, DOMAIN};

#[tokio::test]
async fn a_login_serves_a_browser_until_it_ends_and_changes_need_its_word_and_a_page_of_ours() {
    let port = Port::start("").await;
    port.world.add(DID, DOMAIN).await.unwrap();
    let token = port.token("anna", Role::Operate).await;
    let (as_json, as_form) = (("Content-Type", "application/json"), ("Content-Type", "application/x-www-form-urlencoded"));
    let wrong = port.ask("POST /login", &[as_json], &json!({ "token": "twop_wrong" }).to_string()).await;
    assert_eq!((wrong.status, wrong.field("set-cookie")), (401, None));
    let form = port.ask("POST /login", &[as_form], "token=twop_wrong&to=/queue").await;
    assert_eq!((form.status, form.field("location")), (303, Some("/login?failed=1")));
    let form = port.ask("POST /login", &[as_form], &format!("token={token}&to=/queue")).await;
    assert_eq!((form.status, form.field("location")), (303, Some("/queue")));
    let set = form.field("set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "without TLS a browser would not send it back");
    let form = port.ask("POST /login", &[as_form], &format!("token={token}&to=//evil.example")).await;
    assert_eq!(form.field("location"), Some("/"));

    let (cookie, csrf) = port.log_in(&token).await;
    let session = port.ask("GET /v1/session", &[("Cookie", &cookie)], "").await;
    assert_eq!(session.json(), json!({ "name": "anna", "role": "operate", "csrf": csrf }));
    let policy = session.field("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"));
    let said = ["x-content-type-options", "referrer-policy", "cache-control"].map(|name| session.field(name));
    assert_eq!(said, [Some("nosniff"), Some("same-origin"), Some("no-store")]);

    let suspend = format!("POST /v1/members/{DID}/suspend");
    let origin = format!("http://{}", port.address);
    let (cookie_field, word) = (("Cookie", cookie.as_str()), ("X-CSRF-Token", csrf.as_str()));
    let ours = ("Sec-Fetch-Site", "same-origin");
    let any = ("If-Match", "*");
    for (fields, status) in [
        (vec![cookie_field, ours, any], 403),
        (vec![cookie_field, word, any], 403),
        (vec![cookie_field, word, any, ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![cookie_field, word, any, ("Origin", "http://evil.example")], 403),
        (vec![cookie_field, word, any, ours, ("Origin", "null")], 403),
        (vec![cookie_field, ("X-CSRF-Token", "00"), any, ours], 403),
        (vec![cookie_field, word, ours], 428),
        (vec![cookie_field, word, any, ours], 200),
        (vec![cookie_field, word, any, ("Origin", &origin)], 200),
    ] {
        let reply = port.ask(&suspend, &fields, "").await;
        assert_eq!(reply.status, status, "{fields:?} {reply:?}");
    }
    assert_eq!(port.ask("GET /v1/tokens", &[cookie_field], "").await.status, 403, "the role is the token's");

    // Another login is another word.
    let (other, other_word) = port.log_in(&token).await;
    assert_ne!((&other, &other_word), (&cookie, &csrf));
    let mixed = [("Cookie", other.as_str()), word, any, ours];
    assert_eq!(port.ask(&suspend, &mixed, "").await.status, 403);

    assert_eq!(port.ask("POST /logout", &[cookie_field], "").await.status, 403, "another page logs nobody out");
    let out = port.ask("POST /logout", &[cookie_field, ours], "").await;
    assert_eq!(out.status, 204);
    assert!(out.field("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(port.ask("GET /v1/session", &[cookie_field], "").await.status, 401, "replayed");
    let other_cookie = [("Cookie", other.as_str())];
    assert_eq!(port.ask("GET /v1/session", &other_cookie, "").await.status, 200);
    port.world.daemon.revoke_token("anna").await.unwrap();
    assert_eq!(port.ask("GET /v1/session", &other_cookie, "").await.status, 401, "a revoked token takes its logins along");
    port.world.stop().await;
}

#[tokio::test]
async fn who_fails_often_must_wait_and_a_token_still_opens_the_api() {
    let port = Port::start("").await;
    let token = port.token("anna", Role::Read).await;
    let wrong = json!({ "token": "twop_wrong" }).to_string();
    let fields = [("Content-Type", "application/json")];
    let tries = (0..attempts::OF_ADDRESS_MAX).map(|_| port.ask("POST /login", &fields, &wrong));
    for reply in futures_util::future::join_all(tries).await {
        assert_eq!(reply.status, 401);
    }
    let right = json!({ "token": token }).to_string();
    let reply = port.ask("POST /login", &fields, &right).await;
    assert_eq!(reply.status, 429, "the right one too: nobody learns by it");
    assert!(reply.field("retry-after").unwrap().parse::<u64>().unwrap() <= attempts::SPAN.as_secs());
    assert_eq!(port.json("GET /v1/status", &token, &[], "").await.status, 200);
    port.world.stop().await;
}
