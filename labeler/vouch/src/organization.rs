//! Whose a name is: organizational domains by the Public Suffix List, as RFC 7489 §3.2 has them.
//!
//! The list has two sections, and both are borders: below a registry's suffix (`co.uk`) everybody may buy a name, and below a
//! private one (`github.io`) customers of one owner have theirs. So neither a policy nor a signature speaks across either. But only
//! of a registry's suffix is it certain that nobody sends mail from it; the owner of a private one is a holder of a domain like
//! any other, and hosts of atproto accounts put their own domain there so that browsers keep accounts apart.
//!
//! DMARCbis finds the organizational domain by asking DNS at every level (its "tree walk") rather than by a list. Most receivers go
//! by the list still, and it needs no questions; where a domain and its organizational domain have policies both ways agree on
//! which counts, unless somebody says `psd=`.
//!
//! Names are in their one spelling: lower case, A-labels, no dot at the end. The list is of the day when the program was built.

use psl::{List, Psl, Type};

/// The organizational domain: the public suffix and one label more. None for a public suffix itself.
pub fn organizational(domain: &str) -> Option<&str> {
    psl::domain_str(domain)
}

/// Whether it is a suffix below which a registry gives names to everybody. A top-level domain that nobody knows is one.
pub fn is_registry(domain: &str) -> bool {
    let suffix = List.suffix(domain.as_bytes());
    suffix.is_some_and(|suffix| suffix.as_bytes() == domain.as_bytes() && suffix.typ() != Some(Type::Private))
}

/// What somebody had to pay a registry for, of which `name` is a part; `name` where that cannot be said.
pub fn registered(name: &str) -> &str {
    let mut at = name;
    // Each step takes a label off.
    while let Some(suffix) = psl::suffix_str(at) {
        let private = List.suffix(at.as_bytes()).is_some_and(|suffix| suffix.typ() == Some(Type::Private));
        at = match suffix.split_once('.') {
            Some((_, parent)) if private && is_registry(parent) => return suffix,
            Some((_, parent)) if private => parent,
            _ => return psl::domain_str(at).unwrap_or(name),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_has_one_label_below_a_public_suffix_of_either_section() {
        for (name, expected) in [
            ("member.example", Some("member.example")),
            ("a.b.member.example", Some("member.example")),
            ("mail.bank.co.uk", Some("bank.co.uk")),
            ("bank.co.uk", Some("bank.co.uk")),
            ("co.uk", None),
            ("uk", None),
            ("a.shop.com.au", Some("shop.com.au")),
            ("com.au", None),
            // `*.ck`, but for `www.ck`.
            ("shop.co.ck", Some("shop.co.ck")),
            ("co.ck", None),
            ("a.www.ck", Some("www.ck")),
            // Of customers, not of the owner.
            ("a.someone.github.io", Some("someone.github.io")),
            ("github.io", None),
            // 公司.cn, 中国, māori.nz
            ("mail.shop.xn--55qx5d.cn", Some("shop.xn--55qx5d.cn")),
            ("xn--55qx5d.cn", None),
            ("a.xn--bcher-kva.xn--fiqs8s", Some("xn--bcher-kva.xn--fiqs8s")),
            ("xn--mori-qsa.nz", None),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(organizational(name), expected, "{name}");
        }
    }

    #[test]
    fn only_a_registrys_suffix_is_nobodys() {
        for name in ["co.uk", "com.au", "uk", "com", "co.ck", "xn--55qx5d.cn", "xn--fiqs8s", "gov.uk", "example", "b.kawasaki.jp"]
        {
            assert!(is_registry(name), "{name}");
        }
        for name in
            ["github.io", "blogspot.com", "bank.co.uk", "member.example", "www.ck", "city.kawasaki.jp", "s3.amazonaws.com", ""]
        {
            assert!(!is_registry(name), "{name}");
        }
    }

    #[test]
    fn what_was_paid_for_is_below_a_registrys_suffix() {
        for (name, expected) in [
            ("a.someone.github.io", "github.io"),
            ("github.io", "github.io"),
            ("s3.dualstack.us-east-1.amazonaws.com", "amazonaws.com"),
            ("bucket.s3.dualstack.us-east-1.amazonaws.com", "amazonaws.com"),
            ("pds.bank.co.uk", "bank.co.uk"),
            ("co.uk", "co.uk"),
            ("a.b.member.example", "member.example"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(registered(name), expected, "{name}");
        }
    }
}
