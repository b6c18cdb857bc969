//! The table `[standing]` of `labeler.toml`. Bounds that make no sense together are refused.

use atproto::Did;
use serde::{Deserialize, Deserializer, de};

use crate::judge::sending::{CleanRule, DoubtRule, Rule, Share};
use crate::store::MTA_BYTES_MAX;

/// MTAs of one co-op.
const MTAS_MAX: usize = 64;

/// Private standing: what the co-op's MTAs report and read of accounts' mail. The whole table absent: neither is offered, and
/// `clean-sender` is granted to nobody.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// DIDs of the MTAs that may report and read, up to 64. Each signs with the key `#atproto` of its DID document.
    #[serde(deserialize_with = "mtas")]
    pub mtas: Vec<Did>,
    /// When `clean-sender` is granted and withdrawn.
    #[serde(default)]
    pub clean: Clean,
    /// When MTAs are told of doubts.
    #[serde(default)]
    pub doubt: Doubts,
}

/// When `clean-sender` is granted and withdrawn, by the last 30 days. Recipients are counted. Where the defaults come from is
/// said in `judge/sending.rs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "CleanTable")]
pub struct Clean(pub CleanRule);

/// When MTAs are told of doubts, by the last 7 days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "DoubtTable")]
pub struct Doubts(pub DoubtRule);

impl Standing {
    /// All bounds together.
    pub fn rule(&self) -> Rule {
        Rule { clean: self.clean.0, doubt: self.doubt.0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CleanTable {
    /// Recipients before anything is granted; withdrawn below half of it. Default: 500.
    mail_min: u64,
    /// Days with mail before anything is granted. Default: 7.
    days_min: u32,
    /// Days without a report after which it is withdrawn, 1 to 30. Default: 14.
    silent_days: u32,
    /// Whether half of `mail_min` must have gone through MTAs that learn of complaints. Default: true.
    complaints_required: bool,
    /// Complaints, of what was delivered, below which it is granted. Default: `0.1%`.
    complaints_below: Percent,
    /// From which it is withdrawn, if they are two at least. Default: `0.3%`.
    complaints_from: Percent,
    /// Failures, of what was delivered or failed, below which it is granted. Default: `2%`.
    failures_below: Percent,
    /// From which it is withdrawn. Default: `5%`.
    failures_from: Percent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DoubtTable {
    /// Recipients below which failures are no ground for doubt. Default: 200.
    mail_min: u64,
    /// Complaints, two at least, that are worth a look. Default: `0.1%`.
    complaints_watch: Percent,
    /// Complaints, three at least, for which new mail should wait. Default: `0.3%`.
    complaints_pause: Percent,
    /// Failures that are worth a look. Default: `5%`.
    failures_watch: Percent,
    /// Failures for which new mail should wait. Default: `10%`.
    failures_pause: Percent,
}

impl Default for CleanTable {
    fn default() -> Self {
        let CleanRule {
            mail_min,
            days_min,
            silent_days,
            complaints_required,
            complaints_below,
            complaints_from,
            failures_below,
            failures_from,
        } = CleanRule::default();
        Self {
            mail_min,
            days_min,
            silent_days,
            complaints_required,
            complaints_below: Percent(complaints_below),
            complaints_from: Percent(complaints_from),
            failures_below: Percent(failures_below),
            failures_from: Percent(failures_from),
        }
    }
}

impl Default for DoubtTable {
    fn default() -> Self {
        let DoubtRule { mail_min, complaints_watch, complaints_pause, failures_watch, failures_pause } = DoubtRule::default();
        Self {
            mail_min,
            complaints_watch: Percent(complaints_watch),
            complaints_pause: Percent(complaints_pause),
            failures_watch: Percent(failures_watch),
            failures_pause: Percent(failures_pause),
        }
    }
}

impl TryFrom<CleanTable> for Clean {
    type Error = String;

    fn try_from(table: CleanTable) -> Result<Self, String> {
        ordered("complaints_below", table.complaints_below, "complaints_from", table.complaints_from)?;
        ordered("failures_below", table.failures_below, "failures_from", table.failures_from)?;
        if table.mail_min == 0 {
            return Err("`mail_min` is 1 at least".into());
        }
        for (name, days) in [("days_min", table.days_min), ("silent_days", table.silent_days)] {
            if !(1..=30).contains(&days) {
                return Err(format!("`{name}` is 1 to 30, since 30 days are looked at"));
            }
        }
        Ok(Self(CleanRule {
            mail_min: table.mail_min,
            days_min: table.days_min,
            silent_days: table.silent_days,
            complaints_required: table.complaints_required,
            complaints_below: table.complaints_below.0,
            complaints_from: table.complaints_from.0,
            failures_below: table.failures_below.0,
            failures_from: table.failures_from.0,
        }))
    }
}

impl TryFrom<DoubtTable> for Doubts {
    type Error = String;

    fn try_from(table: DoubtTable) -> Result<Self, String> {
        ordered("complaints_watch", table.complaints_watch, "complaints_pause", table.complaints_pause)?;
        ordered("failures_watch", table.failures_watch, "failures_pause", table.failures_pause)?;
        Ok(Self(DoubtRule {
            mail_min: table.mail_min,
            complaints_watch: table.complaints_watch.0,
            complaints_pause: table.complaints_pause.0,
            failures_watch: table.failures_watch.0,
            failures_pause: table.failures_pause.0,
        }))
    }
}

fn ordered(low: &str, below: Percent, high: &str, from: Percent) -> Result<(), String> {
    if below.0 <= from.0 { Ok(()) } else { Err(format!("`{low}` is above `{high}`; make it lower")) }
}

/// A share, written `0.1%`.
#[derive(Clone, Copy)]
struct Percent(Share);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        percent(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!("{text:?} is not a share of more than 0% and up to 100%; write it as \"0.1%\""))
        })
    }
}

fn percent(text: &str) -> Option<Share> {
    let (whole, part) = text.strip_suffix('%').map(|number| number.split_once('.').unwrap_or((number, "0")))?;
    let digits = |text: &str| !text.is_empty() && text.len() <= 4 && text.bytes().all(|octet| octet.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()? * 10_000 + format!("{part:0<4}").parse::<u32>().ok()?;
    (1..=1_000_000).contains(&millionths).then_some(Share(millionths))
}

fn mtas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Did>, D::Error> {
    let mtas = Vec::<Did>::deserialize(deserializer)?;
    if mtas.is_empty() || mtas.len() > MTAS_MAX {
        return Err(de::Error::custom(format!("name 1 to {MTAS_MAX} DIDs, or leave [standing] away")));
    }
    for (nth, did) in mtas.iter().enumerate() {
        let text = did.as_str();
        if text.len() > MTA_BYTES_MAX || !(text.starts_with("did:plc:") || atproto::did::web_origin(did).is_some()) {
            return Err(de::Error::custom(format!("{text} is neither a did:plc nor a did:web of a host")));
        }
        if mtas.iter().take(nth).any(|earlier| earlier == did) {
            return Err(de::Error::custom(format!("{text} stands twice")));
        }
    }
    Ok(mtas)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    fn parse(standing: &str) -> Result<Standing, String> {
        let text = format!(
            "did = \"did:web:l.example\"\nsigning_key = \"k\"\ndata_dir = \"d\"\nlisten = \"127.0.0.1:0\"\n[ingest]\nfirehose = \"ws://127.0.0.1:1\"\n{standing}"
        );
        let config = Config::parse(&text, Path::new("labeler.toml")).map_err(|error| error.to_string())?;
        config.standing.ok_or_else(|| "absent".into())
    }

    #[test]
    fn without_a_word_the_bounds_are_those_of_the_rule() {
        let standing = parse("[standing]\nmtas = [\"did:web:mta.example\", \"did:plc:abc\"]").unwrap();
        assert_eq!((standing.rule(), standing.mtas.len()), (Rule::default(), 2));
        let changed = "[standing]\nmtas = [\"did:plc:abc\"]\n[standing.clean]\nmail_min = 20\ncomplaints_below = \"0.0001%\"\n\
                       complaints_from = \"100%\"\n[standing.doubt]\nfailures_watch = \"1.5%\"";
        let rule = parse(changed).unwrap().rule();
        assert_eq!((rule.clean.mail_min, rule.clean.complaints_below), (20, Share(1)));
        assert_eq!((rule.clean.complaints_from, rule.doubt.failures_watch), (Share(1_000_000), Share(15_000)));
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        let long = format!("did:web:{}.example", "a".repeat(240));
        for (standing, expected) in [
            ("[standing]", "labeler.toml:7: key `standing`: missing field `mtas`"),
            ("[standing]\nmtas = []", "labeler.toml:8: key `standing.mtas`: name 1 to 64 DIDs"),
            ("[standing]\nmtas = [\"mta.example\"]", "labeler.toml:8: key `standing.mtas`: "),
            ("[standing]\nmtas = [\"did:key:z6\"]", "labeler.toml:8: key `standing.mtas`: did:key:z6 is neither"),
            ("[standing]\nmtas = [\"did:web:a.example:path\"]", "neither a did:plc nor a did:web of a host"),
            (&format!("[standing]\nmtas = [\"{long}\"]"), "neither a did:plc"),
            ("[standing]\nmtas = [\"did:plc:a\", \"did:plc:a\"]", "labeler.toml:8: key `standing.mtas`: did:plc:a stands twice"),
            ("[standing]\nmtas = [\"did:plc:a\"]\nreaders = []", "labeler.toml:9: key `standing.readers`: unknown field"),
            ("[standing]\nmtas = [\"did:plc:a\"]\n[standing.clean]\ndays_min = 31", "`days_min` is 1 to 30"),
            ("[standing]\nmtas = [\"did:plc:a\"]\n[standing.clean]\nmail_min = 0", "`mail_min` is 1 at least"),
            ("[standing]\nmtas = [\"did:plc:a\"]\n[standing.clean]\ncomplaints_below = \"0.4%\"", "is above `complaints_from`"),
            ("[standing]\nmtas = [\"did:plc:a\"]\n[standing.doubt]\nfailures_watch = \"11%\"", "is above `failures_pause`"),
            (
                "[standing]\nmtas = [\"did:plc:a\"]\n[standing.doubt]\nfailures_watch = 5",
                "labeler.toml:10: key `standing.doubt.failures_watch`: ",
            ),
        ] {
            let said = parse(standing).unwrap_err();
            assert!(said.contains(expected), "{said}\n  does not say\n{expected}");
        }
        for wrong in ["0%", "0.00001%", "101%", "5", "%", ".5%", "1.%", "-1%", "1e3%", "99999%"] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
    }
}
