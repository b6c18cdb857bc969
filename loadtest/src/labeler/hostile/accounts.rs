//! Accounts that lie, or whose servers do: DID documents, proofs, records, streams.

use std::time::{Duration, Instant};

use anyhow::Result;
use atproto::key::SigningKey;
use atproto::lexicon::{ATTESTATION, Attestation};
use serde_json::json;

use super::Row;
use super::liar::Lie;
use super::world::{Case, World, publish};
use crate::atnet::{Repo, Status, Trouble};

/// What the PDS says instead of the honest answer, and what comes of it.
fn proofs() -> Vec<(&'static str, &'static str, Lie)> {
    fn flipped(mut body: Vec<u8>) -> Vec<u8> {
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        body
    }
    fn cut(mut body: Vec<u8>) -> Vec<u8> {
        body.truncate(body.len() / 2);
        body
    }
    fn gzip(_: Vec<u8>) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let _ = encoder.write_all(&vec![0; 64 << 20]);
        encoder.finish().unwrap_or_default()
    }
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let gone = "HTTP/1.1 500 Oops\r\nContent-Length: 25\r\n\r\n{\"error\":\"RepoNotFound\"} ";
    let chunks = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n", "f".repeat(4000));
    vec![
        ("a block that is not what its CID says", "has another hash", Lie::Proof(flipped)),
        ("half a CAR", "CAR: truncated", Lie::Proof(cut)),
        ("a CAR of 3 MB", "octets are read", Lie::Body(vec![0; 3 << 20])),
        ("a body without an end", "octets are read", Lie::Endless),
        ("an octet at a time", "no answer within 10 s", Lie::Drip),
        ("a bomb of gzip", "CAR: ", Lie::Proof(gzip)),
        ("a page of HTML", "CAR: ", Lie::Body(b"<html>not today</html>".to_vec())),
        ("nested a million deep", "CAR: ", Lie::Body([&[0xbf, 0x84, 0x3d][..], &vec![0x81; 1_000_000]].concat())),
        ("a length of 2^63", "CAR: truncated", Lie::Body(vec![0xff; 9])),
        ("a redirect to the metadata service", "the PDS answers 302", Lie::Octets(redirect.into())),
        ("gone, says a broken server", "the PDS answers 500", Lie::Octets(gone.into())),
        ("a chunk of 2^16000", "pds: ", Lie::Octets(chunks.into())),
        (
            "a head of 100,000 octets",
            "pds: ",
            Lie::Octets(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)).into()),
        ),
    ]
}

/// What the DID document says instead.
const DOCUMENTS: &[(&str, &str, usize, Lie)] = &[
    (
        "a document of another DID",
        "the document is of did:plc:other",
        0,
        Lie::Document(|it, _| it["id"] = json!("did:plc:other")),
    ),
    ("a document without a key", "has no key #atproto", 0, Lie::Document(|it, _| it["verificationMethod"] = json!([]))),
    (
        "a key that is none",
        "cannot be used",
        0,
        Lie::Document(|it, _| it["verificationMethod"][0]["publicKeyMultibase"] = json!("zzz")),
    ),
    (
        "the key of somebody else",
        "does not verify",
        0,
        Lie::Document(|it, _| {
            it["verificationMethod"][0]["publicKeyMultibase"] = json!("zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM");
        }),
    ),
    (
        "two keys of the name, the wrong one first",
        "does not verify",
        0,
        Lie::Document(|it, _| {
            let mut wrong = it["verificationMethod"][0].clone();
            wrong["publicKeyMultibase"] = json!("zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM");
            it["verificationMethod"] = json!([wrong, it["verificationMethod"][0]]);
        }),
    ),
    (
        "two PDSes: the first counts",
        "Pass",
        2,
        Lie::Document(|it, liar| {
            let second = json!({"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": format!("http://{liar}/second")});
            it["service"] = json!([it["service"][0], second]);
        }),
    ),
    ("no PDS", "names no PDS", 0, Lie::Document(|it, _| it["service"] = json!([]))),
    (
        "a PDS with a password in its URL",
        "names no PDS",
        0,
        Lie::Document(|it, _| {
            it["service"][0]["serviceEndpoint"] = json!("https://user:secret@pds.example");
        }),
    ),
    (
        "a PDS that is a file",
        "names no PDS",
        0,
        Lie::Document(|it, _| it["service"][0]["serviceEndpoint"] = json!("file:///etc/passwd")),
    ),
    ("a document of 100,000 octets", "octets are read", 0, Lie::Document(|it, _| it["x"] = json!("x".repeat(100_000)))),
];

pub(super) async fn rows() -> Result<Vec<Row>> {
    let world = World::start().await?;
    let mut cases = Vec::new();
    let mut case = |name: &str, reason: &'static str, labels: usize, spoil: &dyn Fn(&crate::atnet::Account, &str)| {
        let (account, domain) = world.member(&format!("acc{}", cases.len()));
        spoil(&account, &domain);
        cases.push(Case { name: name.into(), account, reason, labels });
    };
    for (name, reason, lie) in proofs() {
        case(name, reason, 0, &|account, domain| {
            world.liar.proof(account.did.as_str(), lie.clone());
            world.net.attest(account, domain, &["s1"], true);
        });
    }
    for (name, reason, labels, lie) in DOCUMENTS {
        case(name, reason, *labels, &|account, domain| {
            world.liar.document(account.did.as_str(), lie.clone());
            world.net.attest(account, domain, &["s1"], true);
        });
    }
    let honest = world.net.create_account("honest.test");
    publish(&world.zone, &honest, "honest.example");
    world.net.attest(&honest, "honest.example", &["s1"], true);
    case("the proof of another account", "the commit is of", 0, &|account, domain| {
        world.liar.proof(account.did.as_str(), Lie::Of(honest.did.as_str().into()));
        world.net.attest(account, domain, &["s1"], true);
    });
    case("a commit signed by another key", "does not verify with the #atproto key", 0, &|account, domain| {
        world.net.set_trouble(account, Some(Trouble::ForgedProof));
        world.net.attest(account, domain, &["s1"], true);
    });
    case("a directory that fails", "the document is answered with 500", 0, &|account, domain| {
        world.net.set_trouble(account, Some(Trouble::PlcFails));
        world.net.attest(account, domain, &["s1"], true);
    });
    case("a revision of the year 2200", "lies in the future", 0, &|account, domain| {
        let Ok(key) = SigningKey::from_octets(&[0x11; 32]) else { return };
        let mut repo = Repo::new(account.did.as_str(), key, "jzzzzzzzzzzzz".into());
        let record = record(domain).to_cbor();
        let path = format!("{ATTESTATION}/{domain}");
        repo.write(&path, Some(record), "jzzzzzzzzzzzz".into());
        world.liar.proof(account.did.as_str(), Lie::Body(repo.proof(&path)));
        let lie = Lie::Document(|it, liar| {
            it["service"][0]["serviceEndpoint"] = json!(format!("http://{liar}"));
            it["verificationMethod"][0]["publicKeyMultibase"] = json!("zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM");
        });
        world.liar.document(account.did.as_str(), lie);
        world.net.attest(account, domain, &["s1"], true);
    });
    let put = |account: &crate::atnet::Account, domain: &str, octets: Vec<u8>| {
        world.net.put_record(account, ATTESTATION, domain, octets);
    };
    case("a record of another type", "$type is", 0, &|account, domain| {
        put(account, domain, Attestation { kind: "app.bsky.feed.post".into(), ..record(domain) }.to_cbor());
    });
    case("a record of another domain", "they must be equal", 0, &|account, domain| {
        put(account, domain, record("honest.example").to_cbor())
    });
    case("a record nested 10,000 deep", "is not an email.atmos.attestation", 0, &|account, domain| {
        put(account, domain, [vec![0x81; 10_000], vec![0xf6]].concat());
    });
    case("a record with a field twice", "is not an email.atmos.attestation", 0, &|account, domain| {
        let mut octets = record(domain).to_cbor();
        octets[0] += 1;
        octets.extend(b"\x66domain\x61x");
        put(account, domain, octets);
    });
    case("a record of 100,000 octets", "longer than", 0, &|account, domain| {
        put(account, domain, Attestation { dkim_selectors: vec!["x".repeat(100_000)], ..record(domain) }.to_cbor());
    });
    case("1,000 selectors", "1000 given", 0, &|account, domain| {
        put(account, domain, Attestation { dkim_selectors: vec!["s".into(); 1000], ..record(domain) }.to_cbor());
    });
    case("selectors that lead elsewhere", "cannot be a selector", 0, &|account, domain| {
        put(account, domain, Attestation { dkim_selectors: vec!["a b/../c".into()], ..record(domain) }.to_cbor());
    });
    let (mallory, carol) = (world.net.create_account("honest.example"), world.net.create_account("carol.test"));
    world.net.attest(&mallory, "honest.example", &["s1"], true);
    let second = cases.iter().find(|case| case.name.starts_with("two PDSes")).map(|case| case.account.did.as_str().to_owned());
    let mut rows = world.judge(cases).await?;
    let asked = second.map_or(usize::MAX, |did| world.liar.asked(&did));
    rows.push(Row::new("and the second is never asked", "0 requests", format!("{asked} requests"), asked == 0));
    rows.extend(several(&world, &honest, mallory, carol).await?);
    Ok(rows)
}

fn record(domain: &str) -> Attestation {
    Attestation {
        kind: ATTESTATION.into(),
        domain: domain.into(),
        dkim_selectors: vec!["s1".into()],
        created_at: atproto::datetime(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)),
        relay_member: Some(true),
    }
}

/// One domain that two claim, one key that claims many, and a stream that lies about those who stand.
async fn several(
    world: &World,
    honest: &crate::atnet::Account,
    mallory: crate::atnet::Account,
    carol: crate::atnet::Account,
) -> Result<Vec<Row>> {
    let case = |name: &str, account: &crate::atnet::Account, reason, labels| Case {
        name: name.into(),
        account: account.clone(),
        reason,
        labels,
    };
    let mut rows = world
        .judge(vec![
            case("a domain of somebody else, as a handle", &mallory, "names did:plc:", 0),
            case("two claim a domain: whom it names", honest, "Pass", 2),
        ])
        .await?;
    // Many by one key, and an honest one in between.
    for nth in 0..300 {
        world.net.attest(&carol, &format!("many{nth}.example"), &["s1"], true);
    }
    let began = Instant::now();
    let (late, domain) = world.member("late");
    world.net.attest(&late, &domain, &["s1"], true);
    rows.extend(world.judge(vec![case("a newcomer behind 300 attestations by one key", &late, "Pass", 2)]).await?);
    let took = began.elapsed();
    let kept = world.labeler.store().rows(&carol.did)?.len();
    let fine = took < Duration::from_secs(30) && kept <= ::labeler::store::DOMAINS_MAX;
    rows.push(Row::new(
        "300 attestations by one key",
        format!("at most {} kept; others wait < 30 s", ::labeler::store::DOMAINS_MAX),
        format!("{kept} kept; {:.1} s", took.as_secs_f64()),
        fine,
    ));

    // A Jetstream that makes things up.
    let (did, before) = (honest.did.as_str(), world.liar.looked_up(honest.did.as_str()));
    let event = |did: &str, seq: i64, operation: &str, rkey: &str| {
        json!({"did": did, "time_us": seq, "kind": "commit", "commit": {"rev": "3l3qo2vutsw2b", "operation": operation,
            "collection": ATTESTATION, "rkey": rkey}})
        .to_string()
    };
    for text in ["", "{", "[]", &"[".repeat(100_000), "{\"did\":\"did:plc:x\"}", &event("not a DID", 5, "create", "x.example")] {
        world.liar.say(text);
    }
    world.liar.say(event(did, i64::MAX, "delete", "honest.example"));
    world.liar.say(event(did, -5, "delete", "honest.example"));
    world.liar.say(event(did, 7, "create", &"x".repeat(5000)));
    world.liar.say(event(did, 7, "create", "../../etc/passwd"));
    world
        .liar
        .say(json!({"did": did, "time_us": 9, "kind": "account", "account": {"active": false, "status": "deleted"}}).to_string());
    world.looked_up(honest, before).await?;
    // When the next look begins, the one that was lied about is at an end.
    world.look_again(honest).await?;
    rows.extend(
        world
            .judge(vec![case("a Jetstream says deleted: it is looked at, and stands", honest, "honest.example: Pass", 2)])
            .await?,
    );

    // Its own PDS goes back to what was.
    world.net.attest(honest, "honest.example", &["s1"], false);
    rows.extend(world.judge(vec![case("the relay is given up", honest, "Pass", 1)]).await?);
    world.net.set_trouble(honest, Some(Trouble::PdsOldest));
    world.net.prod(honest);
    rows.extend(world.judge(vec![case("a PDS shows an older state", honest, "older than", 1)]).await?);
    world.net.set_trouble(honest, None);
    world.net.move_account(honest);
    world.net.set_status(honest, Status::Active);
    rows.extend(
        world.judge(vec![case("a repository that has moved is asked where it is", honest, "honest.example: Pass", 1)]).await?,
    );
    world.net.delete_record(honest, ATTESTATION, "honest.example");
    rows.extend(world.judge(vec![case("a record that is deleted", honest, "", 0)]).await?);
    Ok(rows)
}
