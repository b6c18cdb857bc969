//! Questions to the scheduler, and wishes about it: the operator's way to the thread that decides.
//!
//! They come over a bounded channel and each carries the way back for its answer. The dispatcher takes one between two
//! rounds of mail, and each looks at one delivery, one domain, or a few thousand domains' names: whoever asks much
//! waits, and mail does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scheduler::warmup::ClimbView;
use scheduler::{
    Cancellation, Cancelled, ClimbWish, Counts, DomainView, Lane, Measure, QueueId, Routed, Scheduler, SiteListed, SourceHealth,
    SourceHealthView, Survey, Whereabouts,
};
use tokio::sync::{mpsc, oneshot};

use super::dialogues::{Dialogues, Kept};

/// Questions that may wait; past it whoever asks waits.
const WAITING_MAX: usize = 16;

/// Domains that one question looks at when it seeks those of a site.
const DOMAINS_AT_ONCE: u32 = 4096;

/// Sites that one question looks at for a list.
const SITES_AT_ONCE: u32 = 1024;

/// Asks the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Asker(mpsc::Sender<Question>);

/// What the dispatcher takes.
pub struct Question(Box<Look>);

type Look = dyn FnOnce(&mut Scheduler, &Dialogues, SystemTime) + Send;

/// The scheduler's thread has ended: the daemon is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler has stopped")]
pub struct Stopped;

/// The way in, and the end that the dispatcher reads.
pub fn questions() -> (Asker, mpsc::Receiver<Question>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Asker(sender), receiver)
}

impl Question {
    /// Has it answered. Whoever asked may have gone.
    pub fn answer(self, scheduler: &mut Scheduler, dialogues: &Dialogues, now: SystemTime) {
        (self.0)(scheduler, dialogues, now);
    }
}

impl Asker {
    async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Scheduler, SystemTime) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.ask_about(move |scheduler, _, now| question(scheduler, now)).await
    }

    async fn ask_about<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Scheduler, &Dialogues, SystemTime) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (answer, answered) = oneshot::channel();
        let question = move |scheduler: &mut Scheduler, dialogues: &Dialogues, now| {
            drop(answer.send(question(scheduler, dialogues, now)));
        };
        let question = Question(Box::new(question));
        self.0.send(question).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Where a queued delivery of `member` is and what it waits for, with the names of sources; `due` is what the queue
    /// says.
    pub async fn whereabouts(
        &self,
        id: QueueId,
        domain: &str,
        member: u32,
        lane: Lane,
        due: SystemTime,
    ) -> Result<(Whereabouts, Vec<Arc<str>>), Stopped> {
        let domain = domain.to_owned();
        self.ask(move |scheduler, now| (scheduler.whereabouts(now, id, &domain, member, lane, due), scheduler.source_names()))
            .await
    }

    /// How a domain's mail travels; `fresh` is a route looked up for this question.
    pub async fn survey(&self, domain: &str, fresh: Option<Routed>) -> Result<Survey, Stopped> {
        let domain = domain.to_owned();
        self.ask(move |scheduler, now| scheduler.survey(now, &domain, fresh.as_ref())).await
    }

    /// What was said with hosts that did not take a message, the newest last.
    pub async fn dialogues(&self, id: QueueId) -> Result<Vec<Kept>, Stopped> {
        self.ask_about(move |_, dialogues, _| dialogues.of(id)).await
    }

    /// Counts of everything.
    pub async fn counts(&self) -> Result<Counts, Stopped> {
        self.ask(|scheduler, _| scheduler.counts()).await
    }

    /// Cancels a delivery, unless it is under way.
    pub async fn cancel(
        &self,
        id: QueueId,
        domain: &str,
        member: u32,
        lane: Lane,
        wish: Cancellation,
    ) -> Result<Cancelled, Stopped> {
        let domain = domain.to_owned();
        self.ask(move |scheduler, now| scheduler.handle_cancel(now, id, &domain, member, lane, wish)).await
    }

    /// A domain's mail has been made due. Answers its site, if it is known.
    pub async fn flush(&self, domain: &str) -> Result<Option<Arc<str>>, Stopped> {
        let domain = domain.to_owned();
        self.ask(move |scheduler, now| scheduler.handle_flush(now, &domain)).await
    }

    /// Lifts the suspension of a site. True: there was one.
    pub async fn lift(&self, site: &str) -> Result<bool, Stopped> {
        let site = site.to_owned();
        self.ask(move |scheduler, now| scheduler.handle_lift(now, &site)).await
    }

    /// A watch outside of the scheduler has found out how a source stands (a block list names it, or no longer does): see
    /// `Scheduler::set_source_health`.
    pub async fn set_source_health(
        &self,
        source: &str,
        health: SourceHealth,
        cause: &str,
        lasts: Duration,
    ) -> Result<(), Stopped> {
        let (source, cause) = (source.to_owned(), cause.to_owned());
        self.ask(move |scheduler, now| scheduler.set_source_health(now, &source, health, &cause, lasts)).await
    }

    /// Automatic actions with larger ids than `after`, of a kind or all, by id.
    pub async fn measures(&self, after: u64, kind: Option<String>, limit: usize) -> Result<Vec<Measure>, Stopped> {
        self.ask(move |scheduler, _| {
            let wanted =
                |measure: &&Measure| measure.id > after && kind.as_ref().is_none_or(|kind| measure.kind.as_str() == kind);
            scheduler.measures().filter(wanted).take(limit).cloned().collect()
        })
        .await
    }

    /// One of them, if it runs.
    pub async fn measure(&self, id: u64) -> Result<Option<Measure>, Stopped> {
        self.ask(move |scheduler, _| scheduler.measure(id).cloned()).await
    }

    /// Ends one. None: it does not run.
    pub async fn cancel_measure(&self, id: u64, by: &str) -> Result<Option<Measure>, Stopped> {
        let by = by.to_owned();
        self.ask(move |scheduler, now| scheduler.cancel_measure(now, id, &by)).await
    }

    /// Moves the end of one.
    pub async fn extend_measure(&self, id: u64, lasts: Duration, by: &str) -> Result<Option<Measure>, Stopped> {
        let by = by.to_owned();
        self.ask(move |scheduler, now| scheduler.extend_measure(now, id, lasts, &by)).await
    }

    /// How sources stand.
    pub async fn source_health(&self) -> Result<Vec<SourceHealthView>, Stopped> {
        self.ask(|scheduler, now| scheduler.source_health(now)).await
    }

    /// All climbs of warmup, as they stand.
    pub async fn climbs(&self) -> Result<Vec<ClimbView>, Stopped> {
        self.ask(|scheduler, now| scheduler.climbs(now).collect()).await
    }

    /// Does what `wish` makes of a climb as it stands, or says why not; answers when, and the climb as it is then. None: there is
    /// no such climb. `by` is who wants it, and why.
    pub async fn wish_climb<E: Send + 'static>(
        &self,
        source: &str,
        provider: &str,
        by: &str,
        wish: impl FnOnce(&ClimbView) -> Result<ClimbWish, E> + Send + 'static,
    ) -> Result<Option<Result<(SystemTime, ClimbView), E>>, Stopped> {
        let (source, provider, by) = (source.to_owned(), provider.to_owned(), by.to_owned());
        self.ask(move |scheduler, now| {
            let view = scheduler.climbs(now).find(|view| *view.source == *source && *view.provider == *provider)?;
            match wish(&view) {
                Ok(wish) => scheduler.wish_climb(now, &source, &provider, wish, &by).map(|view| Ok((now, view))),
                Err(refusal) => Some(Err(refusal)),
            }
        })
        .await
    }

    /// Sites from a place on of which `find` names a part, at most `limit` of them; and where to go on, if there may be more.
    pub async fn sites(&self, find: &str, from: u32, limit: usize) -> Result<(Vec<SiteListed>, Option<u32>), Stopped> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let find = find.to_ascii_lowercase();
            let part = move |scheduler: &mut Scheduler, now| {
                let wanted = |name: &str, provider: &str| name.contains(&find) || provider.contains(&find);
                scheduler.sites_from(now, from, SITES_AT_ONCE, wanted)
            };
            let (found, next) = self.ask(part).await?;
            all.extend(found);
            if all.len() > limit {
                all.truncate(limit);
                let next = all.last().map(|last| last.place + 1);
                return Ok((all, next));
            }
            match next {
                Some(next) if all.len() < limit => from = next,
                next => return Ok((all, next)),
            }
        }
    }

    /// Names of the sources by number.
    pub async fn source_names(&self) -> Result<Vec<Arc<str>>, Stopped> {
        self.ask(|scheduler, _| scheduler.source_names()).await
    }

    /// Some of the domains that lead to sites in these places, which rise, and where to go on: see
    /// `Scheduler::domains_of_places`.
    pub async fn domains_of_places(
        &self,
        places: Arc<[u32]>,
        from: u32,
    ) -> Result<(Vec<(u32, DomainView)>, Option<u32>), Stopped> {
        self.ask(move |scheduler, _| scheduler.domains_of_places(&places, from, DOMAINS_AT_ONCE)).await
    }

    /// The last domain that was known to lead to a site.
    pub async fn last_domain_of_site(&self, site: &str) -> Result<Option<Arc<str>>, Stopped> {
        let site = site.to_owned();
        self.ask(move |scheduler, _| scheduler.site_view(&site)?.last).await
    }

    /// Domains that are known to lead to a site now; None: no such site is known.
    pub async fn domains_of_site(&self, site: &str) -> Result<Option<Vec<Arc<str>>>, Stopped> {
        let (mut all, mut from, name) = (Vec::new(), 0, site.to_owned());
        if self.ask(move |scheduler, _| scheduler.site_view(&name).is_none()).await? {
            return Ok(None);
        }
        loop {
            let site = site.to_owned();
            let part = move |scheduler: &mut Scheduler, _| scheduler.domains_of_site(&site, from, DOMAINS_AT_ONCE);
            let (found, next) = self.ask(part).await?;
            all.extend(found);
            match next {
                Some(next) => from = next,
                None => return Ok(Some(all)),
            }
        }
    }
}
