//! Where none may lead us: PDSes and did:webs that are in our own network, or would have us speak to what is no web server.

use anyhow::Result;
use atproto::lexicon::ATTESTATION;
use serde_json::json;

use super::Row;
use super::liar::Lie;
use super::world::{Case, Setup, World};
use crate::atnet::Account;
use crate::dns::Record;

/// Where a PDS may not be, whatever a document says.
const PLACES: &[(&str, &str)] = &[
    ("http://pds.example", "only https"),
    ("https://127.0.0.1", "127.0.0.1 is not a public address"),
    ("https://2130706433", "127.0.0.1 is not a public address"),
    ("https://0x7f.1", "127.0.0.1 is not a public address"),
    ("https://10.1.2.3", "10.1.2.3 is not a public address"),
    ("https://169.254.169.254", "169.254.169.254 is not a public address"),
    ("https://0.0.0.0", "0.0.0.0 is not a public address"),
    ("https://100.64.0.1", "100.64.0.1 is not a public address"),
    ("https://[::1]", "::1 is not a public address"),
    ("https://[::ffff:192.168.0.1]", "is not a public address"),
    ("https://[64:ff9b::a9fe:a9fe]", "is not a public address"),
    ("https://[fd00::1]", "fd00::1 is not a public address"),
    ("https://localhost", "is not a public address"),
    ("https://rebound.example", "127.0.0.1 is not a public address"),
    ("https://mixed.example", "10.0.0.1 is not a public address"),
    ("https://mail.example:25", "only port 443"),
];

/// A did:web is a host, and nothing else but `localhost` has a port.
const WEBS: &[(&str, &str)] = &[
    ("did:web:localhost", "only https"),
    ("did:web:localhost%3A22", "only https"),
    ("did:web:localhost%3a22", "only https"),
    ("did:web:localhost%3A99999", NO_HOST),
    ("did:web:localhost%3A22%2Fx", NO_HOST),
    ("did:web:localhost%3A22%40pds.example", NO_HOST),
    ("did:web:pds.example%3A25", NO_HOST),
    ("did:web:pds.example:users:alice", NO_HOST),
    ("did:web:pds.example%2Fetc%2Fpasswd", NO_HOST),
    ("did:web:pds.example%3Fx", NO_HOST),
    ("did:web:user%40pds.example", NO_HOST),
    ("did:web:127.0.0.1", NO_HOST),
    ("did:web:2130706433", NO_HOST),
    ("did:web:0x7f.1", NO_HOST),
    ("did:web:%5B%3A%3A1%5D", NO_HOST),
    ("did:web:xn--a.example", NO_HOST),
    ("did:web:rebound.example", "127.0.0.1 is not a public address"),
    ("did:web:mixed.example", "10.0.0.1 is not a public address"),
    ("did:key:zQ3shjyJXUaRJC2GC43mX8aPrUhoTdoiongXhZjsdTzPKYZUM", NO_HOST),
];
const NO_HOST: &str = "neither a did:plc nor a did:web of a host";

/// An event of a Jetstream.
fn created(did: &str, rkey: &str) -> String {
    let commit = json!({"rev": "3l3qo2vutsw2b", "operation": "create", "collection": ATTESTATION, "rkey": rkey});
    json!({"did": did, "time_us": 1, "kind": "commit", "commit": commit}).to_string()
}

/// Documents that lead into our own network.
pub(super) async fn rows() -> Result<Vec<Row>> {
    let world = World::set_up(Setup { identity: "allow_private_addresses = false", ..Setup::default() }).await?;
    world.zone.set("rebound.example", vec![Record::A([127, 0, 0, 1].into())]);
    world.zone.set("mixed.example", vec![Record::A([1, 1, 1, 1].into()), Record::A([10, 0, 0, 1].into())]);
    // A lie is a plain function, so each place is said by the handle, which the document has as well.
    let lie = Lie::Document(|it, _| {
        let handle = it["alsoKnownAs"][0]
            .as_str()
            .unwrap_or_default()
            .trim_start_matches("at://place")
            .trim_end_matches(".test")
            .to_owned();
        let place = handle.parse().ok().and_then(|nth: usize| PLACES.get(nth)).map_or("", |place| place.0);
        it["service"][0]["serviceEndpoint"] = json!(place);
    });
    let mut cases = Vec::new();
    for (nth, (place, reason)) in PLACES.iter().enumerate() {
        let (account, domain) = world.member(&format!("place{nth}"));
        world.liar.document(account.did.as_str(), lie.clone());
        world.net.attest(&account, &domain, &["s1"], true);
        cases.push(Case { name: format!("a PDS at {place}"), account, reason, labels: 0 });
    }
    let inside = format!("did:web:localhost%3A{}", world.net.other_pds().port());
    for (did, reason) in WEBS.iter().copied().chain([(inside.as_str(), "only https")]) {
        // Nobody has such an account; a Jetstream may say so of anybody.
        let account = Account { did: did.parse().map_err(anyhow::Error::msg)?, handle: String::new() };
        world.liar.say(created(did, "web.example"));
        cases.push(Case { name: did.into(), account, reason, labels: 0 });
    }
    let mut rows = world.judge(cases).await?;
    let asked = world.net.requests().1;
    rows.push(Row::new("and none of these was connected to", "0 requests", format!("{asked} requests"), asked == 0));
    Ok(rows)
}
