//! As much of an X.509 certificate (RFC 5280 §4.1) as TLSA records speak of: its key, its names, its time.
//!
//! Certificates that vouch for nothing but their key (usage DANE-EE) may be old or odd, so this reads fields by their place
//! and no more of them than it must. Every length is held against what is there.
//!
//! Not here: signatures and chains; those are webpki's.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Fields of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Certificate<'a> {
    /// What is in the issuer's SEQUENCE.
    pub(super) issuer: &'a [u8],
    /// What is in the subject's SEQUENCE.
    pub(super) subject: &'a [u8],
    /// The subjectPublicKeyInfo with its header: what selector 1 of RFC 6698 §2.1.2 names.
    pub(super) spki: &'a [u8],
    /// Seconds since 1970 from which and to which it is valid.
    pub(super) validity: (i64, i64),
}

impl<'a> Certificate<'a> {
    /// None: it is not a certificate.
    pub(super) fn read(der: &'a [u8]) -> Option<Self> {
        let mut certificate = Fields(Fields(der).alone(SEQUENCE)?);
        let mut fields = Fields(certificate.next(SEQUENCE)?.content);
        fields.optional(VERSION);
        fields.any()?; // Serial number.
        fields.next(SEQUENCE)?; // Signature algorithm.
        let issuer = fields.next(SEQUENCE)?.content;
        let mut validity = Fields(fields.next(SEQUENCE)?.content);
        let validity = (time(validity.any()?)?, time(validity.any()?)?);
        let subject = fields.next(SEQUENCE)?.content;
        let spki = fields.next(SEQUENCE)?.whole;
        Some(Certificate { issuer, subject, spki, validity })
    }

    /// The last common name of the subject: the most specific.
    pub(super) fn common_name(&self) -> Option<&'a str> {
        let (mut names, mut found) = (Fields(self.subject), None);
        while let Some(set) = names.optional(SET) {
            let mut attributes = Fields(set.content);
            while let Some(attribute) = attributes.optional(SEQUENCE) {
                let mut parts = Fields(attribute.content);
                if parts.next(OID).is_some_and(|oid| oid.content == COMMON_NAME) {
                    found = parts.any().and_then(|value| std::str::from_utf8(value.content).ok()).or(found);
                }
            }
        }
        found
    }
}

/// The content of a SubjectPublicKeyInfo that fills `der`.
pub(super) fn key(der: &[u8]) -> Option<&[u8]> {
    let content = Fields(der).alone(SEQUENCE)?;
    let mut parts = Fields(content);
    parts.next(SEQUENCE)?; // Algorithm.
    parts.any()?;
    parts.0.is_empty().then_some(content)
}

struct Field<'a> {
    tag: u8,
    whole: &'a [u8],
    content: &'a [u8],
}

/// What is still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn any(&mut self) -> Option<Field<'a>> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let content = rest.get(..length)?;
        let whole = &self.0[..self.0.len() - (rest.len() - length)];
        self.0 = &rest[length..];
        Some(Field { tag: *tag, whole, content })
    }

    fn next(&mut self, tag: u8) -> Option<Field<'a>> {
        self.any().filter(|field| field.tag == tag)
    }

    fn optional(&mut self, tag: u8) -> Option<Field<'a>> {
        if self.0.first() == Some(&tag) { self.any() } else { None }
    }

    /// The content of the only field.
    fn alone(mut self, tag: u8) -> Option<&'a [u8]> {
        let field = self.next(tag)?;
        self.0.is_empty().then_some(field.content)
    }
}

/// RFC 5280 §4.1.2.5: in UTC, to the second; two digits of a year are of 1950 to 2049.
fn time(field: Field<'_>) -> Option<i64> {
    let digits = field.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| Some(digits.get(from..to)?.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0')));
    let (year, rest) = match (field.tag, digits.len()) {
        (UTC_TIME, 12) => (number(0, 2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |nth: usize| number(rest + 2 * nth, rest + 2 * nth + 2);
    let (month, day) = (part(0).filter(|month| (1..=12).contains(month))?, part(1)?);
    // Days since 1970, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + part(2)? * 3600 + part(3)? * 60 + part(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let read = |tag, text: &str| time(Field { tag, whole: &[], content: text.as_bytes() });
        assert_eq!(read(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(read(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(read(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(read(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(read(GENERALIZED_TIME, "20240229120000"), None);
        assert_eq!(read(UTC_TIME, "20240229120000Z"), None);
        assert_eq!(read(UTC_TIME, "241301000000Z"), None);
    }

    #[test]
    fn fields_of_a_certificate_are_where_webpki_finds_them_and_a_cut_one_is_none() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "mx.example.org");
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        let read = Certificate::read(der).unwrap();
        let theirs = webpki::EndEntityCert::try_from(der).unwrap();
        assert_eq!(read.spki, theirs.subject_public_key_info().as_ref());
        assert_eq!((read.issuer, read.subject), (theirs.issuer(), theirs.subject()));
        assert_eq!(read.common_name(), Some("mx.example.org"));
        assert!(super::key(read.spki).is_some());
        assert!((0..der.len()).all(|length| Certificate::read(&der[..length]).is_none()));
        let longer = [&der[..], &[0]].concat();
        assert_eq!(Certificate::read(&longer), None);
    }
}
