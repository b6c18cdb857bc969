//! Models of receivers: what a mailbox provider takes from one of our addresses in a day, and what it says to the rest.
//!
//! A model is not a provider. What providers do is secret, changes, and depends on what the mail is. These hold on to what
//! senders agree on: a new address may send little; more is deferred, not refused; who sends steadily and
//! within bounds may send more; who keeps pushing is trusted less. A plan that fails here will hardly do better
//! outside; one that does well here has passed a test, and has promised nothing.
//!
//! Every model keeps its count of recipients by source and by day (its midnight is ours), knows nothing of our plans, and refuses one recipient in
//! two hundred as unknown, as mail to addresses that people type themselves has it.

use scheduler::{Outcome, ReplyClass, Scope, Verdict};

use crate::luck::Luck;
use crate::volume::column;

/// Recipients that do not exist.
const UNKNOWN: f64 = 0.005;

/// Tries above its limit that the strict one forgives in a day: as many as are on their way when it begins to defer.
const OVER_BORNE: f64 = 10.0;

/// What the address of a big provider's user would be told; the class is what `tradewind` reads from such a text.
const TOO_MUCH: &str = "421 4.7.0 [TSS04] Messages temporarily deferred due to unexpected volume or user complaints";
const SLOW_DOWN: &str = "421 4.7.28 unusual rate of mail from your IP address; temporarily rate limited";
const OK: &str = "250 2.0.0 OK";
const NO_SUCH_USER: &str = "550 5.1.1 no such user";

/// How a receiver treats an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// Patient. It begins at 500 messages a day. What is above today's limit is deferred as too fast, without further harm. After a
    /// day of which it has accepted at least half of the limit, the limit is one and a half times as high. After a week without mail
    /// it shrinks by a tenth a day, to where it began.
    Typical,
    /// Unforgiving. It begins at so many messages a day, and defers what is above with a reply about reputation. A day with more than
    /// ten tries above the limit counts as abuse: the next day the limit is a third, and nothing is learned from the abusive day or
    /// from the punished one. After a day in bounds of which it has accepted at least half of the limit, the limit is 1.3 times as
    /// high.
    Strict(u64),
    /// What a file says, day by day; the last line holds on. More is deferred as too fast.
    Days(Vec<u64>),
    /// Takes everything: what a plan does by itself.
    Open,
}

impl Model {
    /// The strict one that begins at 300 messages a day.
    pub const STRICT: Model = Model::Strict(300);

    /// Limits from a file: a line for each day with the limit in its last column.
    ///
    /// # Errors
    /// The first line that has none.
    pub fn from_csv(text: &str) -> Result<Model, String> {
        let days = column(text, "messages that are taken")?;
        if days.is_empty() {
            return Err("there is no day in it; right is one line a day, such as 2026-11-01,18250".to_owned());
        }
        Ok(Model::Days(days))
    }
}

/// What a receiver says to one try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// Recipients accepted, and those that do not exist; the others are deferred.
    pub(crate) accepted: u16,
    pub(crate) refused: u16,
    /// It broke off before the last recipient.
    pub(crate) broke_off: bool,
    pub(crate) text: &'static str,
}

/// One of our sources as a receiver knows it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What it would take today if nothing were wrong.
    limit: f64,
    punished: bool,
    idle_days: u32,
    tried: f64,
    accepted: f64,
    over: f64,
}

impl Standing {
    pub(crate) fn new(model: &Model) -> Standing {
        let limit = first_limit(model);
        Standing { limit, punished: false, idle_days: 0, tried: 0.0, accepted: 0.0, over: 0.0 }
    }

    /// What it takes today.
    pub(crate) fn limit(&self) -> f64 {
        if self.punished { self.limit / 3.0 } else { self.limit }
    }

    /// A try with so many recipients: those in bounds are accepted, but for unknown ones; the first that is too many is deferred, and
    /// ends the session.
    pub(crate) fn answer(&mut self, model: &Model, recipients: u16, luck: &mut Luck) -> Answer {
        let room = (self.limit() - self.accepted).max(0.0).floor();
        let taken = if room < f64::from(recipients) { room as u16 } else { recipients };
        let refused = (luck.whole(f64::from(taken) * UNKNOWN) as u16).min(taken);
        let accepted = taken - refused;
        let over = taken < recipients;
        self.tried += f64::from(taken) + f64::from(u8::from(over));
        self.over += f64::from(u8::from(over));
        self.accepted += f64::from(taken);
        if over {
            let (class, text) = match model {
                Model::Strict(_) => (ReplyClass::Reputation, TOO_MUCH),
                Model::Typical | Model::Days(_) | Model::Open => (ReplyClass::Rate, SLOW_DOWN),
            };
            let verdict = if accepted > 0 { Verdict::Delivered } else { Verdict::Deferred };
            let outcome = Outcome { scope: Scope::Source, verdict, open: true, class: Some(class), ..Outcome::ACCEPTED };
            return Answer { outcome, accepted, refused, broke_off: true, text };
        }
        let verdict = if accepted > 0 { Verdict::Delivered } else { Verdict::Failed };
        let class = (refused > 0).then_some(ReplyClass::Mailbox);
        let text = if refused > 0 { NO_SUCH_USER } else { OK };
        let outcome = Outcome { verdict, class, ..Outcome::ACCEPTED };
        Answer { outcome, accepted, refused, broke_off: false, text }
    }

    /// The receiver's midnight. `day` begins, the first being 0.
    pub(crate) fn begin_day(&mut self, model: &Model, day: u32) {
        let used = self.accepted >= self.limit() / 2.0;
        self.idle_days = if self.tried == 0.0 { self.idle_days + 1 } else { 0 };
        let abused = self.over > OVER_BORNE;
        match model {
            Model::Typical if used => self.limit *= 1.5,
            Model::Typical if self.idle_days > 7 => self.limit = (self.limit * 0.9).max(first_limit(model)),
            Model::Strict(_) if abused => self.punished = true,
            Model::Strict(_) if self.punished => self.punished = false,
            Model::Strict(_) if used => self.limit *= 1.3,
            Model::Typical | Model::Strict(_) | Model::Open => {}
            Model::Days(_) => self.limit = limit_on(model, day),
        }
        self.limit = self.limit.min(1e12);
        (self.tried, self.accepted, self.over) = (0.0, 0.0, 0.0);
    }
}

fn first_limit(model: &Model) -> f64 {
    match model {
        Model::Typical => 500.0,
        Model::Strict(first) => *first as f64,
        Model::Days(_) => limit_on(model, 0),
        Model::Open => f64::INFINITY,
    }
}

fn limit_on(model: &Model, day: u32) -> f64 {
    let Model::Days(days) = model else { return f64::INFINITY };
    days.get(day as usize).or(days.last()).map_or(f64::INFINITY, |limit| *limit as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries so many in a day; what was accepted (or unknown), and what was deferred.
    fn day(standing: &mut Standing, model: &Model, tries: u32, nth: u32) -> (u32, u32) {
        let mut luck = Luck::seeded(u64::from(nth));
        let deferred =
            |standing: &mut Standing, luck: &mut Luck| standing.answer(model, 1, luck).outcome.verdict == Verdict::Deferred;
        let deferred = (0..tries).filter(|_| deferred(standing, &mut luck)).count() as u32;
        standing.begin_day(model, nth + 1);
        (tries - deferred, deferred)
    }

    #[test]
    fn the_typical_one_grows_with_use_and_bears_no_grudge() {
        let (model, mut standing) = (Model::Typical, Standing::new(&Model::Typical));
        let (taken, deferred) = day(&mut standing, &model, 2_000, 0);
        assert_eq!((taken, deferred), (500, 1_500));
        assert_eq!(standing.limit(), 750.0);
        day(&mut standing, &model, 100, 1);
        assert_eq!(standing.limit(), 750.0, "too little to learn from");
        for nth in 2..20 {
            day(&mut standing, &model, 0, nth);
        }
        assert_eq!(standing.limit(), 500.0, "forgotten");
    }

    #[test]
    fn the_strict_one_punishes_for_a_day_and_learns_only_from_days_in_bounds() {
        let (model, mut standing) = (Model::STRICT, Standing::new(&Model::STRICT));
        assert_eq!(day(&mut standing, &model, 300, 0).1, 0);
        assert_eq!(standing.limit(), 390.0);
        let (taken, deferred) = day(&mut standing, &model, 600, 1);
        assert_eq!((taken, deferred), (390, 210));
        assert_eq!(standing.limit(), 130.0, "a third");
        assert_eq!(day(&mut standing, &model, 130, 2).1, 0);
        assert_eq!(standing.limit(), 390.0, "as before, and nothing learned");
        day(&mut standing, &model, 600, 3);
        day(&mut standing, &model, 600, 4);
        assert_eq!(standing.limit(), 130.0, "who goes on is punished on");
    }

    #[test]
    fn a_file_says_what_is_taken_day_by_day_and_its_last_line_holds_on() {
        let model = Model::from_csv("day,limit\n1,10\n2,20\n").unwrap();
        let mut standing = Standing::new(&model);
        let limits: Vec<u32> = (0..4).map(|nth| day(&mut standing, &model, 30, nth).0).collect();
        assert_eq!(limits, [10, 20, 20, 20]);
        assert!(Model::from_csv("").is_err());
    }
}
