//! The admin servers over a real socket, with operations that only remember.

use std::sync::Mutex;

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::*;
use crate::control::api::*;
use crate::control::wishes::Verb;

#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    broken: bool,
    audit: Mutex<Vec<AuditRow>>,
}

impl Fake {
    fn asked(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }
}

fn a_member(did: &str, suspended: bool) -> Member {
    Member {
        did: did.into(),
        domains: vec!["host.example".into()],
        suspended,
        labels: Vec::new(),
        tier: "default".into(),
        pool: None,
        spending: Default::default(),
        doubts: Vec::new(),
        doubted_at: None,
        waits_for: None,
        admitted: !suspended,
        reason: None,
    }
}

impl Operations for Fake {
    async fn add_member(&self, member: AddMember) -> Result<Enrolled, Refusal> {
        self.asked(format!("add {} {} {:?}", member.did, member.domain, member.class));
        if member.domain == "taken.example" {
            return Err(Refusal::Conflict("taken.example belongs to another member".into()));
        }
        Ok(Enrolled {
            did: member.did,
            domain: member.domain,
            username: "host.example".into(),
            password: "s3cret".into(),
            smtp_url: "smtp://host.example:s3cret@relay.example:587".into(),
            dns_records: Vec::new(),
        })
    }
    async fn actions(&self, filter: ActionFilter) -> Result<ActionPage, Refusal> {
        self.asked(format!("actions {:?} {:?}", filter.kind, filter.after));
        Ok(ActionPage::default())
    }
    async fn action(&self, id: u64) -> Result<ActionShown, Refusal> {
        Err(Refusal::Unknown(format!("no action {id}")))
    }
    async fn end_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        self.asked(format!("end {id} {} {}", wish.why, by.is_empty()));
        Err(Refusal::Unknown(format!("no action {id}")))
    }
    async fn prolong_action(&self, id: u64, wish: ActionWish, by: &str) -> Result<ActionRow, Refusal> {
        self.asked(format!("prolong {id} {} {:?} {}", wish.why, wish.lasts, by.is_empty()));
        Err(Refusal::Unknown(format!("no action {id}")))
    }
    async fn warmup(&self) -> Result<WarmupPage, Refusal> {
        Ok(WarmupPage::default())
    }
    async fn climb(&self, source: &str, provider: &str, filter: ClimbFilter) -> Result<ClimbShown, Refusal> {
        self.asked(format!("climb {source} {provider} {:?}", filter.days));
        Ok(ClimbShown::default())
    }
    async fn climb_steps(&self, filter: StepFilter) -> Result<Vec<StepRow>, Refusal> {
        self.asked(format!("steps {:?} {:?} {:?}", filter.source, filter.provider, filter.limit));
        Ok(Vec::new())
    }
    async fn steer_climb(&self, of: (&str, &str), verb: ClimbVerb, wish: WarmupWish, by: &str) -> Result<ClimbRow, Refusal> {
        self.asked(format!("{verb:?} {of:?} {:?} {} {by}", wish.recipients, wish.why));
        Ok(ClimbRow::default())
    }
    async fn source_health(&self) -> Result<Vec<SourceHealthRow>, Refusal> {
        Ok(Vec::new())
    }
    async fn members(&self) -> Result<Vec<Member>, Refusal> {
        Ok(vec![a_member("did:plc:a", false)])
    }
    async fn member(&self, member: &str) -> Result<Member, Refusal> {
        self.asked(format!("member {member}"));
        Err(Refusal::Unknown(format!("no member {member}")))
    }
    async fn set_member(&self, member: &str, change: SetMember) -> Result<Member, Refusal> {
        self.asked(format!("set {member} {}", change.tier.unwrap_or_default()));
        Ok(a_member(member, false))
    }
    async fn suspend(&self, member: &str, suspended: bool) -> Result<Member, Refusal> {
        Ok(a_member(member, suspended))
    }
    async fn remove_member(&self, member: &str) -> Result<Member, Refusal> {
        self.asked(format!("remove {member}"));
        Ok(a_member(member, false))
    }
    async fn import_key(&self, key: ImportKey) -> Result<Key, Refusal> {
        Err(Refusal::Wrong(format!("{} is not PEM", key.selector)))
    }
    async fn keys(&self) -> Result<Vec<Key>, Refusal> {
        Ok(Vec::new())
    }
    async fn rotate_keys(&self, domain: &str) -> Result<Vec<Key>, Refusal> {
        self.asked(format!("rotate {domain}"));
        Ok(Vec::new())
    }
    async fn remove_keys(&self, which: RemoveKeys) -> Result<Vec<Key>, Refusal> {
        self.asked(format!("remove keys {which:?}"));
        Ok(Vec::new())
    }
    async fn queue(&self, filter: QueueFilter) -> Result<QueuePage, Refusal> {
        self.asked(format!("queue {:?} {:?}", filter.site, filter.limit));
        let delivery = QueuedDelivery {
            id: "0".into(),
            domain: "big.example".into(),
            member: None,
            class: "otp".into(),
            recipients: 1,
            attempts: 0,
            due_at: String::new(),
            held_since: None,
            held_by: None,
            last: None,
        };
        Ok(QueuePage { deliveries: vec![delivery], more: false, next: None })
    }
    async fn queued(&self, id: &str) -> Result<QueuedMessage, Refusal> {
        Err(Refusal::Unknown(format!("no message {id}")))
    }
    async fn why(&self, id: &str) -> Result<Why, Refusal> {
        Err(Refusal::Unknown(format!("no message {id}")))
    }
    async fn sources(&self) -> Result<Vec<SourceRow>, Refusal> {
        self.asked("sources".to_owned());
        Ok(Vec::new())
    }

    async fn shaping(&self) -> Result<Vec<ShapingRow>, Refusal> {
        self.asked("shaping".to_owned());
        Ok(Vec::new())
    }

    async fn whereabouts(&self, domain: &str) -> Result<Where, Refusal> {
        self.asked(format!("where {domain}"));
        Err(Refusal::Unable("the scheduler has stopped".into()))
    }
    async fn operate(&self, verb: Verb, wish: QueueWish, by: &str) -> Result<QueueDone, Refusal> {
        self.asked(format!("{verb:?} {:?} by {by}", wish.id));
        Ok(QueueDone { changed: 1, ..QueueDone::default() })
    }
    async fn events(&self, filter: EventFilter) -> Result<EventPage, Refusal> {
        self.asked(format!("events {:?} {:?}", filter.after, filter.wait));
        Ok(EventPage::default())
    }
    async fn begin_audit(&self, row: AuditRow) -> Result<u64, Refusal> {
        self.audit.lock().unwrap().push(row);
        Ok(self.audit.lock().unwrap().len() as u64)
    }
    async fn end_audit(&self, end: AuditRow) -> Result<(), Refusal> {
        let row = &mut self.audit.lock().unwrap()[end.number as usize - 1];
        (row.outcome, row.status, row.after) = (end.outcome, end.status, end.after);
        Ok(())
    }
    async fn audit_since(&self, about: &str, _: &[&str]) -> Result<Vec<AuditRow>, Refusal> {
        Ok(self.audit.lock().unwrap().iter().filter(|row| row.about == about).cloned().collect())
    }
    fn hostname(&self) -> String {
        "relay.example".into()
    }

    async fn status(&self) -> Result<Status, Refusal> {
        if self.broken {
            return Err(Refusal::Unable("the queue's disk is gone".into()));
        }
        let labeler = LabelerStatus { trouble: Some("<script>alert(1)</script>".into()), ..Default::default() };
        Ok(Status { hostname: "relay.example".into(), members: 3, labeler: Some(labeler), ..Status::default() })
    }
}

/// One token of each role, called as the role.
fn a_gate() -> Gate {
    let key = OperatorKey::new(&[7; 32]);
    let token = |(id, role): (usize, Role)| tokens::Token {
        id: id as u32 + 1,
        name: role.to_string(),
        role,
        hash: key.hash_token(&smtp::Secret::new(a_token(role))),
        made_secs: 0,
        made_by: "a test".into(),
    };
    let tokens = Role::ALL.into_iter().enumerate().map(token).collect();
    Gate::new(key, Arc::new(tokens), host::Clock::system(), host::Dice::seeded(1), false)
}

fn a_token(role: Role) -> String {
    format!("{}of-{role}", tokens::TOKEN_PREFIX)
}

fn admin(operations: Fake, stage: Stage) -> (Admin<Fake>, watch::Sender<Stage>) {
    let (sender, stage) = watch::channel(stage);
    (Admin::new(Arc::new(operations), None, stage, Arc::new(a_gate())), sender)
}

async fn exchange<S>(stream: S, method: Method, path: &str, body: &str) -> (StatusCode, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    exchange_as(stream, method, path, body, None).await
}

async fn exchange_as<S>(stream: S, method: Method, path: &str, body: &str, proof: Option<&str>) -> (StatusCode, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "admin");
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if let Some(proof) = proof {
        request = request.header("authorization", proof);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

struct Served {
    folder: tempfile::TempDir,
    operations: Arc<Fake>,
    _stage: watch::Sender<Stage>,
}

impl Served {
    async fn start() -> Served {
        let folder = tempfile::tempdir().unwrap();
        let (admin, stage) = admin(Fake::default(), Stage::Ready);
        let operations = admin.operations.clone();
        let socket = AdminSocket::bind(&folder.path().join("admin.sock")).await.unwrap();
        tokio::spawn(socket.serve(admin));
        Served { folder, operations, _stage: stage }
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let stream = UnixStream::connect(self.folder.path().join("admin.sock")).await.unwrap();
        let (status, text) = exchange(stream, method, path, body).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path} answers JSON: {text}")))
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.operations.asked.lock().unwrap())
    }
}

#[tokio::test]
async fn a_member_is_added_and_the_answer_has_the_contract_s_keys() {
    let served = Served::start().await;
    let body = json!({"did": "did:plc:a", "domain": "host.example", "class": ["otp"]}).to_string();
    let (status, answer) = served.ask(Method::POST, "/v1/members", &body).await;
    assert_eq!(status, 200);
    let mut keys: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["did", "dns_records", "domain", "password", "smtp_url", "username"]);
    assert_eq!(served.asked(), ["add did:plc:a host.example [\"otp\"]"]);
}

#[tokio::test]
async fn a_wish_about_the_queue_says_whose_it_is() {
    let served = Served::start().await;
    let id = json!({"id": "0000000000001"}).to_string();
    for verb in ["hold", "release", "cancel", "flush"] {
        let (status, done) = served.ask(Method::POST, &format!("/v1/queue/{verb}"), &id).await;
        assert_eq!((status, &done["changed"]), (200, &json!(1)));
    }
    let (status, _) = served.ask(Method::GET, "/v1/events?after=7&wait=20", "").await;
    assert_eq!(status, 200);
    let (status, _) = served.ask(Method::GET, "/v1/events?after=x", "").await;
    assert_eq!(status, 400);
    let us = UnixStream::pair().unwrap().0.peer_cred().unwrap().uid();
    let verbs = ["Hold", "Release", "Cancel", "Flush"].map(|verb| format!("{verb} Some(\"0000000000001\") by uid {us}"));
    assert_eq!(served.asked(), [&verbs[..], &["events Some(7) Some(20)".to_owned()]].concat());
}

#[tokio::test]
async fn a_climb_is_shown_and_steered_by_source_and_provider_and_it_is_known_who_asks() {
    let served = Served::start().await;
    for path in ["/v1/warmup", "/v1/warmup/steps?source=ip-a&limit=3", "/v1/warmup/ip-a/google?days=9"] {
        assert_eq!(served.ask(Method::GET, path, "").await.0, 200, "{path}");
    }
    let pin = json!({"why": "moved", "recipients": 5}).to_string();
    assert_eq!(served.ask(Method::POST, "/v1/warmup/ip-a/google/pin", &pin).await.0, 200);
    let (status, answer) = served.ask(Method::POST, "/v1/warmup/ip-a/google/stop", &pin).await;
    let says = "\"stop\" cannot be done to a climb; there are: set, pin, unpin, pause, resume, skip, rewind, complaints";
    assert_eq!((status, &answer["error"]), (404, &json!(says)));
    assert_eq!(served.ask(Method::POST, "/v1/warmup/ip-a/google/pin", "{\"amount\":5}").await.0, 400);
    let us = UnixStream::pair().unwrap().0.peer_cred().unwrap().uid();
    let asked = [
        "steps Some(\"ip-a\") None Some(3)".to_owned(),
        "climb ip-a google Some(9)".to_owned(),
        format!("Pin (\"ip-a\", \"google\") Some(5) moved uid {us}"),
    ];
    // Around a change it is looked at, for the audit.
    let seen: Vec<_> = served.asked().into_iter().filter(|it| it != "climb ip-a google None").collect();
    assert_eq!(seen, asked);
}

#[tokio::test]
async fn refusals_are_json_with_a_fitting_status() {
    let served = Served::start().await;
    let taken = json!({"did": "did:plc:a", "domain": "taken.example"}).to_string();
    let (status, answer) = served.ask(Method::POST, "/v1/members", &taken).await;
    assert_eq!((status, &answer["error"]), (409, &json!("taken.example belongs to another member")));
    let (status, _) = served.ask(Method::GET, "/v1/queue/7", "").await;
    assert_eq!(status, 404);
    let (status, answer) = served.ask(Method::POST, "/v1/members", "{\"did\":1}").await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("did"));
    let (status, answer) = served.ask(Method::POST, "/v1/members", r#"{"did":"a","domain":"b","colour":"red"}"#).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("colour"));
    let (status, answer) = served.ask(Method::GET, "/v2/status", "").await;
    assert_eq!(status, 404);
    assert!(answer["error"].is_string());
}

#[tokio::test]
async fn a_did_in_a_path_arrives_as_it_was() {
    let served = Served::start().await;
    // The DID itself has an escape in it (did:web with a port), so it is escaped once more on the way.
    served.ask(Method::GET, "/v1/members/did:web:localhost%253A3100", "").await;
    served.ask(Method::DELETE, "/v1/members/did:plc:a", "").await;
    // Around a change it is looked at, for the audit.
    let around = ["member did:plc:a", "remove did:plc:a", "member did:plc:a"];
    assert_eq!(served.asked(), [&["member did:web:localhost%3A3100"], &around[..]].concat());
    let (_, answer) = served.ask(Method::POST, "/v1/members/did:plc:a/suspend", "").await;
    assert_eq!(answer["suspended"], true);
    let (_, answer) = served.ask(Method::POST, "/v1/members/did:plc:a/resume", "").await;
    assert_eq!(answer["suspended"], false);
}

#[tokio::test]
async fn keys_are_removed_in_exactly_one_way_of_naming_them() {
    let served = Served::start().await;
    for wrong in ["domain=a.example", "domain=a.example&all=true&selector=s", "domain=a.example&algorithm=rsa&selector=s"] {
        let (status, _) = served.ask(Method::DELETE, &format!("/v1/keys?{wrong}"), "").await;
        assert_eq!(status, 400, "{wrong}");
    }
    assert!(served.asked().is_empty());
    let (status, _) = served.ask(Method::DELETE, "/v1/keys?domain=a.example&selector=s", "").await;
    assert_eq!(status, 200);
    assert_eq!(served.asked().len(), 1);
}

#[tokio::test]
async fn a_list_has_a_bound_even_when_none_is_asked_for() {
    let served = Served::start().await;
    served.ask(Method::GET, "/v1/queue?site=big.example", "").await;
    served.ask(Method::GET, "/v1/queue?limit=1000000", "").await;
    assert_eq!(served.asked(), ["queue Some(\"big.example\") Some(1000)", "queue None Some(1000)"]);
}

#[tokio::test]
async fn a_request_body_has_a_bound() {
    let served = Served::start().await;
    let pem = "x".repeat(http::BODY_BYTES_MAX + 1);
    let body = json!({"domain": "a.example", "selector": "s", "pem": pem}).to_string();
    let (status, _) = served.ask(Method::POST, "/v1/keys", &body).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn the_socket_is_private_replaces_a_dead_one_and_respects_a_live_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a crash leaves its socket behind");
    let socket = AdminSocket::bind(&path).await.unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let second = AdminSocket::bind(&path).await.err().unwrap();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    assert!(path.exists());
    drop(socket);
}

async fn get_public(admin: Admin<Fake>, path: &str) -> (u16, String) {
    let port = AdminPort::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = port.local_addr().unwrap();
    tokio::spawn(port.serve(admin));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (status, text) = exchange(stream, Method::GET, path, "").await;
    (status.as_u16(), text)
}

#[tokio::test]
async fn the_port_shows_health_and_readiness_and_nothing_of_the_operator_s() {
    let (it, stage) = admin(Fake::default(), Stage::Starting);
    assert_eq!(get_public(it.clone(), "/healthz").await, (200, "ok\n".into()));
    assert_eq!(get_public(it.clone(), "/readyz").await, (503, "starting\n".into()));
    stage.send(Stage::Ready).unwrap();
    assert_eq!(get_public(it.clone(), "/readyz").await, (200, "ready\n".into()));
    stage.send(Stage::Draining).unwrap();
    assert_eq!(get_public(it.clone(), "/readyz").await.0, 503);
    for private in ["/v1/members", "/v1/keys", "/v1/queue", "/v1/status", "/v1/nothing", "/v1"] {
        assert_eq!(get_public(it.clone(), private).await.0, 401, "{private}");
    }
    let (broken, _stage) = admin(Fake { broken: true, ..Fake::default() }, Stage::Ready);
    assert_eq!(get_public(broken, "/healthz").await, (503, "the queue's disk is gone\n".into()));
}

#[tokio::test]
async fn every_path_of_the_table_asks_for_its_role() {
    let (it, _stage) = admin(Fake::default(), Stage::Ready);
    let port = AdminPort::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = port.local_addr().unwrap();
    tokio::spawn(port.serve(it));
    for rule in table::table::<Fake>().into_iter().map(|route| route.rule) {
        let path = rule.path.replace("{id}", "1").replace(['{', '}'], "");
        // One that is wrong ends.
        let path = if path == "/v1/stream" { "/v1/stream?colour=red".to_owned() } else { path };
        for role in [None, Some(Role::Read), Some(Role::Operate), Some(Role::Admin)] {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let token = role.map(|role| format!("Bearer {}", a_token(role)));
            let (status, text) = exchange_as(stream, rule.method.clone(), &path, "", token.as_deref()).await;
            let of = format!("{} {path} by {role:?}: {status} {text}", rule.method);
            match role {
                None => assert_eq!(status, 401, "{of}"),
                Some(role) if role < rule.role => assert_eq!(status, 403, "{of}"),
                Some(_) => assert!(!matches!(status.as_u16(), 401 | 403 | 405), "{of}"),
            }
        }
    }
}

#[tokio::test]
async fn metrics_are_rendered_with_their_help() {
    let (mut it, _stage) = admin(Fake::default(), Stage::Ready);
    it.metrics = Some(crate::control::metrics::install().unwrap());
    ::metrics::counter!(crate::control::metrics::DEFERRED, "scope" => "source").increment(2);
    let (status, text) = get_public(it, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("mta_deferred_total{scope=\"source\"} 2"), "{text}");
    assert!(text.contains("# HELP mta_deferred_total Attempts deferred"), "{text}");
}
