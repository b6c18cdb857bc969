//! Providers: who operates the hosts that a domain's MX records name.
//!
//! A provider gathers many sites under one reputation: what Google thinks of a source it thinks at
//! every domain that it hosts. The list is data; the first suffix that matches names the provider.
//!
//! Not here: what a provider is like (limits, allowances): the scheduler asks by this name.

/// The provider of whoever is not in the list: the long tail shares one name.
pub const OTHER: &str = "other";

/// Suffix of an MX host name (A-labels, lower case, on a label boundary) and the provider behind it.
const SUFFIXES: &[(&str, &str)] = &[
    ("google.com", "google"),
    ("googlemail.com", "google"),
    ("mail.protection.outlook.com", "microsoft365"),
    ("mx.microsoft", "microsoft365"),
    ("olc.protection.outlook.com", "microsoft"),
    ("hotmail.com", "microsoft"),
    ("yahoodns.net", "yahoo"),
    ("mail.icloud.com", "apple"),
    ("protonmail.ch", "proton"),
    ("messagingengine.com", "fastmail"),
    ("gmx.net", "gmx"),
    ("web.de", "gmx"),
    ("kundenserver.de", "ionos"),
    ("comcast.net", "comcast"),
    ("orange.fr", "orange"),
    ("mail.ru", "mailru"),
    ("yandex.net", "yandex"),
    ("yandex.ru", "yandex"),
    ("zoho.com", "zoho"),
    ("mailbox.org", "mailbox"),
    ("migadu.com", "migadu"),
];

/// The provider whose suffix `host` ends with; the longest suffix wins, so that
/// `olc.protection.outlook.com` (consumers) is not taken for Microsoft 365.
pub fn of(host: &str) -> &'static str {
    SUFFIXES
        .iter()
        .filter(|(suffix, _)| host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        .max_by_key(|(suffix, _)| suffix.len())
        .map_or(OTHER, |(_, provider)| provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_matches_on_a_label_boundary_only() {
        assert_eq!(of("aspmx.l.google.com"), "google");
        assert_eq!(of("notgoogle.com"), OTHER);
        assert_eq!(of("google.com"), "google");
        assert_eq!(of("example-com.mail.protection.outlook.com"), "microsoft365");
        assert_eq!(of("hotmail-com.olc.protection.outlook.com"), "microsoft");
    }
}
