//! What an operator does to queued mail: hold, release, cancel, flush.
//!
//! A wish about much mail is done in parts: each request works for [`WORK_TIME`] and answers where to go on, and inside
//! it each share is a transaction of its own, so that mail is committed in between. Whoever breaks off has done a part,
//! and may ask for the whole again.
//!
//! Each request leaves a line in the log with who asked; each delivery held, released or cancelled an event.

use std::time::Duration;

use scheduler::{Cancellation, Cancelled};
use smtp::address::canonical_domain;

use super::{
    answers::{QueueDone, QueueWish, Why},
    api::Refusal,
    daemon::Daemon,
    views::{blocking, queue_id, unable},
};
use crate::queue::{Filter, Operation, Which, Wish};

/// How long a request works before it answers where to go on.
const WORK_TIME: Duration = Duration::from_millis(50);

/// Deliveries cancelled at a time.
const CANCELLED_AT_ONCE: usize = 256;

/// Settlements that may be under way before more is cancelled.
const SETTLING_MAX: usize = 2 * CANCELLED_AT_ONCE;

/// How long a request waits for what it cancelled to be written down.
const SETTLED_WAIT: Duration = Duration::from_secs(5);

/// Between two looks at that.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Not tried until released.
    Hold,
    /// No longer held.
    Release,
    /// Gone.
    Cancel,
    /// Due now, and the site no longer left alone.
    Flush,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Hold => "hold",
            Verb::Release => "release",
            Verb::Cancel => "cancel",
            Verb::Flush => "flush",
        }
    }
}

/// Where a wish goes on: at its so many-th domain, after a key of the queue.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cursor {
    domain: String,
    key: Vec<u8>,
}

impl Daemon {
    /// Does part of a wish.
    pub(super) async fn operate_on_queue(&self, verb: Verb, wish: QueueWish, by: &str) -> Result<QueueDone, Refusal> {
        let ways = [&wish.id, &wish.member, &wish.domain, &wish.site].into_iter().flatten().count();
        if ways != 1 {
            return Err(Refusal::Wrong("name the deliveries in exactly one way: id, member, domain or site".to_owned()));
        }
        if wish.notify && verb != Verb::Cancel {
            return Err(Refusal::Wrong("only cancel tells the sender; leave notify out".to_owned()));
        }
        let by = match wish.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()) {
            Some(reason) => format!("{by}: {}", reason.replace(char::is_control, " ")),
            None => by.to_owned(),
        };
        let cursor = wish.after.as_deref().map(Cursor::parse).transpose()?;
        let is_first = cursor.is_none();
        let Cursor { domain: from, key } = cursor.unwrap_or_default();
        let (targets, sites) = self.targets(verb, &wish).await?;
        let mut done = QueueDone::default();
        let began = self.now();
        let mut after = Some(key).filter(|key| !key.is_empty());
        let mut next = None;
        'targets: for (name, which) in targets.into_iter().filter(|(name, _)| *name >= from) {
            // The key is of the domain where the last request stopped.
            let mut at = after.take().filter(|_| name == from);
            loop {
                let late = self.now().duration_since(began).is_ok_and(|spent| spent > WORK_TIME);
                if late && (done.changed + done.unchanged > 0) {
                    next = Some(Cursor { domain: name, key: at.unwrap_or_default() }.to_string());
                    break 'targets;
                }
                at = match verb {
                    Verb::Cancel => self.cancel_some(&which, at, &by, wish.notify, &mut done).await?,
                    Verb::Hold => self.share(Wish::Hold, &which, at, &by, &mut done).await?,
                    Verb::Release => self.share(Wish::Release, &which, at, &by, &mut done).await?,
                    Verb::Flush => self.share(Wish::Flush, &which, at, &by, &mut done).await?,
                };
                if at.is_none() {
                    break;
                }
            }
            if let (Verb::Flush, Which::Domain(domain)) = (verb, &which) {
                self.parts.scheduler.flush(domain).await.map_err(unable)?;
            }
        }
        done.next = next;
        // Last: what the probe leaves open is deferred anew, and was not meant.
        for site in sites.into_iter().filter(|_| done.next.is_none()) {
            if self.parts.scheduler.lift(&site).await.map_err(unable)? {
                done.lifted.push(site);
            }
        }
        if let (Verb::Hold, Some(id), true) = (verb, &wish.id, is_first) {
            let why = self.explain_message(id).await;
            let in_flight = |why: Why| why.deliveries.iter().filter(|delivery| delivery.state == "in_flight").count();
            done.in_flight = why.map_or(0, in_flight) as u64;
        }
        if is_first && done.next.is_none() && done.changed + done.unchanged == 0 && wish.id.is_some() {
            let id = wish.id.unwrap_or_default();
            return Err(Refusal::Unknown(format!("{id} is not in the queue (any more); `tradewind why {id}` may say why")));
        }
        tracing::info!(
            verb = verb.name(),
            by,
            id = wish.id,
            member = wish.member,
            domain = wish.domain,
            site = wish.site,
            changed = done.changed,
            in_flight = done.in_flight,
            more = done.next.is_some(),
            "an operator's wish about the queue"
        );
        Ok(done)
    }

    /// What a wish is about, in an order that stays, and the sites of it.
    async fn targets(&self, verb: Verb, wish: &QueueWish) -> Result<(Vec<(String, Which)>, Vec<String>), Refusal> {
        let alone = |which| Ok((vec![(String::new(), which)], Vec::new()));
        if let Some(id) = &wish.id {
            return alone(Which::Message(queue_id(id)?));
        }
        if let Some(member) = &wish.member {
            return alone(Which::Member(self.find(member)?.id));
        }
        let (mut domains, mut sites) = (Vec::new(), Vec::new());
        if let Some(site) = &wish.site
            && let Some(known) = self.parts.scheduler.domains_of_site(site).await.map_err(unable)?
        {
            domains.extend(known.iter().map(|domain| domain.to_string()));
            sites.extend((verb == Verb::Flush).then(|| site.clone()));
        } else {
            let name = wish.domain.as_deref().or(wish.site.as_deref()).unwrap_or_default();
            let domain = canonical_domain(name);
            let domain =
                domain.map_err(|error| Refusal::Wrong(format!("{name:?} is neither a domain nor a known site: {error}")))?;
            if verb == Verb::Flush {
                let survey = self.parts.scheduler.survey(&domain, None).await.map_err(unable)?;
                sites.extend(survey.site.map(|site| site.name.to_string()));
            }
            domains.push(domain.into_owned());
        }
        domains.sort();
        Ok((domains.into_iter().map(|domain| (domain.clone(), Which::Domain(domain))).collect(), sites))
    }

    async fn share(
        &self,
        wish: Wish,
        which: &Which,
        after: Option<Vec<u8>>,
        by: &str,
        done: &mut QueueDone,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let operation = Operation { wish, which: which.clone(), by: by.to_owned(), after };
        let share = self.parts.queue.operate(operation).await.map_err(unable)?;
        done.changed += share.changed;
        done.unchanged += share.unchanged;
        Ok(share.next)
    }

    /// Cancels some deliveries, and waits until that is written down.
    async fn cancel_some(
        &self,
        which: &Which,
        after: Option<Vec<u8>>,
        by: &str,
        notify: bool,
        done: &mut QueueDone,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let wanted = which.clone();
        let read = blocking(self, move |daemon| {
            let reader = &daemon.parts.reader;
            let filter = match wanted {
                Which::Message(id) => return reader.deliveries_of(id, after.as_deref(), CANCELLED_AT_ONCE),
                Which::Member(member) => Filter { member: Some(member), ..Filter::default() },
                Which::Domain(domain) => Filter { domain: Some(domain), ..Filter::default() },
            };
            reader.list(&filter, after.as_deref(), CANCELLED_AT_ONCE)
        });
        let page = read.await?.map_err(unable)?;
        let mut withdrawn = None;
        for found in &page.entries {
            let wish = Cancellation { by: by.into(), notify };
            match self.parts.scheduler.cancel(found.id, &found.domain, found.member, found.lane, wish).await.map_err(unable)? {
                Cancelled::Withdrawn => {
                    done.changed += 1;
                    withdrawn = Some((found.id, found.domain.clone()));
                }
                Cancelled::InFlight => done.in_flight += 1,
                Cancelled::Settling => done.unchanged += 1,
            }
        }
        let began = self.now();
        while let Some((id, domain)) = withdrawn.clone() {
            // They are written down in their order, more or less: the last one tells, and the count bounds what is under way.
            let gone = blocking(self, move |daemon| daemon.parts.reader.has_delivery(id, &domain)).await?.map_err(unable)?;
            let settling = self.parts.scheduler.counts().await.map_err(unable)?.settling;
            let late = self.now().duration_since(began).is_ok_and(|waited| waited > SETTLED_WAIT);
            if (!gone && settling <= SETTLING_MAX) || late {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(page.next)
    }
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = || Refusal::Wrong("`after` is not what a former answer gave as `next`".to_owned());
        let (key, domain) = text.split_once('.').ok_or_else(wrong)?;
        Ok(Cursor { domain: domain.to_owned(), key: from_hex(key).ok_or_else(wrong)? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", hex(&self.key), self.domain)
    }
}

/// Keys of the queue as text.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2))
        .map(|pair| u8::from_str_radix(pair?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_what_is_none_is_refused() {
        for cursor in [Cursor::default(), Cursor { domain: "a.example".into(), key: vec![0, 255, 16] }] {
            assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
        }
        for text in ["", "0g.a", "0.a", "é.", "00ff"] {
            assert!(Cursor::parse(text).is_err(), "{text}");
        }
    }
}
