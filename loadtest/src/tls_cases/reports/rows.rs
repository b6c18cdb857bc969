//! The rows about reports (RFC 8460): a recipient domain that asks for them, or not, and what must be told of one message to it.

use mail_auth::report::tlsrpt::{PolicyType, ResultType};

use super::super::case::Expect::{Clear, Deferred, Tls};
use super::super::case::{Case, Host, Of, Place, Serves, Shows, Tweak};
use super::super::sts::{Page, PolicyHost};

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its domain, its host, and what becomes of its mail.
    pub(super) case: Case,
    /// Its policy of MTA-STS, and the certificate of its policy host.
    pub(super) policy: Option<(Page, PolicyHost)>,
    /// Whether it is told by mail, and by POST.
    pub(super) by: (bool, bool),
    /// What it is told.
    pub(super) told: Vec<Told>,
}

/// One policy of a report.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) kind: PolicyType,
    /// Each stands in one of the policy's strings.
    pub(super) says: Vec<&'static str>,
    pub(super) successes: u32,
    /// What failed, at every attempt.
    pub(super) failure: Option<ResultType>,
}

/// Where reports by mail go. This domain's own policy fails with its own host; reports come all the same.
pub(super) const SINK: &str = "rpt-sink";
/// Who takes reports by POST.
pub(in super::super) const WEB: &str = "reports.rpt-sink.test";

const MAIL: &str = "mailto:tls@rpt-sink.test";
const POST: &str = "https://reports.rpt-sink.test:{policy_port}/v1/tlsrpt";
const WEEK: u32 = 604_800;

impl Row {
    /// Asks by these records.
    fn asks(case: Case, records: &[&str], by: (bool, bool), told: Vec<Told>) -> Self {
        let case = records.iter().fold(case, |case, record| case.line(&format!("_smtp._tls TXT \"{record}\"")));
        Row { case, policy: None, by, told }
    }

    /// Asks for reports by mail.
    fn mail(case: Case, told: Vec<Told>) -> Self {
        Row::asks(case, &[&format!("v=TLSRPTv1; rua={MAIL}")], (true, false), told)
    }

    /// The same with a policy of MTA-STS.
    fn sts(case: Case, page: Page, told: Vec<Told>) -> Self {
        let row = Row::mail(case, told);
        Row { policy: Some((page, PolicyHost::Good)), ..row.published() }
    }

    fn published(self) -> Self {
        Row { case: self.case.line("_mta-sts TXT \"v=STSv1; id=1;\"").line("mta-sts A 127.0.0.1"), ..self }
    }

    fn policy_host(self, shows: PolicyHost) -> Self {
        Row { policy: self.policy.map(|(page, _)| (page, shows)), ..self }
    }
}

fn told(kind: PolicyType, says: &[&'static str], successes: u32, failure: Option<ResultType>) -> Told {
    Told { kind, says: says.to_vec(), successes, failure }
}

fn good(kind: PolicyType, says: &[&'static str]) -> Vec<Told> {
    vec![told(kind, says, 1, None)]
}

fn bad(kind: PolicyType, says: &[&'static str], failure: ResultType) -> Vec<Told> {
    vec![told(kind, says, 0, Some(failure))]
}

/// All rows.
pub(super) fn rows() -> Vec<Row> {
    let mut rows = vec![Row {
        policy: Some((Page::Policy("enforce", "mx.else.test", WEEK), PolicyHost::Good)),
        ..Row::asks(
            Case::new(SINK, "8460 5.3", Host::new().shows(Shows::Public), "barred", Deferred("does not name this host"))
                .line("reports A 127.0.0.1"),
            &[],
            (false, false),
            vec![],
        )
        .published()
    }];
    rows.extend(who_is_told());
    rows.extend(dane());
    rows.extend(sts());
    rows
}

fn who_is_told() -> Vec<Row> {
    let case = |name| Case::new(name, "8460 3", Host::new(), "opportunistic", Tls(1));
    let nothing_promised = || good(PolicyType::NoPolicyFound, &[]);
    let both = format!("v=TLSRPTv1; rua={MAIL},{POST}");
    let nobody = |name, records: &[&str]| Row::asks(case(name), records, (false, false), vec![]);
    vec![
        Row::mail(case("rpt-mail"), nothing_promised()),
        Row::asks(case("rpt-post"), &[&format!("v=TLSRPTv1; rua={POST}")], (false, true), nothing_promised()),
        Row::asks(case("rpt-both"), &[&both], (true, true), nothing_promised()),
        Row::asks(case("rpt-beside"), &["v=spf1 -all", &both], (true, true), nothing_promised()),
        // A place that cannot be one does not stand in the way of another.
        Row::asks(case("rpt-other"), &[&format!("v=TLSRPTv1; rua=ftp://x.test/,{MAIL}")], (true, false), nothing_promised()),
        nobody("rpt-none", &[]),
        nobody("rpt-malformed", &[&format!("v=TLSRPTv1; nonsense; rua={MAIL}")]),
        nobody("rpt-version", &[&format!("v=TLSRPTv2; rua={MAIL}")]),
        nobody("rpt-no-rua", &["v=TLSRPTv1;"]),
        nobody("rpt-two", &[&format!("v=TLSRPTv1; rua={MAIL}"), &format!("v=TLSRPTv1; rua={POST}")]),
        Row::mail(
            Case::new("rpt-stripped", "8460 4.3.1", Host::new().serves(Serves::Stripped), "opportunistic", Clear),
            bad(PolicyType::NoPolicyFound, &[], ResultType::StartTlsNotSupported),
        ),
    ]
}

fn dane() -> Vec<Row> {
    let (pinned, other) = (Host::new().tlsa(3, 1, 1, Of::Own), Host::new().tlsa(3, 1, 1, Of::Other));
    let stripped = pinned.clone().serves(Serves::Stripped);
    let record = ["IN TLSA 3 1 1 "];
    vec![
        Row::mail(Case::new("rpt-tlsa", "8460 4.4", pinned.clone(), "dane", Tls(1)), good(PolicyType::Tlsa, &record)),
        Row::mail(
            Case::new("rpt-tlsa-other", "8460 4.3.2", other, "dane", Deferred("no TLSA record vouches")),
            bad(PolicyType::Tlsa, &record, ResultType::TlsaInvalid),
        ),
        Row::mail(
            Case::new("rpt-tlsa-clear", "8460 4.3.1", stripped, "dane", Deferred("does not offer STARTTLS")),
            bad(PolicyType::Tlsa, &record, ResultType::StartTlsNotSupported),
        ),
        Row::mail(
            Case::new("rpt-tlsa-bogus", "8460 4.3.2", pinned.clone(), "barred", Deferred("cannot be seen"))
                .tweak(Tweak::Forge("TLSA")),
            bad(PolicyType::Tlsa, &[], ResultType::DnssecInvalid),
        ),
        // Where the names are not signed the records do not count, and are not told.
        Row::mail(
            Case::new("rpt-tlsa-plain", "8460 4.4", pinned.at(Place::Plain), "opportunistic", Tls(1)),
            good(PolicyType::NoPolicyFound, &[]),
        ),
    ]
}

fn sts() -> Vec<Row> {
    let shows = |shows| Host::new().shows(shows);
    let enforced = ["version: STSv1", "mode: enforce", "max_age: 604800", "mx: *."];
    let enforce = |name: &str| Page::Policy("enforce", Box::leak(format!("*.{name}.test").into_boxed_str()), WEEK);
    let failing = |name, host, words, failure| {
        let case = Case::new(name, "8460 4.3", host, "verified", Deferred(words));
        Row::sts(case, enforce(name), bad(PolicyType::Sts, &enforced, failure))
    };
    // The policy fails, and then there is none.
    let unfound = |name, page, failure| {
        let case = Case::new(name, "8460 4.3.2", shows(Shows::Public), "opportunistic", Tls(1));
        Row::sts(case, page, vec![told(PolicyType::Sts, &[], 0, Some(failure)), told(PolicyType::NoPolicyFound, &[], 1, None)])
    };
    let case = Case::new("rpt-sts", "8460 4.4", shows(Shows::Public), "verified", Tls(1));
    let unnamed = Case::new("rpt-sts-unnamed", "8460 4.3", shows(Shows::Public), "barred", Deferred("does not name this host"));
    let tested = Case::new("rpt-sts-testing", "8460 4.3", shows(Shows::PublicForOther), "opportunistic", Tls(1));
    vec![
        Row::sts(case, enforce("rpt-sts"), good(PolicyType::Sts, &enforced)),
        failing("rpt-sts-name", shows(Shows::PublicForOther), "TLS", ResultType::CertificateHostMismatch),
        failing("rpt-sts-ended", shows(Shows::PublicEnded), "TLS", ResultType::CertificateExpired),
        failing("rpt-sts-issuer", shows(Shows::SelfSigned), "TLS", ResultType::CertificateNotTrusted),
        failing("rpt-sts-broken", Host::new().serves(Serves::Broken), "TLS", ResultType::ValidationFailure),
        failing("rpt-sts-clear", Host::new().serves(Serves::Stripped), "STARTTLS", ResultType::StartTlsNotSupported),
        Row::sts(
            unnamed,
            Page::Policy("enforce", "mx.else.test", WEEK),
            bad(PolicyType::Sts, &["mx: mx.else.test"], ResultType::ValidationFailure),
        ),
        Row::sts(
            tested,
            Page::Policy("testing", "*.rpt-sts-testing.test", WEEK),
            bad(PolicyType::Sts, &["mode: testing"], ResultType::CertificateHostMismatch),
        ),
        unfound("rpt-sts-absent", Page::Status(404), ResultType::StsPolicyFetchError),
        unfound("rpt-sts-garbage", Page::Text("not a policy\n"), ResultType::StsPolicyInvalid),
        unfound("rpt-sts-webpki", Page::Policy("enforce", "*.rpt-sts-webpki.test", WEEK), ResultType::StsWebpkiInvalid)
            .policy_host(PolicyHost::SelfSigned),
    ]
}
