//! What happens to members who move to another PDS or change their keys, and what a labeler sees that reads a Jetstream.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use atproto::key::SigningKey;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};

use super::world::{KEYS, Labeler, Life, MOVER};
use super::{BOTH, SOON, checks, says};
use crate::interop::network::{PASSWORD, ROTATION_KEY_HEX};
use crate::interop::xrpc;
use crate::labeler::setup::code_in;
use crate::process::{self, Running};

const MAIL_WAIT: Duration = Duration::from_secs(30);
/// For all that has happened to be looked at by a labeler that sees it for the first time.
const BEGINNING: Duration = Duration::from_secs(30);

pub(super) fn all(life: &mut Life) -> Result<()> {
    let port = process::free_address()?.port();
    let mut command = life.tools.node("relay.mjs");
    let upstreams = [life.network.firehose_url(), life.other.firehose_url()];
    command.arg(port.to_string()).args(upstreams);
    let mut relay = Running::start("relay", command, &life.at.join("relay.log"))?;
    relay.wait_for_line("ready", 0, Duration::from_secs(30))?;
    let looked = passes_after(life, MOVER)?;
    life.stays("mover: the labeler reads a relay from its beginning", MOVER, looked, 2 * SOON, |life| {
        life.watch_other_streams(&format!("firehose = \"ws://127.0.0.1:{port}\""))
    })?;
    moves(life)?;
    keys(life)?;
    jetstream(life, port)
}

/// As the guide of atproto has it: account, repository, identity, activation, and the end of the old one.
fn moves(life: &mut Life) -> Result<()> {
    let domain = life.members[MOVER].domain.clone();
    let old = life.members[MOVER].account.clone();
    let new = {
        let (from, to) = (life.network.pds(), &life.other);
        let query = format!("aud={}&lxm=com.atproto.server.createAccount", to.did().replace('%', "%25"));
        let token = from.query("com.atproto.server.getServiceAuth", &query, &old)?;
        let token = token["token"].as_str().context("no token")?;
        let body = json!({ "did": old.did, "handle": "mover-member.test", "email": "mover@harbour.test", "password": PASSWORD });
        let new = to.create_account(&body, Some(token))?;
        to.import(&new, from.repository(&old)?)?;
        new
    };
    let operation = {
        let (from, to) = (life.network.pds(), &life.other);
        let mut wanted = to.query("com.atproto.identity.getRecommendedDidCredentials", "", &new)?;
        while life.mail.try_recv().is_ok() {}
        from.order("com.atproto.identity.requestPlcOperationSignature", &old)?;
        let code = loop {
            if let Some(code) = code_in(&life.mail.recv_timeout(MAIL_WAIT).context("no mail of the PDS came")?) {
                break code;
            }
        };
        wanted["token"] = code.into();
        from.call("com.atproto.identity.signPlcOperation", &wanted, Some(&old.token))?
    };
    let refused = |status: &Value| says(status, "pds", "RepoDeactivated");
    life.stays("mover: the directory names the new PDS, which does not serve it yet", MOVER, refused, SOON, |life| {
        life.other.call("com.atproto.identity.submitPlcOperation", &operation, Some(&new.token)).map(drop)
    })?;
    life.members[MOVER].account = new.clone();
    life.members[MOVER].moved = true;
    // What was imported is served as it is: its commit is signed by the key of the old PDS until something is written here, and
    // proves nothing by the key of the new one. That is no failure, and no pass either.
    let (unproved, new_pds) = (looked_after(life, MOVER, "unknown")?, life.other.public_url());
    let there = |status: &Value| unproved(status) && checks(status, "pds").any(|check| check["name"] == new_pds);
    life.stays("mover: the new PDS activates it: unknown until it writes", MOVER, there, SOON, |life| {
        life.other.order("com.atproto.server.activateAccount", &new).map(drop)
    })?;
    let again = looked_after(life, MOVER, "unknown")?;
    life.stays("mover: the old PDS deactivates it: unknown still", MOVER, again, SOON, |life| {
        life.network.pds().call("com.atproto.server.deactivateAccount", &json!({}), Some(&old.token)).map(drop)
    })?;
    life.step("mover: does not ask for the relay any more, on the new PDS", MOVER, &BOTH[1..], SOON, |life| {
        life.attest(MOVER, false)
    })?;
    life.step("mover: asks for it again", MOVER, &BOTH, SOON, |life| life.attest(MOVER, true))?;
    let again = passes_after(life, MOVER)?;
    life.stays("mover: the old PDS deletes it, and says so", MOVER, again, SOON, |life| {
        life.network.pds().administer("com.atproto.admin.deleteAccount", &json!({ "did": old.did }))
    })?;
    life.step("mover: deletes the record on the new PDS", MOVER, &[], SOON, |life| life.withdraw(MOVER, &domain))?;
    life.step("mover: and puts it again", MOVER, &BOTH, SOON, |life| life.attest(MOVER, true))
}

/// The directory learns of another key, which the PDS gets only later.
fn keys(life: &mut Life) -> Result<()> {
    let secret = [0x33; 32];
    let key = SigningKey::from_octets(&secret).map_err(|error| anyhow::anyhow!("{error}"))?;
    rotate(life, &key)?;
    let refused = |status: &Value| says(status, "pds", "does not verify");
    life.stays("keys: the key is another; the old one signs that the relay is left", KEYS, refused, SOON, |life| {
        life.attest(KEYS, false)
    })?;
    let file = life.pds(KEYS).folder_of(&life.members[KEYS].account).join("key");
    anyhow::ensure!(file.exists(), "the PDS keeps its keys elsewhere than {}", file.display());
    std::fs::write(&file, secret)?;
    life.step("keys: the new one signs it", KEYS, &BOTH[1..], SOON, |life| life.attest(KEYS, false))?;
    life.step("keys: and that it is asked for again", KEYS, &BOTH, SOON, |life| life.attest(KEYS, true))
}

/// An operation that changes the `#atproto` key and nothing else, signed by the rotation key.
fn rotate(life: &Life, key: &SigningKey) -> Result<()> {
    let url = format!("{}/{}", life.network.plc_url(), life.members[KEYS].account.did);
    let log = xrpc::get(&format!("{url}/log/audit"))?;
    let last = log.as_array().and_then(|log| log.last()).context("an empty log")?;
    let mut operation = last["operation"].clone();
    operation.as_object_mut().context("no operation")?.remove("sig");
    operation["prev"] = last["cid"].clone();
    operation["verificationMethods"]["atproto"] = key.verifying_key().did_key().into();
    let rotation = HEXLOWER.decode(ROTATION_KEY_HEX.as_bytes())?;
    let rotation = SigningKey::from_octets(&rotation).map_err(|error| anyhow::anyhow!("{error}"))?;
    operation["sig"] = BASE64URL_NOPAD.encode(&rotation.sign(&serde_ipld_dagcbor::to_vec(&operation)?)).into();
    xrpc::post_octets(&url, "application/json", serde_json::to_vec(&operation)?.into(), None).map(drop)
}

/// Another labeler, which has nothing but a Jetstream, comes to the same labels.
fn jetstream(life: &mut Life, port: u16) -> Result<()> {
    let began = Instant::now();
    let ingest = format!("jetstream = \"ws://127.0.0.1:{port}/subscribe\"");
    let labeler = Labeler::start(&life.at, "jetstream-labeler", life.network.plc_url(), &life.dns, &ingest)?;
    let differs = |life: &Life| {
        let other = |did: &str| labeler.in_force(did).unwrap_or_default();
        life.members.iter().find(|member| other(&member.account.did) != member.force).map(|member| member.name)
    };
    let differing = loop {
        match differs(life) {
            Some(name) if began.elapsed() > BEGINNING => break Some(name),
            Some(_) => std::thread::sleep(Duration::from_millis(50)),
            None => break None,
        }
    };
    let took = format!("{:.2} s", began.elapsed().as_secs_f64());
    let seen = differing.map_or_else(|| "the same labels".to_owned(), |name| format!("another of {name}"));
    println!("{}", super::line(["another labeler reads a Jetstream from its beginning", "the same labels", &seen, &took, ""]));
    life.rows += 1;
    life.wrong += usize::from(differing.is_some());
    Ok(())
}

/// Whether a status is of a later look than the last one, which a member with one domain passed.
fn passes_after(life: &Life, who: usize) -> Result<impl Fn(&Value) -> bool + use<>> {
    looked_after(life, who, "pass")
}

/// Whether a status is of a later look than the last one, which found this of a member with one domain.
fn looked_after(life: &Life, who: usize, state: &'static str) -> Result<impl Fn(&Value) -> bool + use<>> {
    let status = life.labeler.status(&life.members[who].account.did)?;
    let since = status["domains"][0]["checkedAt"].as_str().context("not looked at")?.to_owned();
    Ok(move |status: &Value| {
        let domain = &status["domains"][0];
        domain["state"] == state && domain["checkedAt"].as_str() > Some(since.as_str())
    })
}
