//! The page for people: plain HTML, made here, readable without scripts, style or colours.
//!
//! Every text comes from strangers, so that everything goes through [`Escaped`].

use std::fmt::{self, Display, Write};

use super::{DomainStatus, DryRun, Status};
use crate::judge::{Check, Kind, Record, Verdict};
use crate::store::State;

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
table{border-collapse:collapse;width:100%}caption{text-align:left;font-weight:600;padding:.5rem 0}\
th,td{border:1px solid #767676;padding:.4rem .6rem;text-align:left;vertical-align:top}\
code{overflow-wrap:anywhere;background:#f2f2f2}form{margin:1rem 0}label{display:block;margin:.5rem 0}\
input[type=text]{font:inherit;width:100%;max-width:30rem}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}code{background:#2a2a2a}a{color:#9cf}}";

/// What an account has.
pub(super) fn account(status: &Status) -> String {
    let mut body = String::new();
    labels(&mut body, status);
    if status.domains.is_empty() {
        push(
            &mut body,
            format_args!(
                "<p>This labeler has seen no attestation of this account. If there is one, it may not have arrived yet.</p>"
            ),
        );
    }
    status.domains.iter().for_each(|domain| domain_section(&mut body, domain));
    whole(&format!("Status of {}", status.did.as_str()), &body)
}

/// What those have who attest a domain.
pub(super) fn domain(name: &str, statuses: &[Status]) -> String {
    let mut body = String::new();
    for status in statuses {
        let did = Escaped(status.did.as_str());
        push(&mut body, format_args!("<h2>Attested by <a href=\"/status/{did}\">{did}</a></h2>"));
        labels(&mut body, status);
        status.domains.iter().filter(|it| it.domain == name).for_each(|it| domain_section(&mut body, it));
    }
    whole(&format!("Status of {}", shown_domain(name)), &body)
}

/// What a dry run found.
pub(super) fn dry_run(run: &DryRun) -> String {
    let mut body = String::new();
    let verdict = match run.verdict {
        Verdict::Pass => "All is in order: an attestation of this domain would be followed by a label.",
        Verdict::Fail => "Not yet: what is marked as wrong has to be put right first.",
        Verdict::Unknown => "Not everything could be found out. Try again in a while.",
    };
    push(&mut body, format_args!("<p><strong>{}</strong></p>", Escaped(verdict)));
    match &run.did {
        Some(did) => push(&mut body, format_args!("<p>Checked for <code>{}</code>.</p>", Escaped(did.as_str()))),
        None => push(&mut body, format_args!("<p>The domain names no DID.</p>")),
    }
    if !run.attested {
        push(&mut body, format_args!("<p>This labeler has seen no attestation of it. Nothing of this check is kept.</p>"));
    }
    checks(&mut body, &format!("Checks of {}", shown_domain(&run.domain)), &run.checks);
    whole(&format!("Check of {}", shown_domain(&run.domain)), &body)
}

/// Nothing but the forms.
pub(super) fn form() -> String {
    whole("Status of a mail operator", "")
}

/// What went wrong.
pub(super) fn trouble(why: &str) -> String {
    whole("This did not work", &format!("<p role=\"alert\">{}</p>", Escaped(why)))
}

fn labels(body: &mut String, status: &Status) {
    if status.labels.is_empty() {
        push(body, format_args!("<p>No labels.</p>"));
        return;
    }
    push(body, format_args!("<p>Labels in force:</p><ul>"));
    for label in &status.labels {
        push(body, format_args!("<li><code>{}</code> since {}", Escaped(&label.val), Escaped(label.cts.as_str())));
        if let Some(exp) = &label.exp {
            push(body, format_args!(", until {} unless it is confirmed before", Escaped(exp.as_str())));
        }
        push(body, format_args!("</li>"));
    }
    push(body, format_args!("</ul>"));
}

fn domain_section(body: &mut String, status: &DomainStatus) {
    let name = shown_domain(&status.domain);
    let state = match (status.state, status.carries_labels) {
        (State::New, _) => "It was not looked at yet.",
        (State::Pass, _) => "All is in order.",
        (State::Fail, true) => "Something is wrong. The labels stand for now, and are taken back if it stays so.",
        (State::Fail, false) => "Something is wrong, so that this domain carries no label.",
        (State::Unknown, true) => {
            "Not everything could be found out at the last look. The labels stand for now, and are taken back if it stays so for days."
        }
        (State::Unknown, false) => {
            "Not everything could be found out, so that this domain carries no label. One look that finds all in order is enough for it."
        }
    };
    push(body, format_args!("<h3>{}</h3><p><strong>{}</strong>", Escaped(&name), Escaped(state)));
    if let Some(at) = &status.checked_at {
        push(body, format_args!(" Looked at {}.", Escaped(at.as_str())));
    }
    if let Some(at) = &status.unconfirmed_since {
        push(body, format_args!(" No look has confirmed it since {}.", Escaped(at.as_str())));
    }
    if let Some(at) = &status.next_check_at {
        push(body, format_args!(" Next look {}.", Escaped(at.as_str())));
    }
    push(body, format_args!(" The relay is {}asked for.</p>", if status.relay_member { "" } else { "not " }));
    checks(body, &format!("Checks of {name}"), &status.checks);
}

fn checks(body: &mut String, caption: &str, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    push(
        body,
        format_args!(
            "<table><caption>{}</caption><thead><tr><th scope=\"col\">What</th><th scope=\"col\">Result</th>\
             <th scope=\"col\">Seen</th><th scope=\"col\">What to do</th></tr></thead><tbody>",
            Escaped(caption)
        ),
    );
    for check in checks {
        let result = match check.status {
            crate::judge::Status::Pass => "in order",
            crate::judge::Status::Warn => "better put right",
            crate::judge::Status::Fail => "wrong",
            crate::judge::Status::Unknown => "not found out",
            crate::judge::Status::Note => "note",
        };
        push(
            body,
            format_args!(
                "<tr><th scope=\"row\">{}<br><code>{}</code></th><td>{result}</td><td>",
                Escaped(title(check.kind)),
                Escaped(&check.name)
            ),
        );
        check.seen.iter().for_each(|seen| push(body, format_args!("<code>{}</code><br>", Escaped(seen))));
        push(body, format_args!("</td><td>{}", Escaped(check.why.as_deref().unwrap_or_default())));
        if let Some(Record { name, kind, value }) = &check.publish {
            push(
                body,
                format_args!(
                    "<p>Publish {} <code>{}</code> at <code>{}</code></p>",
                    Escaped(kind),
                    Escaped(value),
                    Escaped(name)
                ),
            );
        }
        push(body, format_args!("</td></tr>"));
    }
    push(body, format_args!("</tbody></table>"));
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Identity => "The account",
        Kind::Pds => "Its server",
        Kind::Record => "The attestation",
        Kind::Control => "The domain names the account",
        Kind::Mx => "It receives mail",
        Kind::Spf => "SPF: who may send",
        Kind::SpfSources => "SPF: the co-op may send",
        Kind::Dkim => "DKIM key",
        Kind::Dmarc => "DMARC policy",
        Kind::Ptr => "Name of a sending address",
        Kind::MtaSts => "MTA-STS",
        Kind::TlsRpt => "TLS reports",
        Kind::Bimi => "BIMI",
        Kind::Resolvers => "Several resolvers agree",
    }
}

fn whole(title: &str, body: &str) -> String {
    let title = Escaped(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}\
         <h2>Look up</h2><form action=\"/status\" method=\"get\"><label>DID or domain \
         <input type=\"text\" name=\"subject\" required maxlength=\"300\" autocomplete=\"off\"></label><button>Show status</button></form>\
         <h2>Check before attesting</h2><form action=\"/status\" method=\"get\"><label>Domain \
         <input type=\"text\" name=\"domain\" required maxlength=\"253\" autocomplete=\"off\"></label><label>DID (optional) \
         <input type=\"text\" name=\"did\" maxlength=\"300\" autocomplete=\"off\"></label><label>DKIM selectors, separated by commas (optional) \
         <input type=\"text\" name=\"selectors\" maxlength=\"700\" autocomplete=\"off\"></label>\
         <label><input type=\"checkbox\" name=\"relay\" value=\"true\"> to be sent by the co-op's relay</label>\
         <button>Check now</button></form></main></body></html>\n"
    )
}

/// With what people would read, where it differs.
fn shown_domain(domain: &str) -> String {
    match idna_unicode(domain) {
        Some(unicode) if unicode != domain => format!("{unicode} ({domain})"),
        _ => domain.to_owned(),
    }
}

fn idna_unicode(domain: &str) -> Option<String> {
    let (unicode, valid) = idna::domain_to_unicode(domain);
    valid.ok().map(|()| unicode)
}

fn push(body: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = body.write_fmt(text);
}

/// Text in HTML, inside of elements and of quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Marks that turn the direction of writing would let a record dress up as another.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => f.write_char('\u{fffd}')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
