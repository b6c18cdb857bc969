//! Pieces that pages are put together from. A state is a word and a sign as well as a colour.

use maud::{Markup, html};

use super::frame::{Viewer, token};
use crate::control::api::PlanProblem;

/// How good a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warn,
    Bad,
    None,
}

/// A state, as a word that stands out.
pub(super) fn state(tone: Tone, word: &str) -> Markup {
    let class = match tone {
        Tone::Good => "state good",
        Tone::Warn => "state warn",
        Tone::Bad => "state bad",
        Tone::None => "state none",
    };
    html! { span class=(class) { (word) } }
}

/// An instant of RFC 3339 in UTC, without what nobody reads.
pub(super) fn time(at: &str) -> Markup {
    let shown = at.get(..19).map_or_else(|| at.to_owned(), |whole| whole.replace('T', " "));
    html! { time datetime=(at) title=(at) { (shown) } }
}

/// A number with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How long something lasts, in its two largest units.
pub(super) fn lasting(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, _) => format!("{minutes} min {} s", secs % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A number, or that there is no limit.
pub(super) fn limit(number: Option<u64>) -> String {
    number.map_or_else(|| "no limit".to_owned(), count)
}

/// How much of `whole` is done, and what more is under way. Said in words elsewhere: this is for the eye.
pub(super) fn bar(done: u64, under_way: u64, whole: u64) -> Markup {
    marked_bar(done, under_way, whole, None)
}

/// The same with a mark that it may not be beyond by now.
pub(super) fn marked_bar(done: u64, under_way: u64, whole: u64, mark: Option<u64>) -> Markup {
    let part = |number: u64| number.min(whole).saturating_mul(1000).checked_div(whole).unwrap_or(0).min(1000);
    let (done, both) = (part(done), part(done.saturating_add(under_way)));
    html! {
        svg.bar viewBox="0 0 1000 8" preserveAspectRatio="none" aria-hidden="true" {
            rect.fact width=(done) height="8" {}
            @if both > done { rect.open x=(done) width=(both - done) height="8" {} }
            @if let Some(mark) = mark { rect.mark x=(part(mark).min(988)) width="12" height="8" {} }
        }
    }
}

/// What needs a person; nothing when there is nothing.
pub(super) fn needs(sentences: &[String]) -> Markup {
    html! {
        @if !sentences.is_empty() {
            section.needs aria-labelledby="needs" {
                h2 #needs { "Needs a person" }
                ul { @for each in sentences { li { (each) } } }
            }
        }
    }
}

/// What is wrong with a text, line by line.
pub(super) fn mistakes(problems: &[PlanProblem]) -> Markup {
    html! {
        ul.notice.bad {
            @for problem in problems {
                li.error-line { @if let Some(line) = problem.line { b { "Line " (line) } ": " } @if !problem.key.is_empty() { span.code { (problem.key) } ": " } (problem.message) }
            }
        }
    }
}

/// A table's cells for nothing.
pub(super) fn empty(columns: usize, says: &str) -> Markup {
    html! { tr { td.quiet colspan=(columns) { (says) } } }
}

/// Figures side by side.
pub(super) fn tiles(all: &[(&str, String, Option<String>)]) -> Markup {
    html! {
        dl.tiles {
            @for (name, value, more) in all {
                div.tile { dt { (name) } dd { (value) @if let Some(more) = more { small { (more) } } } }
            }
        }
    }
}

/// A button with a reason to give, folded away until it is wanted.
pub(super) struct Act<'a> {
    /// On the fold and on the button.
    pub(super) name: &'a str,
    /// Where the form goes.
    pub(super) action: &'a str,
    /// What happens then.
    pub(super) says: &'a str,
    /// Whether it takes something away.
    pub(super) danger: bool,
    /// The version of what is changed, as this page shows it.
    pub(super) version: Option<&'a str>,
    /// Further fields.
    pub(super) fields: Markup,
}

/// The form of it, for those who may.
pub(super) fn act(viewer: &Viewer, it: &Act<'_>) -> Markup {
    html! {
        @if viewer.may_operate() {
            details.act {
                summary { (it.name) }
                p.quiet { (it.says) }
                form.row method="post" action=(it.action) {
                    (token(viewer))
                    @if let Some(version) = it.version { input type="hidden" name="version" value=(version); }
                    (it.fields)
                    label { "Why, for the record" br; input name="why" required maxlength="500" size="32" autocomplete="off"; }
                    button.danger[it.danger] { (it.name) }
                }
            }
        }
    }
}

/// A path segment: everything but unreserved characters of RFC 3986 is escaped.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => out.push(char::from(octet)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_time_is_said_in_its_two_largest_units() {
        assert_eq!([7, 61, 3_725, 90_000].map(lasting), ["7 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
    }

    #[test]
    fn a_bar_never_leaves_its_frame() {
        let drawn = bar(900, 900, 1000).into_string();
        assert!(drawn.contains(r#"width="900""#) && drawn.contains(r#"x="900" width="100""#), "{drawn}");
        assert!(bar(5, 0, 0).into_string().contains(r#"width="0""#));
    }

    #[test]
    fn a_segment_cannot_leave_its_place() {
        assert_eq!(segment("did:web:a.test"), "did:web:a.test");
        assert_eq!(segment("a/../b?c#d e"), "a%2F..%2Fb%3Fc%23d%20e");
    }
}
