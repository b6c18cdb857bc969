//! `replies`: what hosts said lately when they did not take mail, grouped by class, provider and words; bounded samples from the
//! events, without recipients.
//!
//! The class is what the table of replies makes of the words now, so an operator who edits that table sees what it would do. Events
//! do not keep at which command a reply came; where only that decides, it is taken for one to RCPT.

use std::collections::HashMap;

use smtp::client::Stage;
use smtp::reply::{EnhancedCode, Reply};

use super::api::{Refusal, RepliesFilter, RepliesPage, ReplyGroup};
use super::daemon::Daemon;
use super::views::{blocking, time, unable};
use crate::egress::provider::OTHER;
use crate::events::{Event, What};

/// Events that one question looks at, the newest.
const LOOKED_AT: usize = 20_000;

/// Groups that are told, and kept while they are counted.
const GROUPS_MAX: usize = 500;

/// What is shown of a text.
const TEXT_BYTES_MAX: usize = 300;

impl Daemon {
    /// The groups, the most frequent first.
    pub(super) async fn list_replies(&self, filter: RepliesFilter) -> Result<RepliesPage, Refusal> {
        let config = self.config.load_full();
        let found =
            blocking(self, move |daemon| daemon.parts.reader.events(None, None, None, LOOKED_AT)).await?.map_err(unable)?;
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        let mut groups: HashMap<(String, String, String), ReplyGroup> = HashMap::new();
        let mut page = RepliesPage { since: found.events.first().map(|(_, event)| time(event.at)), ..RepliesPage::default() };
        for (_, event) in found.events.iter().filter(|(_, event)| speaks(event)) {
            let provider = if event.host.is_empty() { OTHER.into() } else { config.shaped.providers.of(&event.host) };
            let meaning = parse(&event.reply).and_then(|reply| config.replies.classify(&provider, Stage::Rcpt, &reply));
            let (class, entry) = meaning.map_or(("none".to_owned(), None), |it| (it.class.to_string(), it.entry));
            if !is(&filter.class, &class) || !is(&filter.provider, &provider) || !is(&filter.source, &event.source) {
                continue;
            }
            page.replies += 1;
            let text = without_people(&event.reply);
            let key = (class.clone(), provider.to_string(), without_numbers(&text));
            if !groups.contains_key(&key) && groups.len() >= GROUPS_MAX {
                page.more = true;
                continue;
            }
            let group = groups.entry(key).or_insert_with(|| ReplyGroup {
                class,
                provider: provider.to_string(),
                entry: entry.map(|entry| entry.to_string()),
                ..ReplyGroup::default()
            });
            group.count += 1;
            group.failed += u64::from(event.what == What::Failed);
            // The newest stands for all: events are read in their order.
            group.text = text;
            group.last_at = time(event.at);
            group.host = event.host.clone();
            group.id = event.id.to_string();
            if !event.source.is_empty() && !group.sources.contains(&event.source) && group.sources.len() < 16 {
                group.sources.push(event.source.clone());
            }
        }
        page.groups = groups.into_values().collect();
        page.groups.sort_by(|one, other| (other.count, &one.text).cmp(&(one.count, &other.text)));
        Ok(page)
    }
}

/// Whether a host's words are in it.
fn speaks(event: &Event) -> bool {
    matches!(event.what, What::Deferred | What::Failed) && !event.reply.is_empty()
}

/// A reply in the form of the log: `550-5.7.1 first line 550 5.7.1 second`.
fn parse(text: &str) -> Option<Reply> {
    let code = text.get(..3)?.parse().ok().filter(|code| (200..600).contains(code))?;
    let rest = text.get(4..).unwrap_or_default();
    Some(match EnhancedCode::split(rest) {
        Some((enhanced, rest)) => Reply::new(code, enhanced, rest.to_owned()),
        None => Reply::plain(code, rest.to_owned()),
    })
}

/// Hosts repeat the recipient; what is shown names nobody.
fn without_people(text: &str) -> String {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '%' | '\'' | '/' | '*' | '@');
    let mut shown = String::with_capacity(text.len());
    // Runs of what an address may be made of, and what stands between them.
    for piece in text.split_inclusive(|c: char| !inside(c)) {
        let word = piece.trim_end_matches(|c: char| !inside(c));
        shown.push_str(if word.contains('@') { "…@…" } else { word });
        shown.push_str(&piece[word.len()..]);
    }
    shown[..shown.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// What differs from one reply to the next of a kind: ids, times, addresses.
fn without_numbers(text: &str) -> String {
    let is_id = |word: &str| word.len() >= 8 && word.bytes().any(|octet| octet.is_ascii_digit());
    let words = text.split(' ').enumerate().map(|(nth, word)| if nth > 1 && is_id(word) { "#" } else { word });
    words
        .collect::<Vec<_>>()
        .join(" ")
        .split(|c: char| c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_named() {
        for (text, shown) in [
            ("550 5.1.1 <b.c+d@big.example>: unknown", "550 5.1.1 <…@…>: unknown"),
            ("550 5.1.1 b@big.example does not exist", "550 5.1.1 …@… does not exist"),
            ("550 to=b@x.example,c@y.example no", "550 to=…@…,…@… no"),
            ("421 4.7.0 try again", "421 4.7.0 try again"),
            ("550 ü<é@x> ä", "550 ü<…@…> ä"),
        ] {
            assert_eq!(without_people(text), shown);
        }
    }

    #[test]
    fn replies_that_differ_in_ids_are_one_kind() {
        let one = without_numbers("421 4.7.28 rate of 203.0.113.7 exceeded d9443c01a7336-2a07 gsmtp");
        assert_eq!(one, without_numbers("421 4.7.28 rate of 198.51.100.9 exceeded a1113c01a7336-9f00 gsmtp"));
        assert_ne!(one, without_numbers("421 4.7.28 rate of 198.51.100.9 not known a1113c01a7336-9f00 gsmtp"));
    }
}
