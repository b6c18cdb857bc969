//! The table: medians of the runs, latencies of all runs together.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::Run;
use super::peers::Peer;
use crate::ledger::new_histogram;

/// One line a peer that was measured.
pub(super) fn table(peers: &[Peer], results: &[Vec<Run>]) -> String {
    let postfix = peers.iter().position(|peer| *peer == Peer::Postfix).map(|index| results[index].as_slice()).unwrap_or_default();
    let postfix_cpu = median(postfix, |run| run.cpu_secs_per_1000);
    let postfix_p99 = merged(postfix, |run| run.latency.as_ref()).map(|all| p(&all, 0.99));
    let mut out = format!(
        "\n{:36} {:>10} {:>13} {:>9} {:>8} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9}\n",
        "peer", "CPU-s/1000", "min–max", "postfix/", "msg/s", "p50 ms", "p99 ms", "/postf.", "rush p50", "rush p99", "gen+sink"
    );
    for (peer, runs) in peers.iter().zip(results) {
        let Some(cpu) = median(runs, |run| run.cpu_secs_per_1000) else {
            let _ = writeln!(out, "{:36} no result", peer.name());
            continue;
        };
        let of = |of| median(runs, of).unwrap_or(f64::NAN);
        let min = runs.iter().map(|run| run.cpu_secs_per_1000).fold(f64::INFINITY, f64::min);
        let max = runs.iter().map(|run| run.cpu_secs_per_1000).fold(0.0, f64::max);
        let latency = merged(runs, |run| run.latency.as_ref());
        let rush = merged(runs, |run| run.rush.as_ref());
        let at = |all: &Option<Histogram<u64>>, q| all.as_ref().map_or("–".to_owned(), |all| format!("{:.2}", p(all, q)));
        let against =
            latency.as_ref().zip(postfix_p99).map_or("–".to_owned(), |(all, theirs)| format!("{:.2}", p(all, 0.99) / theirs));
        let _ = writeln!(
            out,
            "{:36} {cpu:>10.3} {:>13} {:>9} {:>8.0} {:>8} {:>8} {against:>7} {:>9} {:>9} {:>9.3}",
            peer.name(),
            format!("{min:.3}–{max:.3}"),
            postfix_cpu.map_or("–".to_owned(), |theirs| format!("{:.1} ×", theirs / cpu)),
            of(|run| run.messages_per_sec),
            at(&latency, 0.5),
            at(&latency, 0.99),
            at(&rush, 0.5),
            at(&rush, 0.99),
            of(|run| run.own_cpu_secs_per_1000),
        );
    }
    out.push_str(
        "CPU-s/1000, msg/s: medians of the runs. postfix/: how many times less CPU a message costs than Postfix's.\n\
         p50, p99: from the beginning of a submission to its arrival at the sink, all runs together, at 20 messages/s of\n\
         one-time codes; /postf.: that p99 as a part of Postfix's. rush: the same while 50 connections submit `bulk` mail\n\
         without pause. gen+sink: CPU of generator and sink, the floor of the dialogue.\n",
    );
    out
}

fn median(runs: &[Run], of: fn(&Run) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn merged(runs: &[Run], of: fn(&Run) -> Option<&Histogram<u64>>) -> Option<Histogram<u64>> {
    let mut all = new_histogram();
    for histogram in runs.iter().filter_map(of) {
        // All have the same bounds.
        all.add(histogram).ok()?;
    }
    (!all.is_empty()).then_some(all)
}

fn p(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}
