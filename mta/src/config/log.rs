//! `[events]` and `[log]`: what is kept of mail for those who may see all of it, and what of people stands in the log.

use super::settings::settings;
use super::value::{Keep, LogFormat, Shown, ShownId};
use super::{defaults, value};

settings! {
    /// Events: what became of mail, for `tradewind events` and `tradewind why`.
    pub struct Events as "[events]" {
        /// How many are kept, how long, or both: "500000", "30d", "500000 30d". The oldest leave when either is reached, with
        /// the next mail. An event takes about 250 octets of the database. A reader that has fallen behind is told how many
        /// it missed. Without a number: 10,000,000. Default: 500000.
        #[serde(default = "defaults::keep", deserialize_with = "value::keep")]
        pub keep: Keep = r#""500000""#, Default;
    }
}

settings! {
    /// The log, on standard error. Each attempt at a delivery leaves one line: queue id, member, domain, site, source, host, TLS,
    /// what it came to and what was said. Subjects, bodies and secrets are never in it. A log is read by more people than the
    /// queue is, goes to collectors and lasts longer than mail; so by default it has no address, and names a message by its
    /// queue id, which is in the member's 250 and in the message's trace field: enough to find the line. The queue itself
    /// (`tradewind queue show`, `tradewind events`) knows more, for operators alone.
    pub struct Log as "[log]" {
        /// auto, text or json. auto: text on a terminal, JSON otherwise. Default: auto.
        #[serde(default = "defaults::log_format")]
        pub format: LogFormat = r#""auto""#, Default;
        /// How much of a recipient stands in a line, also where a host's reply repeats it.
        /// domain: what is behind the @, which is what routes, limits and troubles go by.
        /// hash: besides, a keyed hash (`3f0c…@example.org`), the same for the same address, so that what one recipient met can
        /// be followed; `tradewind logged ADDRESS` says what to look for. Its key is data_dir/keys/log.key: without it nobody
        /// can try addresses, and when it is removed and the daemon started again, old lines lead to nobody.
        /// whole: the address. Default: domain. Read again on SIGHUP.
        #[serde(default = "defaults::log_address")]
        pub recipients: Shown = r#""domain""#, Default;
        /// The same of the reverse-path. It is the member's own, but many write the recipient into it to tell bounces apart
        /// (VERP), or the name of one of their users. Default: domain. Read again on SIGHUP.
        #[serde(default = "defaults::log_address")]
        pub senders: Shown = r#""domain""#, Default;
        /// How much of the Message-ID stands in a line: none, hash or whole. Members make it of what they like, and whoever has
        /// the message can look for it in the log; the queue id serves us as well. whole: for receivers' postmasters, who ask by
        /// Message-ID. Default: none. Read again on SIGHUP.
        #[serde(default = "defaults::log_id")]
        pub message_ids: ShownId = r#""none""#, Default;
    }
}

impl Default for Log {
    fn default() -> Self {
        let (address, id) = (defaults::log_address(), defaults::log_id());
        Log { format: defaults::log_format(), recipients: address, senders: address, message_ids: id }
    }
}
