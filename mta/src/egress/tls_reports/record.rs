//! The TXT record at `_smtp._tls.DOMAIN`, which says where a domain wants reports about TLS (RFC 8460 §3).
//!
//! Pure. The form is that of the record of MTA-STS: of several there must be one of this version, and it must be
//! well-formed, or nobody is told anything.

/// Places that one record may name; those beyond are not told.
const PLACES_MAX: usize = 8;

/// Where reports go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By mail to this address.
    Mail(String),
    /// By POST to this URL.
    Https(String),
}

/// Where a domain wants its reports: the places that its one record names and that we can reach. Empty: nowhere.
pub fn places<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Place> {
    let mut ours = texts.into_iter().filter_map(after_version);
    match (ours.next(), ours.next()) {
        (Some(fields), None) => parse(fields).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn after_version(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("v=TLSRPTv1")?;
    rest.trim_start_matches([' ', '\t']).strip_prefix(';')
}

fn parse(fields: &str) -> Option<Vec<Place>> {
    let mut rua = None;
    for part in fields.split(';').map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        if name.trim_end() == "rua" {
            rua.get_or_insert(value.trim_start());
        }
    }
    Some(rua?.split(',').filter_map(|uri| place(uri.trim())).take(PLACES_MAX).collect())
}

/// A URI with a comma, an exclamation mark or a semicolon has it percent-encoded (RFC 8460 §3). What a mail URI says beyond
/// the address (a subject, say) is left out.
fn place(uri: &str) -> Option<Place> {
    if !uri.bytes().all(|octet| octet.is_ascii_graphic()) {
        return None;
    }
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("mailto") {
        let address = decode(rest.split('?').next()?)?;
        // Whether it can be delivered to is for the mailbox's own parser to say.
        return address.contains('@').then_some(Place::Mail(address));
    }
    let host = rest.strip_prefix("//")?.split(['/', '?', '#']).next()?;
    let good = scheme.eq_ignore_ascii_case("https") && !host.is_empty() && !host.contains('@');
    good.then(|| Place::Https(format!("https:{rest}")))
}

/// Percent-encoding undone. None: it is broken, or hides what cannot stand in an address.
fn decode(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        };
        plain.push(Some(char::from(octet)).filter(char::is_ascii_graphic)?);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(address: &str) -> Place {
        Place::Mail(address.to_owned())
    }

    #[test]
    fn the_records_of_the_rfc_are_read() {
        assert_eq!(places(["v=TLSRPTv1;rua=mailto:reports@example.com"]), [mail("reports@example.com")]);
        let https = Place::Https("https://reporting.example.com/v1/tlsrpt".to_owned());
        assert_eq!(places(["v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"]).first(), Some(&https));
        assert_eq!(
            places(["v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@example.com , HTTPS://reporting.example.com/v1/tlsrpt;"]),
            [mail("a@example.com"), https]
        );
        assert_eq!(places(["v=TLSRPTv1; ext=1; rua=mailto:a%2Cb@example.com?subject=x"]), [mail("a,b@example.com")]);
    }

    #[test]
    fn what_is_broken_double_or_unreachable_is_told_nothing() {
        for texts in [
            &[][..],
            &["v=TLSRPTv1"],
            &["v=TLSRPTv2; rua=mailto:a@example.com"],
            &["v=TLSRPTv1; rua=mailto:a@example.com", "v=TLSRPTv1; rua=mailto:b@example.com"],
            &["v=TLSRPTv1; nonsense; rua=mailto:a@example.com"],
            &["v=TLSRPTv1; rua="],
            &["v=TLSRPTv1; rua=mailto:nobody"],
            &["v=TLSRPTv1; rua=mailto:a%0d%0aBcc:b@example.com"],
            &["v=TLSRPTv1; rua=mailto:a%4"],
            &["v=TLSRPTv1; rua=http://example.com/x"],
            &["v=TLSRPTv1; rua=https://user@example.com/x"],
            &["v=TLSRPTv1; rua=ftp://example.com/x"],
        ] {
            assert_eq!(places(texts.iter().copied()), [], "{texts:?}");
        }
        let many = (0..20).map(|n| format!("mailto:a{n}@example.com")).collect::<Vec<_>>().join(",");
        assert_eq!(places([format!("v=TLSRPTv1; rua={many}").as_str()]).len(), PLACES_MAX);
    }
}
