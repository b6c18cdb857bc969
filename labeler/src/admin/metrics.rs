//! `/metrics`: one table of names, what they mean and what their labels may say, and the text that is scraped.
//!
//! From the table come the help texts and `METRICS.md`; a test holds what is shown to it. Labels say words of the code, values of the
//! lexicon and names of the configuration, never an account, a domain or an address: the number of series does not grow with members.
//!
//! Each scrape makes a recorder of its own: a process may hold several labelers (tests, the demo), and an MTA with a recorder.

use std::fmt::Write;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::lexicon::CooperativeLabel;
use metrics::{Counter, Gauge, Label, Unit, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::Instruments;
use super::counts::{ANSWERS, LANES, LOOKS, METHODS, STATUSES};
use crate::store::StoreError;

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A metric, as the table has it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it means, in a line.
    pub help: &'static str,
    /// Its labels, and what each may say.
    pub labels: &'static [(&'static str, Values)],
}

/// What a label may say.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These words.
    Words(&'static [&'static str]),
    /// `firehose`, `jetstream`: those of `[ingest]`.
    Streams,
    /// `nameservers`, and the names of `[[dns.vantage]]`.
    Resolvers,
    /// Our version.
    Version,
}

use Kind::{Counter as C, Gauge as G};
use Values::{Resolvers, Streams, Version, Words};

const VALUES: [&str; CooperativeLabel::ALL.len()] =
    [CooperativeLabel::ALL[0].as_str(), CooperativeLabel::ALL[1].as_str(), CooperativeLabel::ALL[2].as_str()];
const BOTH: [&str; 2] = ["false", "true"];

const fn metric(name: &'static str, kind: Kind, help: &'static str, labels: &'static [(&'static str, Values)]) -> Metric {
    Metric { name, kind, help, labels }
}

/// All metrics.
#[rustfmt::skip]
pub const TABLE: &[Metric] = &[
    metric("labeler_looks_total", C, "Looks at attestations that ended, by what was found.", &[("result", Words(&LOOKS))]),
    metric("labeler_last_look_timestamp_seconds", G, "When the last look of a lane ended, in Unix time; of those that stand: when somebody was last verified again.", &[("lane", Words(&LANES))]),
    metric("labeler_attestations", G, "Attestations that are known, and repositories to be looked into.", &[]),
    metric("labeler_due", G, "Attestations that are due now; 100000: that many at least.", &[("lane", Words(&LANES))]),
    metric("labeler_due_oldest_seconds", G, "For how long the attestation that waits longest has been due; 0: none is.", &[("lane", Words(&LANES))]),
    metric("labeler_labels_issued_total", C, "Labels that were issued, those that take one back (negated) apart.", &[("value", Words(&VALUES)), ("negated", Words(&BOTH))]),
    metric("labeler_last_sequence_number", G, "The number of the last label of the stream.", &[]),
    metric("labeler_labels_kept", G, "Labels in the store, also those that newer ones have superseded.", &[]),
    metric("labeler_statements", G, "Pairs of an account and a value that a label was ever issued for: what queryLabels answers from.", &[]),
    metric("labeler_requests_total", C, "Requests that were answered.", &[("method", Words(&METHODS)), ("status", Words(&STATUSES))]),
    metric("labeler_subscribers", G, "Streams of labels (subscribeLabels) open now.", &[]),
    metric("labeler_stream_cursor", G, "How far a stream was read, in its own numbers; no series before the first event.", &[("stream", Streams)]),
    metric("labeler_stream_idle_seconds", G, "For how long that place has not moved (looked at every 5 s). On a network with traffic it moves all the time.", &[("stream", Streams)]),
    metric("labeler_stream_lag_seconds", G, "How old the last event was that was read; only of a Jetstream of version 1, whose numbers are times.", &[("stream", Streams)]),
    metric("labeler_dns_questions_total", C, "Questions to a resolver, by what it said; unknown: it failed, or did not answer. An evaluation of SPF counts as one.", &[("resolver", Resolvers), ("answer", Words(&ANSWERS))]),
    metric("labeler_store_used_bytes", G, "The part of the store's map that is in use.", &[]),
    metric("labeler_store_size_bytes", G, "The store's map; when it is full nothing new is taken in, and what is there is served.", &[]),
    metric("labeler_build_info", G, "Which tradewind this is; always 1.", &[("version", Version)]),
];

/// What is scraped.
pub(super) fn render(it: &Instruments) -> Result<String, StoreError> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        for metric in TABLE {
            match metric.kind {
                C => describe_counter!(metric.name, Unit::Count, metric.help),
                G => describe_gauge!(metric.name, Unit::Count, metric.help),
            }
        }
        show(it)
    })?;
    Ok(handle.render())
}

fn show(it: &Instruments) -> Result<(), StoreError> {
    let now = (it.clock)();
    let set = |name: &'static str, value: f64| gauge_of(name, &[]).set(value);
    for (nth, word) in LOOKS.into_iter().enumerate() {
        count("labeler_looks_total", &[("result", word)], it.counts.looks[nth].load(Ordering::Relaxed));
    }
    for (method, counts) in METHODS.into_iter().zip(&it.counts.requests) {
        for (status, requests) in STATUSES.into_iter().zip(counts) {
            count("labeler_requests_total", &[("method", method), ("status", status)], requests.load(Ordering::Relaxed));
        }
    }
    for (value, counts) in VALUES.into_iter().zip(&it.counts.labels) {
        for (negated, labels) in BOTH.into_iter().zip(counts) {
            count("labeler_labels_issued_total", &[("value", value), ("negated", negated)], labels.load(Ordering::Relaxed));
        }
    }
    for (resolver, asked) in &it.resolvers {
        for (answer, questions) in ANSWERS.into_iter().zip(asked.counts()) {
            count("labeler_dns_questions_total", &[("resolver", resolver), ("answer", answer)], questions);
        }
    }
    let found = it.store.measure(now)?;
    set("labeler_attestations", found.attestations as f64);
    set("labeler_statements", found.statements as f64);
    set("labeler_labels_kept", found.kept as f64);
    set("labeler_last_sequence_number", found.last_seq as f64);
    set("labeler_store_used_bytes", found.used_bytes as f64);
    set("labeler_store_size_bytes", found.size_bytes as f64);
    for (nth, lane) in LANES.into_iter().enumerate() {
        let labels = [("lane", lane)];
        gauge_of("labeler_due", &labels).set(found.due[nth] as f64);
        gauge_of("labeler_due_oldest_seconds", &labels).set(found.late[nth].as_secs_f64());
        let looked = it.counts.looked_ms[nth].load(Ordering::Relaxed);
        if looked > 0 {
            gauge_of("labeler_last_look_timestamp_seconds", &labels).set(Duration::from_millis(looked).as_secs_f64());
        }
    }
    set("labeler_subscribers", (it.subscribers)() as f64);
    for stream in it.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let labels = [("stream", stream.name)];
        let age = |since: SystemTime| now.duration_since(since).unwrap_or_default().as_secs_f64();
        gauge_of("labeler_stream_idle_seconds", &labels).set(age(stream.since));
        let Some(at) = stream.at else { continue };
        gauge_of("labeler_stream_cursor", &labels).set(at as f64);
        if let (true, Ok(at)) = (stream.is_time, u64::try_from(at)) {
            gauge_of("labeler_stream_lag_seconds", &labels).set(age(UNIX_EPOCH + Duration::from_micros(at)));
        }
    }
    gauge_of("labeler_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
    Ok(())
}

/// A series begins when there is something to count.
fn count(name: &'static str, labels: &[(&'static str, &str)], value: u64) {
    if value > 0 {
        let counter: Counter = counter!(name, owned(labels));
        counter.absolute(value);
    }
}

fn gauge_of(name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
    gauge!(name, owned(labels))
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<Label> {
    labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned())).collect()
}

impl Metric {
    /// Series that it has at the most, with so many streams and resolvers.
    pub fn series_max(&self, streams: usize, resolvers: usize) -> usize {
        let count = |values: &Values| match values {
            Words(words) => words.len(),
            Streams => streams,
            Resolvers => resolvers,
            Version => 1,
        };
        self.labels.iter().map(|(_, values)| count(values)).product()
    }
}

/// `METRICS.md`.
pub fn page() -> String {
    let most: usize = TABLE.iter().map(|metric| metric.series_max(2, 3)).sum();
    let mut page = format!(
        "# Metrics of the labeler\n\n\
        With `[admin]` in labeler.toml, `GET /metrics` on that address shows these, and `GET /healthz` answers:\n\
        ```toml\n[admin]\naddress = \"127.0.0.1:3101\"   # not public: an address that others can reach is refused, unless allow_clear_text = true\n```\n\
        Alerts for them are in `mta/monitoring/alerts.yml`.\n\n\
        Labels say words of the program, values of the lexicon and names of the configuration, never an account, a domain or an address. So\n\
        the number of series does not grow with members: at most {most} with two streams and three resolvers. A series begins when there is\n\
        something to count.\n\n\
        This page is made from the table in `src/admin/metrics.rs`; a test holds them equal.\n\n\
        | name | kind | meaning | labels |\n|---|---|---|---|\n"
    );
    for metric in TABLE {
        let kind = if metric.kind == C { "counter" } else { "gauge" };
        let says = |values: &Values| match values {
            Words(words) => words.join(", "),
            Streams => "firehose, jetstream".to_owned(),
            Resolvers => "nameservers, and names of `[[dns.vantage]]`".to_owned(),
            Version => "the version".to_owned(),
        };
        let labels: Vec<String> = metric.labels.iter().map(|(label, values)| format!("`{label}`: {}", says(values))).collect();
        // Writing to a string does not fail.
        let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", metric.name, metric.help, labels.join("; "));
    }
    page
}
