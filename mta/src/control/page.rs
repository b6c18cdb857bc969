//! The status page: plain HTML, made here, everything escaped.

use std::fmt::Write;

use super::{admin::Stage, api::Status};

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
<meta http-equiv=refresh content=10><title>tradewind</title><style>\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}\
th{text-align:left;font-weight:400;opacity:.7;padding-right:2rem;vertical-align:top}td{font-variant-numeric:tabular-nums}\
</style>";

/// How the daemon is.
pub(super) fn status(status: &Status, stage: Stage) -> String {
    let mut out = format!("{HEAD}<h1>{}</h1><table>", escape(&status.hostname));
    let stage = match stage {
        Stage::Starting => "starting",
        Stage::Ready => "ready",
        Stage::Draining => "draining: told to stop, finishing what is in progress",
    };
    row(&mut out, "State", stage);
    row(&mut out, "Version", &format!("{} on {}", status.version, status.io));
    row(&mut out, "Members", &format!("{}, of which {} may send now", status.members, status.members_admitted));
    row(&mut out, "Queue", &format!("{} messages, {} deliveries", status.messages, status.deliveries));
    match &status.labeler {
        None => row(&mut out, "Labels", "not consulted: there is no [labeler] table"),
        Some(labeler) => {
            let polled = labeler.polled_at.as_deref().unwrap_or("never");
            let stale = if labeler.stale { ": too long ago, new members wait" } else { "" };
            row(&mut out, "Labeler", &labeler.did);
            row(&mut out, "Last good poll", &format!("{polled}{stale}"));
            if let Some(trouble) = &labeler.trouble {
                row(&mut out, "Since then", trouble);
            }
        }
    }
    out.push_str("</table><p><a href=/metrics>metrics</a> · <a href=/healthz>healthz</a> · <a href=/readyz>readyz</a>\n");
    out
}

fn row(out: &mut String, name: &str, value: &str) {
    let _ = write!(out, "<tr><th>{}<td>{}", escape(name), escape(value));
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
