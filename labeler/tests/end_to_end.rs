//! From an attestation in a repository to a label that anybody can verify, and back.

mod world;

use atproto::lexicon::ATTESTATION;
use loadtest::atnet::{Status, Trouble, Wording};
use loadtest::dns::{Failure, Record, RecordType};
use world::{BOTH, World};

#[tokio::test]
async fn an_attestation_with_dns_in_order_is_labelled() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.publish(&account, "member.example", &["s1", "s2"]);
    world.net.attest(&account, "member.example", &["s1", "s2"], false);
    world.until_labels(&account, &["verified-mail-operator"]).await;
    world.net.attest(&account, "member.example", &["s1"], true);
    world.until_labels(&account, &BOTH).await;
    let (status, health) = world.get("/xrpc/_health").await;
    assert_eq!(status, 200);
    assert!(String::from_utf8_lossy(&health).contains("\"version\""));
    assert_eq!(world.get("/xrpc/com.atproto.label.queryLabels").await.0, 400);
    assert_eq!(world.get("/xrpc/com.example.other").await.0, 501);
}

#[tokio::test]
async fn wrong_dns_is_no_label_and_the_reason_is_kept_until_it_is_right() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.publish(&account, "member.example", &["s1"]);
    world.zone.set("_dmarc.member.example", vec![Record::Txt("v=DMARC1; p=none".into())]);
    world.net.attest(&account, "member.example", &["s1", "missing"], true);
    world.until_reason(&account, "missing._domainkey.member.example does not exist").await;
    world.until_reason(&account, "_dmarc.member.example has p=none").await;
    assert!(world.labels(&account).await.is_empty());
    world.publish(&account, "member.example", &["s1", "missing"]);
    world.until_labels(&account, &BOTH).await;
    assert_eq!(world.reasons(&account), "member.example: Pass \n");
}

#[tokio::test]
async fn a_domain_that_names_another_did_is_not_vouched_for() {
    let world = World::start().await;
    let (alice, mallory) = (world.net.create_account("alice.test"), world.net.create_account("member.example"));
    world.publish(&alice, "member.example", &["s1"]);
    // Mallory's DID document claims the domain as its handle: anybody can write that.
    world.net.attest(&mallory, "member.example", &["s1"], true);
    world.until_reason(&mallory, &format!("names {}", alice.did.as_str())).await;
    assert!(world.labels(&mallory).await.is_empty());
    world.zone.remove("_atproto.member.example");
    world.net.prod(&mallory);
    world.until_reason(&mallory, "control: no TXT at _atproto.member.example, and https://member.example").await;
    assert!(world.labels(&mallory).await.is_empty());
}

#[tokio::test]
async fn a_deleted_record_is_negated() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    world.net.delete_record(&account, ATTESTATION, "member.example");
    world.until_labels(&account, &[]).await;
    let labels = world.labels(&account).await;
    assert_eq!(labels.len(), 2);
    assert!(labels.iter().all(|label| label.negates()), "consumers learn of it");
    assert_eq!(world.reasons(&account), "");
}

#[tokio::test]
async fn trouble_on_the_way_never_negates_but_a_definite_answer_does() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    world.zone.fail("_dmarc.member.example", None, Failure::ServFail);
    world.net.prod(&account);
    world.until_reason(&account, "_dmarc.member.example could not be looked up").await;
    world.until_labels(&account, &BOTH).await;
    world.zone.recover("_dmarc.member.example");
    for (trouble, expected) in [
        (Trouble::PdsFails, "the PDS answers 500"),
        (Trouble::PlcFails, "the document is answered with 500"),
        (Trouble::ForgedProof, "a proof that is none"),
    ] {
        world.net.set_trouble(&account, Some(trouble));
        world.net.prod(&account);
        world.until_reason(&account, expected).await;
        world.until_labels(&account, &BOTH).await;
    }
    world.net.set_trouble(&account, None);
    world.zone.remove("_dmarc.member.example");
    world.net.prod(&account);
    world.until_labels(&account, &[]).await;
    world.until_reason(&account, "_dmarc.member.example has no DMARC record").await;
}

#[tokio::test]
async fn a_forged_proof_earns_nothing() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.net.set_trouble(&account, Some(Trouble::ForgedProof));
    world.publish(&account, "member.example", &["s1"]);
    world.net.attest(&account, "member.example", &["s1"], true);
    world.until_reason(&account, "does not verify with the #atproto key").await;
    assert!(world.labels(&account).await.is_empty());
}

#[tokio::test]
async fn a_pds_cannot_bring_back_what_was_changed() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    world.net.attest(&account, "member.example", &["s1"], false);
    world.until_labels(&account, &["verified-mail-operator"]).await;
    world.net.set_trouble(&account, Some(Trouble::PdsOldest));
    world.net.prod(&account);
    world.until_reason(&account, "older than").await;
    world.until_labels(&account, &["verified-mail-operator"]).await;
}

#[tokio::test]
async fn an_account_that_is_not_served_loses_its_labels_and_gets_them_back() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    for (status, said) in [
        (Status::Deactivated, "RepoDeactivated"),
        (Status::Takendown, "RepoTakendown"),
        (Status::Suspended, "RepoSuspended"),
        (Status::Deleted, "RepoNotFound"),
    ] {
        world.net.set_status(&account, status);
        world.until_labels(&account, &[]).await;
        let labels = world.labels(&account).await;
        assert!(labels.len() == 2 && labels.iter().all(|label| label.negates()), "{status:?}: consumers learn of it");
        assert!(world.reasons(&account).contains(said), "{status:?}: {}", world.reasons(&account));
        world.net.set_status(&account, Status::Active);
        world.until_labels(&account, &BOTH).await;
    }
}

#[tokio::test]
async fn a_handle_that_changes_is_looked_at_again() {
    let world = World::start().await;
    let account = world.member("member.example", "member.example").await;
    // The domain names nobody in DNS any more. As long as it is the handle its web server may say so instead, and that does not answer.
    world.zone.remove("_atproto.member.example");
    for kind in [RecordType::A, RecordType::AAAA] {
        world.zone.fail("member.example", Some(kind), Failure::ServFail);
    }
    world.net.prod(&account);
    world.until_reason(&account, "https://member.example").await;
    world.until_labels(&account, &BOTH).await;
    world.net.set_handle(&account, "alice.test");
    world.until_labels(&account, &[]).await;
    assert!(!world.reasons(&account).contains("https://member.example"), "{}", world.reasons(&account));
    world.publish(&account, "member.example", &["s1"]);
    world.net.set_handle(&account, "member.example");
    world.until_labels(&account, &BOTH).await;
}

#[tokio::test]
async fn an_account_that_moves_to_another_pds_keeps_its_labels_and_is_looked_at_there() {
    let world = World::start().await;
    let account = world.member("alice.test", "member.example").await;
    let before = world.labels(&account).await;
    // DNS is only asked about a record that was proven.
    world.zone.fail("_dmarc.member.example", None, Failure::ServFail);
    world.net.move_account(&account);
    world.until_reason(&account, "_dmarc.member.example could not be looked up").await;
    world.zone.recover("_dmarc.member.example");
    world.until_reason(&account, "member.example: Pass").await;
    assert_eq!(world.labels(&account).await, before, "it was never without");
    world.net.delete_record(&account, ATTESTATION, "member.example");
    world.until_labels(&account, &[]).await;
}

#[tokio::test]
async fn the_labels_stand_while_one_of_several_domains_passes() {
    let world = World::start().await;
    let account = world.member("alice.test", "one.example").await;
    world.publish(&account, "two.example", &["s1"]);
    world.net.attest(&account, "two.example", &["s1"], true);
    world.until_reason(&account, "two.example: Pass").await;
    world.net.delete_record(&account, ATTESTATION, "one.example");
    while world.reasons(&account).contains("one.example") {
        tokio::task::yield_now().await;
    }
    world.until_labels(&account, &BOTH).await;
    world.net.delete_record(&account, ATTESTATION, "two.example");
    world.until_labels(&account, &[]).await;
}

#[tokio::test]
async fn a_did_web_is_a_member_like_any_other() {
    let world = World::start().await;
    let account = world.net.create_web_account("web.test");
    world.publish(&account, "member.example", &["s1"]);
    world.net.attest(&account, "member.example", &["s1"], true);
    world.until_labels(&account, &BOTH).await;
}

#[tokio::test]
async fn records_beyond_the_limits_are_refused_with_what_would_be_right() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.net.attest(&account, "Member.example", &["s1"], true);
    world.until_reason(&account, "\"member.example\"").await;
    world.net.put_record(&account, ATTESTATION, "other.example", b"\xa1\x61a\x01".to_vec());
    world.until_reason(&account, "other.example: Fail record: the record is not an email.atmos.attestation").await;
    assert!(world.labels(&account).await.is_empty());
}

#[tokio::test]
async fn a_restart_keeps_labels_and_numbers_and_sees_what_it_missed() {
    let mut world = World::start().await;
    let alice = world.member("alice.test", "member.example").await;
    let (before, key) = (world.labels(&alice).await, world.labeler.as_ref().unwrap().did_key().to_owned());
    world.stop_labeler().await;

    let bob = world.net.create_account("bob.test");
    world.publish(&bob, "other.example", &["s1"]);
    world.net.attest(&bob, "other.example", &["s1"], false);
    let requests = world.net.requests();
    world.start_labeler().await;
    world.until_labels(&bob, &["verified-mail-operator"]).await;
    assert_eq!(world.labeler.as_ref().unwrap().did_key(), key);
    assert_eq!(world.labels(&alice).await, before, "said once is said");
    assert_eq!(world.labeler.as_ref().unwrap().store().last_seq().unwrap(), 3);
    assert_eq!(world.net.requests().1, requests.1 + 1, "it went on from where it was");
}

#[tokio::test]
async fn attestations_from_before_the_stream_are_found_by_the_list_of_a_relay() {
    let mut world = World::without_labeler("").await;
    world.ingest = format!("firehose = {:?}\nbackfill = {:?}", world.net.firehose_url(), world.net.relay_url());
    let attest = |name: &str, domains: &[&str]| {
        let account = world.net.create_account(name);
        for domain in domains {
            world.publish(&account, domain, &["s1"]);
            world.net.attest(&account, domain, &["s1"], true);
        }
        account
    };
    let mut old: Vec<_> =
        (0..5).map(|n| attest(&format!("old{n}.test"), &[&format!("a{n}.example"), &format!("b{n}.example")])).collect();
    old.sort_by(|a, b| a.did.as_str().cmp(b.did.as_str()));
    world.net.forget_frames();
    world.net.break_lists(true);
    world.start_labeler().await;
    for account in &old[..2] {
        world.until_labels(account, &BOTH).await;
        world.until_reason(account, "b").await;
        assert_eq!(
            world.labeler.as_ref().unwrap().store().rows(&account.did).unwrap().len(),
            2,
            "each of its domains, and nothing else"
        );
    }
    assert!(world.labels(&old[2]).await.is_empty());

    // It is taken up where it broke off, also after a restart.
    while world.net.lists().len() < 2 {
        tokio::task::yield_now().await;
    }
    world.stop_labeler().await;
    world.net.break_lists(false);
    let asked = world.net.lists().len();
    world.start_labeler().await;
    for account in &old[2..] {
        world.until_labels(account, &BOTH).await;
    }
    let cursors: Vec<String> = world.net.lists().split_off(asked);
    assert_eq!(cursors, [old[1].did.as_str(), old[3].did.as_str()]);

    // Once read it is not read again, unless the stream has forgotten what we did not see.
    world.stop_labeler().await;
    let asked = world.net.lists().len();
    world.start_labeler().await;
    let seen = world.member("seen.test", "seen.example").await;
    assert_eq!(world.net.lists().len(), asked);
    world.stop_labeler().await;
    let missed = world.net.create_account("missed.test");
    world.publish(&missed, "missed.example", &["s1"]);
    world.net.attest(&missed, "missed.example", &["s1"], true);
    world.net.forget_frames();
    world.start_labeler().await;
    world.until_labels(&missed, &BOTH).await;
    world.until_labels(&seen, &BOTH).await;
}

#[tokio::test]
async fn a_jetstream_of_version_2_says_where_to_look_as_well() {
    let mut world = World::without_labeler("").await;
    world.ingest = format!("jetstream = {:?}\nbackfill = {:?}", world.net.jetstream_url(), world.net.relay_url());
    let alice = world.net.create_account("alice.test");
    world.publish(&alice, "member.example", &["s1"]);
    world.start_labeler().await;
    world.net.attest(&alice, "member.example", &["s1"], true);
    world.until_labels(&alice, &BOTH).await;
    world.net.set_status(&alice, Status::Takendown);
    world.until_labels(&alice, &[]).await;
    world.net.set_status(&alice, Status::Active);
    world.until_labels(&alice, &BOTH).await;
    world.net.delete_record(&alice, ATTESTATION, "member.example");
    world.until_labels(&alice, &[]).await;

    // From where it was; what comes again is not looked at again. (A look may have seen the record gone before the stream said so, its sixth
    // event; that would be looked at after the restart.)
    let read = |world: &World| world.labeler.as_ref().unwrap().store().cursor(&world.net.jetstream_url()).unwrap();
    while read(&world) != Some(6) || !world.reasons(&alice).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.stop_labeler().await;
    let bob = world.net.create_account("bob.test");
    world.publish(&bob, "other.example", &["s1"]);
    world.net.attest(&bob, "other.example", &["s1"], true);
    let requests = world.net.requests().1;
    world.start_labeler().await;
    world.until_labels(&bob, &BOTH).await;
    assert_eq!(world.net.requests().1, requests + 1);

    // What it has forgotten is found by the list.
    world.stop_labeler().await;
    let carol = world.net.create_account("carol.test");
    world.publish(&carol, "third.example", &["s1"]);
    world.net.attest(&carol, "third.example", &["s1"], true);
    world.net.forget_frames();
    world.start_labeler().await;
    world.until_labels(&carol, &BOTH).await;
}

#[tokio::test]
async fn strangers_records_do_not_reach_private_addresses() {
    let world = World::start_with("allow_private_addresses = false").await;
    let account = world.net.create_account("alice.test");
    world.publish(&account, "member.example", &["s1"]);
    world.net.attest(&account, "member.example", &["s1"], true);
    world.until_reason(&account, "only https is fetched").await;
    assert_eq!(world.net.requests().1, 0);
    assert!(world.labels(&account).await.is_empty());
}

#[tokio::test]
async fn a_member_learns_by_every_way_what_stands_in_the_way_and_need_not_wait_when_it_is_right() {
    let world = World::start().await;
    let account = world.net.create_account("alice.test");
    world.publish(&account, "member.example", &["s1"]);
    world.zone.set("_dmarc.member.example", vec![Record::Txt("v=DMARC1; p=none".into())]);
    let did = account.did.as_str().to_owned();
    let get = async |path: &str| {
        let (status, body) = world.get(path).await;
        (status, String::from_utf8(body).unwrap())
    };
    let json = async |path: &str| serde_json::from_str::<serde_json::Value>(&get(path).await.1).unwrap();
    let check = format!("/xrpc/coop.tradewind.checkDomain?domain=Member.Example.&did={did}&selectors=s1&relay=true");

    // Before attesting.
    let dry = json(&check).await;
    assert_eq!((&dry["domain"], &dry["verdict"], &dry["attested"]), (&"member.example".into(), &"fail".into(), &false.into()));
    let dmarc = dry["checks"].as_array().unwrap().iter().find(|check| check["kind"] == "dmarc").unwrap();
    assert_eq!(dmarc["publish"]["value"], "v=DMARC1; p=reject");
    assert_eq!(json(&format!("/xrpc/coop.tradewind.getStatus?did={did}")).await["domains"], serde_json::json!([]));

    // Attested, and refused.
    world.net.attest(&account, "member.example", &["s1"], true);
    world.until_reason(&account, "p=none").await;
    let status = json(&format!("/xrpc/coop.tradewind.getStatus?did={did}")).await;
    assert_eq!((&status["domains"][0]["state"], &status["domains"][0]["carriesLabels"]), (&"fail".into(), &false.into()));
    for path in [format!("/status/{did}"), "/status/member.example".into()] {
        let (code, page) = get(&path).await;
        assert_eq!(code, 200);
        assert!(page.contains("Publish TXT <code>v=DMARC1; p=reject</code>"), "{page}");
    }

    // Put right. The next look may be hours away; a check that finds all in order brings it on.
    world.zone.set("_dmarc.member.example", vec![Record::Txt("v=DMARC1; p=reject".into())]);
    let dry = json(&check).await;
    assert_eq!((&dry["verdict"], &dry["attested"]), (&"pass".into(), &true.into()));
    world.until_labels(&account, &BOTH).await;
    let status = json(&format!("/xrpc/coop.tradewind.getStatus?did={did}")).await;
    assert_eq!(status["labels"].as_array().unwrap().len(), 2);
    let page = get("/status/member.example").await.1;
    assert!(page.contains("All is in order."));
    // Who it is and where it lives, as they were at the last look.
    assert!(page.contains("<code>at://alice.test</code>") && page.contains(&world.net.pds_url()), "{page}");

    // A third dry run of one domain is the last for a while.
    assert_eq!(json(&check).await["verdict"], "pass");
    let refused = get(&check).await;
    assert_eq!(refused.0, 429);
    assert!(refused.1.contains("RateLimitExceeded"));
    for (path, code) in [
        ("/xrpc/coop.tradewind.getStatus", 400),
        ("/xrpc/coop.tradewind.getStatus?did=x", 400),
        ("/xrpc/coop.tradewind.checkDomain?domain=localhost", 400),
        ("/xrpc/coop.tradewind.checkDomain?domain=a.example&selectors=a%20b%00", 400),
        ("/status/..%2f..%2fetc", 400),
        ("/status", 200),
        ("/status/nobody.example", 200),
    ] {
        assert_eq!(get(path).await.0, code, "{path}");
    }
}

#[tokio::test]
async fn a_stranger_whose_repository_changed_without_a_word_what_is_looked_into() {
    for (nth, wording) in [Wording::Sync, Wording::TooBig].into_iter().enumerate() {
        let world = World::start().await;
        world.net.set_wording(wording);
        let (alice, other) = (world.net.create_account("alice.test"), world.net.create_account("other.test"));
        world.publish(&alice, "member.example", &["s1"]);
        world.net.put_record(&other, "app.bsky.feed.post", "3n2xtohno522w", vec![0xa0]);
        world.net.attest(&alice, "member.example", &["s1"], false);
        world.until_labels(&alice, &["verified-mail-operator"]).await;
        // Of a member every attestation is looked at again, and new ones are found.
        world.publish(&alice, "second.example", &["s1"]);
        world.net.attest(&alice, "second.example", &["s1"], true);
        world.until_labels(&alice, &BOTH).await;
        world.net.delete_record(&alice, ATTESTATION, "second.example");
        world.until_labels(&alice, &["verified-mail-operator"]).await;
        world.net.delete_record(&alice, ATTESTATION, "member.example");
        world.until_labels(&alice, &[]).await;
        assert_eq!(world.reasons(&other), "", "{nth}: one who attests nothing is forgotten");
    }
}

#[tokio::test]
async fn a_flood_of_repositories_of_strangers_keeps_no_member_waiting() {
    let world = World::start().await;
    let alice = world.member("alice.test", "member.example").await;
    world.net.set_wording(Wording::Sync);
    let strangers: Vec<_> = (0..300).map(|nth| world.net.create_account(&format!("s{nth}.test"))).collect();
    for stranger in &strangers {
        world.net.put_record(stranger, "app.bsky.feed.post", "3n2xtohno522w", vec![0xa0]);
    }
    world.net.set_wording(Wording::Commit);
    world.net.delete_record(&alice, ATTESTATION, "member.example");
    world.until_labels(&alice, &[]).await;
}
