//! From end to end: an MTA counts, a labeler in this process resolves its DID, takes its reports and labels, and the MTA heeds
//! what is doubted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use axum::{Router, routing::get};
use loadtest::{
    atnet::{Account, AtNet},
    dns::{Record, Server, Zone},
};
use serde_json::Value;

use super::tests::{DAY, World, settings};
use super::*;
use crate::control::admin::Operations;
use crate::queue::Fate;

/// Far above what anything here takes.
const PATIENCE: u32 = 3000;

/// A labeler whose bounds are low, with one verified member.
async fn labeler(folder: &Path, mta: &str) -> (labeler::Running, Account, (AtNet, Server)) {
    let zone = Zone::new();
    zone.set_ttl(0);
    let dns = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone.clone()).unwrap();
    let net = AtNet::start().await.unwrap();
    let account = net.create_account("alice.test");
    let txt = |text: &str| vec![Record::Txt(text.into())];
    zone.set("member.example", vec![Record::Mx(10, "mx.member.example".into()), Record::Txt("v=spf1 ip4:192.0.2.1 -all".into())]);
    zone.set("_atproto.member.example", txt(&format!("did={}", account.did.as_str())));
    zone.set("_dmarc.member.example", txt("v=DMARC1; p=reject"));
    zone.set("s1._domainkey.member.example", txt("v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="));
    let text = format!(
        "did = \"did:web:labeler.example.test\"\nsigning_key = \"{0}/l.key\"\ndata_dir = \"{0}/labeler\"\nlisten = \"127.0.0.1:0\"\n\
         [identity]\nplc_url = {1:?}\n[ingest]\nfirehose = {2:?}\n[dns]\nnameservers = [{3:?}]\n[standing]\nmtas = [{mta:?}]\n\
         [standing.clean]\nmail_min = 4\ndays_min = 1\ncomplaints_required = false\n[standing.doubt]\nmail_min = 4\n",
        folder.display(),
        net.plc_url(),
        net.firehose_url(),
        dns.address().to_string(),
    );
    let running = labeler::start(labeler::Config::parse(&text, Path::new("labeler.toml")).unwrap()).await.unwrap();
    net.attest(&account, "member.example", &["s1"], true);
    (running, account, (net, dns))
}

/// Serves the document that the MTA has written, as its host's web server would.
async fn serve_document(folder: &Path) -> String {
    let path = folder.join("did.json");
    let serve = move || {
        let path = path.clone();
        async move { std::fs::read_to_string(path).unwrap() }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/.well-known/did.json", get(serve))).await });
    format!("did:web:localhost%3A{port}")
}

async fn until_labels(url: &str, account: &Account, expected: &[&str]) {
    let (fetch, path) = (Fetch::new().unwrap(), format!("{url}/xrpc/coop.tradewind.getStatus?did={}", account.did.as_str()));
    for _ in 0..PATIENCE {
        let status: Value = serde_json::from_slice(&fetch.get(&path, 1 << 20).await.unwrap()).unwrap();
        let labels = status["labels"].as_array().unwrap().iter().map(|label| label["val"].as_str().unwrap());
        if labels.eq(expected.iter().copied()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {expected:?}");
}

#[tokio::test]
async fn what_an_mta_reports_grants_clean_sender_and_takes_it_back_and_a_doubt_puts_the_members_mail_off() {
    let folder = tempfile::tempdir().unwrap();
    let did = serve_document(folder.path()).await;
    let (running, account, _others) = labeler(folder.path(), &did).await;
    let url = format!("http://{}", running.local_addr());
    until_labels(&url, &account, &["relay-member", "verified-mail-operator"]).await;

    let data = folder.path().join("mta");
    let start = |clock: &Clock| {
        let mut config = settings(&data, "");
        config.labeler.as_mut().unwrap().url.clone_from(&url);
        let standing = config.standing.as_mut().unwrap();
        (standing.did, standing.signing_key) = (did.clone(), folder.path().join("standing.key"));
        World::open(&data, clock, config)
    };
    let ago = |days: u32| Clock::simulated(Clock::system().now() - DAY * days);
    // What a day brought, and what comes of it today.
    for (days, fate, labels, reason) in [
        (2, Fate::Delivered, &["clean-sender", "relay-member", "verified-mail-operator"][..], None),
        (1, Fate::Failed, &["relay-member", "verified-mail-operator"], Some("waits: failures: 5 of 10 since")),
    ] {
        let world = start(&ago(days));
        if days == 2 {
            world.add(account.did.as_str(), "member.example").await;
        }
        world.send(1, 5, fate).await;
        world.stop().await;
        let clock = Clock::system();
        let world = start(&clock);
        let caller = Caller::open(&world.config, Fetch::new().unwrap(), clock, Dice::system()).unwrap().unwrap();
        world.tell(&caller).await.unwrap();
        until_labels(&url, &account, labels).await;
        world.read(&caller).await.unwrap();
        let member = world.daemon.member(account.did.as_str()).await.unwrap();
        assert_eq!(member.admitted, reason.is_none(), "{member:?}");
        assert!(
            reason.is_none_or(|reason| member.reason.is_some_and(|said| said.starts_with("451 4.7.1 ") && said.contains(reason)))
        );
        world.stop().await;
    }
    running.stop().await;
}
