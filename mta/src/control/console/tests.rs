//! Pages over an API that remembers what it was asked.

use std::sync::{Mutex, PoisonError};

use axum::{
    Json,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::control::admin::{Operator, Role};

type Asked = Arc<Mutex<Vec<String>>>;

const DID: &str = "did:web:localhost%3A3100";

/// Answers for every path that pages ask for; what others said in them is hostile.
fn answer(path: &str) -> Value {
    let evil = "<script>alert(1)</script>\"'&";
    let climb = json!({
        "source": "ip-a", "provider": "google", "plan": "gentle", "state": "warming", "stage": 2, "stages": 9, "planned_stage": 3,
        "began": "2026-11-01", "day": "2026-11-26", "day_ends": "2026-11-27T00:00:00Z", "allowance": 2000, "reserved": 10,
        "spent": 500, "over": 0, "tried": 600, "deferred": 1, "refused": 2, "unknown": 3, "free": 0, "complained": 0, "idle_days": 0,
    });
    let member = json!({
        "did": DID, "domains": [evil], "suspended": false, "labels": [evil], "tier": "default", "admitted": true, "reason": evil,
        "doubts": [evil, "complaints: 12 of 3000 since 2026-11-20"], "doubted_at": "2026-11-26T00:00:00.000Z",
        "waits_for": "complaints: 12 of 3000 since 2026-11-20",
        "spending": {"weight": 1, "messages_per_hour": null, "burst": null, "available": null, "messages_per_day": 100,
            "sent_today": 7, "queue_messages": 1, "queue_messages_max": 5, "queue_bytes": 9, "queue_bytes_max": null},
    });
    let action = json!({
        "id": 7, "kind": "pause_site", "says": evil, "rule": "r", "cause": evil, "class": "blocked", "again": 0, "cancel": "…",
        "started_at": "2026-11-26T00:00:00.000Z", "expires_at": "2026-11-26T01:00:00.000Z",
    });
    let event = json!({
        "number": 1, "at": "2026-11-26T00:00:00.000Z", "what": "deferred", "final": false, "id": "x", "recipients": 1, "attempts": 1,
        "reply": evil, "host": evil,
    });
    let counts = json!({"accepted": 1, "delivered": 2, "deferred": 3, "failed": 4});
    let hour = json!({"at": "2026-11-26T00:00:00.000Z", "accepted": 1, "delivered": 2, "deferred": 3, "failed": 4});
    let of = json!({"name": DID, "accepted": 1, "delivered": 2, "deferred": 3, "failed": 4});
    let plan = json!({"name": "gentle", "from": "shipped", "stages": [50, 100], "followers": [{"source": "ip-a", "provider": "google"}],
        "text": "[[plan]]\nname = \"gentle\" # </textarea><script>alert(1)</script>\nstages = [50, 100]\n", "before": ""});
    match path {
        "/v1/status" => json!({
            "version": "1", "hostname": "relay.example", "io": "uring", "members": 3, "members_admitted": 1, "messages": 5,
            "deliveries": 6, "labeler": {"did": "did:web:l.example", "stale": true, "trouble": evil},
        }),
        "/v1/warmup" => json!({"asked_at": "2026-11-26T00:00:00.000Z", "climbs": [climb], "attention": [evil]}),
        "/v1/warmup/ip-a/google" => json!({"climb": climb, "stages": [1], "days": [
            {"day": "2026-11-25", "planned": 100, "allowed": 90, "spent": 80, "rule": "advance"}], "steps": [], "attention": []}),
        "/v1/queue" => json!({"deliveries": [{"id": "abc", "domain": evil, "member": DID, "class": "otp", "recipients": 1,
            "attempts": 2, "due_at": "2026-11-26T00:00:00.000Z", "last": evil}], "more": true, "next": "n&x"}),
        "/v1/why/abc" => json!({"id": "abc", "asked_at": "2026-11-26T00:00:00.000Z", "queued": false, "deliveries": [],
            "more": false, "events": [event], "dialogues": [{"domain": evil, "at": "2026-11-26T00:00:00.000Z", "source": "ip-a", "host": evil,
            "address": "192.0.2.1", "lines": ["S: 220 ready", evil]}]}),
        "/v1/sites" => {
            json!({"sites": [{"site": evil, "provider": evil, "domain": "big.example", "domains": 1, "queued": 1000, "counted_all": false,
            "in_flight": 1, "delivered": 2, "deferred": 3, "failures": 1, "sources": [{"source": evil, "window": 5, "in_flight": 1}]}], "next": 7})
        }
        "/v1/shaping/text" => json!({"text": "[[shape]] # </textarea><script>alert(1)</script>\n", "before": "", "file": evil}),
        "/v1/shaping" => json!([{"of": "everywhere", "key": "connections", "value": "20", "by": "shipped"}]),
        "/v1/where/big.example" => json!({"domain": "big.example", "asked_at": "2026-11-26T00:00:00.000Z", "route": "trouble",
            "hosts": [], "trouble": evil, "tls_policy": "unknown", "pool": "default", "sources": [], "site_in_flight": 0,
            "site_failures": 0, "mail": {"queued": 1, "held": 0, "counted_all": true, "in_memory": [0, 0, 0], "in_flight": 0,
            "settling": 0}, "limits": [], "would": []}),
        "/v1/actions" => json!({"actions": [action], "more": false}),
        "/v1/actions/7" => json!({"action": action, "events": [event]}),
        "/v1/members" => json!([member]),
        "/v1/members/did:web:localhost%253A3100" => member,
        "/v1/keys" => json!([]),
        "/v1/overview" => {
            json!({"asked_at": "2026-11-26T00:00:00.000Z", "today": counts, "hours": [hour], "providers": [of], "members": [of],
            "messages": 1, "deliveries": 2, "held": 0, "ages": [{"class": "otp", "age_secs": 70, "oldest_at": "2026-11-26T00:00:00.000Z", "sure": false}],
            "labeler": {"did": "did:web:l.example", "stale": true, "trouble": evil},
            "resolver": {"dnssec": "validate", "minutes": 15, "answered": 5, "absent": 1, "failed": 2, "silent": 7, "bogus": 0, "trouble": evil},
            "dns": {"sources_seen": 1, "names_good": 0, "listed": 1, "unanswered": 1},
            "attention": [{"kind": "action", "says": evil, "path": "/v1/actions/7"}]})
        }
        "/v1/sources" => {
            json!([{"name": evil, "address": "192.0.2.1", "ehlo": evil, "pools": [], "ptr": "other_name", "trouble": evil,
            "zones": [{"zone": evil, "says": "listed", "answer": evil}], "health": [{"source": "ip-a", "health": "paused", "actions": [7]}]}])
        }
        "/v1/replies" => {
            json!({"replies": 1, "groups": [{"class": "policy", "provider": "google", "count": 1, "failed": 1, "text": evil,
            "last_at": "2026-11-26T00:00:00.000Z", "host": evil, "id": "abc", "sources": ["ip-a"]}], "more": true})
        }
        "/v1/plans" => json!([plan]),
        "/v1/plans/gentle" => plan,
        "/v1/members/did:web:localhost%253A3100/credentials" => {
            json!([{"id": 1, "domain": evil, "class": "otp", "classes": [], "mark": "m"}])
        }
        "/v1/audit" => json!({"rows": [{"number": 1, "at": "2026-11-26T00:00:00.000Z", "who": evil, "by": "socket",
            "what": "POST /v1/x", "about": "/v1/x", "why": evil, "outcome": "done", "before": {"a": evil}, "after": {"a": 1}}]}),
        _ => Value::Null,
    }
}

fn console(role: Role) -> (Router, Asked) {
    let asked = Asked::default();
    let said = asked.clone();
    let api = Router::new().fallback(async move |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        assert!(parts.extensions.get::<Operator>().is_some(), "{} is asked for nobody", parts.uri);
        let path = parts.uri.path();
        if parts.method != Method::GET {
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let version = parts.headers.get(header::IF_MATCH).map_or("", |version| version.to_str().unwrap());
            let line = format!("{} {path} {version} {}", parts.method, String::from_utf8_lossy(&body));
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            if version == "\"old\"" {
                let since = json!([{"number": 2, "who": "anna", "what": "POST /v1/x", "outcome": "done"}]);
                return (StatusCode::PRECONDITION_FAILED, Json(json!({"error": "changed", "since": since}))).into_response();
            }
            if path == "/v1/shaping/text/check" {
                let change = json!({"of": "domain a.example", "key": "connections", "after": "3"});
                return Json(json!({"ok": true, "problems": [], "changes": [change]})).into_response();
            }
            if path.ends_with("/check") {
                return Json(json!({"ok": true, "problems": [], "stages": [50, 100]})).into_response();
            }
            if path.ends_with("/simulate") {
                return Json(json!({"says": "30 days", "drawing": "<svg></svg>", "sides": []})).into_response();
            }
            if path.ends_with("/rotate") {
                let secret = json!({"id": 1, "domain": "a.example", "class": "otp", "classes": [], "mark": "n", "username": "a.example",
                    "password": "tw_x", "smtp_url": "smtps://x"});
                return Json(secret).into_response();
            }
            return Json(json!({"changed": 1, "unchanged": 0, "in_flight": 0})).into_response();
        }
        match answer(path) {
            Value::Null => (StatusCode::NOT_FOUND, Json(json!({"error": format!("no {path}")}))).into_response(),
            found => ([(header::ETAG, "\"v1\"")], Json(found)).into_response(),
        }
    });
    let (_, stage) = watch::channel(Stage::Ready);
    let pages = routes(Console { api, stage, hostname: Arc::new(|| "relay.example".to_owned()) });
    let operator = Operator { role, ..Operator::of_socket(7) };
    (pages.layer(axum::Extension(operator)), asked)
}

async fn ask(pages: &Router, request: Request<Body>) -> (u16, String, String) {
    let response = pages.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let to = response.headers().get(header::LOCATION).map_or("", |to| to.to_str().unwrap()).to_owned();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, to, String::from_utf8(body.to_vec()).unwrap())
}

async fn look(pages: &Router, path: &str) -> (u16, String) {
    let (status, _, text) = ask(pages, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, text)
}

async fn fill(pages: &Router, path: &str, form: &str) -> (u16, String, String) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    ask(pages, request.body(Body::from(form.to_owned())).unwrap()).await
}

const PAGES: [&str; 21] = [
    "/",
    "/warmup",
    "/warmup/ip-a/google",
    "/queue",
    "/queue?domain=big.example&held=true",
    "/queue/abc",
    "/sites",
    "/sites?find=google&after=7",
    "/shaping",
    "/shaping?domain=a%22.example",
    "/sites/big.example",
    "/actions",
    "/actions/7",
    "/members",
    "/members/did:web:localhost%253A3100",
    "/audit",
    "/sources",
    "/replies",
    "/replies?class=policy",
    "/plans",
    "/plans/gentle",
];

#[tokio::test]
async fn every_page_is_whole_and_what_others_said_is_never_markup() {
    let (pages, _) = console(Role::Operate);
    for path in PAGES {
        let (status, text) = look(&pages, path).await;
        assert_eq!(status, 200, "{path}: {text}");
        assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">") && text.ends_with("</html>"), "{path}");
        assert_eq!(text.matches("aria-current=\"page\"").count(), 1, "{path}");
        assert_eq!(text.matches("<h1>").count(), 1, "{path}");
        assert!(!text.contains("<script>") && !text.contains("style=") && !text.contains("onclick"), "{path}: {text}");
    }
}

#[tokio::test]
async fn links_lead_to_pages_that_are_there() {
    let (pages, _) = console(Role::Admin);
    let mut links = std::collections::BTreeSet::new();
    for path in PAGES {
        let (_, text) = look(&pages, path).await;
        links.extend(text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&")));
    }
    assert!(links.len() > 20, "{links:?}");
    // What is nobody's page here: the port's own paths, and what only a daemon with such a domain knows.
    for link in links.iter().filter(|link| !["/metrics", "/healthz", "/readyz", "/v1/openapi.json"].contains(&link.as_str())) {
        if link.starts_with('#') || link.starts_with("/sites/%3C") {
            continue;
        }
        let (status, _) = look(&pages, link.split('#').next().unwrap()).await;
        assert_eq!(status, 200, "{link}");
    }
}

#[tokio::test]
async fn a_reader_sees_no_form_that_changes_anything() {
    let (pages, _) = console(Role::Read);
    let (operators, _) = console(Role::Operate);
    for path in PAGES {
        let (_, text) = look(&pages, path).await;
        // Trying a plan changes nothing.
        let trying = text.matches("/try\"").count();
        assert_eq!(text.matches("method=\"post\"").count(), trying, "{path}");
    }
    let (_, text) = look(&operators, "/members/did:web:localhost%253A3100").await;
    assert!(text.contains("method=\"post\"") && text.contains("value=\"&quot;v1&quot;\""), "{text}");
}

#[tokio::test]
async fn forms_become_requests_with_a_reason_and_the_version_that_was_seen() {
    let (pages, asked) = console(Role::Operate);
    let cases = [
        ("/queue/hold", "id=abc&why=odd", "/queue/abc?done=hold", "POST /v1/queue/hold  {\"id\":\"abc\",\"reason\":\"odd\"}"),
        (
            "/warmup/ip-a/google/pin",
            "why=moved&recipients=5&version=%22v1%22",
            "/warmup/ip-a/google?done=pin",
            "POST /v1/warmup/ip-a/google/pin \"v1\" {\"why\":\"moved\",\"recipients\":5}",
        ),
        (
            "/actions/7/extend",
            "why=w&for=2h&version=%22v1%22",
            "/actions/7?done=extend",
            "POST /v1/actions/7/extend \"v1\" {\"why\":\"w\",\"for\":\"2h\"}",
        ),
        (
            "/members/did:web:localhost%253A3100/suspend",
            "why=w&version=%22v1%22",
            "/members/did:web:localhost%253A3100?done=suspend",
            "POST /v1/members/did:web:localhost%253A3100/suspend \"v1\" ",
        ),
    ];
    for (path, form, back, request) in cases {
        let (status, to, text) = fill(&pages, path, form).await;
        assert_eq!((status, to.as_str()), (303, back), "{path}: {text}");
        assert_eq!(asked.lock().unwrap().drain(..).collect::<Vec<_>>(), [request]);
    }
    for (path, form) in
        [("/queue/hold", "id=abc&why=+"), ("/warmup/ip-a/google/pin", "why=w&recipients=many"), ("/actions/7/cancel", "")]
    {
        assert_eq!(fill(&pages, path, form).await.0, 400, "{path}");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn whatever_a_form_does_is_said_on_the_page_that_it_leads_to() {
    let (pages, _) = console(Role::Admin);
    let mut forms = std::collections::BTreeSet::new();
    for path in PAGES {
        let (_, text) = look(&pages, path).await;
        let posts = text.split("method=\"post\" action=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        forms.extend(posts.filter(|to| !to.ends_with("/try")));
    }
    // The button of a form that tries a text applies it.
    forms.extend(["/plans/gentle".to_owned(), "/shaping".to_owned()]);
    // What stands only on pages about something in another state.
    for (form, verbs) in [("/warmup/ip-a/google", &["resume", "unpin"][..]), ("/members/did:web:localhost%253A3100", &["resume"])]
    {
        forms.extend(verbs.iter().map(|verb| format!("{form}/{verb}")));
    }
    assert!(forms.len() > 15, "{forms:?}");
    for form in &forms {
        let queued = if form.starts_with("/queue/") { "&id=abc" } else { "" };
        let filled = format!("why=w&stage=1&stages=1&recipients=1&for=1h&text=x&version=%22v1%22{queued}");
        let (status, to, text) = fill(&pages, form, &filled).await;
        let said = if status == 303 { look(&pages, &to).await.1 } else { text };
        assert_eq!(said.matches("role=\"status\">").count(), 1, "{form}, {status}: {said}");
    }
    let (_, text) = look(&pages, "/plans/gentle?done=%3Cb%3Emine").await;
    assert!(!text.contains("mine"), "an address may be anybody's: {text}");
}

#[tokio::test]
async fn a_message_s_page_shows_what_was_last_said_line_by_line() {
    let (pages, _) = console(Role::Read);
    let (_, text) = look(&pages, "/queue/abc").await;
    assert!(text.contains("[192.0.2.1] from ip-a") && text.contains("S: 220 ready\n&lt;script&gt;"), "{text}");
}

#[tokio::test]
async fn a_member_s_page_shows_what_the_labeler_doubts_and_what_follows() {
    let (pages, _) = console(Role::Read);
    let (_, text) = look(&pages, "/members").await;
    assert_eq!(text.matches("new mail waits").count(), 1, "{text}");
    let (_, text) = look(&pages, "/members/did:web:localhost%253A3100").await;
    let row = text.split("complaints: 12 of 3000 since 2026-11-20</td>").nth(1).unwrap();
    assert!(row.split("</tr>").next().unwrap().contains("new mail waits"), "{text}");
    assert_eq!(text.matches("look at it").count(), 1, "{text}");
}

#[tokio::test]
async fn whoever_was_too_late_is_told_what_changed_and_by_whom() {
    let (pages, _) = console(Role::Operate);
    let (status, _, text) = fill(&pages, "/warmup/ip-a/google/pause", "why=w&version=%22old%22").await;
    assert_eq!(status, 412);
    assert!(text.contains("Somebody else was faster") && text.contains("anna"), "{text}");
}

#[tokio::test]
async fn a_stranger_is_led_to_sign_in_and_back() {
    let (_, stage) = watch::channel(Stage::Ready);
    let pages = routes(Console { api: Router::new(), stage, hostname: Arc::new(String::new) });
    let (status, to, _) = ask(&pages, Request::get("/queue?held=true").body(Body::empty()).unwrap()).await;
    assert_eq!((status, to.as_str()), (303, "/login?to=%2Fqueue%3Fheld%3Dtrue"));
    let (status, to, _) = fill(&pages, "/queue/hold", "id=abc&why=w").await;
    assert_eq!((status, to.as_str()), (303, "/login"));
    let pages = Router::new().route("/login", get(sign_in_page));
    let (status, text) = look(&pages, "/login?to=%2Fqueue&failed=1").await;
    assert_eq!(status, 200);
    assert!(text.contains("name=\"to\" value=\"/queue\"") && text.contains("not good here"), "{text}");
}

#[tokio::test]
async fn files_are_served_under_the_names_that_pages_say_and_no_others() {
    let (pages, _) = console(Role::Read);
    let (_, text) = look(&pages, "/").await;
    let files: Vec<_> = text.split('"').filter(|part| part.starts_with("/assets/")).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        assert_eq!(look(&pages, file).await.0, 200, "{file}");
    }
    for other in ["/assets/style.css", "/assets/..%2Fmod.rs", "/assets/"] {
        assert_eq!(look(&pages, other).await.0, 404, "{other}");
    }
}

#[tokio::test]
async fn a_plan_is_written_tried_and_applied_with_the_version_that_was_seen() {
    let (pages, asked) = console(Role::Admin);
    let (_, text) = look(&pages, "/plans/gentle").await;
    assert!(text.contains("name=\"version\" value=\"&quot;v1&quot;\""), "{text}");
    let toml = "%5B%5Bplan%5D%5D%0D%0Aname+%3D+%22gentle%22%0D%0Astart+%3D+5%0D%0A";
    let (status, _, text) = fill(&pages, "/plans/gentle/try", &format!("text={toml}&stages=7,+8&version=%22v0%22")).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("name = &quot;gentle&quot;\nstages = [7, 8]\n</textarea>") && text.contains("30 days"), "{text}");
    assert!(text.contains("value=\"&quot;v0&quot;\""), "the version is that of when the writing began");
    let (status, _, text) = fill(&pages, "/plans/gentle/check", &format!("text={toml}")).await;
    assert!(status == 200 && text.starts_with("<div id=\"problems\""), "{text}");
    asked.lock().unwrap().clear();
    let (status, to, _) = fill(&pages, "/plans/gentle", &format!("text={toml}&why=slower&version=%22v1%22")).await;
    assert_eq!((status, to.as_str()), (303, "/plans/gentle?done=applied"));
    let wanted = "POST /v1/plans/gentle \"v1\" {\"text\":\"[[plan]]\\nname = \\\"gentle\\\"\\nstart = 5\\n\",\"why\":\"slower\"}";
    assert_eq!(asked.lock().unwrap().drain(..).collect::<Vec<_>>(), [wanted]);
    assert_eq!(fill(&pages, "/plans/gentle/try", "text=x&stages=1").await.0, 400);
    assert_eq!(fill(&pages, "/plans/gentle/try", &format!("text={toml}&stages=many")).await.0, 400);
}

#[tokio::test]
async fn shaping_is_written_looked_at_and_applied_with_the_version_that_was_seen() {
    let (pages, asked) = console(Role::Admin);
    let toml = "%5B%5Bshape%5D%5D%0D%0Adomain+%3D+%22a.example%22%0D%0A";
    let (status, _, text) = fill(&pages, "/shaping/try", &format!("text={toml}&version=%22v0%22")).await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("1 values would be other") && text.contains("value=\"&quot;v0&quot;\""), "{text}");
    let (status, _, text) = fill(&pages, "/shaping/check", &format!("text={toml}")).await;
    assert!(status == 200 && text.starts_with("<div id=\"problems\""), "{text}");
    asked.lock().unwrap().clear();
    let (status, to, _) = fill(&pages, "/shaping", &format!("text={toml}&why=they+asked&version=%22v1%22")).await;
    assert_eq!((status, to.as_str()), (303, "/shaping?done=applied"));
    let wanted = "POST /v1/shaping/text \"v1\" {\"text\":\"[[shape]]\\ndomain = \\\"a.example\\\"\\n\",\"why\":\"they asked\"}";
    assert_eq!(asked.lock().unwrap().drain(..).collect::<Vec<_>>(), [wanted]);
    assert_eq!(fill(&pages, "/shaping", "text=x").await.0, 400, "a reason is needed");
}
