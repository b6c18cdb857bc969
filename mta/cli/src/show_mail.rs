//! Answers about queued mail and its events, for people.

use std::fmt::Write;

use mta::control::api::{
    DialogueRow, EventPage, EventRow, Held, Layer, QueueDone, SourceRow, Where, WhereSource, Why, WhyDelivery, Would,
};

use crate::show::{Show, count_long, pairs, plain, table};

/// What came of a wish.
pub(crate) fn done(verb: &str, done: &QueueDone) -> String {
    let did = match verb {
        "hold" => "held",
        "release" => "released",
        "cancel" => "cancelled",
        _ => "due now",
    };
    let mut out = format!("{} {did}", deliveries(done.changed));
    if done.unchanged > 0 {
        let _ = write!(out, ", {} left as they were", done.unchanged);
    }
    out.push('\n');
    if done.in_flight > 0 {
        let _ = writeln!(out, "{} in flight: that ends by itself, and its outcome counts", deliveries(done.in_flight));
    }
    for site in &done.lifted {
        let _ = writeln!(out, "{} is left alone no longer; one delivery goes first and sees", plain(site));
    }
    out
}

fn deliveries(count: u64) -> String {
    if count == 1 { "1 delivery".to_owned() } else { format!("{count} deliveries") }
}

impl Show for QueueDone {
    fn show(&self) -> String {
        done("", self)
    }
}

impl Show for Why {
    fn show(&self) -> String {
        let mut out = pairs([
            ("id", self.id.clone()),
            ("member", self.member.clone().unwrap_or_default()),
            ("class", self.class.clone().unwrap_or_default()),
            ("expires", self.expires_at.clone().unwrap_or_default()),
            ("asked", self.asked_at.clone()),
        ]);
        for delivery in &self.deliveries {
            out.push('\n');
            out.push_str(&delivery_text(delivery));
        }
        if self.more {
            out.push_str("\n… and more deliveries: tradewind queue show\n");
        }
        if !self.queued {
            out.push_str("\nIt is not in the queue any more. What became of it:\n");
        }
        if !self.events.is_empty() {
            out.push('\n');
            out.push_str(&events(&self.events));
        }
        for it in &self.dialogues {
            let DialogueRow { domain, at, source, host, address, tls, .. } = it;
            let tls = tls.as_deref().unwrap_or("in clear text");
            out.push_str(&format!("\nLast dialogue about {domain}, with {host} [{address}] from {source}, {tls}, {at}:\n"));
            it.lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
        out
    }
}

fn delivery_text(it: &WhyDelivery) -> String {
    let state = match it.state.as_str() {
        "deferred" => "deferred, on disk".to_owned(),
        "on_disk" => "due, on disk".to_owned(),
        "waiting" => "due, waiting in memory".to_owned(),
        "in_flight" => "in flight".to_owned(),
        other => other.replace('_', " "),
    };
    let since = it.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    let cancelled = if it.cancelled { ", cancelled: what it leaves open goes" } else { "" };
    let to = if it.recipients == 1 { String::new() } else { format!(" ({} recipients)", it.recipients) };
    let (next, set_by, clears) = would(&it.next);
    let of = it.turn_of.as_ref().map(|member| format!(", mail of {member}")).unwrap_or_default();
    let turn = it.turn.as_ref().map(|turn| format!("{turn} is next at the site{of}")).unwrap_or_default();
    let next = match (it.state.as_str(), &it.next) {
        ("in_flight", Would::Send { source, slot }) => format!("from {source}, slot {slot}"),
        _ => next,
    };
    pairs([
        ("to", format!("{}{to}", it.domain)),
        ("state", format!("{state}{since}{cancelled}")),
        ("site", it.site.clone().unwrap_or_default()),
        ("ahead", it.ahead.map(|ahead| format!("{ahead} of its member to its domain")).unwrap_or_default()),
        ("turn", turn),
        ("why", next),
        ("set by", set_by),
        ("clears", clears),
        ("due", it.due_at.clone()),
        ("tried", if it.attempts == 0 { "never".to_owned() } else { times(it.attempts) }),
        ("last", it.last.clone().unwrap_or_default()),
    ])
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// What happens next, who set that, when it clears.
fn would(would: &Would) -> (String, String, String) {
    match would {
        Would::Send { source, slot } => (format!("it may go: from {source}, slot {slot}"), String::new(), String::new()),
        Would::Hold(held) => (held.says.clone(), layer(&held.set_by), clears(held)),
    }
}

fn layer(it: &Layer) -> String {
    match (it.layer.as_str(), &it.name) {
        ("feedback", _) => "what the peer did".to_owned(),
        ("queue", _) => "the queue's own order and schedule".to_owned(),
        ("dns", _) => "DNS".to_owned(),
        (layer, Some(name)) => format!("{layer} {name}"),
        (layer, None) => layer.to_owned(),
    }
}

fn clears(it: &Held) -> String {
    match (&it.clears_at, it.clears.as_str()) {
        (Some(at), _) => format!("at {at}"),
        (None, "with_next_answer") => "with the next answer of what is under way".to_owned(),
        (None, _) => "when somebody changes it".to_owned(),
    }
}

impl Show for Where {
    fn show(&self) -> String {
        let route = match self.route.as_str() {
            "looked_up" => "looked up now; the scheduler had no need of it",
            "sought" => "being looked up",
            "trouble" => "none",
            _ => "known to the scheduler",
        };
        let some = |text: &Option<String>| text.clone().unwrap_or_default();
        let mail = &self.mail;
        let [otp, transactional, notice] = mail.in_memory;
        let more = if mail.counted_all { "" } else { " or more" };
        let mut out = pairs([
            ("domain", self.domain.clone()),
            ("route", self.valid_until.as_ref().map_or(route.to_owned(), |until| format!("{route}, good until {until}"))),
            ("trouble", some(&self.trouble)),
            ("site", some(&self.site)),
            ("provider", some(&self.provider)),
            ("tls", self.tls_policy.clone()),
            ("pool", self.pool.clone()),
            ("queued", format!("{}{more} deliveries, {} of them held", mail.queued, mail.held)),
            ("memory", format!("{otp} otp, {transactional} transactional, {notice} notice")),
            (
                "in flight",
                format!("{} of the domain, {} of the site; {} being settled", mail.in_flight, self.site_in_flight, mail.settling),
            ),
            ("due", some(&mail.next_due_at)),
            ("suspended", self.site_suspended_until.as_ref().map(|at| format!("until {at}")).unwrap_or_default()),
        ]);
        if !self.hosts.is_empty() {
            let rows = self.hosts.iter().map(|it| [it.preference.to_string(), it.name.clone(), it.addresses.join(" ")]);
            let _ = write!(out, "\n{}", table(["MX", "HOST", "ADDRESSES"], rows));
        }
        if !self.sources.is_empty() {
            let rows = self.sources.iter().map(|it| {
                let held = it.held.as_ref().map_or_else(|| "free".to_owned(), |held| held.says.clone());
                let window = format!("{} of {}", it.in_flight, it.window);
                [it.name.clone(), it.address.clone(), it.weight.to_string(), window, held]
            });
            let _ = write!(out, "\n{}", table(["SOURCE", "ADDRESS", "WEIGHT", "IN FLIGHT", "STATE"], rows));
        }
        if !self.sources.is_empty() {
            let _ = write!(out, "\n{}", table(["SHAPING", "VALUE", "FROM", "SET BY"], shaping(&self.sources).into_iter()));
        }
        let rows = self.limits.iter().map(|it| [it.name.clone(), it.value.clone(), layer(&it.set_by)]);
        let _ = write!(out, "\n{}", table(["LIMIT", "VALUE", "SET BY"], rows));
        let rows = self.would.iter().map(|it| {
            let (says, set_by, clears) = would(&it.would);
            [it.class.clone(), says, set_by, clears]
        });
        let _ = write!(out, "\n{}", table(["A MESSAGE NOW", "WOULD", "SET BY", "CLEARS"], rows));
        out
    }
}

/// Value by value; of sources that agree one line.
fn shaping(sources: &[WhereSource]) -> Vec<[String; 4]> {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for source in sources {
        for it in &source.shaping {
            let (value, by) = (it.value.clone(), it.set_by.layer.clone());
            match rows.iter_mut().find(|row| row[0] == it.name && row[1] == value && row[3] == by) {
                Some(row) => row[2] = format!("{} {}", row[2], source.name),
                None => rows.push([it.name.clone(), value, source.name.clone(), by]),
            }
        }
    }
    rows.sort_by(|a, b| a[0].cmp(&b[0]));
    let all: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let all = all.join(" ");
    for row in rows.iter_mut().filter(|row| row[2] == all) {
        row[2] = "every source".to_owned();
    }
    rows
}

/// How a source stands as a whole.
fn overall(it: &SourceRow) -> String {
    it.health.iter().find(|row| row.provider.is_none()).map(|row| row.health.clone()).unwrap_or_default()
}

impl Show for Vec<SourceRow> {
    fn show(&self) -> String {
        let rows = self.iter().map(|it| {
            let pools: Vec<_> = it.pools.iter().map(|pool| format!("{} {}", pool.pool, pool.weight)).collect();
            let lists: Vec<_> =
                it.zones.iter().filter(|zone| zone.says != "clean").map(|zone| format!("{} {}", zone.zone, zone.says)).collect();
            let lists = match (it.zones.is_empty(), lists.is_empty()) {
                (true, _) if it.seen_at.is_none() => "unseen".to_owned(),
                (true, _) => "none asked".to_owned(),
                (false, true) => "clean".to_owned(),
                (false, false) => lists.join(", "),
            };
            [it.name.clone(), it.address.clone(), it.ehlo.clone(), pools.join(", "), it.ptr.clone(), lists, overall(it)]
        });
        let mut out = table(["SOURCE", "ADDRESS", "EHLO", "POOL, WEIGHT", "PTR", "BLOCK LISTS", "HEALTH"], rows);
        for it in self {
            if let Some(trouble) = &it.trouble {
                let _ = writeln!(out, "{}: {}", plain(&it.name), plain(trouble));
            }
            for zone in it.zones.iter().filter(|zone| zone.says != "clean") {
                let since = zone.since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
                let answer = zone.answer.as_deref().unwrap_or_default();
                let _ = writeln!(out, "{}: {}", plain(&it.name), plain(&format!("{} {}{since}: {answer}", zone.zone, zone.says)));
            }
        }
        let standing: Vec<_> = self.iter().flat_map(|it| &it.health).filter(|row| !row.actions.is_empty()).cloned().collect();
        if !standing.is_empty() {
            let _ = write!(out, "\n{}", standing.show());
        }
        out
    }
}

impl Show for EventPage {
    fn show(&self) -> String {
        let mut out = String::new();
        if self.missed > 0 {
            let _ = writeln!(out, "… {} not kept any more", count_long(self.missed, "event"));
        }
        out + &events(&self.events)
    }
}

/// One line an event: it may be one of many pages.
pub(crate) fn events(events: &[EventRow]) -> String {
    let mut out = String::new();
    for it in events {
        let whom = it.action.as_ref().or(it.recipient.as_ref()).or(it.domain.as_ref()).cloned().unwrap_or_default();
        let from = match (&it.source, &it.host) {
            (Some(source), Some(host)) => format!(" from {source} by {host}"),
            (Some(source), None) => format!(" from {source}"),
            _ => String::new(),
        };
        let reply = it.reply.as_ref().map(|reply| format!(": {reply}")).unwrap_or_default();
        let line = format!("{:>8} {} {} {:<9} {whom}{from}{reply}", it.number, it.at, it.id, it.what);
        let _ = writeln!(out, "{}", plain(line.trim_end()));
    }
    out
}
