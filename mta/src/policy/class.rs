//! Which class a message is of, and so how long it lives: what it says of itself, within what its credential may
//! claim.
//!
//! The strongest word is the member's header field `X-Atmos-Category`, then MT-PRIORITY (RFC 6710) of the dialogue,
//! then the credential's default. The field is the member's own and stays in the message.
//!
//! A claim above what the operator has allowed the credential counts as the most urgent class that it may have: the
//! mail is wanted all the same, only not before everybody else's. A claim below is always granted. Neither is a reason
//! to refuse mail, so both are counted.
//!
//! Not here: what the class does to the order of sending (`scheduler`).

use std::time::{Duration, SystemTime};

use super::admit::Sender;
use super::members::Class;
use crate::sign::header::{Field, Header};

/// The header field by which a message says what it is for.
pub const CATEGORY_FIELD: &str = "X-Atmos-Category";

/// Its values. A login link and a one-time code are worthless once the person at the login page has given up. A
/// password reset and a verification are waited for too, but whoever comes back an hour later can still use them or
/// ask for another, so they are not thrown away after minutes. The rest is read when there is time.
const CATEGORIES: [(&str, Class); 6] = [
    ("login-link", Class::Otp),
    ("mfa-otp", Class::Otp),
    ("password-reset", Class::Transactional),
    ("verification", Class::Transactional),
    ("bulk", Class::Notice),
    ("broadcast", Class::Notice),
];

/// What MT-PRIORITY claims. Its middle is what mail is without it, and claims nothing. The steps are those between
/// the levels of its STANAG 4406 profile: deferred and routine below, immediate above, flash and override from 4 on.
fn of_priority(priority: i8) -> Option<Class> {
    match priority {
        ..=-1 => Some(Class::Notice),
        0 => None,
        1..=3 => Some(Class::Transactional),
        4.. => Some(Class::Otp),
    }
}

/// What was found of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified {
    /// Its class.
    pub class: Class,
    /// Why that is not what it said.
    pub doubt: Option<Doubt>,
}

/// Why a message has another class than it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The category is not one that we know, or there are two of them: it is as if there were none.
    UnknownCategory,
    /// The credential may not claim this class.
    NotAllowed(Class),
}

impl Doubt {
    /// The word for it in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Doubt::UnknownCategory => "unknown_category",
            Doubt::NotAllowed(_) => "not_allowed",
        }
    }
}

/// The class of a message from `sender`; `priority` is its MT-PRIORITY.
pub fn classify(sender: &Sender, header: &Header, priority: Option<i8>) -> Classified {
    let (claim, unknown) = match of_category(header) {
        Some(Some(class)) => (Some(class), None),
        Some(None) => (None, Some(Doubt::UnknownCategory)),
        None => (priority.and_then(of_priority), None),
    };
    let strongest = sender.strongest_class();
    match claim {
        // The most urgent class is the least.
        Some(claimed) if claimed < strongest => Classified { class: strongest, doubt: Some(Doubt::NotAllowed(claimed)) },
        claim => Classified { class: claim.unwrap_or(sender.class()), doubt: unknown },
    }
}

/// None: there is no such field. Some(None): it says nothing that we know.
fn of_category(header: &Header) -> Option<Option<Class>> {
    let mut fields = header.named(CATEGORY_FIELD);
    let first = fields.next()?;
    let class = |field: Field<'_>| {
        let value = field.value.trim_ascii();
        CATEGORIES.iter().find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes())).map(|(_, class)| *class)
    };
    // Two that differ say nothing, and so do two that agree: whoever wrote them did not mean to.
    Some(class(first).filter(|_| fields.next().is_none()))
}

/// The MT-PRIORITY that a sender's message has from here on: the highest that claims no more than it may.
pub fn granted_priority(sender: &Sender, priority: i8) -> i8 {
    let most = match sender.strongest_class() {
        Class::Otp => 9,
        Class::Transactional => 3,
        Class::Notice => 0,
    };
    priority.min(most)
}

/// How long the mail of a class lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// What is undelivered then fails.
    pub lifetime: Duration,
    /// Then those who want to know are told that it is late. Not shorter than `lifetime`: never.
    pub delay_notice_after: Duration,
}

/// That of each class, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes(pub [Lifetime; 3]);

impl Lifetimes {
    /// When a message that is released `from` then is late, if anybody is to be told, and when it fails.
    pub fn of(&self, class: Class, from: SystemTime) -> (Option<SystemTime>, SystemTime) {
        let Lifetime { lifetime, delay_notice_after } = self.0[class as usize];
        ((delay_notice_after < lifetime).then(|| from + delay_notice_after), from + lifetime)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::policy::{Credential, Member};

    fn sender(classes: &[Class]) -> Sender {
        let member = Member {
            id: 1,
            did: "did:plc:a".into(),
            handle: None,
            suspended: None,
            tier: None,
            pool: None,
            domains: vec!["member.example".into()],
        };
        let credential = Credential {
            id: 1,
            member: 1,
            domain: "member.example".into(),
            class: classes.first().copied().unwrap_or(Class::Transactional),
            classes: classes.to_vec(),
            hash: [0; 32],
        };
        Sender { member: Arc::new(member), credential: Some(Arc::new(credential)) }
    }

    fn check(classes: &[Class], fields: &str, priority: Option<i8>, class: Class, doubt: Option<Doubt>) {
        let octets = Bytes::from(format!("From: a@member.example\r\n{fields}\r\nbody\r\n"));
        let found = classify(&sender(classes), &Header::parse(&octets).unwrap(), priority);
        assert_eq!(found, Classified { class, doubt }, "{classes:?} {fields:?} {priority:?}");
    }

    #[test]
    fn the_category_is_stronger_than_the_priority_and_both_than_the_default() {
        use Class::{Notice, Otp, Transactional};
        for (value, class) in [
            ("login-link", Otp),
            ("MFA-OTP", Otp),
            ("password-reset", Transactional),
            ("verification", Transactional),
            ("bulk", Notice),
            ("broadcast", Notice),
        ] {
            check(&[], &format!("X-Atmos-Category: {value}\r\n"), Some(9), class, None);
            check(&[], &format!("x-atmos-category:\r\n {value} \r\n"), None, class, None);
        }
        for (priority, class) in [(-9, Notice), (-1, Notice), (0, Transactional), (1, Transactional), (3, Transactional)] {
            check(&[], "", Some(priority), class, None);
        }
        for priority in [4, 9] {
            check(&[], "", Some(priority), Otp, None);
        }
        check(&[], "", None, Transactional, None);
        check(&[Notice, Otp], "", None, Notice, None);
        check(&[Notice, Otp], "", Some(0), Notice, None);
    }

    #[test]
    fn a_category_that_is_not_understood_leaves_the_default_and_is_counted() {
        for fields in
            ["urgent", "", "mfa-otp mfa-otp", "mfa-otp\r\nX-Atmos-Category: mfa-otp", "mfa-otp\r\nX-Atmos-Category: bulk"]
        {
            let fields = format!("X-Atmos-Category: {fields}\r\n");
            check(&[Class::Notice], &fields, Some(9), Class::Notice, Some(Doubt::UnknownCategory));
        }
    }

    #[test]
    fn a_claim_above_what_is_allowed_is_the_strongest_that_is_and_one_below_is_granted() {
        use Class::{Notice, Otp, Transactional};
        let otp = "X-Atmos-Category: mfa-otp\r\n";
        check(&[Transactional], otp, None, Transactional, Some(Doubt::NotAllowed(Otp)));
        check(&[Notice], otp, None, Notice, Some(Doubt::NotAllowed(Otp)));
        check(&[Notice, Transactional], otp, None, Transactional, Some(Doubt::NotAllowed(Otp)));
        check(&[Notice, Transactional], "", Some(9), Transactional, Some(Doubt::NotAllowed(Otp)));
        check(&[Otp], "X-Atmos-Category: bulk\r\n", None, Notice, None);
        check(&[Transactional, Otp], otp, None, Otp, None);
    }

    #[test]
    fn a_priority_is_cut_to_what_the_credential_may_claim() {
        let granted = |classes: &[Class], priority| granted_priority(&sender(classes), priority);
        assert_eq!((granted(&[], 9), granted(&[Class::Transactional], 9), granted(&[Class::Notice], 9)), (9, 3, 0));
        assert_eq!((granted(&[Class::Transactional], -4), granted(&[Class::Transactional], 2)), (-4, 2));
        for priority in -9..=9 {
            let sender = sender(&[Class::Transactional]);
            let class = of_priority(granted_priority(&sender, priority));
            assert!(class.is_none_or(|class| class >= sender.strongest_class()));
        }
    }

    #[test]
    fn a_notice_of_delay_that_would_come_too_late_is_none() {
        let secs = Duration::from_secs;
        let life = |lifetime, delay| Lifetime { lifetime: secs(lifetime), delay_notice_after: secs(delay) };
        let lifetimes = Lifetimes([life(900, 300), life(100, 100), life(100, 200)]);
        let from = SystemTime::UNIX_EPOCH + secs(1000);
        assert_eq!(lifetimes.of(Class::Otp, from), (Some(from + secs(300)), from + secs(900)));
        assert_eq!(lifetimes.of(Class::Transactional, from), (None, from + secs(100)));
        assert_eq!(lifetimes.of(Class::Notice, from), (None, from + secs(100)));
    }
}
