//! How much mail there is, and when in the day: transactional mail has a daily curve and bursts.
//!
//! People confirm addresses and reset passwords when they are awake: between four and five in the morning a twelfth of what comes
//! in the evening. A part of the mail comes in bursts of five minutes (a link went round, a service came back), because a
//! plan that spreads a day evenly looks better without them than it is.
//!
//! The curve is ours, made after the hourly curves that operators of sign-in mail publish as pictures; it is no measurement of
//! anybody's mail. Who has figures gives them by day in a file.

use crate::luck::Luck;

/// Share of a day's mail by hour, in thousandths, without the bursts. They add up to 1000.
const HOURS: [u16; 24] = [26, 18, 12, 8, 6, 8, 14, 26, 40, 50, 54, 54, 52, 52, 52, 52, 54, 58, 64, 70, 72, 66, 54, 38];

/// Share of a day's mail that comes in bursts.
const IN_BURSTS: f64 = 0.15;

/// Bursts in a day, and how long one lasts.
const BURSTS: usize = 3;
const BURST_MINUTES: usize = 5;

/// Minutes of a day. Days are as long as UTC's.
pub(crate) const MINUTES: usize = 24 * 60;

/// Days that a file may have: ten years.
const DAYS_MAX: usize = 3660;

/// More a day is no plan's business, and keeps all sums far from their bounds.
const MESSAGES_MAX: u64 = 1_000_000_000;

/// Messages by day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// The same every day.
    Steady(u64),
    /// Day by day; afterwards the last seven days again and again, so that a week stays a week.
    Days(Vec<u64>),
}

impl Volume {
    /// `steady:20000`. None: it does not begin like that, so it is the name of a file.
    ///
    /// # Errors
    /// What stands after the colon is no number of messages.
    pub fn steady(text: &str) -> Option<Result<Volume, String>> {
        let number = text.strip_prefix("steady:")?;
        Some(count(number).map(Volume::Steady).map_err(|why| format!("`{text}`: {why}; right is steady:20000")))
    }

    /// A line for each day with the number of messages in its last column: `2026-11-01,18250` or `18250`. A first line without a
    /// number is a heading; empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// The first line that is no day, by number.
    pub fn from_csv(text: &str) -> Result<Volume, String> {
        let days = column(text, "messages")?;
        if days.is_empty() {
            return Err("there is no day in it; right is one line a day, such as 2026-11-01,18250".to_owned());
        }
        Ok(Volume::Days(days))
    }

    /// How many come on a day, the first being 0.
    pub fn on(&self, day: u32) -> u64 {
        match self {
            Volume::Steady(messages) => *messages,
            Volume::Days(days) => {
                let (nth, week) = (day as usize, days.len().clamp(1, 7));
                let nth = if nth < days.len() { nth } else { days.len() - week + (nth - days.len()) % week };
                days.get(nth).copied().unwrap_or(0)
            }
        }
    }

    /// A day's mean over the last seven of so many: what there is when a plan ends.
    pub(crate) fn last_week(&self, days: u32) -> f64 {
        let week = days.saturating_sub(7)..days.max(1);
        week.clone().map(|day| self.on(day) as f64).sum::<f64>() / week.len() as f64
    }
}

/// The last column of a file with one line a day.
pub(crate) fn column(text: &str, what: &str) -> Result<Vec<u64>, String> {
    let mut days = Vec::new();
    let mut headed = false;
    for (nth, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match count(line.rsplit([',', ';', '\t']).next().unwrap_or(line)) {
            Ok(number) => days.push(number),
            Err(_) if days.is_empty() && !headed => headed = true,
            Err(why) => return Err(format!("line {}: {why}; right is the number of {what} of a day, such as 18250", nth + 1)),
        }
        if days.len() > DAYS_MAX {
            return Err(format!("line {}: more than {DAYS_MAX} days", nth + 1));
        }
    }
    Ok(days)
}

fn count(text: &str) -> Result<u64, String> {
    let digits = text.trim().trim_matches('"').replace('_', "");
    match digits.parse::<u64>() {
        Ok(number) if number <= MESSAGES_MAX => Ok(number),
        Ok(number) => Err(format!("{number} is more than {MESSAGES_MAX} a day")),
        Err(_) => Err(format!("`{}` is no number", text.trim())),
    }
}

/// Share of a day's mail that comes in each of its minutes; they add up to 1.
pub(crate) fn minutes(luck: &mut Luck) -> Vec<f64> {
    let mut shares: Vec<f64> = (0..MINUTES).map(|minute| f64::from(HOURS[minute / 60]) / 60_000.0).collect();
    shares.iter_mut().for_each(|share| *share *= 1.0 - IN_BURSTS);
    for _ in 0..BURSTS {
        // When people are awake.
        let begins = 8 * 60 + (luck.share() * (14 * 60 - BURST_MINUTES) as f64) as usize;
        for share in shares.iter_mut().skip(begins).take(BURST_MINUTES) {
            *share += IN_BURSTS / (BURSTS * BURST_MINUTES) as f64;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_s_minutes_are_the_whole_day_with_a_night_and_with_bursts() {
        assert_eq!(HOURS.iter().map(|share| u32::from(*share)).sum::<u32>(), 1000);
        for seed in 0..50 {
            let shares = minutes(&mut Luck::seeded(seed));
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let hour = |hour: usize| shares[hour * 60..(hour + 1) * 60].iter().sum::<f64>();
            assert!(hour(20) > 10.0 * hour(4), "the night is quiet");
            let busiest = shares.iter().fold(0.0, |most: f64, share| share.max(most));
            assert!(busiest > 5.0 / MINUTES as f64, "a burst is far above the mean");
        }
    }

    #[test]
    fn whole_numbers_add_up_to_the_volume() {
        let mut luck = Luck::seeded(3);
        let total: u64 = minutes(&mut luck).into_iter().map(|share| luck.whole(share * 5_000.0)).sum();
        assert!((4_850..5_150).contains(&total), "{total}");
    }

    #[test]
    fn a_file_of_days_goes_on_with_its_last_week() {
        let file = "day,messages\n# spring\n2026-03-01,100\n2026-03-02,\"2_00\"\n\n2026-03-03;300\n";
        let volume = Volume::from_csv(file).unwrap();
        assert_eq!(volume, Volume::Days(vec![100, 200, 300]));
        assert_eq!((0..7).map(|day| volume.on(day)).collect::<Vec<_>>(), [100, 200, 300, 100, 200, 300, 100]);
        let volume = Volume::Days((0..10).collect());
        assert_eq!((9..18).map(|day| volume.on(day)).collect::<Vec<_>>(), [9, 3, 4, 5, 6, 7, 8, 9, 3]);
        assert_eq!(Volume::Steady(7).on(1_000), 7);
    }

    #[test]
    fn what_is_no_volume_is_refused_with_its_line_and_what_is_right() {
        let error = Volume::from_csv("100\nmany\n").unwrap_err();
        assert!(error.starts_with("line 2: `many`") && error.contains("18250"), "{error}");
        assert!(Volume::from_csv("day,messages\n").is_err());
        assert!(Volume::from_csv("9999999999999\n1\nx").is_err());
        assert!(Volume::steady("steady:many").unwrap().is_err());
        assert_eq!(Volume::steady("steady:20_000").unwrap(), Ok(Volume::Steady(20_000)));
        assert!(Volume::steady("volume.csv").is_none());
    }
}
