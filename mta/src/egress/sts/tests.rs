//! Policies found, kept, replaced and given up, in virtual time.

use std::future::Future;
use std::time::UNIX_EPOCH;

use host::dns::Zone;
use host::{Io, sim};
use scheduler::{Dane, Host, Tlsa};
use tokio::sync::mpsc;

use super::*;
use crate::control::web::Pages;
use crate::egress::tls_memory::Memory;

const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 86400\n";
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// A domain, its records and its policy host.
struct Bench {
    zone: Zone,
    pages: Pages,
    dir: tempfile::TempDir,
    clock: Clock,
    policies: Policies,
    notes: mpsc::Receiver<Note>,
}

impl Bench {
    fn new() -> Self {
        let (zone, pages, dir) = (Zone::new(), Pages::default(), tempfile::tempdir().unwrap());
        let clock = Clock::simulated(UNIX_EPOCH + Duration::from_secs(1_795_400_000));
        let (policies, notes) = Bench::policies(&zone, &pages, &dir, &clock);
        Bench { zone, pages, dir, clock, policies, notes }
    }

    fn policies(zone: &Zone, pages: &Pages, dir: &tempfile::TempDir, clock: &Clock) -> (Policies, mpsc::Receiver<Note>) {
        let (notes, received) = Notes::channel();
        let store = Store::new(Memory::open(dir.path()).unwrap().policies);
        let (dns, web) = (Resolver::scripted(zone.clone()), Web::scripted(pages.clone()));
        (Policies::new(dns, web, store, clock.clone(), notes), received)
    }

    /// Another daemon over the same data.
    fn restart(self) -> Self {
        let Bench { zone, pages, dir, clock, policies, notes } = self;
        drop((policies, notes));
        let (policies, notes) = Bench::policies(&zone, &pages, &dir, &clock);
        Bench { zone, pages, dir, clock, policies, notes }
    }

    fn announce(&self, id: &str) {
        self.zone.remove("_mta-sts.example.org");
        self.zone.txt("_mta-sts.example.org", &format!("v=STSv1; id={id};"));
    }

    fn say(&self, text: &str) {
        self.pages.set_policy("example.org", SECOND, Ok(text));
    }

    fn fail(&self, error: WebError) {
        self.pages.set_policy("example.org", SECOND, Err(error));
    }

    /// The first pattern and the mode of the policy that counts now.
    async fn seen(&self) -> String {
        match self.policies.of("example.org", self.policies.record("example.org").await).await {
            Sought::None => "none".to_owned(),
            Sought::Unknown => "unknown".to_owned(),
            Sought::Awaited => "awaited".to_owned(),
            Sought::Found(kept) => format!("{} {}", kept.policy.mode.as_str(), kept.policy.mx[0]),
        }
    }

    /// What was noted, in the words of the report.
    fn noted(&mut self) -> Vec<&'static str> {
        let mut seen = Vec::new();
        while let Ok(note) = self.notes.try_recv() {
            seen.extend(note.results.iter().filter_map(|result| Some(result.failure.as_ref()?.0.as_str())));
        }
        seen
    }
}

fn run<F: Future<Output = ()>>(story: impl FnOnce(Bench) -> F) {
    host::run(&Io::Sim(sim::Net::new(1)), async { story(Bench::new()).await }).unwrap();
}

#[test]
fn a_policy_is_fetched_once_and_kept_over_a_restart() {
    run(|bench| async move {
        assert_eq!(bench.seen().await, "none", "nothing is announced");
        assert_eq!(bench.pages.asked(), 0, "without a record nothing is fetched");
        bench.announce("1");
        bench.say(ENFORCE);
        for _ in 0..3 {
            assert_eq!(bench.seen().await, "enforce *.example.org");
        }
        let bench = bench.restart();
        assert_eq!(bench.seen().await, "enforce *.example.org");
        assert_eq!(bench.pages.asked(), 1);
    });
}

#[test]
fn a_new_id_brings_the_new_policy_and_none_removes_it() {
    run(|bench| async move {
        bench.announce("1");
        bench.say(ENFORCE);
        assert_eq!(bench.seen().await, "enforce *.example.org");
        bench.say(&ENFORCE.replace("*.example.org", "mx.other.example"));
        assert_eq!(bench.seen().await, "enforce *.example.org", "the id is the same");
        bench.announce("2");
        assert_eq!(bench.seen().await, "enforce mx.other.example");
        bench.announce("3");
        bench.say("version: STSv1\nmode: none\nmax_age: 86400\n");
        assert_eq!(bench.seen().await, "none");
        assert_eq!(bench.seen().await, "none");
        assert_eq!(bench.pages.asked(), 3, "that there is none any more is kept too");
    });
}

#[test]
fn what_was_fetched_holds_without_record_and_without_web_until_its_age_is_over() {
    run(|mut bench| async move {
        bench.announce("1");
        bench.say(ENFORCE);
        assert_eq!(bench.seen().await, "enforce *.example.org");
        bench.zone.remove("_mta-sts.example.org");
        bench.fail(WebError::Status(404));
        assert_eq!(bench.seen().await, "enforce *.example.org", "the record is gone");
        bench.zone.fail("_mta-sts.example.org", "SERVFAIL");
        assert_eq!(bench.seen().await, "enforce *.example.org", "the DNS is silent");
        bench.zone.recover("_mta-sts.example.org");
        bench.zone.txt("_mta-sts.example.org", "v=STSv1; id=2").txt("_mta-sts.example.org", "v=STSv1; id=3");
        assert_eq!(bench.seen().await, "enforce *.example.org", "there are two records");
        bench.announce("2");
        assert_eq!(bench.seen().await, "enforce *.example.org", "the new one cannot be fetched");
        bench.say("version: STSv1\nmode: nonsense\nmax_age: 1\n");
        tokio::time::sleep(FAILED_WAIT).await;
        assert_eq!(bench.seen().await, "enforce *.example.org", "the new one makes no sense");
        assert_eq!(bench.noted(), ["sts-policy-invalid", "sts-policy-fetch-error", "sts-policy-invalid"]);
        bench.zone.remove("_mta-sts.example.org");
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(bench.seen().await, "none", "its age is over");
    });
}

#[test]
fn a_policy_that_cannot_be_had_is_not_known_and_is_not_asked_for_with_every_message() {
    run(|mut bench| async move {
        bench.announce("1");
        for (error, noted) in [
            (WebError::Certificate("expired".into()), "sts-webpki-invalid"),
            (WebError::Status(301), "sts-policy-fetch-error"),
            (WebError::ContentType("text/html".into()), "sts-policy-fetch-error"),
            (WebError::TooLong(65_536), "sts-policy-fetch-error"),
        ] {
            bench.fail(error);
            let asked = bench.pages.asked();
            assert_eq!(bench.seen().await, "unknown");
            assert_eq!(bench.seen().await, "unknown");
            assert_eq!(bench.pages.asked(), asked + 1);
            assert_eq!(bench.noted(), [noted]);
            tokio::time::sleep(FAILED_WAIT).await;
        }
        bench.zone.fail("_mta-sts.example.org", "SERVFAIL");
        assert_eq!(bench.seen().await, "unknown", "the DNS is silent");
        bench.zone.recover("_mta-sts.example.org");
        bench.say(ENFORCE);
        assert_eq!(bench.seen().await, "enforce *.example.org");
    });
}

#[test]
fn a_slow_policy_host_holds_up_its_domain_for_a_while_and_no_longer() {
    run(|bench| async move {
        bench.announce("1");
        bench.pages.set_policy("example.org", 40 * SECOND, Ok(ENFORCE));
        let began = bench.clock.now();
        assert_eq!(bench.seen().await, "awaited");
        assert_eq!(bench.clock.now().duration_since(began).unwrap().as_secs(), PATIENCE.as_secs());
        assert_eq!(bench.seen().await, "awaited");
        tokio::time::sleep(20 * SECOND).await;
        assert_eq!(bench.seen().await, "enforce *.example.org");
        assert_eq!(bench.pages.asked(), 1, "the fetch went on by itself");
        // One that never answers is as good as none in the end.
        bench.announce("2");
        bench.pages.set_policy("example.org", HOUR, Ok(ENFORCE));
        assert_eq!(bench.seen().await, "enforce *.example.org", "what is kept holds meanwhile");
    });
}

#[test]
fn what_is_wanted_is_fetched_again_before_it_runs_out() {
    run(|bench| async move {
        bench.announce("1");
        bench.say(ENFORCE);
        assert_eq!(bench.seen().await, "enforce *.example.org");
        host::spawn_local({
            let policies = bench.policies.clone();
            async move { policies.keep_fresh().await }
        });
        // Nothing is sent, and the record is out of sight: the file itself is asked.
        bench.zone.fail("_mta-sts.example.org", "SERVFAIL");
        tokio::time::sleep(72 * HOUR).await;
        assert!(bench.pages.asked() >= 5, "{}", bench.pages.asked());
        assert_eq!(bench.seen().await, "enforce *.example.org", "three days later, of a policy that lives for one");
    });
}

fn route(demands: &[(&str, Demand)]) -> Route {
    let host = |(name, demand): &(&str, Demand)| Host {
        name: (*name).into(),
        preference: 0,
        addresses: vec!["192.0.2.1".parse().unwrap()],
        demand: demand.clone(),
    };
    Route {
        site: "site".into(),
        provider: "other".into(),
        hosts: demands.iter().map(host).collect(),
        tls: TlsPolicy::default(),
        valid_until: UNIX_EPOCH + Duration::from_secs(2_000_000_000),
    }
}

fn kept(text: &str) -> Kept {
    let now = UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    Kept { id: "1".into(), fetched: now, wanted: now, policy: Policy::parse(text.as_bytes()).unwrap() }
}

#[test]
fn hosts_that_the_policy_names_are_verified_and_others_get_no_mail() {
    let hosts = [("mx.example.org", Demand::Opportunistic), ("mx.evil.example", Demand::Opportunistic)];
    let now = UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    let strict = demanded(&route(&hosts), "example.org", &kept(ENFORCE), now);
    assert_eq!(strict.hosts[0].demand, Demand::Verified);
    assert!(matches!(&strict.hosts[1].demand, Demand::Barred(barred) if barred.failure == TlsFailure::ValidationFailure));
    assert_eq!((strict.tls.name(), strict.tls.hosts.len(), strict.tls.strings.len()), ("sts-enforce", 1, 4));
    assert_eq!(strict.valid_until, now + 24 * HOUR, "no longer than the policy");
    let tested = demanded(&route(&hosts), "example.org", &kept(&ENFORCE.replace("enforce", "testing")), now);
    assert!(tested.hosts.iter().all(|host| host.demand == Demand::Opportunistic));
    assert_eq!(tested.tls.name(), "sts-testing");
    let short = demanded(&route(&hosts), "example.org", &kept(&ENFORCE.replace("86400", "0")), now);
    assert_eq!(short.valid_until, now + VALID_MIN);
}

#[test]
fn dane_is_neither_weakened_nor_barred_by_a_policy() {
    let records = vec![Tlsa { usage: 3, selector: 1, matching: 1, data: vec![1; 32] }];
    let dane = Demand::Dane(Arc::new(Dane { base: "mx.example.org".into(), names: Vec::new(), records }));
    let bogus = Demand::Barred(Arc::new(Barred { failure: TlsFailure::DnssecInvalid, text: "bogus".into() }));
    let mut route = route(&[
        ("mx.example.org", dane.clone()),
        ("mx.elsewhere.example", dane.clone()),
        ("bogus.example.org", bogus.clone()),
        ("plain.example.org", Demand::Opportunistic),
        ("unusable.example.org", Demand::Encrypted),
    ]);
    route.tls.kind = PolicyKind::Dane;
    let now = UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    for text in [ENFORCE.to_owned(), ENFORCE.replace("enforce", "testing")] {
        let both = demanded(&route, "example.org", &kept(&text), now);
        let demands: Vec<_> = both.hosts.iter().map(|host| host.demand.clone()).collect();
        assert_eq!(demands[..3], [dane.clone(), dane.clone(), bogus.clone()]);
        // What DANE leaves open the policy may still demand.
        let enforced = text == ENFORCE;
        assert_eq!(demands[3], if enforced { Demand::Verified } else { Demand::Opportunistic });
        assert_eq!(demands[4], if enforced { Demand::Verified } else { Demand::Encrypted });
        assert_eq!((both.tls.kind, both.tls.testing), (PolicyKind::Dane, false));
    }
}
