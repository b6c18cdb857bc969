//! What happens to members who stay where they are: DNS, records, accounts, handles, and a labeler that is killed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::world::{ACCOUNT, EARLY, HANDLE, KEYS, Life, MOVER, PATIENT, PLAIN, RECORDS};
use super::{BOTH, NONE, SOON, shows, state};
use crate::interop::network::PASSWORD;
use crate::interop::xrpc;

/// A retry that doubles from a second, when it has come to eight.
const RETRIED: Duration = Duration::from_secs(10);
/// The same when it has come to the interval.
const HEALED: Duration = Duration::from_secs(20);
/// The interval, and what is forgiven.
const SCHEDULED: Duration = Duration::from_secs(20 + 15);
/// A labeler that starts anew.
const RESTARTED: Duration = Duration::from_secs(5);

pub(super) fn all(life: &mut Life) -> Result<()> {
    before_dns(life)?;
    for who in [PLAIN, RECORDS, ACCOUNT, HANDLE, MOVER, KEYS] {
        life.publish(who)?;
        let name = format!("{}: attests, with DNS in order", life.members[who].name);
        life.step(&name, who, &BOTH, SOON, |life| life.attest(who, true))?;
    }
    records(life)?;
    account(life)?;
    handle(life)?;
    killed(life)?;
    dns(life)
}

fn before_dns(life: &mut Life) -> Result<()> {
    for who in [EARLY, PATIENT] {
        let (name, domain) = (life.members[who].name, life.members[who].domain.clone());
        let refused = |status: &Value| state(status, &domain) == "fail";
        life.stays(&format!("{name}: attests before DNS is in order"), who, refused, SOON, |life| life.attest(who, true))?;
    }
    life.step("early: DNS is put in order, and checkDomain is asked", EARLY, &BOTH, SOON, |life| {
        life.publish(EARLY)?;
        let (url, domain) = (life.labeler.url(), &life.members[EARLY].domain);
        let answer = xrpc::get(&format!("{url}/xrpc/coop.tradewind.checkDomain?domain={domain}"))?;
        ensure!(answer["verdict"] == "pass" && answer["attested"] == true, "checkDomain says {answer}");
        Ok(())
    })?;
    life.step("patient: DNS is put in order, and nobody is told", PATIENT, &BOTH, RETRIED, |life| life.publish(PATIENT))
}

fn records(life: &mut Life) -> Result<()> {
    let first = life.members[RECORDS].domain.clone();
    let second = "second-mail.example";
    life.step("records: the record is deleted", RECORDS, &NONE, SOON, |life| life.withdraw(RECORDS, &first))?;
    life.step("records: the record is put again", RECORDS, &BOTH, SOON, |life| life.attest(RECORDS, true))?;
    life.step("records: the relay is not asked for any more", RECORDS, &BOTH[1..], SOON, |life| life.attest(RECORDS, false))?;
    life.step("records: a second domain asks for the relay", RECORDS, &BOTH, SOON, |life| {
        life.publish_domain(RECORDS, second);
        life.attest_domain(RECORDS, second, &["s1"], true)
    })?;
    let gone = |status: &Value| state(status, &first).is_empty();
    life.stays("records: the first of two is deleted", RECORDS, gone, SOON, |life| life.withdraw(RECORDS, &first))?;
    let again = |status: &Value| state(status, &first) == "pass";
    life.stays("records: it is put again", RECORDS, again, SOON, |life| life.attest(RECORDS, false))?;
    life.step("records: the second of two is deleted", RECORDS, &BOTH[1..], SOON, |life| life.withdraw(RECORDS, second))?;
    life.step("records: the first asks for the relay again", RECORDS, &BOTH, SOON, |life| life.attest(RECORDS, true))
}

fn account(life: &mut Life) -> Result<()> {
    let order = |method: &'static str| {
        move |life: &mut Life| {
            let account = &life.members[ACCOUNT].account;
            let body = json!({});
            match method {
                "com.atproto.server.deactivateAccount" => life.pds(ACCOUNT).call(method, &body, Some(&account.token)).map(drop),
                _ => life.pds(ACCOUNT).order(method, account).map(drop),
            }
        }
    };
    life.step("account: is deactivated", ACCOUNT, &NONE, SOON, order("com.atproto.server.deactivateAccount"))?;
    life.step("account: is activated again", ACCOUNT, &BOTH, SOON, order("com.atproto.server.activateAccount"))?;
    let takedown = |applied: bool| {
        move |life: &mut Life| {
            let did = &life.members[ACCOUNT].account.did;
            let subject = json!({ "$type": "com.atproto.admin.defs#repoRef", "did": did });
            let body = json!({ "subject": subject, "takedown": { "applied": applied, "ref": "1" } });
            life.pds(ACCOUNT).administer("com.atproto.admin.updateSubjectStatus", &body)
        }
    };
    life.step("account: is taken down by its PDS", ACCOUNT, &NONE, SOON, takedown(true))?;
    life.step("account: the takedown is taken back", ACCOUNT, &BOTH, SOON, takedown(false))?;
    life.step("account: is deleted", ACCOUNT, &NONE, SOON, |life| {
        let body = json!({ "did": life.members[ACCOUNT].account.did });
        life.pds(ACCOUNT).administer("com.atproto.admin.deleteAccount", &body)
    })
}

fn handle(life: &mut Life) -> Result<()> {
    let seen = |status: &Value| shows(status, "identity", "at://renamed-member.test");
    life.stays("handle: changes, and the status says the new one", HANDLE, seen, SOON, |life| {
        let account = &life.members[HANDLE].account;
        let body = json!({ "handle": "renamed-member.test" });
        life.pds(HANDLE).call("com.atproto.identity.updateHandle", &body, Some(&account.token)).map(drop)
    })?;
    let page = life.labeler.page(&life.members[HANDLE].account.did)?;
    if !page.contains("renamed-member.test") {
        println!("    WRONG: the status page does not show the new handle");
        life.wrong += 1;
    }
    Ok(())
}

/// `kill -9` while it works, or just after; what happens meanwhile is seen afterwards, and all numbers go on.
fn killed(life: &mut Life) -> Result<()> {
    let domain = life.members[PLAIN].domain.clone();
    for (round, wait) in [0, 30, 100, 300].into_iter().enumerate() {
        let wait = Duration::from_millis(wait);
        let name = format!("plain: something changes, and the labeler is killed {} ms later", wait.as_millis());
        let expected = if round % 2 == 0 { &NONE[..] } else { &BOTH[..] };
        life.step(&name, PLAIN, expected, RESTARTED, |life| {
            if round % 2 == 0 { life.withdraw(PLAIN, &domain) } else { life.attest(PLAIN, true) }?;
            std::thread::sleep(wait);
            life.labeler.running.kill()?;
            life.labeler.start_again()
        })?;
    }
    life.step("records: the record is deleted while the labeler is dead", RECORDS, &NONE, RESTARTED, |life| {
        life.labeler.running.kill()?;
        let domain = life.members[RECORDS].domain.clone();
        life.withdraw(RECORDS, &domain)?;
        life.labeler.start_again()
    })?;
    life.step("records: and put again", RECORDS, &BOTH, SOON, |life| life.attest(RECORDS, true))?;
    // The sessions of the PDS are as old as the accounts; a new one for what follows.
    let session = json!({ "identifier": life.members[MOVER].account.did, "password": PASSWORD });
    let session = life.pds(MOVER).call("com.atproto.server.createSession", &session, None)?;
    session["accessJwt"].as_str().context("no session")?.clone_into(&mut life.members[MOVER].account.token);
    Ok(())
}

fn dns(life: &mut Life) -> Result<()> {
    let name = format!("_dmarc.{}", life.members[PLAIN].domain);
    let domain = life.members[PLAIN].domain.clone();
    life.step("plain: its DMARC record is gone, and nobody is told", PLAIN, &NONE, SCHEDULED, |life| {
        life.dns.zone().remove(&name);
        Ok(())
    })?;
    life.step("plain: it is there again", PLAIN, &BOTH, HEALED, |life| life.publish(PLAIN))?;
    let unknown = |status: &Value| state(status, &domain) == "unknown";
    life.stays("plain: its name servers fail", PLAIN, unknown, SCHEDULED, |life| {
        life.dns.zone().fail(&name, None, crate::dns::Failure::ServFail);
        Ok(())
    })?;
    let well = |status: &Value| state(status, &domain) == "pass";
    life.stays("plain: they answer again", PLAIN, well, RETRIED, |life| {
        life.dns.zone().recover(&name);
        Ok(())
    })
}
