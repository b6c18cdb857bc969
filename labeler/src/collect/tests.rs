//! From zones to verdicts: the collector asks a scripted name server, the judge says what it makes of it.

use loadtest::dns::{Failure, Record, Server, Zone};

use super::*;
use crate::judge::{Check, Kind, Status};
use crate::{dns, fetch};

const DID: &str = "did:plc:7tcx4xxjwidnicieiwtrpyal";
const KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const SOURCE: &str = "198.51.100.7";

struct Bench {
    zone: Zone,
    _server: Server,
    collector: Collector,
}

fn txt(text: &str) -> Record {
    Record::Txt(text.into())
}

impl Bench {
    /// With a member whose zone is in order.
    fn new() -> Self {
        let zone = Zone::new();
        zone.set_ttl(0);
        zone.set("member.example", vec![Record::Mx(10, "mx.member.example".into()), txt("v=spf1 ip4:198.51.100.7 -all")]);
        zone.set("mx.member.example", vec![Record::A("203.0.113.1".parse().unwrap())]);
        zone.set("_atproto.member.example", vec![txt(&format!("did={DID}"))]);
        zone.set("s1._domainkey.member.example", vec![txt(KEY)]);
        zone.set("_dmarc.member.example", vec![txt("v=DMARC1; p=reject")]);
        let server = Server::start("127.0.0.1:0".parse().unwrap(), zone.clone()).unwrap();
        let dns = dns::Dns::new(Some(&[server.address()])).unwrap();
        let fetcher = Fetcher::new(dns.clone(), fetch::tls().unwrap(), false);
        let collector = Collector { dns, fetcher, sources: [SOURCE.parse().unwrap()].into(), greeter: None };
        Self { zone, _server: server, collector }
    }

    async fn judge(&self, domain: &str, relay: bool) -> Judgement {
        let selectors = ["s1".to_owned()];
        let subject = Subject { did: DID, domain, handle: None, selectors: &selectors, relay };
        judge(&self.collector.facts(&subject).await)
    }

    async fn check(&self, kind: Kind, relay: bool) -> Check {
        let judgement = self.judge("member.example", relay).await;
        judgement.checks.into_iter().find(|check| check.kind == kind).unwrap_or_else(|| panic!("no {kind:?}"))
    }

    fn spf(&self, record: &str) {
        self.zone.set("member.example", vec![Record::Mx(10, "mx.member.example".into()), txt(record)]);
    }
}

#[tokio::test]
async fn a_zone_in_order_passes() {
    let bench = Bench::new();
    for relay in [true, false] {
        let judgement = bench.judge("member.example", relay).await;
        assert_eq!((judgement.verdict, judgement.reasons()), (Verdict::Pass, vec![]));
    }
}

#[tokio::test]
async fn nothing_is_looked_up_twice() {
    let bench = Bench::new();
    bench.judge("member.example", true).await;
    for (name, kind) in [
        ("member.example", loadtest::dns::RecordType::TXT),
        ("member.example", loadtest::dns::RecordType::MX),
        ("_dmarc.member.example", loadtest::dns::RecordType::TXT),
        ("mx.member.example", loadtest::dns::RecordType::A),
    ] {
        assert_eq!(bench.zone.queries_of(name, kind), 1, "{name}");
    }
    let queries = bench.zone.queries();
    assert!(queries <= 12, "{queries}");
}

/// Name, zone, kind of check, how it ends, what it says.
type Row = (&'static str, fn(&Bench), Kind, Status, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("SPF by an include", |b| { b.spf("v=spf1 include:relay.example -all"); b.zone.set("relay.example", vec![txt("v=spf1 ip4:198.51.100.0/24 -all")]); }, Kind::SpfSources, Status::Pass, ""),
    ("SPF by an address record", |b| { b.spf("v=spf1 a:out.relay.example -all"); b.zone.set("out.relay.example", vec![Record::A(SOURCE.parse().unwrap())]); }, Kind::SpfSources, Status::Pass, ""),
    ("SPF by a redirect", |b| { b.spf("v=spf1 redirect=relay.example"); b.zone.set("relay.example", vec![txt("v=spf1 ip4:198.51.100.7 -all")]); }, Kind::SpfSources, Status::Pass, ""),
    ("SPF without the source", |b| b.spf("v=spf1 mx -all"), Kind::SpfSources, Status::Fail, "198.51.100.7"),
    ("SPF lets everybody in through an include", |b| { b.spf("v=spf1 include:open.example -all"); b.zone.set("open.example", vec![txt("v=spf1 +all")]); }, Kind::Spf, Status::Fail, "covers every address"),
    ("SPF includes a domain without SPF", |b| b.spf("v=spf1 include:nowhere.example -all"), Kind::Spf, Status::Fail, "includes a domain without SPF"),
    ("SPF includes what does not answer", |b| { b.spf("v=spf1 include:relay.example -all"); b.zone.fail("relay.example", None, Failure::ServFail); }, Kind::Spf, Status::Unknown, "could not be looked up"),
    ("SPF includes what is refused", |b| { b.spf("v=spf1 include:relay.example -all"); b.zone.fail("relay.example", None, Failure::Refused); }, Kind::Spf, Status::Unknown, "could not be looked up"),
    ("SPF includes itself", |b| b.spf("v=spf1 include:member.example -all"), Kind::Spf, Status::Fail, "more than 10 lookups"),
    ("SPF with macros longer than a name", |b| b.spf(&format!("v=spf1 exists:{} -all", "%{d}.".repeat(20) + "member.example")), Kind::Spf, Status::Fail, "no name that DNS can hold"),
    ("SPF with a label that is too long", |b| b.spf(&format!("v=spf1 a:{}.member.example -all", "x".repeat(64))), Kind::Spf, Status::Fail, "no name that DNS can hold"),
    ("SPF redirects to a name that is too long", |b| b.spf(&format!("v=spf1 redirect={}member.example", "%{d}.".repeat(20))), Kind::Spf, Status::Fail, "no name that DNS can hold"),
    ("SPF includes one with macros longer than a name", |b| {
        b.spf("v=spf1 include:relay.example -all");
        b.zone.set("relay.example", vec![txt(&format!("v=spf1 exists:{}x.example ~all", "%{o}.%{d}.".repeat(12)))]);
    }, Kind::Spf, Status::Fail, "no name that DNS can hold"),
    ("SPF with macros that just fit", |b| b.spf(&format!("v=spf1 ip4:198.51.100.7 exists:{}example -all", "%{d}.".repeat(16))), Kind::Spf, Status::Pass, ""),
    ("SPF with a bomb of includes", |b| {
        let names: Vec<String> = (0..40).map(|nth| format!("include:i{nth}.example")).collect();
        b.spf(&format!("v=spf1 {} -all", names.join(" ")));
        for nth in 0..40 { b.zone.set(&format!("i{nth}.example"), vec![txt("v=spf1 ip4:203.0.113.9 -all")]); }
    }, Kind::Spf, Status::Fail, "more than 10 lookups"),
    ("SPF whose lookups find nothing", |b| b.spf("v=spf1 a:n1.example a:n2.example a:n3.example ip4:198.51.100.7 -all"), Kind::Spf, Status::Warn, "3 of its lookups"),
    ("a key behind a CNAME", |b| { b.zone.set("s1._domainkey.member.example", vec![Record::Cname("s1.keys.relay.example".into())]); b.zone.set("s1.keys.relay.example", vec![txt(KEY)]); }, Kind::Dkim, Status::Pass, ""),
    ("the word about the DID behind a CNAME", |b| { b.zone.set("_atproto.member.example", vec![Record::Cname("a.hoster.example".into())]); b.zone.set("a.hoster.example", vec![txt(&format!("did={DID}"))]); }, Kind::Control, Status::Pass, ""),
    ("a policy behind a CNAME", |b| { b.zone.set("_dmarc.member.example", vec![Record::Cname("d.hoster.example".into())]); b.zone.set("d.hoster.example", vec![txt("v=DMARC1; p=reject")]); }, Kind::Dmarc, Status::Pass, ""),
    ("a domain that is a CNAME: its exchanges", |b| behind_a_cname(b), Kind::Mx, Status::Pass, ""),
    ("a domain that is a CNAME: its SPF", |b| behind_a_cname(b), Kind::SpfSources, Status::Pass, ""),
    ("a chain of CNAMEs", |b| {
        b.zone.set("s1._domainkey.member.example", vec![Record::Cname("c1.relay.example".into())]);
        for nth in 1..5 { b.zone.set(&format!("c{nth}.relay.example"), vec![Record::Cname(format!("C{}.Relay.Example", nth + 1))]); }
        b.zone.set("c5.relay.example", vec![txt(KEY)]);
    }, Kind::Dkim, Status::Pass, ""),
    ("a CNAME to nowhere", |b| { b.zone.set("s1._domainkey.member.example", vec![Record::Cname("gone.relay.example".into())]); }, Kind::Dkim, Status::Fail, "does not exist"),
    ("a wildcard in the way of the key", |b| { b.zone.remove("s1._domainkey.member.example"); b.zone.set("*.member.example", vec![txt("v=spf1 -all")]); }, Kind::Dkim, Status::Fail, "only other texts"),
    ("a wildcard in the way of the word about the DID", |b| { b.zone.remove("_atproto.member.example"); b.zone.set("*.member.example", vec![txt("v=spf1 -all")]); }, Kind::Control, Status::Fail, "nothing at _atproto.member.example"),
    ("a wildcard that is the word about the DID", |b| { b.zone.remove("_atproto.member.example"); b.zone.set("*.member.example", vec![txt(&format!("did={DID}"))]); }, Kind::Control, Status::Pass, ""),
    ("a wildcard that is a key", |b| { b.zone.remove("s1._domainkey.member.example"); b.zone.set("*._domainkey.member.example", vec![txt(KEY)]); }, Kind::Dkim, Status::Pass, ""),
    ("a wildcard in the way of MTA-STS", |b| { b.zone.set("*.member.example", vec![txt("v=spf1 -all")]); }, Kind::MtaSts, Status::Note, "there is none"),
    ("MTA-STS", |b| { b.zone.set("_mta-sts.member.example", vec![txt("v=STSv1; id=20261126")]); }, Kind::MtaSts, Status::Pass, ""),
    ("TLS-RPT", |b| { b.zone.set("_smtp._tls.member.example", vec![txt("v=TLSRPTv1; rua=mailto:a@member.example")]); }, Kind::TlsRpt, Status::Pass, ""),
    ("BIMI", |b| { b.zone.set("default._bimi.member.example", vec![txt("v=BIMI1; l=https://member.example/logo.svg")]); }, Kind::Bimi, Status::Pass, ""),
    ("no TLS-RPT", |_| {}, Kind::TlsRpt, Status::Note, "not required"),
    ("no BIMI", |_| {}, Kind::Bimi, Status::Note, "not required"),
    ("a key in testing mode", |b| { b.zone.set("s1._domainkey.member.example", vec![txt(&KEY.replace("p=", "t=y; p="))]); }, Kind::Dkim, Status::Fail, "testing mode"),
    ("an RSA key of 512 bits", |b| { b.zone.set("s1._domainkey.member.example", vec![txt(SHORT)]); }, Kind::Dkim, Status::Fail, "512 bits is too short"),
    ("a key cut short", |b| { b.zone.set("s1._domainkey.member.example", vec![txt(&KEY[..KEY.len() - 9])]); }, Kind::Dkim, Status::Fail, "no usable key"),
    ("a key with quotation marks in it", |b| { b.zone.set("s1._domainkey.member.example", vec![txt(&format!("\"{KEY}\""))]); }, Kind::Dkim, Status::Fail, "no usable key"),
    ("SPF cut into strings inside of a term", |b| {
        let many: String = (0..14).map(|nth| format!(" ip4:203.0.113.{nth}")).collect();
        b.spf(&format!("v=spf1{many} ip4:198.51.100.7 -all"));
    }, Kind::SpfSources, Status::Pass, ""),
    ("SPF with two terms run together", |b| b.spf("v=spf1 ip4:198.51.100.7-all"), Kind::Spf, Status::Fail, "cannot be read"),
    ("a wildcard in the way of DMARC", |b| { b.zone.remove("_dmarc.member.example"); b.zone.set("*.member.example", vec![txt("v=spf1 -all")]); }, Kind::Dmarc, Status::Fail, "no DMARC record"),
    ("the policy refused", |b| { b.zone.fail("_dmarc.member.example", None, Failure::Refused); }, Kind::Dmarc, Status::Unknown, "could not be looked up"),
    ("NXDOMAIN for a name with records", |b| { b.zone.fail("_dmarc.member.example", None, Failure::NoSuchName); }, Kind::Dmarc, Status::Fail, "no DMARC record"),
    ("a null MX", |b| { b.zone.set("member.example", vec![Record::Mx(0, ".".into()), txt("v=spf1 ip4:198.51.100.7 -all")]); }, Kind::Mx, Status::Fail, "null MX"),
    ("an MX without an address", |b| { b.zone.remove("mx.member.example"); }, Kind::Mx, Status::Warn, "has no address"),
    ("two SPF records", |b| { b.zone.add("member.example", txt("v=spf1 mx -all")); }, Kind::Spf, Status::Fail, "2 SPF records"),
    ("many other texts", |b| { for nth in 0..90 { b.zone.add("member.example", txt(&format!("verification={nth}"))); } }, Kind::Spf, Status::Pass, ""),
];

/// openssl genrsa 512
const SHORT: &str = "v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKvuAtInIFJGZkIPiTVWQSTO8dMDVA9XwpFAkmJCLmgnFat/WMU4a3HpsSPlTN9Q2XpLCvFJcuZBvCRmihcIEZkCAwEAAQ==";

fn behind_a_cname(bench: &Bench) {
    bench.zone.set("member.example", vec![Record::Cname("host.example".into())]);
    bench.zone.set("host.example", vec![Record::Mx(10, "mx.member.example".into()), txt("v=spf1 ip4:198.51.100.7 -all")]);
}

#[tokio::test]
async fn a_name_in_another_alphabet_is_looked_up_as_its_a_labels() {
    let bench = Bench::new();
    // As a member would write it, and as an attestation has to have it.
    let domain = atproto::lexicon::canonical_domain("Bücher.Example.").unwrap();
    assert_eq!(domain, "xn--bcher-kva.example");
    bench.zone.set(&domain, vec![Record::Mx(10, "MX.Member.Example".into()), txt("v=spf1 ip4:198.51.100.7 -all")]);
    for (name, text) in
        [("_atproto", format!("did={DID}")), ("s1._domainkey", KEY.into()), ("_dmarc", "v=DMARC1; p=reject".into())]
    {
        bench.zone.set(&format!("{name}.{domain}"), vec![txt(&text)]);
    }
    let judgement = bench.judge(&domain, true).await;
    assert_eq!((judgement.verdict, judgement.reasons()), (Verdict::Pass, vec![]));
    let mx = judgement.checks.iter().find(|check| check.kind == Kind::Mx).unwrap();
    assert_eq!((mx.status, mx.seen[0].as_str()), (Status::Pass, "10 mx.member.example."), "capitals are no difference");
}

#[tokio::test]
async fn each_zone_ends_as_the_table_says() {
    for (case, change, kind, status, why) in ROWS {
        let bench = Bench::new();
        change(&bench);
        let check = bench.check(*kind, true).await;
        assert_eq!(check.status, *status, "{case}: {check:?}");
        assert!(check.why.as_deref().unwrap_or_default().contains(why), "{case}: {check:?}");
    }
}

#[tokio::test]
async fn a_cname_that_leads_back_to_itself_earns_nothing() {
    let bench = Bench::new();
    bench.zone.set("s1._domainkey.member.example", vec![Record::Cname("loop.member.example".into())]);
    bench.zone.set("loop.member.example", vec![Record::Cname("s1._domainkey.member.example".into())]);
    let check = bench.check(Kind::Dkim, true).await;
    assert!(matches!(check.status, Status::Fail | Status::Unknown), "{check:?}");
}

#[tokio::test]
async fn a_long_key_in_several_strings_is_one_key() {
    // The zone cuts texts into strings of 255 octets, as zones must.
    let bench = Bench::new();
    let key = format!("v=DKIM1; k=ed25519; n={}; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "x".repeat(600));
    bench.zone.set("s1._domainkey.member.example", vec![txt(&key)]);
    assert_eq!(bench.check(Kind::Dkim, true).await.status, Status::Pass);
}

#[tokio::test]
async fn a_subdomain_may_rest_on_its_parents_policy() {
    let bench = Bench::new();
    bench.zone.set("mail.member.example", vec![Record::Mx(10, "mx.member.example".into()), txt("v=spf1 ip4:198.51.100.7 -all")]);
    bench.zone.set("_atproto.mail.member.example", vec![txt(&format!("did={DID}"))]);
    bench.zone.set("s1._domainkey.mail.member.example", vec![txt(KEY)]);
    assert_eq!(bench.judge("mail.member.example", true).await.reasons(), [""; 0]);
    bench.zone.set("_dmarc.member.example", vec![txt("v=DMARC1; p=reject; sp=none")]);
    assert_eq!(bench.judge("mail.member.example", true).await.verdict, Verdict::Fail);
}

#[tokio::test]
async fn a_policy_is_inherited_from_the_organizational_domain_and_from_nobody_else() {
    let policy = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let reject = |name: &str| policy(name, "v=DMARC1; p=reject");
    for (domain, policies, passes, never_asked) in [
        ("a.b.bank.co.uk", vec![reject("_dmarc.bank.co.uk")], true, "_dmarc.b.bank.co.uk"),
        ("a.b.bank.co.uk", vec![reject("_dmarc.b.bank.co.uk")], false, "_dmarc.b.bank.co.uk"),
        ("bank.co.uk", vec![reject("_dmarc.co.uk")], false, "_dmarc.co.uk"),
        ("a.shop.com.au", vec![reject("_dmarc.com.au")], false, "_dmarc.com.au"),
        ("a.shop.com.au", vec![policy("_dmarc.shop.com.au", "v=DMARC1; p=reject; sp=none")], false, "_dmarc.com.au"),
        ("a.someone.github.io", vec![reject("_dmarc.someone.github.io")], true, "_dmarc.github.io"),
        ("someone.github.io", vec![reject("_dmarc.github.io")], false, "_dmarc.github.io"),
        // mail.bücher.公司.cn
        ("mail.xn--bcher-kva.xn--55qx5d.cn", vec![reject("_dmarc.xn--bcher-kva.xn--55qx5d.cn")], true, "_dmarc.xn--55qx5d.cn"),
        ("mail.xn--bcher-kva.xn--55qx5d.cn", vec![reject("_dmarc.xn--55qx5d.cn")], false, "_dmarc.xn--55qx5d.cn"),
    ] {
        let bench = Bench::new();
        policies.iter().for_each(|(name, text)| {
            bench.zone.set(name, vec![txt(text)]);
        });
        let judgement = bench.judge(domain, true).await;
        let check = judgement.checks.iter().find(|check| check.kind == Kind::Dmarc).unwrap();
        assert_eq!(check.status == Status::Note, passes, "{domain} {policies:?}: {check:?}");
        assert_eq!(bench.zone.queries_of(never_asked, loadtest::dns::RecordType::TXT), 0, "{domain}: {never_asked}");
    }
}

#[tokio::test]
async fn addresses_of_one_who_sends_himself_should_have_names_that_lead_back() {
    let bench = Bench::new();
    bench.zone.set("7.100.51.198.in-addr.arpa", vec![Record::Ptr("out.member.example".into())]);
    bench.zone.set("out.member.example", vec![Record::A(SOURCE.parse().unwrap())]);
    assert_eq!(bench.check(Kind::Ptr, false).await.status, Status::Pass);
    // Each address by itself, of either family, whatever the case of its name.
    bench.spf("v=spf1 ip4:198.51.100.7 ip6:2001:db8::7 ip4:203.0.113.0/24 -all");
    let nibbles = format!("7.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
    bench.zone.set(&nibbles, vec![Record::Ptr("Out6.Member.Example".into())]);
    bench.zone.set("out6.member.example", vec![Record::Aaaa("2001:db8::7".parse().unwrap())]);
    let ptrs = async || {
        let checks = bench.judge("member.example", false).await.checks;
        let ptrs = checks.into_iter().filter(|check| check.kind == Kind::Ptr);
        ptrs.map(|check| (check.name, check.status)).collect::<Vec<_>>()
    };
    assert_eq!(ptrs().await, [(SOURCE.to_owned(), Status::Pass), ("2001:db8::7".into(), Status::Pass)]);
    bench.zone.set("out6.member.example", vec![Record::Aaaa("2001:db8::8".parse().unwrap())]);
    assert_eq!(ptrs().await[1].1, Status::Warn);
    bench.spf("v=spf1 ip4:198.51.100.7 -all");
    bench.zone.remove("out.member.example");
    assert_eq!(bench.check(Kind::Ptr, false).await.status, Status::Warn);
    let judgement = bench.judge("member.example", false).await;
    assert_eq!(judgement.verdict, Verdict::Pass, "a warning costs no label");
    let judgement = bench.judge("member.example", true).await;
    assert!(judgement.checks.iter().all(|check| check.kind != Kind::Ptr), "who asks for the relay does not send from there");
}

#[tokio::test]
async fn exchanges_are_greeted_one_after_another_where_that_is_wanted() {
    let mut bench = Bench::new();
    let server = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let mx =
        |names: [&str; 2]| (10..).zip(names).map(|(preference, name)| Record::Mx(preference, name.into())).collect::<Vec<_>>();
    let records = [mx(["dead.member.example", "mx.member.example"]), vec![txt("v=spf1 ip4:198.51.100.7 -all")]].concat();
    bench.zone.set("member.example", records);
    bench.zone.set("mx.member.example", vec![Record::A("127.0.0.2".parse().unwrap())]);
    bench.zone.set("dead.member.example", vec![Record::A("127.0.0.3".parse().unwrap())]);
    assert_eq!(bench.check(Kind::Mx, true).await.status, Status::Pass, "it is not wanted, so that nobody is asked");
    bench.collector.greeter = Some(Greeter::new(server.local_addr().unwrap().port()));
    bench.collector.fetcher = Fetcher::new(bench.collector.dns.clone(), fetch::tls().unwrap(), true);
    let greet = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 mx.member.example\r\n").await.unwrap();
        drop(server);
        stream
    });
    let check = bench.check(Kind::Mx, true).await;
    assert_eq!((check.status, check.seen.last().unwrap().as_str()), (Status::Pass, "mx.member.example.: 220 mx.member.example"));
    drop(greet.await.unwrap());
    let judgement = bench.judge("member.example", true).await;
    let check = judgement.checks.iter().find(|check| check.kind == Kind::Mx).unwrap();
    assert_eq!((judgement.verdict, check.status), (Verdict::Pass, Status::Warn), "a warning costs no label");
    assert!(check.why.as_ref().unwrap().starts_with("no mail server answers: dead.member.example.: "), "{check:?}");
    bench.collector.fetcher = Fetcher::new(bench.collector.dns.clone(), fetch::tls().unwrap(), false);
    assert!(bench.check(Kind::Mx, true).await.why.unwrap().contains("127.0.0.2 is not a public address"));
}

#[tokio::test]
async fn a_poisoned_resolver_neither_gives_nor_takes() {
    let (good, poisoned, third) = (Bench::new(), Bench::new(), Bench::new());
    let views = |benches: [&Bench; 3], quorum| {
        let named = benches.iter().enumerate().map(|(nth, bench)| (format!("r{nth}"), bench.collector.clone()));
        Views::new(named.collect(), quorum)
    };
    let selectors = ["s1".to_owned()];
    let subject = Subject { did: DID, domain: "member.example", handle: None, selectors: &selectors, relay: true };
    let all = views([&good, &poisoned, &third], 3);
    let most = views([&good, &poisoned, &third], 2);
    assert_eq!(all.judge(&subject, 0, false).await.verdict, Verdict::Pass);

    // One that says the domain names nobody.
    poisoned.zone.remove("_atproto.member.example");
    for first in 0..3 {
        assert_eq!(all.judge(&subject, first, false).await.verdict, Verdict::Unknown, "{first}");
        assert_eq!(most.judge(&subject, first, false).await.verdict, Verdict::Pass, "{first}");
        assert_eq!(most.judge(&subject, first, true).await.verdict, Verdict::Pass, "what stands stands: {first}");
    }
    let asked = third.zone.queries();
    assert_eq!(most.judge(&subject, 0, true).await.verdict, Verdict::Pass);
    assert_eq!(third.zone.queries(), asked, "to confirm, one is enough");

    // One that says what is not so, and alone.
    let mallory = Subject { did: "did:plc:mallory", ..subject };
    poisoned.zone.set("_atproto.member.example", vec![txt("did=did:plc:mallory")]);
    for first in 0..3 {
        assert_eq!(most.judge(&mallory, first, false).await.verdict, Verdict::Fail, "{first}");
        assert_eq!(all.judge(&mallory, first, false).await.verdict, Verdict::Unknown, "{first}");
    }
    assert_eq!(views([&good, &poisoned, &third], 2).named("member.example").await.unwrap().as_str(), DID);
}
