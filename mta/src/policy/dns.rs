//! What a member publishes, as `tradewind member add` prints it.
//!
//! Not here: whether it is published (the labeler checks that).

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::sign::{KeyError, SigningKey};

/// One record. The value is whole; a zone file splits TXT into strings of at most 255 octets ([`zone_strings`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsRecord {
    /// Fully qualified, without the last dot.
    pub name: String,
    /// `TXT`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// As it is looked up.
    pub value: String,
}

/// DKIM for each key, SPF for our sources, DMARC that a DKIM signature alone satisfies, and the proof that the
/// domain is the DID's.
pub fn dns_records(domain: &str, did: &str, keys: &[Arc<SigningKey>], sources: &[IpAddr]) -> Result<Vec<DnsRecord>, KeyError> {
    let txt = |name: String, value: String| DnsRecord { name, kind: "TXT", value };
    let mut records = Vec::with_capacity(keys.len() + 3);
    for key in keys {
        records.push(txt(key.dns_name(), key.dns_value()?));
    }
    let mut spf = "v=spf1".to_owned();
    for source in sources {
        spf.push_str(&match source {
            IpAddr::V4(address) => format!(" ip4:{address}"),
            IpAddr::V6(address) => format!(" ip6:{address}"),
        });
    }
    spf.push_str(" -all");
    records.push(txt(domain.to_owned(), spf));
    // Relaxed alignment: the reverse-path may become a subdomain's once bounces come back to us.
    records.push(txt(format!("_dmarc.{domain}"), format!("v=DMARC1; p=reject; adkim=r; aspf=r; rua=mailto:postmaster@{domain}")));
    records.push(txt(format!("_atproto.{domain}"), format!("did={did}")));
    Ok(records)
}

/// A TXT value as a zone file writes it: `"…" "…"`, each string at most 255 octets (RFC 1035 §3.3).
pub fn zone_strings(value: &str) -> String {
    // Our values are ASCII without quotes or backslashes.
    let strings = value.as_bytes().chunks(255).map(|chunk| format!("\"{}\"", String::from_utf8_lossy(chunk)));
    strings.collect::<Vec<_>>().join(" ")
}
