//! `--volume from-events`: what members submitted on the days that the daemon's events still tell of.
//!
//! An `accepted` event says how many recipients a message had, so days of UTC are sums of those. The first day kept and today are
//! left out, because neither is whole; so is a day without any event.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;
use mta::config::Config;
use mta::control::api::{EventFilter, EventPage, PAGE_MAX};
use simulate::Volume;

use crate::client::Client;
use crate::mail::query;

/// Asks the daemon, page by page.
pub(crate) fn volume(config: Option<&Path>) -> anyhow::Result<Volume> {
    let path = crate::config_path(config)?;
    let daemon = Client::new(&Config::load_alone(&path)?, &path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut days = BTreeMap::new();
        let mut filter = EventFilter { after: Some(0), limit: Some(PAGE_MAX), ..EventFilter::default() };
        loop {
            let page: EventPage = daemon.get(&format!("/v1/events?{}", query(&filter)?)).await?;
            count(&mut days, &page);
            if !page.more {
                return whole(&days);
            }
            filter.after = Some(page.next);
        }
    })
}

/// Recipients by date. Every event opens its day: one on which mail was only delivered is a day with nothing.
fn count(days: &mut BTreeMap<String, u64>, page: &EventPage) {
    for event in &page.events {
        let Some((date, _)) = event.at.split_once('T') else { continue };
        let recipients = if event.what == "accepted" { u64::from(event.recipients) } else { 0 };
        *days.entry(date.to_owned()).or_default() += recipients;
    }
}

/// The days between the first and the last.
fn whole(days: &BTreeMap<String, u64>) -> anyhow::Result<Volume> {
    let whole: Vec<u64> = days.values().copied().skip(1).take(days.len().saturating_sub(2)).collect();
    if whole.iter().sum::<u64>() == 0 {
        bail!(
            "--volume from-events: the daemon's events tell of no whole day with mail yet ({} begun); use steady:N, or a file with a \
             line for each day (2026-11-01,18250)",
            days.len()
        );
    }
    Ok(Volume::Days(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_sums_of_what_was_accepted_and_those_that_are_not_whole_do_not_count() {
        let event = |number: u64, at: &str, what: &str, recipients: u16| {
            let text = format!(
                r#"{{"number":{number},"at":"{at}","what":"{what}","final":false,"id":"1","recipients":{recipients},"attempts":0}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let events = vec![
            event(1, "2026-11-01T09:00:00Z", "accepted", 9),
            event(2, "2026-11-02T09:00:00Z", "accepted", 3),
            event(3, "2026-11-02T23:59:59Z", "accepted", 4),
            event(4, "2026-11-02T23:59:59Z", "delivered", 1),
            event(5, "2026-11-03T00:00:00Z", "accepted", 5),
            event(6, "2026-11-04T00:00:00Z", "accepted", 8),
        ];
        let mut days = BTreeMap::new();
        count(&mut days, &EventPage { events, ..EventPage::default() });
        assert_eq!(whole(&days).unwrap(), Volume::Days(vec![7, 5]));
        days.retain(|date, _| date.as_str() < "2026-11-03");
        assert!(whole(&days).unwrap_err().to_string().contains("no whole day with mail yet (2 begun)"));
    }
}
