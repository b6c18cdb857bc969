//! Answers for people: short, aligned. `--json` prints them as the daemon gave them.

use std::fmt::Write;

use mta::control::api::{DnsRecord, Enrolled, Key, Member, QueuePage, QueuedDelivery, QueuedMessage, Spending, Status};
use serde::Serialize;

/// What can be shown to a person.
pub(crate) trait Show {
    fn show(&self) -> String;
}

/// Prints an answer.
pub(crate) fn print<T: Show + Serialize>(answer: &T, json: bool) -> anyhow::Result<()> {
    put(answer, json, || answer.show())
}

pub(crate) fn removed(member: &Member, json: bool) -> anyhow::Result<()> {
    put(member, json, || format!("{} is no longer a member; what it had queued still goes out\n", member.did))
}

pub(crate) fn keys_to_publish(keys: &[Key], json: bool) -> anyhow::Result<()> {
    put(&keys, json, || {
        let records: Vec<_> = keys.iter().map(|key| key.dns_record.clone()).collect();
        format!("Signing with {} new. Publish:\n\n{}", count(keys.len(), "key"), dns(&records))
    })
}

fn put(answer: &impl Serialize, json: bool, show: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string_pretty(answer)? + "\n" } else { show() };
    say(&text)
}

/// Prints a text as it is.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    // `tradewind queue list | head` is no error.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

impl Show for Enrolled {
    fn show(&self) -> String {
        format!(
            "{did} may send from {domain}. The password is shown this once:\n\n\
             PDS_EMAIL_SMTP_URL={url}\n\nusername  {user}\npassword  {password}\n\nPublish:\n\n{dns}",
            did = self.did,
            domain = self.domain,
            url = self.smtp_url,
            user = self.username,
            password = self.password,
            dns = dns(&self.dns_records),
        )
    }
}

impl Show for Vec<Member> {
    fn show(&self) -> String {
        if self.is_empty() {
            return "no members; enrol one with: tradewind member add --did DID --domain DOMAIN\n".to_owned();
        }
        let rows = self.iter().map(|it| [it.did.clone(), it.domains.join(" "), state(it), it.tier.clone(), it.labels.join(" ")]);
        table(["DID", "DOMAINS", "STATE", "TIER", "LABELS"], rows)
    }
}

impl Show for Member {
    fn show(&self) -> String {
        pairs([
            ("did", self.did.clone()),
            ("domains", self.domains.join(" ")),
            ("state", state(self)),
            ("why", self.reason.clone().unwrap_or_default()),
            ("labels", self.labels.join(" ")),
            ("doubts", self.doubts.join("; ")),
            ("tier", format!("{}, weight {}", self.tier, self.spending.weight)),
            ("pool", self.pool.clone().unwrap_or_default()),
            ("rate", rate(&self.spending)),
            ("today", format!("{} sent{}", self.spending.sent_today, most(self.spending.messages_per_day))),
            ("queue", {
                let Spending { queue_messages, queue_messages_max, queue_bytes, queue_bytes_max, .. } = self.spending;
                let messages = format!("{}{}", count_long(queue_messages, "message"), most(queue_messages_max));
                format!("{messages}, {}{}", count_long(queue_bytes, "octet"), most(queue_bytes_max))
            }),
        ])
    }
}

/// Rates count recipients.
fn rate(spending: &Spending) -> String {
    match (spending.messages_per_hour, spending.burst, spending.available) {
        (Some(hourly), Some(burst), available) => {
            format!("{hourly} an hour, {burst} at once; {} now", available.unwrap_or(burst))
        }
        _ => "no limit".to_owned(),
    }
}

fn most(limit: Option<u64>) -> String {
    limit.map(|limit| format!(" of {limit}")).unwrap_or_default()
}

fn state(member: &Member) -> String {
    let state = match (member.suspended, member.admitted) {
        (true, _) => "suspended",
        (false, true) => "may send",
        (false, false) => "waits",
    };
    state.to_owned()
}

impl Show for Vec<Key> {
    fn show(&self) -> String {
        if self.is_empty() {
            return "no keys\n".to_owned();
        }
        let rows = self.iter().map(|it| [it.domain.clone(), it.selector.clone(), it.algorithm.clone(), it.bits.to_string()]);
        table(["DOMAIN", "SELECTOR", "ALGORITHM", "BITS"], rows)
    }
}

impl Show for QueuePage {
    fn show(&self) -> String {
        if self.deliveries.is_empty() {
            return "nothing is queued\n".to_owned();
        }
        let more = self.next.as_ref().map(|next| format!("… and more: go on with --after {next}, or narrow it\n"));
        deliveries(&self.deliveries) + &more.unwrap_or_default()
    }
}

impl Show for QueuedMessage {
    fn show(&self) -> String {
        let from = if self.reverse_path.is_empty() { "<>" } else { &self.reverse_path };
        let head = pairs([
            ("id", self.id.clone()),
            ("from", from.to_owned()),
            ("member", self.member.clone().unwrap_or_default()),
            ("class", self.class.clone()),
            ("accepted", self.accepted_at.clone()),
            ("expires", self.expires_at.clone()),
            ("set aside", self.set_aside.clone().unwrap_or_default()),
            ("bytes", self.bytes.to_string()),
        ]);
        let rows = self.recipients.iter().map(|it| [it.address.clone(), it.fate.clone(), it.last.clone().unwrap_or_default()]);
        let mut out = head + "\n" + &table(["RECIPIENT", "FATE", "LAST"], rows);
        if !self.deliveries.is_empty() {
            let _ = write!(out, "\n{}", deliveries(&self.deliveries));
        }
        out
    }
}

fn deliveries(deliveries: &[QueuedDelivery]) -> String {
    let rows = deliveries.iter().map(|it| {
        let last = match &it.held_by {
            Some(by) => format!("held by {by}"),
            None => it.last.clone().unwrap_or_default(),
        };
        [it.id.clone(), it.domain.clone(), it.class.clone(), it.attempts.to_string(), it.due_at.clone(), last]
    });
    table(["ID", "DOMAIN", "CLASS", "TRIED", "DUE", "LAST"], rows)
}

impl Show for Status {
    fn show(&self) -> String {
        let labeler = self.labeler.as_ref().map_or("not consulted".to_owned(), |it| {
            let polled = it.polled_at.as_deref().unwrap_or("never");
            let stale = if it.stale { ", stale" } else { "" };
            let trouble = it.trouble.as_ref().map(|it| format!(", {it}")).unwrap_or_default();
            format!("{}, polled {polled}{stale}{trouble}", it.did)
        });
        pairs([
            ("hostname", self.hostname.clone()),
            ("version", format!("{} on {}", self.version, self.io)),
            ("members", format!("{}, of which {} may send now", self.members, self.members_admitted)),
            ("queue", format!("{}, {} deliveries", count_long(self.messages, "message"), self.deliveries)),
            ("labeler", labeler),
        ])
    }
}

fn count(number: usize, what: &str) -> String {
    count_long(number as u64, what)
}

pub(crate) fn count_long(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// As a zone file has them, so that they can be pasted: strings of at most 255 octets (RFC 1035 §3.3.14).
fn dns(records: &[DnsRecord]) -> String {
    let mut out = String::new();
    for DnsRecord { name, kind, value } in records {
        let value = if kind == "TXT" { strings(value) } else { value.clone() };
        let _ = writeln!(out, "{}. {kind} {}", plain(name), plain(&value));
    }
    out
}

fn strings(value: &str) -> String {
    let escaped: Vec<char> =
        value.chars().flat_map(|it| if matches!(it, '"' | '\\') { vec!['\\', it] } else { vec![it] }).collect();
    let parts = escaped.chunks(250).map(|part| format!("\"{}\"", part.iter().collect::<String>()));
    parts.collect::<Vec<_>>().join(" ")
}

pub(crate) fn pairs<const N: usize>(pairs: [(&str, String); N]) -> String {
    let mut out = String::new();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(out, "{name:<9} {}", plain(value));
    }
    out
}

pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> =
        std::iter::once(head.map(str::to_owned)).chain(rows.map(|row| row.map(|it| plain(&it)))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// What peers said may hold escapes that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '?' } else { it }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let rows = [["a".to_owned(), "1\u{1b}[2J".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "V"], rows.into_iter()), "NAME    V\na       1?[2J\nlonger\n");
    }

    #[test]
    fn a_long_record_is_cut_into_strings_that_a_zone_may_have() {
        let record = DnsRecord { name: "s._domainkey.a.example".into(), kind: "TXT".into(), value: "x".repeat(300) };
        let shown = dns(&[record]);
        let parts: Vec<_> = shown.split('"').filter(|part| part.starts_with('x')).map(str::len).collect();
        assert_eq!(parts, [250, 50]);
        assert!(shown.starts_with("s._domainkey.a.example. TXT \""));
    }
}
