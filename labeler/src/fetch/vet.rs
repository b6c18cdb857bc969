//! What a stranger may make us fetch. Pure.
//!
//! Whoever writes a DID document or a record chooses a URL, and our network is behind us: they could have us ask the metadata
//! service of our host, or a mail server in the words of HTTP. So: TLS, a port where the web lives, no credentials, and an
//! address of the open internet, each of those that the name has.

use std::net::{IpAddr, Ipv4Addr};

use url::Url;

use super::From;

/// Whether the URL may be fetched at all, before its name is looked up.
pub(super) fn url(url: &Url, from: From, allow_private: bool) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is not fetched", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL with credentials is not fetched".into());
    }
    if allow_private || from == From::Configuration {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err("only https is fetched".into());
    }
    // Other well-known ports are those of other protocols, which could take a request for theirs.
    match url.port_or_known_default() {
        Some(443 | 1024..) => Ok(()),
        _ => Err("only port 443 and those from 1024 are asked".into()),
    }
}

/// Whether what the name has led to may be connected to.
pub(super) fn addresses(found: Vec<IpAddr>, from: From, allow_private: bool) -> Result<Vec<IpAddr>, String> {
    if allow_private || from == From::Configuration {
        return Ok(found);
    }
    match found.iter().find(|address| !is_public(**address)) {
        Some(private) => Err(format!("{private} is not a public address")),
        None => Ok(found),
    }
}

/// Whether an address belongs to the open internet (RFC 6890 and its registries), also where it carries an IPv4 address inside.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let special = v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (18..20).contains(&b));
            !special
        }
        IpAddr::V6(v6) => {
            let embedded = |high: u16, low: u16| {
                let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
                is_public(Ipv4Addr::new(a, b, c, d).into())
            };
            match v6.segments() {
                [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    embedded(high, low)
                }
                [0x2001, 0x0db8 | 0..=0x01ff, ..] | [0x3fff, 0..=0x0fff, ..] => false,
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_may_name_https_at_a_port_of_the_web_and_nothing_else() {
        for (text, fine) in [
            ("https://pds.example/xrpc/x?y=z", true),
            ("https://pds.example:443/", true),
            ("https://pds.example:8443/", true),
            ("https://[2606:4700::1111]/", true),
            ("http://pds.example/", false),
            ("https://pds.example:25/", false),
            ("https://pds.example:22/", false),
            ("https://pds.example:80/", false),
            ("https://user@pds.example/", false),
            ("https://user:secret@pds.example/", false),
            ("ftp://pds.example/", false),
            ("file:///etc/passwd", false),
            ("gopher://pds.example:70/", false),
        ] {
            let parsed = Url::parse(text).unwrap();
            assert_eq!(url(&parsed, From::Stranger, false).is_ok(), fine, "{text}");
        }
        let of_ours = Url::parse("http://127.0.0.1:2582/").unwrap();
        assert_eq!(url(&of_ours, From::Configuration, false), Ok(()), "the operator knows what he writes");
        assert_eq!(url(&of_ours, From::Stranger, true), Ok(()), "a test network");
        assert!(url(&Url::parse("https://a:b@plc.example/").unwrap(), From::Configuration, true).is_err());
    }

    #[test]
    fn other_spellings_of_loopback_are_addresses_too() {
        // The parser of URLs reads them as browsers do; none reaches a resolver.
        for text in
            ["https://0x7f.1/", "https://2130706433/", "https://127.1/", "https://[::ffff:127.0.0.1]/", "https://017700000001/"]
        {
            let parsed = Url::parse(text).unwrap();
            let address: IpAddr = match parsed.host().unwrap() {
                url::Host::Ipv4(v4) => v4.into(),
                url::Host::Ipv6(v6) => v6.into(),
                url::Host::Domain(name) => panic!("{text}: {name}"),
            };
            assert!(addresses(vec![address], From::Stranger, false).is_err(), "{text}");
        }
    }

    #[test]
    fn one_private_address_among_public_ones_is_enough_to_refuse() {
        let mixed = vec!["1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        assert!(addresses(mixed.clone(), From::Stranger, false).unwrap_err().contains("10.0.0.1"));
        assert_eq!(addresses(mixed.clone(), From::Stranger, true), Ok(mixed));
    }

    #[test]
    fn addresses_behind_our_firewall_are_not_public() {
        for public in ["1.1.1.1", "100.128.0.1", "198.51.99.1", "2606:4700::1111", "::ffff:1.1.1.1", "2002:101:101::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "64:ff9b:1::1",
            "fec0::1",
            "::127.0.0.1",
            "192.88.99.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
