//! One report: a day's counts as the message, or the body of a POST, that RFC 8460 asks for.
//!
//! Pure, but for the boundary and Message-ID that the crate which writes the message makes up.

use std::io::{self, Write};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use mail_auth::report::tlsrpt::{DateRange, TlsReport};

use super::tally::{Count, Day, midnight};
use crate::config::Config;

/// Who reports.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// `organization-name`.
    pub organization: String,
    /// `contact-info`.
    pub contact: String,
    /// From of reports by mail.
    pub from: String,
    /// The domain that signs them (RFC 8460 §3 and §5.3: `TLS-Report-Submitter`).
    pub submitter: String,
}

impl Reporter {
    /// As the settings say, if there are to be reports.
    pub fn of(config: &Config) -> Option<Self> {
        let (from, submitter) = (config.tls_reports.from.clone()?, config.signing.domain.clone()?);
        let organization = config.tls_reports.organization.clone().unwrap_or_else(|| config.hostname.clone());
        let contact = config.tls_reports.contact.clone().unwrap_or_else(|| from.clone());
        Some(Reporter { organization, contact, from, submitter })
    }
}

/// Content type of a report by POST (RFC 8460 §5.4, §6.5).
pub const GZIP: &str = "application/tlsrpt+gzip";

/// The report about `domain`.
pub fn report(reporter: &Reporter, day: Day, domain: &str, count: &Count) -> TlsReport {
    let secs = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    let (begin, end) = (secs(midnight(day)), secs(midnight(day.saturating_add(1))));
    TlsReport {
        organization_name: Some(reporter.organization.clone()),
        date_range: DateRange::from_timestamps(begin, end - 1),
        contact_info: Some(reporter.contact.clone()),
        // The same when it is made again after a crash, so that whoever gets it twice can see it.
        report_id: format!("{begin}.{domain}@{}", reporter.submitter),
        policies: count.policies.clone(),
    }
}

/// As a message to `to`, whole but for what an MSA adds, with its length up to the body.
pub fn message(reporter: &Reporter, report: &TlsReport, domain: &str, to: &str) -> io::Result<Bytes> {
    let mut written = Vec::new();
    report.write_rfc5322(domain, &reporter.submitter, &*reporter.from, [to].into_iter(), &mut written)?;
    // Whatever happens to the domain's TLS is what it wants to hear of (RFC 8460 §3, RFC 8689 §4.1).
    let mut octets = b"TLS-Required: No\r\n".to_vec();
    // The time of day is the caller's to tell: the field is added again with it.
    let at = memchr::memmem::find(&written, b"\r\n\r\n").map_or(written.len(), |at| at + 2);
    let (header, rest) = written.split_at(at);
    for line in header.split_inclusive(|octet| *octet == b'\n').filter(|line| !line.starts_with(b"Date:")) {
        octets.extend_from_slice(line);
    }
    octets.extend_from_slice(rest);
    Ok(octets.into())
}

/// As compressed JSON, for a POST (RFC 8460 §5.2: too large a report may be refused).
pub fn gzip(report: &TlsReport) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(report.to_json().as_bytes())?;
    Ok(encoder.finish()?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::egress::tls_reports::notes::Note;
    use crate::egress::tls_reports::tally::Tally;
    use scheduler::TlsFailure;

    #[test]
    fn a_report_by_mail_reads_back_and_has_the_fields_of_the_rfc() {
        let reporter = Reporter {
            organization: "Co-op".into(),
            contact: "postmaster@relay.example".into(),
            from: "tls-reports@relay.example".into(),
            submitter: "relay.example".into(),
        };
        let mut tally = Tally::default();
        tally.add(20_000, &Note::of_policy("example.org", TlsFailure::StsPolicyFetchError, "no".into()));
        let count = tally.get(&(20_000, "example.org".into())).unwrap();
        let report = report(&reporter, 20_000, "example.org", count);
        let octets = message(&reporter, &report, "example.org", "rua@example.org").unwrap();
        let text = String::from_utf8(octets.to_vec()).unwrap();
        let header = text.split("\r\n\r\n").next().unwrap();
        for field in [
            "TLS-Required: No",
            "TLS-Report-Domain: example.org",
            "TLS-Report-Submitter: relay.example",
            "Auto-Submitted: auto-generated",
            "report-type=\"tlsrpt\"",
        ] {
            assert!(header.contains(field), "{field} in {header}");
        }
        assert!(!header.contains("\r\nDate:"), "{header}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "bare CR or LF");
        assert_eq!(TlsReport::parse_rfc5322(&octets, 1 << 20).unwrap(), report);
        let mut json = Vec::new();
        flate2::read::GzDecoder::new(&*gzip(&report).unwrap()).read_to_end(&mut json).unwrap();
        assert_eq!(TlsReport::parse_json(&json).unwrap(), report);
        assert_eq!(report.date_range.start_datetime.to_rfc3339(), "2024-10-04T00:00:00Z");
        assert_eq!(report.date_range.end_datetime.to_rfc3339(), "2024-10-04T23:59:59Z");
    }
}
