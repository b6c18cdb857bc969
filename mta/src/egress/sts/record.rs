//! The TXT record at `_mta-sts.DOMAIN`, which says that there is a policy and which one (RFC 8461 §3.1).
//!
//! Pure. What is no record of this version is passed over; of those that are there must be one, and it must be
//! well-formed, or the domain has no policy as far as the DNS says. What was cached stays in force all the same (§5.1).

use std::fmt;

/// Octets of an id (RFC 8461 §3.1).
const ID_MAX: usize = 32;

/// What a well-formed record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Changes with the policy: one to 32 letters and digits.
    pub id: String,
}

/// Why the TXT records announce no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// None begins with `v=STSv1;`: the domain has not opted in.
    #[error("no TXT record begins with v=STSv1;")]
    None,
    /// More than one does: then there is none.
    #[error("{0} TXT records begin with v=STSv1;, and there may be one")]
    Several(usize),
    /// It breaks the grammar.
    #[error("the TXT record has {0}")]
    Syntax(Fault),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no `id`.
    NoId,
    /// The id is not one to 32 letters and digits.
    BadId,
    /// Something that is not `name=value`.
    BadField,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NoId => "no id",
            Fault::BadId => "an id that is not 1 to 32 letters and digits",
            Fault::BadField => "a field that is not name=value",
        })
    }
}

impl Record {
    /// The one record among `texts`.
    pub fn find<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, RecordError> {
        let mut ours = texts.into_iter().filter_map(after_version);
        let fields = ours.next().ok_or(RecordError::None)?;
        match ours.count() {
            0 => Self::parse(fields).map_err(RecordError::Syntax),
            more => Err(RecordError::Several(more + 1)),
        }
    }

    /// The fields behind the version. Of fields with one name the first counts; those that we do not know are passed over.
    fn parse(fields: &str) -> Result<Self, Fault> {
        let mut id = None;
        let mut parts = fields.split(';').map(trim).peekable();
        while let Some(part) = parts.next() {
            // The record may end with a semicolon.
            if part.is_empty() && parts.peek().is_none() {
                break;
            }
            let (name, value) = part.split_once('=').ok_or(Fault::BadField)?;
            if name == "id" {
                let good = (1..=ID_MAX).contains(&value.len()) && value.bytes().all(|octet| octet.is_ascii_alphanumeric());
                if id.is_none() {
                    id = Some(Some(value).filter(|_| good).ok_or(Fault::BadId)?);
                }
            } else if !is_name(name) || value.is_empty() || !value.bytes().all(is_value) {
                return Err(Fault::BadField);
            }
        }
        Ok(Record { id: id.ok_or(Fault::NoId)?.to_owned() })
    }
}

/// What stands behind `v=STSv1` and its delimiter, in a record of that version.
fn after_version(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("v=STSv1")?;
    rest.trim_start_matches([' ', '\t']).strip_prefix(';')
}

fn trim(part: &str) -> &str {
    part.trim_matches([' ', '\t'])
}

/// sts-ext-name, of which policy files have the same kind (RFC 8461 §3.1, §3.2).
pub(super) fn is_name(name: &str) -> bool {
    let known = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | b'.');
    (1..=32).contains(&name.len()) && name.bytes().all(known) && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// sts-ext-value: printable, without `=` and `;`.
fn is_value(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'=' && octet != b';'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Result<String, RecordError> {
        Record::find([text]).map(|record| record.id)
    }

    #[test]
    fn a_record_has_a_version_and_an_id() {
        for text in [
            "v=STSv1; id=20160831085700Z;",
            "v=STSv1;id=20160831085700Z",
            "v=STSv1 ;\tid=20160831085700Z ; ",
            "v=STSv1; ext.name=x:y; id=20160831085700Z; id=!",
        ] {
            assert_eq!(id(text).as_deref(), Ok("20160831085700Z"), "{text:?}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_no_record() {
        let long = format!("v=STSv1; id={}", "a".repeat(33));
        for (text, fault) in [
            ("v=STSv1;", Fault::NoId),
            ("v=STSv1; ext=1", Fault::NoId),
            ("v=STSv1; id=", Fault::BadId),
            ("v=STSv1; id=a-b", Fault::BadId),
            ("v=STSv1; id=ü", Fault::BadId),
            (&long, Fault::BadId),
            ("v=STSv1; id = a", Fault::BadField),
            ("v=STSv1; id=a; nonsense", Fault::BadField),
            ("v=STSv1; id=a;; x=1", Fault::BadField),
            ("v=STSv1; id=a; -x=1", Fault::BadField),
            ("v=STSv1; id=a; x=1=2", Fault::BadField),
        ] {
            assert_eq!(id(text), Err(RecordError::Syntax(fault)), "{text:?}");
        }
        assert!(id(&format!("v=STSv1; id={}", "a".repeat(32))).is_ok());
    }

    #[test]
    fn of_several_records_those_of_the_version_count_and_there_must_be_one() {
        let good = "v=STSv1; id=a";
        for other in ["v=spf1 -all", "v=STSv2; id=b", "v=STSv1", "v=stsv1; id=b", " v=STSv1; id=b", ""] {
            assert_eq!(id(other), Err(RecordError::None), "{other:?}");
            assert_eq!(Record::find([other, good]).map(|record| record.id).as_deref(), Ok("a"), "{other:?}");
        }
        assert_eq!(Record::find([good, good]), Err(RecordError::Several(2)));
        assert_eq!(Record::find([good, "v=STSv1; broken"]), Err(RecordError::Several(2)));
        assert_eq!(Record::find([]), Err(RecordError::None));
    }
}
