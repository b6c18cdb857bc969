//! Records of domains that deceive, or that cost whoever evaluates them; and resolvers that do not see the same.

use anyhow::Result;

use super::Row;
use super::world::{Case, Setup, World, publish};
use crate::dns::{Failure, Record, Zone};

/// Name, part of what is said, labels in force (a member has two), and what its zone is made of after everything was right.
type Spoil = fn(&Zone, &str);
const CASES: &[(&str, &str, usize, Spoil)] = &[
    ("everything in order", "Pass", 2, |_, _| {}),
    ("CNAME loop at _atproto", "_atproto.", 0, |zone, domain| {
        zone.set(&format!("_atproto.{domain}"), vec![Record::Cname(format!("loop.{domain}"))]);
        zone.set(&format!("loop.{domain}"), vec![Record::Cname(format!("_atproto.{domain}"))]);
    }),
    ("CNAME chain of 40 at the key", "_domainkey.", 0, |zone, domain| {
        zone.set(&format!("s1._domainkey.{domain}"), vec![Record::Cname(format!("c0.{domain}"))]);
        for nth in 0..40 {
            zone.set(&format!("c{nth}.{domain}"), vec![Record::Cname(format!("c{}.{domain}", nth + 1))]);
        }
    }),
    ("the domain names another DID", "names did:plc:other", 0, |zone, domain| txt(zone, "_atproto", domain, "did=did:plc:other")),
    ("the domain names two DIDs", "2 different DIDs", 0, |zone, domain| {
        zone.add(&format!("_atproto.{domain}"), Record::Txt("did=did:plc:other".into()));
    }),
    ("DIDs in quotation marks", "must begin with `did=`", 0, |zone, domain| txt(zone, "_atproto", domain, "\"did=did:plc:x\"")),
    ("nobody named", "nothing at _atproto", 0, |zone, domain| {
        zone.remove(&format!("_atproto.{domain}"));
    }),
    ("a wildcard that answers everything", "only other texts", 0, |zone, domain| {
        zone.remove(&format!("s1._domainkey.{domain}"));
        zone.set(&format!("*.{domain}"), vec![Record::Txt("anything".into())]);
    }),
    ("SPF +all", "lets everybody send", 0, |zone, domain| spf(zone, domain, "v=spf1 +all")),
    ("SPF ip4:0.0.0.0/0", "covers every address", 0, |zone, domain| spf(zone, domain, "v=spf1 ip4:0.0.0.0/0 -all")),
    ("SPF everybody, behind an include", "covers every address", 0, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 include:i.{domain} -all"));
        zone.set(&format!("i.{domain}"), vec![Record::Txt("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all".into())]);
    }),
    ("SPF includes itself", "cannot be evaluated", 0, |zone, domain| spf(zone, domain, &format!("v=spf1 include:{domain} -all"))),
    ("SPF includes in a circle", "cannot be evaluated", 0, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 include:a.{domain} -all"));
        zone.set(&format!("a.{domain}"), vec![Record::Txt(format!("v=spf1 include:b.{domain} -all"))]);
        zone.set(&format!("b.{domain}"), vec![Record::Txt(format!("v=spf1 include:a.{domain} -all"))]);
    }),
    ("SPF redirects in a circle", "cannot be evaluated", 0, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 redirect=a.{domain}"));
        zone.set(&format!("a.{domain}"), vec![Record::Txt(format!("v=spf1 redirect={domain}"))]);
    }),
    ("SPF with 40 lookups", "more than 10 lookups", 0, |zone, domain| {
        let terms: Vec<String> = (0..40).map(|nth| format!("a:h{nth}.{domain}")).collect();
        spf(zone, domain, &format!("v=spf1 {} -all", terms.join(" ")));
        for nth in 0..40 {
            zone.set(&format!("h{nth}.{domain}"), vec![Record::A([203, 0, 113, 9].into())]);
        }
    }),
    ("SPF tree of 9 includes of 9", "more than 10 lookups", 0, |zone, domain| {
        let terms = |below: &str| (0..9).map(|nth| format!("include:i{nth}{below}.{domain} ")).collect::<String>();
        spf(zone, domain, &format!("v=spf1 {}-all", terms("")));
        for nth in 0..9 {
            zone.set(&format!("i{nth}.{domain}"), vec![Record::Txt(format!("v=spf1 {}-all", terms("x")))]);
            zone.set(&format!("i{nth}x.{domain}"), vec![Record::Txt("v=spf1 -all".into())]);
        }
    }),
    ("SPF lookups of nothing", "lookups find nothing", 2, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 a:n1.{domain} a:n2.{domain} a:n3.{domain} a:n4.{domain} -all"));
    }),
    // RFC 7208 §7.3 would shorten the name. mail-auth asks for it as it is, and that it cannot be asked for is no finding: nothing is given.
    ("SPF macros that grow beyond a name", "no name that DNS can hold", 0, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 exists:{}.{domain} -all", "%{d}%{s}%{i}%{h}".repeat(20)));
    }),
    ("two SPF records", "2 SPF records", 0, |zone, domain| {
        zone.add(domain, Record::Txt("v=spf1 -all".into()));
    }),
    ("SPF of 60,000 octets", "lets everybody send", 0, |zone, domain| {
        spf(zone, domain, &format!("v=spf1 {}+all", "ip4:192.0.2.1 ".repeat(4000)))
    }),
    ("DKIM key of 512 bits", "512 bits is too short", 0, |zone, domain| {
        txt(zone, "s1._domainkey", domain, &format!("v=DKIM1; k=rsa; p={}", short_rsa()));
    }),
    ("DKIM key revoked", "revoked", 0, |zone, domain| txt(zone, "s1._domainkey", domain, "v=DKIM1; p=")),
    ("DKIM in testing mode", "testing mode", 0, |zone, domain| txt(zone, "s1._domainkey", domain, &ed25519("t=y; "))),
    ("DKIM in testing mode, said second", "`t=` stands twice", 0, |zone, domain| {
        txt(zone, "s1._domainkey", domain, &ed25519("t=s; t=y; "));
    }),
    ("DKIM record of 60,000 octets", "revoked", 0, |zone, domain| {
        txt(zone, "s1._domainkey", domain, &format!("v=DKIM1; n={}; p=", "x".repeat(60_000)));
    }),
    ("DKIM with a part that is no tag", "no `tag=value`", 0, |zone, domain| {
        txt(zone, "s1._domainkey", domain, &ed25519("").replacen("v=DKIM1", "vDKIM1", 1));
    }),
    ("DMARC none", "has p=none", 0, |zone, domain| txt(zone, "_dmarc", domain, "v=DMARC1; p=none")),
    ("DMARC with two policies", "`p=` twice", 0, |zone, domain| txt(zone, "_dmarc", domain, "v=DMARC1; p=reject; p=none")),
    ("two DMARC records", "2 DMARC records", 0, |zone, domain| {
        zone.add(&format!("_dmarc.{domain}"), Record::Txt("v=DMARC1; p=none".into()));
    }),
    ("null MX", "null MX", 0, |zone, domain| {
        zone.set(domain, vec![Record::Mx(0, ".".into()), Record::Txt("v=spf1 ip4:192.0.2.1 -all".into())]);
    }),
    ("name servers that refuse", "could not be looked up", 0, |zone, domain| {
        zone.fail(domain, None, Failure::Refused);
    }),
    ("name servers that are silent", "could not be looked up", 0, |zone, domain| {
        zone.fail(&format!("_dmarc.{domain}"), None, Failure::Silence);
    }),
];

fn txt(zone: &Zone, prefix: &str, domain: &str, text: &str) {
    zone.set(&format!("{prefix}.{domain}"), vec![Record::Txt(text.into())]);
}

fn spf(zone: &Zone, domain: &str, text: &str) {
    zone.set(domain, vec![Record::Mx(10, "mx.relay.test".into()), Record::Txt(text.into())]);
}

fn ed25519(tags: &str) -> String {
    format!("v=DKIM1; {tags}k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
}

/// A modulus of 512 bits: any odd number is one as far as a reader of keys can tell.
fn short_rsa() -> String {
    let mut octets = vec![0x30, 0x5c, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    octets.extend([0x03, 0x4b, 0x00, 0x30, 0x48, 0x02, 0x41, 0x00]);
    octets.extend([0xc5; 64]);
    octets.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    data_encoding::BASE64.encode(&octets)
}

pub(super) async fn rows() -> Result<Vec<Row>> {
    let world = World::start().await?;
    let mut cases = Vec::new();
    for (nth, (name, reason, labels, spoil)) in CASES.iter().enumerate() {
        let (account, domain) = world.member(&format!("mail{nth}"));
        spoil(&world.zone, &domain);
        world.net.attest(&account, &domain, &["s1"], true);
        cases.push(Case { name: (*name).into(), account, reason, labels: *labels });
    }
    let mut rows = world.judge(cases).await?;
    rows.extend(poisoned().await?);
    Ok(rows)
}

/// One of two resolvers is lied to: nobody gains a label by that, and nobody loses one.
async fn poisoned() -> Result<Vec<Row>> {
    let other = Zone::new();
    other.set_ttl(0);
    let more = "[[dns.vantage]]\nname = \"elsewhere\"\nnameservers = [{dns}]\n";
    let world = World::set_up(Setup { more, second: Some(other.clone()), ..Setup::default() }).await?;
    let (gains, domain) = world.member("gains");
    world.net.attest(&gains, &domain, &["s1"], true);
    let (stands, domain) = world.member("stands");
    publish(&other, &stands, &domain);
    world.net.attest(&stands, &domain, &["s1"], true);
    let mut rows = world
        .judge(vec![
            Case { name: "one of two resolvers is poisoned".into(), account: gains, reason: "must agree", labels: 0 },
            Case { name: "both resolvers agree".into(), account: stands.clone(), reason: "Pass", labels: 2 },
        ])
        .await?;
    txt(&other, "_atproto", &domain, "did=did:plc:other");
    // When the third look begins, the first two are at an end.
    for _ in 0..3 {
        world.look_again(&stands).await?;
    }
    rows.extend(
        world
            .judge(vec![Case { name: "one is poisoned later".into(), account: stands, reason: "stands.example", labels: 2 }])
            .await?,
    );
    Ok(rows)
}
