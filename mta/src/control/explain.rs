//! `why` and `where`: what queue and scheduler say, put together and into words.
//!
//! What is on disk is read first and the scheduler asked then, so an answer may be a moment old in one of its halves; it
//! never guesses. Both are bounded: some deliveries of one message, one domain with its site and sources.

use std::{sync::Arc, time::SystemTime};

use scheduler::warmup::Stop;
use scheduler::{Clears, Decision, Hold, Knob, Rate, Reason, Set, SetBy, Survey, Value, WayView, Whereabouts};
use smtp::address::canonical_domain;

use super::{
    answers::{
        DELIVERIES_MAX, DialogueRow, EventRow, Held, Layer, STORY_MAX, Where, WhereHost, WhereLimit, WhereMail, WhereSource,
        WhereWould, Why, WhyDelivery, Would,
    },
    api::Refusal,
    daemon::Daemon,
    views::{blocking, queue_id, time, unable},
};
use crate::{
    config,
    egress::{
        dialogues::{Dialogue, Kept},
        tls_policy,
    },
    events::Event,
    policy::Directory,
    queue::{QueueError, Shown, ShownDelivery},
};

/// Deliveries of a domain that `where` counts.
const COUNTED_MAX: usize = 200_000;

impl Daemon {
    /// Why a message waits, or what became of it.
    pub(super) async fn explain_message(&self, id: &str) -> Result<Why, Refusal> {
        let id = queue_id(id)?;
        let read = blocking(self, move |daemon| {
            let reader = &daemon.parts.reader;
            Ok::<_, QueueError>((reader.show(id)?, reader.story(id, STORY_MAX)?))
        });
        let (shown, story) = read.await?.map_err(unable)?;
        // The events of automatic actions lie in the same index, under numbers that are no message's: their time is nought.
        let is_action = id.time() == std::time::UNIX_EPOCH;
        if shown.is_none() && (story.is_empty() || is_action) {
            return Err(Refusal::Unknown(format!("{id} is not in the queue, and no event of it is kept (any more)")));
        }
        let directory = self.directory.load_full();
        let mut deliveries = Vec::new();
        for delivery in shown.iter().flat_map(|shown| shown.deliveries.iter()).take(DELIVERIES_MAX) {
            deliveries.push(self.explain_delivery(shown.as_ref(), delivery).await?);
        }
        // A scheduler that has stopped has nothing to add to the end.
        let dialogues = self.parts.scheduler.dialogues(id).await.unwrap_or_default();
        let member = shown.as_ref().map(|shown| shown.member).or_else(|| story.first().map(|(_, event)| event.member));
        Ok(Why {
            id: id.to_string(),
            asked_at: time(self.now()),
            queued: shown.is_some(),
            member: member.and_then(|member| directory.member(member)).map(|member| member.did.clone()),
            class: shown.as_ref().map(|shown| shown.lane.as_str().to_owned()),
            expires_at: shown.as_ref().map(|shown| time(shown.deadline)),
            more: shown.as_ref().is_some_and(|shown| shown.deliveries.len() > DELIVERIES_MAX),
            deliveries,
            events: story.iter().map(|(number, event)| event_row(&directory, *number, event)).collect(),
            dialogues: dialogues.iter().map(dialogue_row).collect(),
        })
    }

    async fn explain_delivery(&self, shown: Option<&Shown>, delivery: &ShownDelivery) -> Result<WhyDelivery, Refusal> {
        let summary = &delivery.summary;
        let asked = self.parts.scheduler.whereabouts(summary.id, &summary.domain, summary.member, summary.lane, summary.due);
        let (found, sources) = asked.await.map_err(unable)?;
        let mut why = WhyDelivery {
            domain: summary.domain.clone(),
            recipients: summary.open as u32,
            state: String::new(),
            since: None,
            site: None,
            ahead: None,
            turn: None,
            turn_of: None,
            next: Would::Hold(by_operator(String::new(), summary.due)),
            cancelled: false,
            attempts: summary.attempts.into(),
            due_at: time(summary.due),
            last: Some(summary.last_reply.clone()).filter(|reply| !reply.is_empty()),
        };
        let reason = shown.and_then(|shown| shown.aside.clone());
        let state = match found {
            Whereabouts::InFlight { flight, cancelled } => {
                why.since = flight.began.map(time);
                why.site = Some(flight.site.to_string());
                why.cancelled = cancelled;
                why.next = Would::Send { source: name_of(&sources, flight.source), slot: flight.slot };
                "in_flight"
            }
            Whereabouts::Settling => {
                let says = "what became of it is being written down".to_owned();
                why.next = Would::Hold(Held { says, clears: "with_next_answer".into(), ..queue_s("settling") });
                "settling"
            }
            _ if reason.is_some() => {
                let says = format!("it is damaged and was set aside: {}", reason.unwrap_or_default());
                why.next = Would::Hold(Held { says, ..queue_s("set_aside") });
                "set_aside"
            }
            _ if let Some(hold) = &summary.held => {
                why.since = Some(time(hold.since));
                why.next = Would::Hold(by_operator(hold.by.clone(), summary.due));
                "held"
            }
            Whereabouts::Waiting { ahead, turn, turn_of, decision } => {
                why.ahead = Some(ahead as u64);
                why.turn = turn.map(|turn| turn.to_string());
                let directory = self.directory.load();
                why.turn_of = turn_of.and_then(|member| directory.member(member)).map(|member| member.did.clone());
                why.next = would(&decision, &sources);
                "waiting"
            }
            Whereabouts::OnDisk { ahead, decision } => {
                why.ahead = (ahead > 0).then_some(ahead as u64);
                why.next = would(&decision, &sources);
                if summary.due > self.now() { "deferred" } else { "on_disk" }
            }
        };
        why.state = state.to_owned();
        Ok(why)
    }

    /// How a domain's mail travels. One that the scheduler has no route for is looked up.
    pub(super) async fn explain_domain(&self, domain: &str) -> Result<Where, Refusal> {
        let wrong = |error| Refusal::Wrong(format!("{domain:?} is not a recipient domain: {error}"));
        let domain = canonical_domain(domain).map_err(|error| wrong(error.to_string()))?.into_owned();
        let mut survey = self.parts.scheduler.survey(&domain, None).await.map_err(unable)?;
        let mut looked_up = false;
        if matches!(survey.way, WayView::Unknown | WayView::Sought(None)) {
            let fresh = self.parts.routes.ask(&domain).await;
            let fresh = fresh.ok_or_else(|| Refusal::Unable(format!("no name server answered for {domain} in time")))?;
            looked_up = true;
            survey = self.parts.scheduler.survey(&domain, Some(fresh)).await.map_err(unable)?;
        }
        let name = domain.clone();
        let counted = blocking(self, move |daemon| daemon.parts.reader.count_domain(&name, COUNTED_MAX)).await?;
        let (queued, held, counted_all) = counted.map_err(unable)?;
        let mail = WhereMail { queued, held, counted_all, ..WhereMail::default() };
        Ok(view_where(domain, self.now(), looked_up, &survey, mail))
    }
}

fn dialogue_row(kept: &Kept) -> DialogueRow {
    let Dialogue { host, address, tls, text } = &kept.dialogue;
    DialogueRow {
        domain: kept.domain.to_string(),
        at: time(kept.at),
        source: kept.source.to_string(),
        host: host.to_string(),
        address: address.to_string(),
        tls: tls.map(str::to_owned),
        lines: text.lines().map(str::to_owned).collect(),
    }
}

fn view_where(domain: String, now: SystemTime, looked_up: bool, survey: &Survey, mail: WhereMail) -> Where {
    let sources: Vec<Arc<str>> = survey.sources.iter().map(|answer| answer.source.name.clone()).collect();
    let (state, route, trouble) = match &survey.way {
        WayView::Known(route) => (if looked_up { "looked_up" } else { "known" }, Some(route), None),
        WayView::Sought(route) => ("sought", route.as_ref(), None),
        WayView::Unknown => ("sought", None, None),
        WayView::Trouble { trouble, .. } => ("trouble", None, Some(trouble)),
    };
    let view = survey.domain.as_ref();
    let site = survey.site.as_ref();
    let lanes = scheduler::Lane::ALL.into_iter().zip(&survey.decisions);
    Where {
        route: state.to_owned(),
        site: route.map(|route| route.site.to_string()),
        provider: route.map(|route| route.provider.to_string()),
        hosts: (route.iter().flat_map(|route| &route.hosts))
            .map(|host| WhereHost {
                name: host.name.to_string(),
                preference: host.preference,
                addresses: host.addresses.iter().map(ToString::to_string).collect(),
                demand: tls_policy::in_words(&host.demand),
            })
            .collect(),
        valid_until: route.map(|route| time(route.valid_until)),
        trouble: trouble.map(|trouble| format!("{} {}", code(trouble.code), trouble.text)),
        tls_policy: route.map_or("unknown", |route| route.tls.name()).to_owned(),
        pool: survey.pool.to_string(),
        sources: (survey.sources.iter())
            .map(|answer| WhereSource {
                name: answer.source.name.to_string(),
                address: answer.source.address.to_string(),
                weight: answer.source.weight,
                window: answer.window,
                in_flight: answer.in_flight,
                shaping: Knob::ALL.into_iter().filter_map(|knob| shaped(knob, answer.limits.get(knob)?)).collect(),
                suspended_until: answer.suspended_until.map(time),
                held: answer.hold.as_ref().map(|hold| held(hold, &sources)),
            })
            .collect(),
        site_in_flight: site.map_or(0, |site| site.in_flight as u64),
        site_suspended_until: site.and_then(|site| site.suspended_until).map(time),
        site_failures: site.map_or(0, |site| site.failures.into()),
        mail: WhereMail {
            in_memory: view.map_or([0; 3], |view| view.queued.map(|count| count as u64)),
            in_flight: view.map_or(0, |view| view.in_flight as u64),
            settling: view.map_or(0, |view| view.settling as u64),
            next_due_at: view.and_then(|view| view.next_due).map(time),
            ..mail
        },
        limits: (survey.limits.iter())
            .map(|limit| WhereLimit { name: limit.name.to_owned(), value: limit.value.clone(), set_by: layer(&limit.set_by) })
            .collect(),
        would: lanes.map(|(lane, what)| WhereWould { class: lane.to_string(), would: would(what, &sources) }).collect(),
        asked_at: time(now),
        domain,
    }
}

fn shaped(knob: Knob, set: &Set) -> Option<WhereLimit> {
    let set_by = layer(&SetBy::Shaping(knob, set.by.clone()));
    Some(WhereLimit { name: knob.name().to_owned(), value: set.value.to_string(), set_by })
}

/// What warmup says.
fn rationed(stop: &Stop) -> String {
    match stop {
        Stop::Planned => "it has not begun".to_owned(),
        Stop::Paused => "paused by an operator".to_owned(),
        Stop::Day { allowance, spent, reserved: 0 } => format!("{spent} of {allowance} spent today"),
        Stop::Day { allowance, spent, reserved } => format!("{spent} of {allowance} spent today and {reserved} under way"),
        Stop::Hour { allowance, used } => format!("{used} of the {allowance} of this hour spent or under way"),
    }
}

fn would(decision: &Decision, sources: &[Arc<str>]) -> Would {
    match decision {
        Decision::Send { source, slot } => Would::Send { source: name_of(sources, *source), slot: *slot },
        Decision::Hold(hold) => Would::Hold(held(hold, sources)),
    }
}

fn held(hold: &Hold, sources: &[Arc<str>]) -> Held {
    let name = |source| name_of(sources, source);
    let (reason, says) = match &hold.reason {
        Reason::OnDisk if hold.clears_at().is_some() => ("on_disk", "it is not due yet".to_owned()),
        Reason::OnDisk => ("on_disk", "it lies on disk and is loaded when its turn comes".to_owned()),
        Reason::Resolving => ("resolving", "the route of its domain is being looked up".to_owned()),
        Reason::Unroutable(trouble) => {
            ("unroutable", format!("its domain has no route: {} {}", code(trouble.code), trouble.text))
        }
        Reason::NodeFull { max } => ("node_full", format!("this node has {max} deliveries in flight and may have no more")),
        Reason::SiteSuspended { failures, action } => {
            ("site_suspended", format!("the site is left alone after {}{}", times(*failures), by_action(*action)))
        }
        Reason::SiteProbed => ("site_probed", "one delivery has gone to see whether the site is well again".to_owned()),
        Reason::NoSource => ("no_source", "there is no source that takes mail".to_owned()),
        Reason::SourceRetired(source) => ("source_retired", format!("{} takes no mail any more", name(*source))),
        Reason::NoAddress(source) => {
            ("no_address", format!("no host of the site has an address that {} can reach", name(*source)))
        }
        Reason::SourceSuspended { source, failures, action } => {
            let says = format!("{} leaves the site alone after {}{}", name(*source), times(*failures), by_action(*action));
            ("source_suspended", says)
        }
        Reason::SourcePaused { source, action } => {
            ("source_paused", format!("{} is paused{}", name(*source), by_action(Some(*action))))
        }
        Reason::MemberHeld { action } => ("member_held", format!("its member's mail is held{}", by_action(Some(*action)))),
        Reason::SourceProbed(source) => {
            ("source_probed", format!("one delivery has gone from {} to see whether it is welcome again", name(*source)))
        }
        Reason::WindowFull { source, window, action } => {
            let most = format!("{} has {window} in flight to the site, which is as much as it bears now", name(*source));
            ("window_full", format!("{most}{}", by_action(*action)))
        }
        Reason::RateReached { source, rate } => {
            ("rate_reached", format!("{} has sent the site {}", name(*source), in_a_while(*rate, "messages")))
        }
        Reason::ConnectRateReached { source, rate } => {
            ("connect_rate_reached", format!("{} has begun to the site {}", name(*source), in_a_while(*rate, "connections")))
        }
        Reason::ProviderFull { source, max } => {
            ("provider_full", format!("{} has {max} in flight to the provider and may have no more", name(*source)))
        }
        Reason::ProviderRateReached { source, rate } => {
            ("provider_rate_reached", format!("{} has sent the provider {}", name(*source), in_a_while(*rate, "messages")))
        }
        Reason::Warmup { source, provider, stop } => {
            ("warmup", format!("warmup of {} at {provider}: {}", name(*source), rationed(stop)))
        }
    };
    let clears = match hold.clears {
        Clears::WithNextAnswer => "with_next_answer",
        Clears::At(_) => "at",
        Clears::ByChange => "by_change",
    };
    Held {
        says,
        reason: reason.to_owned(),
        set_by: layer(&hold.set_by),
        clears: clears.to_owned(),
        clears_at: hold.clears_at().map(time),
    }
}

/// Whoever reads why mail waits is told how to end that.
fn by_action(action: Option<u64>) -> String {
    action.map_or_else(String::new, |id| format!(" (action {id}; end it with `tradewind actions cancel {id} --why …`)"))
}

fn layer(set_by: &SetBy) -> Layer {
    let of = |layer: &str| Layer { layer: layer.to_owned(), name: None };
    match set_by {
        SetBy::Setting(name) => {
            let known = config::TABLES.iter().any(|table| {
                table.header.trim_matches(['[', ']']) == *name || table.settings.iter().any(|setting| setting.name == *name)
            });
            Layer { name: Some((*name).to_owned()), ..of(if known { "setting" } else { "built-in" }) }
        }
        SetBy::Shaping(knob, by) => Layer { layer: by.to_string(), name: Some(knob.name().to_owned()) },
        SetBy::Feedback => of("feedback"),
        SetBy::Dns => of("dns"),
        SetBy::Queue => of("queue"),
    }
}

fn in_a_while(rate: Rate, what: &str) -> String {
    let Rate { count, per, burst } = rate;
    format!("as many {what} as may go: {}, {burst} at once", Value::Rate(count, per))
}

/// What the queue itself is the reason of.
fn queue_s(reason: &str) -> Held {
    let set_by = Layer { layer: "queue".to_owned(), name: None };
    Held { says: String::new(), reason: reason.to_owned(), set_by, clears: "by_change".to_owned(), clears_at: None }
}

fn by_operator(by: String, deadline: SystemTime) -> Held {
    let set_by = Layer { layer: "operator".to_owned(), name: Some(by).filter(|by| !by.is_empty()) };
    let says = format!("an operator holds it; unless it is released it expires at {}", time(deadline));
    Held { says, reason: "held".to_owned(), set_by, clears: "by_change".to_owned(), clears_at: None }
}

fn name_of(sources: &[Arc<str>], source: scheduler::SourceId) -> String {
    sources.get(usize::from(source.0)).map_or_else(|| format!("source {}", source.0), |name| name.to_string())
}

fn code((class, subject, detail): (u8, u16, u16)) -> String {
    format!("{class}.{subject}.{detail}")
}

fn times(failures: u8) -> String {
    if failures == 1 { "a failure".to_owned() } else { format!("{failures} failures in a row") }
}

/// An event as the operator sees it.
pub(super) fn event_row(directory: &Directory, number: u64, event: &Event) -> EventRow {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    EventRow {
        number,
        at: time(event.at),
        what: event.what.name().to_owned(),
        is_final: event.what.is_final(),
        id: if event.what.is_action() { event.id.0.to_string() } else { event.id.to_string() },
        action: event.what.is_action().then(|| event.recipient.clone()),
        member: directory.member(event.member).map(|member| member.did.clone()),
        recipients: event.recipients,
        attempts: event.attempts,
        domain: some(&event.domain),
        recipient: some(&event.recipient).filter(|_| !event.what.is_action()),
        source: some(&event.source),
        host: some(&event.host),
        reply: some(&event.reply),
    }
}
