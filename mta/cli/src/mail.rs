//! The verbs about queued mail and its events.

use std::io::Write;

use mta::control::api::{
    EVENTS_WAIT_MAX, EventFilter, EventPage, PAGE_MAX, QueueDone, QueueFilter, QueuePage, QueueWish, QueuedMessage,
};

use crate::{
    args::{Deliveries, QueueVerb},
    client::{Client, escape},
    show::{Show, print},
    show_mail,
};

/// Events shown when nobody says how many.
const EVENTS_SHOWN: usize = 100;

pub(crate) async fn queue(verb: QueueVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let (verb, wish) = match verb {
        QueueVerb::List { site, member, held, limit, after } => {
            let filter = QueueFilter { site, domain: None, held, after, member, limit };
            return print(&list(filter, daemon).await?, json);
        }
        QueueVerb::Show { id } => {
            return print(&daemon.get::<QueuedMessage>(&format!("/v1/queue/{}", escape(&id))).await?, json);
        }
        QueueVerb::Hold { which, reason } => ("hold", QueueWish { reason, ..wish(which) }),
        QueueVerb::Release { which } => ("release", wish(which)),
        QueueVerb::Cancel { which, notify, reason } => ("cancel", QueueWish { notify, reason, ..wish(which) }),
        QueueVerb::Flush { which } => ("flush", wish(which)),
    };
    let done = operate(verb, wish, daemon).await?;
    if json {
        return print(&done, true);
    }
    out(&show_mail::done(verb, &done))
}

fn wish(which: Deliveries) -> QueueWish {
    let Deliveries { id, member, domain, site } = which;
    QueueWish { id, member, domain, site, ..QueueWish::default() }
}

/// Asks until all of it is done. Broken off, a part is done, and may be asked for again.
async fn operate(verb: &str, mut wish: QueueWish, daemon: &Client) -> anyhow::Result<QueueDone> {
    let mut all = QueueDone::default();
    loop {
        let part: QueueDone = daemon.post(&format!("/v1/queue/{verb}"), &wish).await?;
        all.changed += part.changed;
        all.unchanged += part.unchanged;
        all.in_flight += part.in_flight;
        all.lifted.extend(part.lifted);
        wish.after = part.next;
        if wish.after.is_none() {
            return Ok(all);
        }
    }
}

/// Pages until there are as many rows as are wanted.
async fn list(mut filter: QueueFilter, daemon: &Client) -> anyhow::Result<QueuePage> {
    let wanted = filter.limit.unwrap_or(PAGE_MAX);
    let mut all = QueuePage { deliveries: Vec::new(), more: false, next: None };
    loop {
        filter.limit = Some((wanted - all.deliveries.len()).min(PAGE_MAX));
        let page: QueuePage = daemon.get(&format!("/v1/queue?{}", query(&filter)?)).await?;
        all.deliveries.extend(page.deliveries);
        (all.more, all.next) = (page.more, page.next.clone());
        filter.after = page.next;
        if filter.after.is_none() || all.deliveries.len() >= wanted {
            return Ok(all);
        }
    }
}

pub(crate) async fn events(mut filter: EventFilter, follow: bool, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let mut left = filter.limit.unwrap_or(if filter.after.is_none() && !follow { EVENTS_SHOWN } else { usize::MAX });
    if follow && filter.after.is_none() {
        // From now on.
        let newest: EventPage = daemon.get("/v1/events?limit=1").await?;
        filter.after = Some(newest.next);
    }
    loop {
        filter.limit = Some(left.min(PAGE_MAX));
        // What is there already is not waited for.
        let page: EventPage = daemon.get(&format!("/v1/events?{}", query(&filter)?)).await?;
        left -= page.events.len().min(left);
        if json && follow {
            let lines = page.events.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
            if page.missed > 0 {
                out(&format!("{}\n", serde_json::json!({ "missed": page.missed })))?;
            }
            out(&lines.iter().map(|line| line.clone() + "\n").collect::<String>())?;
        } else if json {
            return print(&page, true);
        } else {
            out(&page.show())?;
        }
        // Asked for the newest, that was all.
        let ended = !page.more && !follow || filter.after.is_none();
        if ended || left == 0 {
            return Ok(());
        }
        filter.after = Some(page.next);
        filter.wait = follow.then_some(EVENTS_WAIT_MAX);
    }
}

pub(crate) fn query(filter: &impl serde::Serialize) -> anyhow::Result<String> {
    let serde_json::Value::Object(fields) = serde_json::to_value(filter)? else { return Ok(String::new()) };
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", escape(&text(value)))).collect();
    Ok(pairs.join("&"))
}

fn out(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(|error| match error.kind() {
        // `tradewind events --follow | head` is no error, but the end.
        std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => Err(error.into()),
    })
}
