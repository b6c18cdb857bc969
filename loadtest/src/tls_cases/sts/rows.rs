//! The rows.

/// One row. Its domain is `NAME.sts.test`, its host `mx.NAME.sts.test`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// A DNS label.
    pub(super) name: &'static str,
    /// Where the rule stands.
    pub(super) rule: &'static str,
    /// TXT records at `_mta-sts`.
    pub(super) records: Vec<&'static str>,
    /// They cannot be looked up.
    pub(super) silent: bool,
    /// What the policy host answers; `{mx}` is the receiving host.
    pub(super) page: Page,
    /// What certificate the policy host shows.
    pub(super) policy_host: Shows,
    /// The receiving host.
    pub(super) host: Shows,
    /// It offers REQUIRETLS.
    pub(super) offers: bool,
    /// What the sender says.
    pub(super) wish: Wish,
    /// Has the receiving host of another row.
    pub(super) shares: Option<&'static str>,
    /// What must become of the first message.
    pub(super) expect: Expect,
    /// What is different when the daemon has been started again.
    pub(super) then: Option<Then>,
}

/// The second act of a row.
#[derive(Clone, Debug)]
pub(super) struct Then {
    pub(super) records: Vec<&'static str>,
    pub(super) page: Page,
    pub(super) expect: Expect,
}

/// What a policy host says.
#[derive(Clone, Debug)]
pub(in super::super) enum Page {
    /// 200, text/plain, this mode, these hosts, this many seconds.
    Policy(&'static str, &'static str, u32),
    /// 200, text/plain, these lines.
    Text(&'static str),
    /// 200 with another type of content, and a good policy.
    Html,
    /// A good policy, and behind it more than 64 KB of fields that nobody knows.
    Huge,
    /// 301 to a place that has a good policy.
    Redirect,
    /// This status, with a good policy as its body.
    Status(u16),
    /// A good policy, after half a minute.
    Slow,
    /// There is no such host.
    Absent,
}

/// A certificate, or the lack of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Shows {
    Good,
    OtherName,
    Ended,
    SelfSigned,
    /// STARTTLS is not offered, as when somebody strips it.
    Stripped,
}

/// What the sender says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    None,
    Waived,
    Required,
}

/// What must become of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Tls,
    Clear,
    Deferred(&'static str),
    Failed(&'static str),
}

const RECORD: &str = "v=STSv1; id=1;";
const NEXT: &str = "v=STSv1; id=2;";
const WEEK: u32 = 604_800;

impl Row {
    /// An enforced policy that names the host, which has a good certificate.
    fn new(name: &'static str, rule: &'static str, expect: Expect) -> Self {
        Row {
            name,
            rule,
            records: vec![RECORD],
            silent: false,
            page: Page::Policy("enforce", "{mx}", WEEK),
            policy_host: Shows::Good,
            host: Shows::Good,
            offers: false,
            wish: Wish::None,
            shares: None,
            expect,
            then: None,
        }
    }

    fn host(self, host: Shows) -> Self {
        Row { host, ..self }
    }

    fn page(self, page: Page) -> Self {
        Row { page, ..self }
    }

    fn policy_host(self, policy_host: Shows) -> Self {
        Row { policy_host, ..self }
    }

    fn records(self, records: &[&'static str]) -> Self {
        Row { records: records.to_vec(), ..self }
    }

    fn wish(self, wish: Wish, offers: bool) -> Self {
        Row { wish, offers, ..self }
    }

    fn then(self, records: &[&'static str], page: Page, expect: Expect) -> Self {
        Row { then: Some(Then { records: records.to_vec(), page, expect }), ..self }
    }

    pub(super) fn domain(&self) -> String {
        format!("{}.sts.test", self.name)
    }

    pub(super) fn mx(&self) -> String {
        format!("mx.{}.sts.test", self.shares.unwrap_or(self.name))
    }
}

/// All of them. A host that strips STARTTLS shows by clear text that no policy was in force.
pub(super) fn rows() -> Vec<Row> {
    use Expect::{Clear, Deferred, Failed, Tls};
    use Page::{Absent, Policy, Status, Text};
    use Shows::{Ended, Good, OtherName, SelfSigned, Stripped};
    let gone = || Status(404);
    let testing = || Policy("testing", "{mx}", WEEK);
    vec![
        Row::new("good", "8461 5", Tls).then(&[RECORD], gone(), Tls),
        Row::new("stripped", "8461 5", Deferred("STARTTLS")).host(Stripped),
        Row::new("other-name", "8461 4.2", Deferred("TLS")).host(OtherName),
        Row::new("ended", "8461 4.2", Deferred("TLS")).host(Ended),
        Row::new("self-signed", "8461 4.2", Deferred("TLS")).host(SelfSigned),
        // The same host, and nothing promised.
        Row { shares: Some("other-name"), ..Row::new("careless", "8461 4.2", Tls).records(&[]).page(Absent) },
        Row::new("mx-mismatch", "8461 4.1", Deferred("does not name this host")).page(Policy("enforce", "mx.else.test", WEEK)),
        Row::new("wildcard", "8461 4.1", Tls).page(Policy("enforce", "*.wildcard.sts.test", WEEK)),
        Row::new("wildcard-depth", "8461 4.1", Deferred("does not name this host")).page(Policy("enforce", "*.sts.test", WEEK)),
        Row::new("wildcard-root", "8461 4.1", Clear).host(Stripped).page(Policy("enforce", "*", WEEK)),
        Row::new("testing-name", "8461 5", Tls).host(OtherName).page(testing()),
        Row::new("testing-stripped", "8461 5", Clear).host(Stripped).page(testing()),
        Row::new("testing-mismatch", "8461 5", Clear).host(Stripped).page(Policy("testing", "mx.else.test", WEEK)),
        Row::new("mode-none", "8461 5", Clear).host(Stripped).page(Policy("none", "{mx}", WEEK)),
        Row::new("no-record", "8461 3.1", Clear).host(Stripped).records(&["v=spf1 -all"]),
        Row::new("two-records", "8461 3.1", Clear).host(Stripped).records(&[RECORD, NEXT]),
        Row::new("other-records", "8461 3.1", Deferred("STARTTLS")).host(Stripped).records(&["v=spf1 -all", RECORD]),
        Row::new("bad-id", "8461 3.1", Clear).host(Stripped).records(&["v=STSv1; id=a-b;"]),
        Row::new("no-id", "8461 3.1", Clear).host(Stripped).records(&["v=STSv1;"]),
        Row::new("redirect", "8461 3.3", Clear).host(Stripped).page(Page::Redirect),
        Row::new("not-found", "8461 3.3", Clear).host(Stripped).page(gone()),
        Row::new("status-206", "8461 3.3", Clear).host(Stripped).page(Status(206)),
        Row::new("html", "8461 3.2", Clear).host(Stripped).page(Page::Html),
        Row::new("huge", "8461 3.3", Clear).host(Stripped).page(Page::Huge),
        Row::new("garbage", "8461 3.2", Clear).host(Stripped).page(Text("not a policy\n")),
        Row::new("bad-mode", "8461 3.2", Clear).host(Stripped).page(Policy("strict", "{mx}", WEEK)),
        Row::new("no-mx", "8461 3.2", Clear).host(Stripped).page(Text("version: STSv1\nmode: enforce\nmax_age: 86400\n")),
        Row::new("policy-other-name", "8461 3.3", Clear).host(Stripped).policy_host(OtherName),
        Row::new("policy-ended", "8461 3.3", Clear).host(Stripped).policy_host(Ended),
        Row::new("policy-self-signed", "8461 3.3", Clear).host(Stripped).policy_host(SelfSigned),
        Row::new("policy-absent", "8461 3.3", Clear).host(Stripped).page(Absent),
        Row::new("policy-slow", "8461 3.3", Deferred("has not answered yet")).host(Stripped).page(Page::Slow),
        // What was kept, and what replaces it.
        Row::new("rollover", "8461 3.3", Deferred("does not name")).page(Policy("enforce", "mx.old.test", WEEK)).then(
            &[NEXT],
            Policy("enforce", "{mx}", WEEK),
            Tls,
        ),
        Row::new("same-id", "8461 3.3", Deferred("does not name")).page(Policy("enforce", "mx.old.test", WEEK)).then(
            &[RECORD],
            Policy("enforce", "{mx}", WEEK),
            Deferred("does not name"),
        ),
        Row::new("record-gone", "8461 5.1", Deferred("STARTTLS")).host(Stripped).then(&[], gone(), Deferred("STARTTLS")),
        Row::new("records-doubled", "8461 5.1", Deferred("STARTTLS")).host(Stripped).then(
            &[RECORD, NEXT],
            gone(),
            Deferred("STARTTLS"),
        ),
        Row::new("fetch-fails", "8461 3.3", Deferred("STARTTLS")).host(Stripped).then(&[NEXT], gone(), Deferred("STARTTLS")),
        Row::new("worse-policy", "8461 3.3", Deferred("STARTTLS")).host(Stripped).then(
            &[NEXT],
            Text("version: STSv1\nmode: none\n"),
            Deferred("STARTTLS"),
        ),
        Row::new("opts-out", "8461 8.3", Deferred("STARTTLS")).host(Stripped).then(
            &[NEXT],
            Policy("none", "{mx}", 86_400),
            Clear,
        ),
        Row::new("runs-out", "8461 5.1", Deferred("STARTTLS")).host(Stripped).page(Policy("enforce", "{mx}", 3)).then(
            &[],
            gone(),
            Clear,
        ),
        // What the sender says.
        Row::new("waived", "8689 4.1", Clear).host(Stripped).wish(Wish::Waived, false),
        Row::new("waived-name", "8689 4.1", Tls).host(OtherName).wish(Wish::Waived, false),
        Row::new("required", "8689 4.2.1", Tls).host(Good).wish(Wish::Required, true),
        Row::new("required-testing", "8689 4.2.1", Tls).page(testing()).wish(Wish::Required, true),
        Row::new("required-unoffered", "8689 4.2.1", Failed("5.7.30")).wish(Wish::Required, false),
        Row::new("required-unnamed", "8689 4.2.1", Failed("5.7.30")).records(&[]).page(Absent).wish(Wish::Required, true),
        // What nobody can say now is looked for again; what is known is told at once.
        Row::new("required-unfetched", "8689 4.2.1", Deferred("cannot be found out now"))
            .page(gone())
            .wish(Wish::Required, true)
            .then(&[RECORD], Policy("enforce", "{mx}", WEEK), Tls),
        Row { silent: true, ..Row::new("required-silent", "8689 4.2.1", Deferred("451 4.7.5")).wish(Wish::Required, true) },
        Row::new("required-mode-none", "8689 4.2.1", Failed("5.7.30"))
            .page(Policy("none", "{mx}", WEEK))
            .wish(Wish::Required, true),
        Row::new("required-other-host", "8689 4.2.1", Failed("5.7.30"))
            .page(Policy("testing", "mx.else.test", WEEK))
            .wish(Wish::Required, true),
        Row::new("required-two-records", "8689 4.2.1", Failed("5.7.30")).records(&[RECORD, NEXT]).wish(Wish::Required, true),
        Row { silent: true, ..Row::new("silent", "8461 5.1", Clear).host(Stripped) },
        Row::new("required-other-name", "8689 4.2.1", Deferred("TLS")).host(OtherName).page(testing()).wish(Wish::Required, true),
        Row::new("required-stripped", "8689 4.2.1", Deferred("STARTTLS"))
            .host(Stripped)
            .page(testing())
            .wish(Wish::Required, true),
    ]
}
