//! The record and label values of `email.atmos.*`, as `lexicons/` defines them.
//!
//! They belong to the co-op that exists; ours reads and writes the same, so that members can use either. A test holds these types and the JSON together.
//!
//! The record's key is its domain, so the domain has one spelling: lower case, no dot at the end, international names as A-labels. Any other
//! spelling is refused with the one that would do, rather than silently read as it.

use serde::{Deserialize, Serialize};

use crate::Datetime;

/// The collection of attestations, and the `$type` of each.
pub const ATTESTATION: &str = "email.atmos.attestation";

/// Characters of a domain (lexicon; RFC 1035 §2.3.4 without the root).
pub const DOMAIN_CHARS_MAX: usize = 253;
/// Selectors in one attestation.
pub const SELECTORS_MAX: usize = 10;
/// Characters of a selector.
pub const SELECTOR_CHARS_MAX: usize = 63;
/// Larger records are refused unread: within the limits above, an attestation is below two kilobytes.
pub const RECORD_BYTES_MAX: usize = 16 << 10;

/// `email.atmos.attestation`: "I send mail from this domain, signed with these DKIM selectors."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// [`ATTESTATION`].
    #[serde(rename = "$type")]
    pub kind: String,
    /// The sending domain; equals the record's key.
    pub domain: String,
    /// Selectors whose public keys are in DNS under the domain.
    pub dkim_selectors: Vec<String>,
    /// When the member wrote it.
    pub created_at: Datetime,
    /// Whether the co-op's relay may be used for this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_member: Option<bool>,
}

/// What a member has to change in the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationError {
    /// It cannot be read as an attestation.
    #[error("the record is not an {ATTESTATION}: {0}")]
    Malformed(String),
    /// The key and the field must be the same.
    #[error("the record's key is {rkey:?} and its domain {domain:?}: they must be equal")]
    OtherKey {
        /// The key that the record lies under.
        rkey: String,
        /// The domain that it names.
        domain: String,
    },
    /// Not a domain in its one spelling.
    #[error("{found:?} is not a domain as it must be written: {wanted}")]
    Domain {
        /// What was written.
        found: String,
        /// What would be right.
        wanted: String,
    },
    /// None, too many, or one that cannot be a selector.
    #[error("dkimSelectors: {0}")]
    Selectors(String),
}

impl Attestation {
    /// Reads the record that lies under `rkey`, and checks every limit of the lexicon.
    pub fn read(octets: &[u8], rkey: &str) -> Result<Self, AttestationError> {
        if octets.len() > RECORD_BYTES_MAX {
            return Err(AttestationError::Malformed(format!("longer than {RECORD_BYTES_MAX} octets")));
        }
        let read: Self =
            serde_ipld_dagcbor::from_slice(octets).map_err(|error| AttestationError::Malformed(error.to_string()))?;
        read.check(rkey)?;
        Ok(read)
    }

    /// Checks the limits of the lexicon, for a record under `rkey`.
    pub fn check(&self, rkey: &str) -> Result<(), AttestationError> {
        if self.kind != ATTESTATION {
            return Err(AttestationError::Malformed(format!("$type is {:?}", shown(&self.kind))));
        }
        check_domain(&self.domain)?;
        if self.domain != rkey {
            return Err(AttestationError::OtherKey { rkey: shown(rkey), domain: shown(&self.domain) });
        }
        if self.dkim_selectors.is_empty() || self.dkim_selectors.len() > SELECTORS_MAX {
            return Err(AttestationError::Selectors(format!(
                "{} given, 1 to {SELECTORS_MAX} allowed",
                self.dkim_selectors.len()
            )));
        }
        match self.dkim_selectors.iter().find(|selector| !is_selector(selector)) {
            Some(wrong) => Err(AttestationError::Selectors(format!("{:?} cannot be a selector (RFC 6376 §3.1)", shown(wrong)))),
            None => Ok(()),
        }
    }

    /// The record's DAG-CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        match serde_ipld_dagcbor::to_vec(self) {
            Ok(octets) => octets,
            Err(_) => unreachable!("an attestation is strings and a flag"),
        }
    }

    /// Absent means no.
    pub fn wants_relay(&self) -> bool {
        self.relay_member == Some(true)
    }
}

/// Is this a domain in the one spelling that a record's key may have?
pub fn check_domain(domain: &str) -> Result<(), AttestationError> {
    let wrong = |wanted: String| Err(AttestationError::Domain { found: shown(domain), wanted });
    if domain.is_empty() || domain.len() > DOMAIN_CHARS_MAX {
        return wrong(format!("1 to {DOMAIN_CHARS_MAX} characters"));
    }
    let lower = domain.to_ascii_lowercase();
    let canonical = lower.strip_suffix('.').unwrap_or(&lower);
    if !canonical.is_ascii() {
        return wrong(
            canonical_domain(domain).map_or("international names as A-labels (xn--…)".into(), |right| format!("{right:?}")),
        );
    }
    // An A-label that does not say what it is the A-label of is nobody's name (RFC 5890 §2.3.2.1).
    if canonical.split('.').any(|label| label.starts_with("xn--")) && canonical_domain(canonical).as_deref() != Some(canonical) {
        return wrong("valid A-labels".into());
    }
    let label_fits = |label: &str| {
        let hyphens = label.starts_with('-') || label.ends_with('-');
        (1..=63).contains(&label.len()) && !hyphens && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    let top_is_a_name = canonical.rsplit('.').next().is_some_and(|top| !top.bytes().all(|octet| octet.is_ascii_digit()));
    if !canonical.contains('.') || !canonical.split('.').all(label_fits) || !top_is_a_name {
        return wrong("labels of letters, digits and inner hyphens, at least two (RFC 5321 §2.3.5)".into());
    }
    if canonical != domain { wrong(format!("{canonical:?}")) } else { Ok(()) }
}

/// The one spelling of a domain that a person wrote: lower case, no dot at the end, A-labels. `None` where it is no domain.
pub fn canonical_domain(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_suffix('.').unwrap_or(text);
    // Longer in characters than in octets of its A-labels it cannot be by much; the bound keeps IDNA from long work.
    if text.is_empty() || text.len() > 4 * DOMAIN_CHARS_MAX {
        return None;
    }
    match url::Host::parse(text).ok()? {
        // A second dot at the end would be one at the end of what is given.
        url::Host::Domain(domain) => (!domain.ends_with('.')).then_some(domain),
        url::Host::Ipv4(_) | url::Host::Ipv6(_) => None,
    }
}

/// RFC 6376 §3.1: a selector is one or more labels.
pub fn is_selector(text: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty() && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
    };
    (1..=SELECTOR_CHARS_MAX).contains(&text.len()) && text.split('.').all(fits)
}

/// A stranger's text, short enough for a log line.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// `email.atmos.defs#cooperativeLabel`: what a co-op says of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CooperativeLabel {
    /// A domain's records in DNS are what its attestation says.
    VerifiedMailOperator,
    /// And the operator may use the co-op's relay.
    RelayMember,
    /// What the operator sends is wanted.
    CleanSender,
}

impl CooperativeLabel {
    /// All that the lexicon knows.
    pub const ALL: [Self; 3] = [Self::VerifiedMailOperator, Self::RelayMember, Self::CleanSender];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifiedMailOperator => "verified-mail-operator",
            Self::RelayMember => "relay-member",
            Self::CleanSender => "clean-sender",
        }
    }
}

impl std::fmt::Display for CooperativeLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn attestation() -> Attestation {
        Attestation {
            kind: ATTESTATION.into(),
            domain: "member.example".into(),
            dkim_selectors: vec!["atmos1r".into()],
            created_at: "2026-11-23T09:42:17.771Z".parse().unwrap(),
            relay_member: None,
        }
    }

    fn changed(change: impl FnOnce(&mut Attestation)) -> Result<(), AttestationError> {
        let mut attestation = attestation();
        change(&mut attestation);
        attestation.check("member.example")
    }

    #[test]
    fn one_within_the_limits_is_read() {
        assert_eq!(Attestation::read(&attestation().to_cbor(), "member.example"), Ok(attestation()));
        assert!(!attestation().wants_relay());
        assert_eq!(changed(|it| it.dkim_selectors = vec!["s.2026_a".into(); SELECTORS_MAX]), Ok(()));
    }

    #[test]
    fn one_beyond_the_limits_is_refused_with_the_reason() {
        assert!(matches!(changed(|it| it.kind = "app.bsky.feed.post".into()), Err(AttestationError::Malformed(_))));
        assert!(matches!(attestation().check("other.example"), Err(AttestationError::OtherKey { .. })));
        for selectors in [
            vec![],
            vec!["a".into(); 11],
            vec!["a".repeat(64)],
            vec![String::new()],
            vec!["a b".into()],
            vec!["a..b".into()],
            vec!["ä".into()],
        ] {
            assert!(matches!(changed(|it| it.dkim_selectors = selectors), Err(AttestationError::Selectors(_))));
        }
        assert!(matches!(Attestation::read(&vec![0; RECORD_BYTES_MAX + 1], "a.example"), Err(AttestationError::Malformed(_))));
        assert!(matches!(Attestation::read(b"\xa0", "a.example"), Err(AttestationError::Malformed(_))));
    }

    #[test]
    fn a_domain_has_one_spelling() {
        for fine in ["member.example", "a.b", "xn--bcher-kva.example", "1and1.example", "a-b.c-d.example"] {
            assert_eq!(check_domain(fine), Ok(()), "{fine}");
        }
        for wrong in [
            "Member.example",
            "member.example.",
            "bücher.example",
            "example",
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "127.0.0.1",
            "a_b.example",
            "a b.example",
            "[::1]",
            &format!("{}.example", "a".repeat(64)),
            &"a.".repeat(130),
        ] {
            assert!(check_domain(wrong).is_err(), "{wrong}");
        }
        assert!(check_domain("bücher.example").unwrap_err().to_string().contains("\"xn--bcher-kva.example\""));
        assert!(check_domain("xn--a.example").is_err(), "an A-label of nothing");
        for (written, canonical) in [
            ("Bücher.Example.", Some("xn--bcher-kva.example")),
            (" member.example ", Some("member.example")),
            ("192.0.2.1", None),
            ("[::1]", None),
            ("a b.example", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(canonical_domain(written).as_deref(), canonical, "{written}");
        }
        assert_eq!(canonical_domain(&"ü".repeat(10_000)), None);
        assert_eq!(canonical_domain("member.example.."), None, "not with a dot left at the end");
        let said = check_domain("Member.Example.").unwrap_err().to_string();
        assert!(said.contains("\"member.example\""), "{said}");
    }

    fn lexicon(name: &str) -> Value {
        let path = format!("{}/../../lexicons/email/atmos/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_attestation_is_what_its_lexicon_says() {
        let lexicon = lexicon("attestation");
        assert_eq!(lexicon["id"], ATTESTATION);
        assert_eq!(lexicon["defs"]["main"]["key"], "any");
        let record = &lexicon["defs"]["main"]["record"];
        let properties = &record["properties"];
        assert_eq!(properties["domain"]["maxLength"], DOMAIN_CHARS_MAX);
        assert_eq!(properties["dkimSelectors"]["maxLength"], SELECTORS_MAX);
        assert_eq!(properties["dkimSelectors"]["minLength"], 1);
        assert_eq!(properties["dkimSelectors"]["items"]["maxLength"], SELECTOR_CHARS_MAX);

        let full = serde_json::to_value(Attestation { relay_member: Some(true), ..attestation() }).unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        let mut written = names(&full);
        assert!(written.remove("$type"));
        assert_eq!(written, names(properties), "the type writes the fields of the lexicon, and no others");
        for field in written {
            let mut without = full.clone();
            without.as_object_mut().unwrap().remove(&field);
            let required = record["required"].as_array().unwrap().contains(&json!(field));
            assert_eq!(serde_json::from_value::<Attestation>(without).is_err(), required, "{field}");
            let kind = match properties[&field]["type"].as_str().unwrap() {
                "string" => full[&field].is_string(),
                "array" => full[&field].is_array(),
                "boolean" => full[&field].is_boolean(),
                _ => false,
            };
            assert!(kind, "{field} is of the lexicon's type");
        }
    }

    #[test]
    fn the_label_values_are_what_their_lexicon_says() {
        let known = lexicon("defs")["defs"]["cooperativeLabel"]["knownValues"].clone();
        assert_eq!(known, json!(CooperativeLabel::ALL.map(CooperativeLabel::as_str)));
    }
}
