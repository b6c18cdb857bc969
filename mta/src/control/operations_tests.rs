//! The operator's wishes against a real queue and real key files in a folder of their own.

use std::{collections::HashSet, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use host::{Clock, Dice};
use scheduler::{Lane, QueueId};
use smtp::address::{Mailbox, ReversePath};

use super::*;
use crate::{
    config::Config,
    control::{daemon::Parts, labels::Desk},
    egress::{question::questions, resolver::route_questions},
    policy::{Label, Standing, admit},
    queue::{NewMessage, NewRecipient, Options, Queue, Writer},
    sign::Algorithm,
};

pub(in crate::control) const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
pub(in crate::control) const DOMAIN: &str = "host.example.test";

pub(in crate::control) struct World {
    pub(in crate::control) daemon: Daemon,
    queue: Queue,
    writer: JoinHandle<()>,
}

impl World {
    pub(in crate::control) fn start(folder: &Path) -> World {
        World::with(folder, "")
    }

    /// `more` is added to a minimal configuration.
    pub(in crate::control) fn with(folder: &Path, more: &str) -> World {
        let text = format!(
            "hostname = \"relay.example.test\"\ndata_dir = \"{}\"\n\
             [[listen]]\naddress = \"127.0.0.1:2587\"\nrole = \"submission\"\n[tls]\ncertificate = \"c\"\nprivate_key = \"k\"\n\
             [[source]]\nname = \"a\"\naddress = \"192.0.2.7\"\nehlo = \"a.example.test\"\n\
             [signing]\ndomain = \"relay.example.test\"\n{more}",
            folder.display()
        );
        let config = Arc::new(Config::parse(Path::new("test"), &text).unwrap());
        // What `more` is added to, for those who reload.
        std::fs::write(folder.join("settings"), text.strip_suffix(more).unwrap()).unwrap();
        let (notes, _) = tokio::sync::mpsc::channel(64);
        let options = Options { map_bytes: 64 << 20, segment_bytes: 1 << 20, free_bytes_floor: 0, ..Options::default() };
        let (writer, queue, reader) = Writer::open(folder, Clock::system(), options, notes).unwrap();
        let writer = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(writer.run()).unwrap();
        });
        let parts = Parts {
            config,
            queue: queue.clone(),
            reader,
            scheduler: questions().0,
            routes: route_questions().0,
            clock: Clock::system(),
            dice: Dice::seeded(7),
            io: "epoll".into(),
        };
        World { daemon: Daemon::open(parts).unwrap(), queue, writer }
    }

    pub(in crate::control) async fn stop(self) {
        self.queue.stop().await;
        drop((self.daemon, self.queue));
        self.writer.join().unwrap();
    }

    pub(in crate::control) async fn add(&self, did: &str, domain: &str) -> Result<Enrolled, Refusal> {
        self.daemon.add_member(AddMember { did: did.into(), domain: domain.into(), class: Vec::new(), tier: None }).await
    }

    /// Whether a member's software gets in, asked of admission itself.
    pub(in crate::control) fn may_log_in(&self, username: &str, password: &str) -> bool {
        let directory = self.daemon.directory().load_full();
        admit::authenticate(&directory, &self.daemon.credential_key(), username, password).is_ok()
    }

    pub(in crate::control) async fn enqueue(&self, recipient: &str) -> QueueId {
        let now = Clock::system().now();
        let message = NewMessage {
            id: None,
            member: 1,
            credential: 1,
            admission: None,
            reverse_path: ReversePath::Mailbox(Mailbox::parse("pds@host.example.test", false).unwrap()),
            parameters: Default::default(),
            lane: Lane::Otp,
            received_at: now,
            due: now,
            delay_notice_at: None,
            deadline: now + Duration::from_secs(600),
            recipients: vec![NewRecipient { mailbox: Mailbox::parse(recipient, false).unwrap(), notify: None, orcpt: None }],
            octets: vec!["Subject: 123456\r\n\r\n".into()],
        };
        self.queue.enqueue(message).await.unwrap()
    }
}

#[tokio::test]
async fn an_added_member_may_log_in_sign_and_publish() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let added = world.add(DID, "Host.Example.TEST").await.unwrap();
    assert_eq!((added.did.as_str(), added.domain.as_str(), added.username.as_str()), (DID, DOMAIN, DOMAIN));
    assert_eq!(added.smtp_url, format!("smtp://{DOMAIN}:{}@relay.example.test:2587", added.password));
    assert!(!format!("{added:?}").contains(&added.password));

    for username in [DOMAIN, DID] {
        assert!(world.may_log_in(username, &added.password), "{username}");
        assert!(!world.may_log_in(username, "tw_wrong"), "{username}");
    }
    let keys = world.daemon.keys().load_full();
    let algorithms: Vec<_> = keys.member(DOMAIN).iter().map(|key| key.algorithm()).collect();
    assert_eq!(algorithms, [Algorithm::Rsa, Algorithm::Ed25519]);
    assert!(keys.coop().is_some());

    let names: Vec<_> = added.dns_records.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with("._domainkey.host.example.test")).count(), 2);
    assert_eq!(names[2..], [DOMAIN, "_dmarc.host.example.test", "_atproto.host.example.test"]);
    assert_eq!(added.dns_records[2].value, "v=spf1 ip4:192.0.2.7 -all");
    assert_eq!(added.dns_records[4].value, format!("did={DID}"));
    world.stop().await;
}

#[tokio::test]
async fn members_survive_a_restart_and_numbers_are_never_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let first = world.add(DID, DOMAIN).await.unwrap();
    world.add("did:plc:second", "second.example.test").await.unwrap();
    world.daemon.remove_member("did:plc:second").await.unwrap();
    world.stop().await;

    let world = World::start(folder.path());
    assert!(world.may_log_in(DOMAIN, &first.password));
    assert_eq!(world.daemon.keys().load().member(DOMAIN).len(), 2);
    world.add("did:plc:third", "third.example.test").await.unwrap();
    let ids: HashSet<u32> = world.daemon.directory().load().members().map(|member| member.id).collect();
    assert_eq!(ids, HashSet::from([1, 3]));
    world.stop().await;
}

#[tokio::test]
async fn a_member_has_several_domains_and_a_domain_one_member() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let first = world.add(DID, DOMAIN).await.unwrap();
    let other = world.add(DID, "other.example.test").await.unwrap();
    let again = world.add(DID, DOMAIN).await.unwrap();
    assert_eq!(world.daemon.member(DID).await.unwrap().domains, [DOMAIN, "other.example.test"]);
    assert_eq!(again.dns_records, first.dns_records, "a second credential needs no new keys");
    for (username, password) in [(DOMAIN, &first.password), (DOMAIN, &again.password), ("other.example.test", &other.password)] {
        assert!(world.may_log_in(username, password));
    }
    let taken = world.add("did:plc:other", DOMAIN).await.unwrap_err();
    assert!(matches!(&taken, Refusal::Conflict(says) if says.contains(DID)), "{taken}");
    for _ in 2..CREDENTIALS_MAX {
        world.add(DID, DOMAIN).await.unwrap();
    }
    assert!(matches!(world.add(DID, DOMAIN).await, Err(Refusal::Conflict(_))));
    for (did, domain) in [("did:key:z", DOMAIN), ("alice", DOMAIN), (DID, "[192.0.2.1]"), (DID, "a b"), (DID, "../../etc")] {
        assert!(matches!(world.add(did, domain).await, Err(Refusal::Wrong(_))), "{did} {domain}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_suspended_member_does_not_send_and_a_removed_one_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let added = world.add(DID, DOMAIN).await.unwrap();
    assert!(world.daemon.member(DOMAIN).await.unwrap().admitted);
    let member = world.daemon.suspend(DID, true).await.unwrap();
    assert!(member.suspended && !member.admitted);
    assert!(member.reason.unwrap().contains(SUSPENDED));
    world.stop().await;

    let world = World::start(folder.path());
    assert!(!world.daemon.member(DID).await.unwrap().admitted);
    assert!(world.daemon.suspend(DID, false).await.unwrap().admitted);
    world.daemon.remove_member(DOMAIN).await.unwrap();
    assert!(matches!(world.daemon.member(DID).await, Err(Refusal::Unknown(_))));
    assert!(!world.may_log_in(DOMAIN, &added.password));
    assert!(world.daemon.keys().load().member(DOMAIN).is_empty());
    assert!(world.daemon.keys().load().coop().is_some());
    world.stop().await;
}

#[tokio::test]
async fn keys_are_imported_rotated_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let daemon = &world.daemon;
    let pem = SigningKey::generate("x.example", "x", Algorithm::Ed25519).unwrap().to_pem().unwrap().to_string();
    let import =
        |domain: &str, selector: &str, pem: &str| ImportKey { domain: domain.into(), selector: selector.into(), pem: pem.into() };
    assert!(matches!(daemon.import_key(import(DOMAIN, "own", &pem)).await, Err(Refusal::Unknown(_))), "enrol first");
    world.add(DID, DOMAIN).await.unwrap();

    let key = daemon.import_key(import(DOMAIN, "own", &pem)).await.unwrap();
    assert_eq!((key.algorithm.as_str(), key.dns_record.name.as_str()), ("ed25519", "own._domainkey.host.example.test"));
    assert_eq!(daemon.keys().load().member(DOMAIN).len(), 3);
    assert!(matches!(daemon.import_key(import(DOMAIN, "own", &pem)).await, Err(Refusal::Conflict(_))));
    assert!(matches!(daemon.import_key(import(DOMAIN, "bad", "not pem")).await, Err(Refusal::Wrong(_))));
    assert!(matches!(daemon.import_key(import(DOMAIN, "../x", &pem)).await, Err(Refusal::Wrong(_))));
    assert!(!serde_json::to_string(&Operations::keys(daemon).await.unwrap()).unwrap().contains("PRIVATE"));

    let by = |selector: Option<&str>, algorithm: Option<&str>| RemoveKeys {
        domain: DOMAIN.into(),
        selector: selector.map(Into::into),
        algorithm: algorithm.map(Into::into),
        all: selector.is_none() && algorithm.is_none(),
    };
    assert_eq!(daemon.remove_keys(by(Some("own"), None)).await.unwrap().len(), 1);
    assert_eq!(daemon.rotate_keys(DOMAIN).await.unwrap().len(), 2);
    assert!(matches!(daemon.rotate_keys(DOMAIN).await, Err(Refusal::Conflict(_))), "four keys are the most");
    assert_eq!(daemon.remove_keys(by(None, Some("rsa"))).await.unwrap().len(), 2);
    assert!(daemon.keys().load().member(DOMAIN).iter().all(|key| key.algorithm() == Algorithm::Ed25519));
    assert!(daemon.member(DID).await.unwrap().admitted);
    assert_eq!(daemon.remove_keys(by(None, None)).await.unwrap().len(), 2);
    assert!(matches!(daemon.remove_keys(by(None, None)).await, Err(Refusal::Unknown(_))));
    // `signing.required` is the default: without keys nothing may be sent.
    assert!(!daemon.member(DID).await.unwrap().admitted);
    world.stop().await;
}

#[tokio::test]
async fn labels_decide_and_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let labeler =
        "[labeler]\nurl = \"http://127.0.0.1:1\"\ndid = \"did:web:labeler.example.test\"\nrequire = [\"relay-member\"]\n";
    let world = World::with(folder.path(), labeler);
    world.add(DID, DOMAIN).await.unwrap();
    assert_eq!(Desk::members(&world.daemon).await, [DID]);
    assert!(!world.daemon.member(DID).await.unwrap().admitted, "nobody has vouched yet");

    let mut standing = Standing::default();
    let label = Label { did: DID.into(), val: "relay-member".into(), exp: None };
    standing.handle_answer(Clock::system().now(), [DID.to_owned()], [label]);
    world.daemon.publish(Arc::new(standing));
    let member = world.daemon.member(DID).await.unwrap();
    assert!(member.admitted);
    assert_eq!(member.labels, ["relay-member"]);
    let status = world.daemon.status().await.unwrap();
    assert_eq!((status.members, status.members_admitted), (1, 1));
    assert!(status.labeler.unwrap().stale, "no poll has succeeded");

    world.daemon.save(vec![(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))]).await.unwrap();
    world.daemon.save(vec![(b"a".to_vec(), None)]).await.unwrap();
    assert_eq!(Desk::load(&world.daemon).await.unwrap(), [(b"b".to_vec(), b"2".to_vec())]);

    // As the poll writes it. After a restart it serves from the first session on, before any poll.
    let row = br#"{"asked":{"secs_since_epoch":1790000000,"nanos_since_epoch":0},"labels":{"relay-member":null}}"#;
    world.daemon.save(vec![(DID.as_bytes().to_vec(), Some(row.to_vec()))]).await.unwrap();
    world.stop().await;
    let world = World::with(folder.path(), labeler);
    assert!(world.daemon.member(DID).await.unwrap().admitted);
    world.stop().await;
}

#[tokio::test]
async fn the_queue_is_listed_and_shown_without_subject_or_body() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    world.add(DID, DOMAIN).await.unwrap();
    let id = world.enqueue("a@big.example").await;
    world.enqueue("b@small.example").await;

    let all = world.daemon.queue(QueueFilter::default()).await.unwrap();
    assert_eq!((all.deliveries.len(), all.more), (2, false));
    let big = QueueFilter { site: Some("BIG.example".into()), ..Default::default() };
    let big = world.daemon.queue(big).await.unwrap().deliveries;
    assert_eq!(big.len(), 1);
    assert_eq!(
        (big[0].id.as_str(), big[0].member.as_deref(), big[0].class.as_str()),
        (id.to_string().as_str(), Some(DID), "otp")
    );
    let one = QueueFilter { limit: Some(1), member: Some(DOMAIN.into()), ..Default::default() };
    let one = world.daemon.queue(one).await.unwrap();
    assert_eq!((one.deliveries.len(), one.more), (1, true));
    let stranger = QueueFilter { member: Some("stranger.example".into()), ..Default::default() };
    assert!(matches!(world.daemon.queue(stranger).await, Err(Refusal::Unknown(_))));

    let shown = world.daemon.queued(&id.to_string()).await.unwrap();
    assert_eq!(shown.reverse_path, "pds@host.example.test");
    assert_eq!((shown.recipients[0].address.as_str(), shown.recipients[0].fate.as_str()), ("a@big.example", "open"));
    assert!(!serde_json::to_string(&shown).unwrap().contains("123456"));
    assert!(matches!(world.daemon.queued("0").await, Err(Refusal::Wrong(_))));
    assert!(matches!(world.daemon.queued(&QueueId(7).to_string()).await, Err(Refusal::Unknown(_))));
    let status = world.daemon.status().await.unwrap();
    assert_eq!((status.messages, status.deliveries), (2, 2));
    world.stop().await;
}

#[tokio::test]
async fn a_handle_is_kept_over_a_restart_and_not_for_those_who_left() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let secret = world.add(DID, DOMAIN).await.unwrap().password;
    let named = |world: &World| {
        let (directory, key) = (world.daemon.directory().load_full(), world.daemon.credential_key());
        crate::policy::admit::authenticate(&directory, &key, "harbour.example", &secret).is_ok()
    };
    assert!(!named(&world));
    world.daemon.set_handle(world.daemon.all_members()[0].id, Some("harbour.example".into())).await.unwrap();
    assert!(named(&world));
    world.stop().await;

    let world = World::start(folder.path());
    assert!(named(&world));
    let id = world.daemon.all_members()[0].id;
    world.daemon.remove_member(DID).await.unwrap();
    world.daemon.set_handle(id, Some("harbour.example".into())).await.unwrap();
    assert!(world.daemon.all_members().is_empty() && !named(&world));
    world.stop().await;
}

const TIERS: &str = "[[tier]]\nname = \"small\"\nmessages_per_hour = 60\nqueue_messages_max = 9\n\
                     [[tier]]\nname = \"large\"\nweight = 5\nmessages_per_day = 100\n";

fn small(domain: &str) -> AddMember {
    AddMember { did: DID.into(), domain: domain.into(), class: Vec::new(), tier: Some("small".into()) }
}

#[tokio::test]
async fn a_member_is_put_into_a_tier_and_its_turns_and_limits_follow() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(folder.path(), TIERS);
    let weights = world.daemon.weights();
    world.daemon.add_member(small(DOMAIN)).await.unwrap();
    let shown = world.daemon.member(DID).await.unwrap();
    assert_eq!((shown.tier.as_str(), shown.spending.messages_per_hour, shown.spending.burst), ("small", Some(60), Some(50)));
    assert_eq!((shown.spending.available, shown.spending.queue_messages_max), (Some(50), Some(9)));
    assert_eq!(weights.borrow().of(1).get(), 1);

    let set = |tier: &str| world.daemon.set_member(DOMAIN, SetMember { tier: Some(tier.into()), pool: None });
    let shown = set("large").await.unwrap();
    assert_eq!((shown.tier.as_str(), shown.spending.weight, shown.spending.messages_per_hour), ("large", 5, None));
    assert_eq!((shown.spending.available, weights.borrow().of(1).get()), (Some(100), 5));
    let refused = set("huge").await.unwrap_err();
    assert_eq!(refused, Refusal::Wrong("there is no tier \"huge\"; the settings have: small, large, default".into()));
    let refused = world.daemon.add_member(AddMember { tier: Some("huge".into()), ..small("b.example.test") }).await.unwrap_err();
    assert!(matches!(refused, Refusal::Wrong(_)), "{refused}");
    // Another domain says nothing of a tier, and changes none.
    world.daemon.add_member(AddMember { tier: None, ..small("c.example.test") }).await.unwrap();
    assert_eq!(world.daemon.member(DID).await.unwrap().tier, "large");
    world.stop().await;

    // After a restart, and then with new settings in which the tier is another, and gone.
    let world = World::with(folder.path(), TIERS);
    let weights = world.daemon.weights();
    assert_eq!((world.daemon.member(DID).await.unwrap().tier.as_str(), weights.borrow().of(1).get()), ("large", 5));
    let reload = |tiers: &str| {
        let text = std::fs::read_to_string(folder.path().join("settings")).unwrap() + tiers;
        world.daemon.handle_config(Arc::new(Config::parse(Path::new("test"), &text).unwrap()));
    };
    reload("[[tier]]\nname = \"large\"\nweight = 7\nmessages_per_day = 40\n");
    let shown = world.daemon.member(DID).await.unwrap();
    assert_eq!((weights.borrow().of(1).get(), shown.spending.messages_per_day), (7, Some(40)));
    reload("");
    let shown = world.daemon.member(DID).await.unwrap();
    assert_eq!((shown.tier.as_str(), shown.spending.weight), ("default (large is not in the settings)", 1));
    assert_eq!(weights.borrow().of(1).get(), 1);
    world.stop().await;
}

#[tokio::test]
async fn what_a_member_has_sent_and_has_queued_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::with(folder.path(), TIERS);
    world.daemon.add_member(small(DOMAIN)).await.unwrap();
    for n in 0..3 {
        world.enqueue(&format!("user{n}@big.example")).await;
    }
    let spending = world.daemon.member(DID).await.unwrap().spending;
    assert_eq!((spending.queue_messages, spending.queue_bytes), (3, 3 * 19));
    world.stop().await;
}

#[tokio::test]
async fn a_token_is_made_once_outlives_the_daemon_and_is_worthless_when_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path());
    let made = |name: &str| AddToken { name: name.to_owned(), role: crate::control::admin::Role::Operate };
    let anna = world.daemon.add_token(made("anna"), "uid 7").await.unwrap();
    assert!(!format!("{anna:?}").contains(&anna.token));
    for (name, wrong) in [("anna", "has a token already"), ("", "1 to 64"), ("a b", "1 to 64"), (&"x".repeat(65), "1 to 64")] {
        let error = world.daemon.add_token(made(name), "uid 7").await.unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    world.daemon.add_token(made("bea"), "anna").await.unwrap();
    world.stop().await;
    let world = World::start(folder.path());
    let rows = world.daemon.tokens().await.unwrap();
    let named: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.made_by.as_str())).collect();
    assert_eq!(named, [("anna", "uid 7"), ("bea", "anna")]);
    let knows = |secret: &str| world.daemon.gate().knows_token(secret);
    assert!(knows(&anna.token) && !knows(&anna.token[..40]));
    world.daemon.revoke_token("anna").await.unwrap();
    assert!(!knows(&anna.token));
    assert!(matches!(world.daemon.revoke_token("anna").await, Err(Refusal::Unknown(_))));
    world.stop().await;
    let key = folder.path().join("keys/operator.key");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions()) & 0o777, 0o600);
}
