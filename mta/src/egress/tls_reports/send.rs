//! Hands one report over: by mail through our own queue, or by POST (RFC 8460 §5).
//!
//! A report by mail is an ordinary message of our own, signed by the co-op's domain; its delivery is the queue's business, and no
//! policy of the domain stands in its way. A report by POST is handed over here and now.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use host::Clock;
use host::dns::{DnsError, Resolver};
use mail_auth::report::tlsrpt::TlsReport;
use scheduler::Lane;
use smtp::address::{Mailbox, ReversePath};

use super::actor::TRIED;
use super::record::{Place, places};
use super::report::{self, Reporter};
use super::tally::{Count, Day};
use crate::control::web::Web;
use crate::queue::{NewMessage, NewRecipient, OWN, Parameters, Queue, TlsWish};
use crate::sign::header::Header;
use crate::sign::{self, Signers, Trace};

/// What it takes.
pub struct Sender {
    /// Who we are.
    pub reporter: Reporter,
    /// Our name in the trace field.
    pub hostname: Arc<str>,
    /// Where reports go is asked here.
    pub dns: Resolver,
    /// For those that go by POST.
    pub web: Web,
    /// For those that go by mail.
    pub queue: Queue,
    /// The co-op's key.
    pub signers: Signers,
    /// What time it is.
    pub clock: Clock,
}

/// What became of a report.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Places that have it now.
    pub told: Vec<String>,
    /// Some place, or the DNS, is to be asked again.
    pub again: bool,
}

/// Why a place has no report.
enum Trouble {
    /// It may have the next time.
    Later(String),
    /// It is none.
    Never(String),
}

fn later(error: impl std::fmt::Display) -> Trouble {
    Trouble::Later(error.to_string())
}

fn never(error: impl std::fmt::Display) -> Trouble {
    Trouble::Never(error.to_string())
}

impl Sender {
    /// Hands a report over to every place that does not have it yet.
    pub async fn send(&self, (day, domain): &(Day, Arc<str>), count: &Count) -> Handed {
        let mut handed = Handed::default();
        let texts = match self.dns.txt(&format!("_smtp._tls.{domain}")).await {
            Ok((texts, _)) => texts,
            Err(DnsError::NoSuchName | DnsError::NoRecords) => return handed,
            Err(DnsError::Temporary(_) | DnsError::Bogus(_)) => return Handed { again: true, ..handed },
        };
        let report = report::report(&self.reporter, *day, domain, count);
        for place in places(texts.iter().map(String::as_str)) {
            let (Place::Mail(name) | Place::Https(name)) = &place;
            if count.told.contains(name) {
                continue;
            }
            let result = match &place {
                Place::Mail(address) => self.mail(&report, domain, address).await,
                Place::Https(url) => self.post(&report, url).await,
            };
            match result {
                Ok(()) => handed.told.push(name.clone()),
                Err(Trouble::Never(why)) => tracing::warn!(domain = %domain, to = name, why, "a TLS report cannot be sent"),
                Err(Trouble::Later(why)) => {
                    tracing::info!(domain = %domain, to = name, why, "a TLS report cannot be sent now");
                    handed.again = true;
                }
            }
        }
        handed
    }

    /// Hands a report over to who listens at a URL.
    async fn post(&self, report: &TlsReport, url: &str) -> Result<(), Trouble> {
        let body = report::gzip(report).map_err(never)?;
        self.web.post(url, report::GZIP, body).await.map_err(later)
    }

    /// Puts a report into the queue.
    async fn mail(&self, report: &TlsReport, domain: &str, address: &str) -> Result<(), Trouble> {
        let now = self.clock.now();
        let mailbox = Mailbox::parse(address, false).map_err(never)?;
        let written = report::message(&self.reporter, report, domain, mailbox.as_str()).map_err(never)?;
        let octets = self.signed(written, mailbox.as_str(), now).await?;
        let message = NewMessage {
            id: None,
            member: OWN,
            credential: 0,
            admission: None,
            // Nobody waits for news of it.
            reverse_path: ReversePath::Null,
            parameters: Parameters { tls: TlsWish::Waived, ..Parameters::default() },
            lane: Lane::Notice,
            received_at: now,
            due: now,
            delay_notice_at: None,
            deadline: now + TRIED,
            recipients: vec![NewRecipient { mailbox, notify: None, orcpt: None }],
            octets,
        };
        self.queue.enqueue(message).await.map(drop).map_err(later)
    }

    /// With a trace field, the time of day and the co-op's signature, without which receivers drop it (RFC 8460 §3).
    async fn signed(&self, written: Bytes, to: &str, now: SystemTime) -> Result<Vec<Bytes>, Trouble> {
        let header = Header::parse(&written).map_err(later)?;
        let trace = Trace {
            hostname: &self.hostname,
            ehlo: &self.hostname,
            with: "ESMTP",
            id: &self.queue.next_id(now).to_string(),
            only_recipient: Some(to),
            domain: &self.reporter.submitter,
            did: None,
            class: "notice",
            now,
        };
        let message = sign::prepare::prepare(&header, &trace).map_err(later)?;
        let signed = self.signers.sign(sign::Job { urgent: false, message, domain: None, now }).await.map_err(later)?;
        if signed.signatures == 0 {
            return Err(later(format!("{} has no DKIM key", self.reporter.submitter)));
        }
        Ok(vec![signed.head, signed.rest])
    }
}
