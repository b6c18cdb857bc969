//! What becomes of mail by what it is for: `[class.otp]`, `[class.transactional]`, `[class.notice]`.

use std::time::Duration;

use super::{defaults, settings::settings, value};

/// What becomes of mail by what it is for: one table for each class.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// One-time codes.
    #[serde(default)]
    pub otp: Otp,
    /// What a person waits for.
    #[serde(default)]
    pub transactional: Transactional,
    /// The rest.
    #[serde(default)]
    pub notice: Notice,
}

settings! {
    /// Mail of class otp: login links and one-time codes. A message says what it is for by its header field
    /// X-Atmos-Category (login-link or mfa-otp: otp; password-reset or verification: transactional; bulk or broadcast:
    /// notice), else by MT-PRIORITY (4 to 9: otp; 1 to 3: transactional; below 0: notice), else it is what its credential
    /// says; and never more than its credential may claim.
    pub struct Otp as "[class.otp]" {
        /// What is undelivered after this time fails, and the sender is told at once. BY of the dialogue may shorten it
        /// for one message; a held message's time begins when it is released. One minute to 30 days (720h).
        /// Default: 15m, because a code that comes late teaches people to expect old ones.
        #[serde(default = "defaults::otp_lifetime", deserialize_with = "value::duration")]
        pub lifetime: Duration = r#""15m""#, Default;
        /// What is undelivered after this time is reported to the sender as late, once, unless NOTIFY forbids it. Not
        /// shorter than the lifetime: never. Default: 5m.
        #[serde(default = "defaults::otp_delay", deserialize_with = "value::duration")]
        pub delay_notice_after: Duration = r#""5m""#, Default;
        /// The pool that it goes by, unless its member has one. Default: the pool called default.
        #[serde(default)]
        pub pool: Option<String> = r#""default""#, Optional;
    }
}

settings! {
    /// Mail of class transactional: what a person waits for. As above.
    pub struct Transactional as "[class.transactional]" {
        /// Default: 48h.
        #[serde(default = "defaults::transactional_lifetime", deserialize_with = "value::duration")]
        pub lifetime: Duration = r#""48h""#, Default;
        /// Default: 4h.
        #[serde(default = "defaults::transactional_delay", deserialize_with = "value::duration")]
        pub delay_notice_after: Duration = r#""4h""#, Default;
        /// As above.
        #[serde(default)]
        pub pool: Option<String> = r#""default""#, Optional;
    }
}

settings! {
    /// Mail of class notice: what may arrive tomorrow. As above. RFC 5321 §4.5.4.1 asks for four to five days.
    pub struct Notice as "[class.notice]" {
        /// Default: 120h.
        #[serde(default = "defaults::notice_lifetime", deserialize_with = "value::duration")]
        pub lifetime: Duration = r#""120h""#, Default;
        /// Default: 24h.
        #[serde(default = "defaults::notice_delay", deserialize_with = "value::duration")]
        pub delay_notice_after: Duration = r#""24h""#, Default;
        /// As above.
        #[serde(default)]
        pub pool: Option<String> = r#""default""#, Optional;
    }
}

impl Classes {
    /// The pool of each class, most urgent first, with its name.
    pub fn pools(&self) -> [(&'static str, &Option<String>); 3] {
        let Classes { otp, transactional, notice } = self;
        [("otp", &otp.pool), ("transactional", &transactional.pool), ("notice", &notice.pool)]
    }

    /// (lifetime, delay_notice_after) of each class, most urgent first, with its name.
    pub fn each(&self) -> [(&'static str, Duration, Duration); 3] {
        let Classes { otp, transactional, notice } = self;
        [
            ("otp", otp.lifetime, otp.delay_notice_after),
            ("transactional", transactional.lifetime, transactional.delay_notice_after),
            ("notice", notice.lifetime, notice.delay_notice_after),
        ]
    }
}
