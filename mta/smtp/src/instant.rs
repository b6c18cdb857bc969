//! Points in time as the dialogue writes them: RFC 3339 in UTC, to the second.
//!
//! Only FUTURERELEASE (RFC 4865) names times of day, and only in this one form, so the calendar is here in a few
//! lines instead of by a crate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads `2026-11-25T15:00:00Z`. A fraction of a second is allowed and dropped; other offsets are not
/// (RFC 4865 §3: in UTC). A time before 1970 is no value.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix(['Z', 'z'])?;
    let (text, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !(1..=9).contains(&fraction.len()) || !fraction.bytes().all(|octet| octet.is_ascii_digit()) || text.len() != 19 {
        return None;
    }
    let fits = text.bytes().zip(*b"0000-00-00T00:00:00").all(|(octet, form)| match form {
        b'0' => octet.is_ascii_digit(),
        _ => octet.eq_ignore_ascii_case(&form),
    });
    if !fits {
        return None;
    }
    let field = |from: usize, upto: usize| text[from..upto].parse::<i64>().ok();
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    // 60: a leap second, which Unix time counts as the next one.
    let plausible = (1..=12).contains(&month) && day >= 1 && day <= month_days(year, month) && hour < 24 && minute < 60;
    let secs = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let secs = u64::try_from(secs).ok().filter(|_| plausible && second <= 60)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(secs))
}

/// Writes it. What is beyond the year 9999 is written as its end.
pub(crate) fn format(time: SystemTime) -> String {
    let secs = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().min(253_402_300_799) as i64;
    let (day, rest) = (secs / 86_400, secs % 86_400);
    // As many whole years as are surely over, then on by ones.
    let mut year = 1970 + day / 366;
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days(year, month + 1, 1) <= day {
        month += 1;
    }
    let date = day - days(year, month, 1) + 1;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Days from 1970 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - 477;
    let months: i64 = (1..month).map(|month| month_days(year, month)).sum();
    (year - 1970) * 365 + leap_days + months + day - 1
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_as_they_were_written() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-25T15:13:39Z", 1_795_619_619),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(secs);
            assert_eq!((parse(text), format(time).as_str()), (Some(time), text));
        }
        assert_eq!(parse("2026-11-25t15:13:39.5z"), parse("2026-11-25T15:13:39Z"));
        for day in 0..60_000 {
            let time = UNIX_EPOCH + Duration::from_secs(day * 86_400 + 43_200);
            assert_eq!(parse(&format(time)), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "Z",
            "2026-11-25",
            "2026-11-25T15:13:39",
            "2026-11-25T15:13:39+00:00",
            "2026-11-25 15:13:39Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T15:60:00Z",
            "2026-11-25T15:13:61Z",
            "2026-11-25T15:13:39.Z",
            "+026-11-25T15:13:39Z",
            "1969-12-31T23:59:59Z",
            "2026-11-25T15:13:3éZ",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
