//! TLS-RPT (RFC 8460): what each domain that asks is told of the one message to it, by mail and by POST.
//!
//! The rows' domains, hosts and policies stand among the others of `dane.rs`, and their mail has verdicts like theirs. Then the
//! daemon is stopped and started again on the same data two days later (`later.rs`): the day is over, and its reports come. Those by
//! mail are read as the receiver reads them, signature and all; both are read back by mail-auth's parser.

mod rows;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::report::tlsrpt::{Policy, TlsReport};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use mail_parser::{MessageParser, MimeHeaders as _};
use serde_json::Value;

use self::rows::{Row, SINK, Told};
use super::case::Case;
use super::servers::Servers;
use super::sts::{Beside, Post, Published};
use crate::daemon::Daemon;
use crate::later;
use crate::sink::Message;

pub(super) use self::rows::WEB;

/// The daemon comes back so much later: any hour of the day is past the time when reports are sent.
const LATER: Duration = Duration::from_secs(2 * 86_400);
/// For all reports to come.
const PATIENCE: Duration = Duration::from_secs(60);
/// What comes after that would be too much.
const AFTER_ALL: Duration = Duration::from_secs(3);
/// Octets of a report, unpacked.
const REPORT_BYTES_MAX: usize = 1 << 20;

const FROM: &str = "tls-reports@relay.test";
const SUBMITTER: &str = "relay.test";

/// The rows' domains.
pub(super) fn cases() -> Vec<Case> {
    rows::rows().into_iter().map(|row| row.case).collect()
}

/// Whether a row is one that others need.
pub(super) fn is_needed(case: &Case, by: &[Case]) -> bool {
    case.name == SINK && by.iter().any(|other| other.name.starts_with("rpt-"))
}

/// The policies of the rows.
pub(super) fn policies() -> Vec<Published> {
    let policy = |row: Row| row.policy.map(|(page, shows)| Published { domain: row.case.domain(), page, shows });
    rows::rows().into_iter().filter_map(policy).collect()
}

/// What the daemon's settings need for reports: a key of the co-op's, and who reports. `name` tells its reports from others'.
pub(super) fn settings(configuration: &str, name: &str) -> String {
    let signing = format!(
        "[tls_reports]\nfrom = \"{FROM}\"\norganization = \"{name}\"\n\n[signing]\ndomain = \"{SUBMITTER}\"\nselector = \"coop\"\n"
    );
    configuration.replace("[signing]\n", &signing)
}

/// Two days later; says how many reports are not as expected.
pub(super) fn compare(
    daemon: &mut Daemon,
    directory: &Path,
    name: &str,
    cases: &[Case],
    (servers, web): (&Servers, &Beside),
) -> Result<usize> {
    let mut rows = rows::rows();
    rows.retain(|row| cases.iter().any(|case| case.name == row.case.name));
    if rows.is_empty() {
        return Ok(0);
    }
    let keys: Value = serde_json::from_str(&daemon.tradewind(&["key", "list", "--json"])?)?;
    let published = Keys::read(&keys)?;
    daemon.restart_within(later::environment(directory, LATER)?)?;
    let wanted: usize = rows.iter().map(|row| usize::from(row.by.0) + usize::from(row.by.1)).sum();
    let (began, mut arrived) = (Instant::now(), Vec::new());
    while began.elapsed() < PATIENCE && arrived.len() < wanted {
        std::thread::sleep(Duration::from_millis(200));
        arrived = reports(name, servers, web)?;
    }
    std::thread::sleep(AFTER_ALL);
    let mut by_domain: BTreeMap<String, Vec<Arrived>> = BTreeMap::new();
    for report in reports(name, servers, web)? {
        by_domain.entry(report.domain()).or_default().push(report);
    }
    let log = std::fs::read_to_string(daemon.directory().join("mta.log"))?;
    let mut wrong = 0;
    for row in rows {
        let arrived = by_domain.remove(&row.case.domain()).unwrap_or_default();
        let tried = |day: &str| attempts(&log, &row.case.domain(), day);
        let (mark, told) = match check(&row, &arrived, &published, tried) {
            Ok(()) => ("ok", format!("{} by mail, {} by POST, as expected", u8::from(row.by.0), u8::from(row.by.1))),
            Err(why) => {
                wrong += 1;
                ("WRONG", format!("{why:#}"))
            }
        };
        println!("{mark:5} {:20} {:10} {told}", row.case.name, row.case.rule);
    }
    for (domain, reports) in by_domain {
        wrong += reports.len();
        println!("WRONG {domain}: {} reports that nobody asked for", reports.len());
    }
    Ok(wrong)
}

/// A report, and how it came.
struct Arrived {
    report: TlsReport,
    message: Option<Message>,
    post: Option<Post>,
}

impl Arrived {
    fn domain(&self) -> String {
        self.report.policies.first().map(|policy| policy.policy.policy_domain.clone()).unwrap_or_default()
    }
}

/// Those of one daemon.
fn reports(name: &str, servers: &Servers, web: &Beside) -> Result<Vec<Arrived>> {
    let mut found = Vec::new();
    for message in servers.arrived_at(SINK) {
        if !message.recipients.iter().any(|it| it == "tls@rpt-sink.test") {
            continue;
        }
        let report = TlsReport::parse_rfc5322(&message.octets, REPORT_BYTES_MAX).map_err(|error| anyhow!("{error:?}"))?;
        found.push(Arrived { report, message: Some(message), post: None });
    }
    for post in web.posts() {
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&*post.body)
            .take(REPORT_BYTES_MAX as u64)
            .read_to_end(&mut json)
            .context("unpack a POST")?;
        let report = TlsReport::parse_json(&json).map_err(|error| anyhow!("{error:?}"))?;
        found.push(Arrived { report, message: None, post: Some(post) });
    }
    found.retain(|arrived| arrived.report.organization_name.as_deref() == Some(name));
    Ok(found)
}

/// Attempts for a domain on a day.
fn attempts(log: &str, domain: &str, day: &str) -> u32 {
    let of_day = log.lines().filter(|line| line.contains("\"attempt\"") && line.contains(&format!("\"timestamp\":\"{day}")));
    let count = of_day.filter(|line| line.contains(&format!("\"{domain}\""))).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn check(row: &Row, arrived: &[Arrived], keys: &Keys, tried: impl Fn(&str) -> u32) -> Result<()> {
    let came = |by: fn(&Arrived) -> bool| arrived.iter().filter(|it| by(it)).count();
    let (mails, posts) = (came(|it| it.message.is_some()), came(|it| it.post.is_some()));
    let (mail, post) = row.by;
    ensure!((mails, posts) == (mail.into(), post.into()), "{mails} by mail and {posts} by POST");
    for Arrived { report, message, post } in arrived {
        if let Some(message) = message {
            check_message(&row.case.domain(), report, message, keys)?;
        }
        if let Some(post) = post {
            ensure!(post.content_type == "application/tlsrpt+gzip", "it is {}", post.content_type);
            ensure!(post.path == "/v1/tlsrpt", "it came to {}", post.path);
        }
        ensure!(report.contact_info.as_deref() == Some(FROM), "the contact is {:?}", report.contact_info);
        let (begin, end) = (report.date_range.start_datetime.to_timestamp(), report.date_range.end_datetime.to_timestamp());
        ensure!(begin % 86_400 == 0 && end - begin == 86_399, "it is of {begin} to {end}");
        ensure!(report.policies.len() == row.told.len(), "{} policies: {:?}", report.policies.len(), report.policies);
        for told in &row.told {
            let same = |policy: &&Policy| policy.policy.policy_type == told.kind;
            let policy = report.policies.iter().find(same).with_context(|| format!("no {:?}", told.kind))?;
            let day = report.date_range.start_datetime.to_rfc3339();
            check_policy(told, policy, tried(day.get(..10).unwrap_or_default())).with_context(|| format!("{policy:?}"))?;
        }
    }
    Ok(())
}

/// `tried` are the attempts that the daemon has logged: what waits is tried again while other rows are busy, and a host that failed a
/// moment ago is passed over.
fn check_policy(told: &Told, policy: &Policy, tried: u32) -> Result<()> {
    let (summary, strings) = (&policy.summary, &policy.policy.policy_string);
    let failures = if told.failure.is_some() { 1..=tried } else { 0..=0 };
    ensure!(summary.total_success == told.successes && failures.contains(&summary.total_failure), "counts; {tried} attempts");
    for words in &told.says {
        ensure!(strings.iter().any(|string| string.contains(words)), "no string has {words}");
    }
    ensure!(!told.says.is_empty() || strings.is_empty(), "strings of a policy that nobody has");
    let details: Vec<_> = policy.failure_details.iter().map(|it| (it.result_type, it.failed_session_count)).collect();
    let expected: Vec<_> = told.failure.into_iter().map(|kind| (kind, summary.total_failure)).collect();
    ensure!(details == expected, "kinds of failure");
    Ok(())
}

/// RFC 8460 §5.3, as a receiver sees it.
fn check_message(domain: &str, report: &TlsReport, message: &Message, keys: &Keys) -> Result<()> {
    let parsed = MessageParser::default().parse(&*message.octets).context("a message that cannot be read")?;
    let field = |name: &str| parsed.header(name).and_then(|value| value.as_text()).unwrap_or_default().to_owned();
    let from = parsed.from().and_then(|from| from.first()).and_then(|from| from.address()).unwrap_or_default();
    ensure!(from == FROM, "From is {from}");
    let subject = format!("Report Domain: {domain} Submitter: {SUBMITTER} Report-ID: <{}>", report.report_id);
    ensure!(parsed.subject() == Some(&*subject), "Subject is {:?}", parsed.subject());
    ensure!(field("TLS-Report-Domain") == domain, "TLS-Report-Domain is {}", field("TLS-Report-Domain"));
    ensure!(field("TLS-Report-Submitter") == SUBMITTER, "TLS-Report-Submitter is {}", field("TLS-Report-Submitter"));
    ensure!(parsed.date().is_some() && parsed.message_id().is_some(), "no Date or no Message-ID");
    let kind = parsed.content_type().context("no Content-Type")?;
    ensure!((kind.ctype(), kind.subtype()) == ("multipart", Some("report")), "it is {kind:?}");
    ensure!(kind.attribute("report-type") == Some("tlsrpt"), "it is {kind:?}");
    let subtypes: Vec<_> = parsed.parts.iter().filter_map(|part| part.content_type()?.subtype()).collect();
    ensure!(subtypes == ["report", "plain", "tlsrpt+gzip"], "its parts are {subtypes:?}");
    ensure!(message.reverse_path.is_empty(), "its reverse-path is {}", message.reverse_path);
    ensure!(message.tls, "it came in clear text");
    keys.verify(&message.octets)
}

/// The daemon's keys, as if published.
struct Keys(BTreeMap<Box<str>, Txt>);

impl Keys {
    fn read(rows: &Value) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for row in rows.as_array().context("no list of keys")? {
            let record = &row["dns_record"];
            let (name, value) = (record["name"].as_str().unwrap_or_default(), record["value"].as_str().unwrap_or_default());
            let value = DomainKey::parse(value.replace(['"', ' '], "").as_bytes()).map_err(|error| anyhow!("{error:?}"))?;
            keys.insert(format!("{}.", name.trim_end_matches('.')).into_boxed_str(), Txt::from(value));
        }
        Ok(Keys(keys))
    }

    /// Signed by the submitter's domain, by fields that include those of reports.
    fn verify(&self, octets: &[u8]) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let message = AuthenticatedMessage::parse(octets).context("a message that cannot be read")?;
        let resolver = mail_auth::hickory_resolver::config::ResolverConfig::default();
        let authenticator = MessageAuthenticator::new(resolver, Default::default()).map_err(|error| anyhow!("{error}"))?;
        let outputs = runtime.block_on(authenticator.verify_dkim(Parameters::new(&message).with_txt_cache(self)));
        ensure!(!outputs.is_empty(), "it is not signed");
        for output in &outputs {
            let signature = output.signature().context("a signature that cannot be read")?;
            ensure!(matches!(output.result(), DkimResult::Pass), "the signature of {} is {:?}", signature.d, output.result());
            ensure!(signature.d == SUBMITTER, "it is signed by {}", signature.d);
            let covers = |name: &str| signature.h.iter().any(|field| field.eq_ignore_ascii_case(name));
            ensure!(covers("TLS-Report-Domain") && covers("TLS-Report-Submitter"), "the signature leaves its fields out");
        }
        Ok(())
    }
}

impl ResolverCache<Box<str>, Txt> for Keys {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.iter().find(|(key, _)| Borrow::<Q>::borrow(*key) == name).map(|(_, value)| value.clone())
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: std::time::Instant) {}
}
