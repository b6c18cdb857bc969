//! `[standing]`: what the labeler is told of mail, and what is done about what it doubts.

use std::path::PathBuf;
use std::time::Duration;

use super::settings::settings;
use super::value::OnPause;
use super::{defaults, value};
use crate::policy::Caution;

settings! {
    /// Private standing: the labeler of [labeler] is told what became of each member's mail, in counts and never with a
    /// recipient, and says what is doubted about a member: complaints, failures. The labeler's operator puts the DID below into
    /// `mtas`. The whole table absent: nothing is told or asked. What this tells whom is in labeler/PRIVACY.md.
    pub struct Standing as "[standing]" {
        /// Who this MTA is: a did:web of a host. What that host must serve at https://host/.well-known/did.json, for the labeler
        /// to find the key, is written at each start into the folder of signing_key, as did.json.
        pub did: String = r#""did:web:relay.example.test""#, Required;
        /// File of the secp256k1 key that calls are signed with, 64 hexadecimal digits. Made when absent, mode 0600.
        pub signing_key: PathBuf = r#""standing.key""#, Required;
        /// true: what became of mail is reported when a day of UTC is over, and again where it changed. Default: true.
        #[serde(default = "defaults::yes")]
        pub report: bool = "true", Default;
        /// Time between two reads of what is doubted. Default: 5m.
        #[serde(default = "defaults::read_interval", deserialize_with = "value::duration")]
        pub read_interval: Duration = r#""5m""#, Default;
        /// Age of the labeler's last answer about a member from which on its doubts count no more. Default: 24h.
        #[serde(default = "defaults::doubts_stale_after", deserialize_with = "value::duration")]
        pub stale_after: Duration = r#""24h""#, Default;
        /// What is done where the labeler says that a member's new mail should wait. defer: it is answered 451 4.7.1 with the
        /// reason, until the doubt ends, a week after its cause at the latest. show: it is only shown, by `tradewind member
        /// show`. What is queued already is delivered. Read again on SIGHUP. Default: defer.
        #[serde(default = "defaults::on_pause")]
        pub on_pause: OnPause = r#""defer""#, Default;
    }
}

impl Standing {
    /// What admission needs of it.
    pub fn caution(&self) -> Caution {
        Caution { defers: self.on_pause == OnPause::Defer, stale_after: self.stale_after }
    }
}
