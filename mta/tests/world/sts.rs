//! What policies of MTA-STS promise is kept and reported, in the world's own time.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use host::dns::Zone;
use host::tls;
use loadtest::sink::Script;
use loadtest::tls::Certificate;
use mail_auth::report::tlsrpt::{PolicyType, ResultType, TlsReport};
use mta::control::web::{Pages, WebError};

use crate::HOUR;
use crate::parts::World;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the world knows of promises.
#[derive(Default)]
pub(crate) struct Promises {
    /// The policy hosts, and who takes reports by POST.
    pub(crate) pages: Pages,
    anchors: String,
    signing: String,
}

impl Promises {
    /// Writes what is trusted, and says so in a line for `[egress]`; before it the line for `[signing]`.
    pub(crate) fn settings(&self, folder: &Path) -> (&str, String) {
        if self.anchors.is_empty() {
            return (&self.signing, String::new());
        }
        let path = folder.join("anchors.pem");
        std::fs::write(&path, &self.anchors).unwrap();
        (&self.signing, format!("trust_anchors = \"{}\"", path.display()))
    }
}

impl World {
    /// A provider that offers STARTTLS with a certificate for `name`, from an authority that is trusted.
    fn secure(self, domain: &str, name: &str) -> Self {
        self.provider(domain, Script { starttls: true, ..Script::accepts_all() }).certified(domain, name)
    }

    fn certified(mut self, domain: &str, name: &str) -> Self {
        let it = Certificate::generate(&[name]).unwrap();
        self.promises.anchors.push_str(&it.ca_pem);
        self.certificate(domain, tls::Server::from_pem(it.cert_pem.as_bytes(), it.key_pem.as_bytes()).unwrap())
    }

    /// A domain whose mail goes to another one's provider.
    fn hosted(self, domain: &str, at: &str) -> Self {
        self.zone().mx(domain, 10, &format!("mx.{at}"));
        self
    }

    /// A domain publishes a policy of MTA-STS for `mx`.
    fn promises(self, domain: &str, mode: &str, mx: &str) -> Self {
        announce(&self.zone(), domain, "1");
        let text = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n");
        self.promises.pages.set_policy(domain, Duration::from_secs(1), Ok(&text));
        self
    }

    /// A domain wants reports.
    fn asks(self, domain: &str, rua: &str) -> Self {
        self.zone().txt(&format!("_smtp._tls.{domain}"), &format!("v=TLSRPTv1; rua={rua}"));
        self
    }

    /// The co-op signs and reports.
    fn reports(self) -> Self {
        let mut world = self.settings("[tls_reports]\nfrom = \"tls@relay.world.test\"\norganization = \"World\"\n");
        world.promises.signing = "domain = \"relay.world.test\"".to_owned();
        world
    }

    fn arrived(&self, domain: &str) -> Vec<bool> {
        self.arrived_at(domain).iter().map(|message| message.tls).collect()
    }
}

fn announce(zone: &Zone, domain: &str, id: &str) {
    let name = format!("_mta-sts.{domain}");
    zone.remove(&name);
    zone.txt(&name, &format!("v=STSv1; id={id}"));
}

#[test]
fn what_a_strict_domain_demands_of_a_host_no_careless_one_at_the_same_host_pays_for() {
    let mut world = World::seed(60).secure("big.example", "mx.other.example").hosted("strict.example", "big.example").promises(
        "strict.example",
        "enforce",
        "*.big.example",
    );
    world.live(HOUR, |day| async move {
        for n in 0..10 {
            // Connections are kept: what one domain accepts must not serve the other.
            day.submit(2 * n, &["someone@big.example"]).await;
            day.submit(2 * n + 1, &["someone@strict.example"]).await;
        }
    });
    let messages = world.arrived_at("big.example");
    assert_eq!(messages.len(), 10, "the careless domain's mail arrived, the strict one's waits");
    assert!(messages.iter().all(|message| message.recipients == ["someone@big.example"]));
    // The provider gets the right certificate: everything arrives, and by TLS.
    let mut world = world.certified("big.example", "mx.big.example");
    world.live(6 * HOUR, |_| async {});
    assert_eq!(world.arrived("big.example"), [true; 20]);
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn a_host_that_an_enforced_policy_does_not_name_gets_nothing_and_tls_that_is_stripped_is_no_reason_to_send_in_clear() {
    let mut world = World::seed(61)
        .secure("named.example", "mx.named.example")
        .promises("named.example", "enforce", "mx.elsewhere.example")
        .provider("plain.example", Script::accepts_all())
        .promises("plain.example", "enforce", "mx.plain.example")
        .provider("member.example", Script::accepts_all());
    world.live(4 * DAY, |day| async move {
        day.submit(1, &["someone@named.example"]).await;
        day.submit(2, &["someone@plain.example"]).await;
    });
    assert!(world.arrived("named.example").is_empty() && world.arrived("plain.example").is_empty());
    let notices = world.arrived_at("member.example");
    let texts: Vec<_> = notices.iter().map(|notice| String::from_utf8_lossy(&notice.octets).into_owned()).collect();
    assert!(
        texts.iter().any(|text| text.contains("the policy of MTA-STS of named.example does not name this host")),
        "{texts:?}"
    );
    world.check_queue_is_empty();
}

#[test]
fn a_policy_that_is_tested_or_waived_by_the_sender_stops_no_mail() {
    let mut world = World::seed(62)
        .provider("tested.example", Script::accepts_all())
        .promises("tested.example", "testing", "mx.elsewhere.example")
        .provider("plain.example", Script::accepts_all())
        .promises("plain.example", "enforce", "mx.plain.example");
    world.live(HOUR, |day| async move {
        day.submit(1, &["someone@tested.example"]).await;
        let waived = ["<someone@plain.example>".to_owned()];
        day.submit_as("member.example", 2, "<app@member.example>", &waived, "TLS-Required: No\r\n").await;
    });
    assert_eq!((world.arrived("tested.example"), world.arrived("plain.example")), (vec![false], vec![false]));
    world.check_all_arrived_once();
}

#[test]
fn a_policy_outlives_its_record_its_host_and_a_restart_and_mail_waits_for_the_first_one() {
    let mut world = World::seed(63)
        .provider("plain.example", Script::accepts_all())
        .promises("plain.example", "enforce", "mx.plain.example")
        .provider("slow.example", Script::accepts_all())
        .promises("slow.example", "enforce", "mx.slow.example");
    let text = "version: STSv1\nmode: enforce\nmx: mx.slow.example\nmax_age: 604800\n";
    world.promises.pages.set_policy("slow.example", Duration::from_secs(50), Ok(text));
    world.live(HOUR, |day| async move {
        day.submit(1, &["someone@plain.example"]).await;
        day.submit(2, &["someone@slow.example"]).await;
    });
    for domain in ["plain.example", "slow.example"] {
        world.zone().remove(&format!("_mta-sts.{domain}"));
        world.promises.pages.set_policy(domain, Duration::from_secs(1), Err(WebError::Status(404)));
    }
    world.live(6 * HOUR, |day| async move {
        day.submit(3, &["someone@plain.example"]).await;
    });
    assert!(world.arrived("plain.example").is_empty() && world.arrived("slow.example").is_empty());
}

#[test]
fn each_day_ends_with_one_report_with_the_right_counts_to_whoever_asked() {
    let mut world = World::seed(64)
        .reports()
        .secure("good.example", "mx.good.example")
        .promises("good.example", "enforce", "mx.good.example")
        .asks("good.example", "mailto:tls@rua.example,https://rua.example/post")
        .secure("tested.example", "mx.other.example")
        .promises("tested.example", "testing", "mx.tested.example")
        .asks("tested.example", "mailto:tls@rua.example")
        .provider("silent.example", Script::accepts_all())
        // Its own policy fails, and the reports come all the same.
        .provider("rua.example", Script::accepts_all())
        .promises("rua.example", "enforce", "mx.nowhere.example");
    for life in 0..2 {
        // One day, two daemons.
        world.live(2 * HOUR, move |day| async move {
            for n in 0..3 {
                for (nth, domain) in ["good.example", "tested.example", "silent.example"].into_iter().enumerate() {
                    day.submit(100 * life + 10 * n + nth as u64, &[&format!("someone@{domain}")]).await;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        });
    }
    world.promises.pages.set_refusing(Some(WebError::Status(503)));
    world.live(DAY, |_| async {});
    world.promises.pages.set_refusing(None);
    world.live(2 * DAY, |_| async {});
    let mail = world.arrived_at("rua.example");
    let mut reports: Vec<_> = mail.iter().map(|message| TlsReport::parse_rfc5322(&message.octets, 1 << 20).unwrap()).collect();
    reports.sort_by_key(|report| report.policies[0].policy.policy_domain.clone());
    assert_eq!(reports.len(), 2, "one for each domain that asked");
    let [good, tested] = &reports[..] else { unreachable!() };
    // A connection is kept for ten seconds, so each message had one of its own.
    assert_eq!(good.policies.len(), 1);
    assert_eq!((good.policies[0].summary.total_success, good.policies[0].summary.total_failure), (6, 0));
    assert_eq!(good.policies[0].policy.policy_type, PolicyType::Sts);
    assert_eq!(good.policies[0].policy.mx_host, ["mx.good.example"]);
    assert_eq!(good.policies[0].policy.policy_string[1], "mode: enforce");
    assert_eq!((tested.policies[0].summary.total_success, tested.policies[0].summary.total_failure), (0, 6));
    let failure = &tested.policies[0].failure_details[0];
    assert_eq!((failure.result_type, failure.failed_session_count), (ResultType::CertificateHostMismatch, 6));
    assert_eq!(failure.sending_mta_ip, Some("192.0.2.11".parse().unwrap()));
    assert_eq!(failure.receiving_mx_hostname.as_deref(), Some("mx.tested.example"));
    let text = String::from_utf8_lossy(&mail[0].octets).into_owned();
    for field in
        ["DKIM-Signature:", "d=relay.world.test", "TLS-Required: No", "Received:", "TLS-Report-Submitter: relay.world.test"]
    {
        assert!(text.contains(field), "{field} in {text}");
    }
    let posted = world.promises.pages.posted();
    assert_eq!(posted.len(), 1, "tried again until it was taken, and not once more");
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(&*posted[0].1).read_to_end(&mut json).unwrap();
    assert_eq!((&*posted[0].0, TlsReport::parse_json(&json).unwrap()), ("https://rua.example/post", good.clone()));
    assert_eq!(world.arrived("tested.example"), [true; 6], "what is tested is delivered");
}
