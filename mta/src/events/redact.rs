//! What of people stands in the log: as `[log]` says.
//!
//! A log line is read by more people than the queue is, so an address is there by its domain, by a keyed hash, or whole. What a
//! host says often repeats the address that it refuses; so replies are looked through as well: whatever has an @ in it, and the
//! local part of the recipient spoken of where it stands alone.
//!
//! Not here: events (`events.rs`), which are for operators and stay whole.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use host::Dice;
use ring::hmac;
use smtp::address::{Mailbox, ReversePath};

use crate::config::{Log, Shown, ShownId};
use crate::queue::Recipient;
use crate::sign::header::Header;
use crate::sign::store::{StoreError, own_key};

/// Octets of a hash that are shown. Two of a billion addresses share it by chance once in 10¹¹.
const HASH_BYTES: usize = 12;

/// Recipients of one attempt that stand in its line; of more their number is told.
const RECIPIENTS_MAX: usize = 20;

/// In place of what is not shown.
const HIDDEN: &str = "…";

/// How addresses and Message-IDs are shown.
#[derive(Clone)]
pub struct Redaction {
    recipients: Shown,
    senders: Shown,
    message_ids: ShownId,
    key: hmac::Key,
}

impl Redaction {
    /// Reads `data_dir/keys/log.key` (32 octets, mode 0600), or makes it. `data_dir/keys` exists once a `KeyStore` was opened.
    pub fn open(log: &Log, data_dir: &Path, dice: &Dice) -> Result<Self, StoreError> {
        let path = data_dir.join("keys").join("log.key");
        Ok(Self::new(log, &own_key(&path, "remove it, and hashes in the log will be others", Some(dice))?))
    }

    /// The same for whoever is not the daemon, and makes nothing.
    pub fn of_daemon(log: &Log, data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("keys").join("log.key");
        Ok(Self::new(log, &own_key(&path, "remove it, and hashes in the log will be others", None)?))
    }

    fn new(log: &Log, key: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Self { recipients: log.recipients, senders: log.senders, message_ids: log.message_ids, key }
    }

    /// With other settings, and the same key.
    pub fn with(&self, log: &Log) -> Self {
        Self { recipients: log.recipients, senders: log.senders, message_ids: log.message_ids, key: self.key.clone() }
    }

    /// Those of an attempt; None where the line's domain says all that is shown.
    pub fn recipients(&self, all: &[Recipient]) -> Option<String> {
        if self.recipients == Shown::Domain {
            return None;
        }
        let shown = all.iter().take(RECIPIENTS_MAX).map(|recipient| self.recipient(recipient.mailbox.as_str()).into_owned());
        let more = all.len().checked_sub(RECIPIENTS_MAX).filter(|more| *more > 0);
        Some(shown.chain(more.map(|more| format!("and {more} more"))).collect::<Vec<_>>().join(" "))
    }

    /// A recipient's address.
    pub fn recipient<'a>(&self, address: &'a str) -> Cow<'a, str> {
        self.address(self.recipients, address)
    }

    /// A reverse-path; the null one has nothing to hide.
    pub fn sender<'a>(&self, path: &'a ReversePath) -> Cow<'a, str> {
        path.mailbox().map_or(Cow::Borrowed("<>"), |mailbox| self.address(self.senders, mailbox.as_str()))
    }

    /// The Message-ID of a message as it is sent, without its brackets; none where it has none or none is shown.
    pub fn message_id(&self, octets: &Bytes) -> Option<String> {
        if self.message_ids == ShownId::None {
            return None;
        }
        let header = Header::parse(octets).ok()?;
        let field = header.fields().find(|field| field.is("Message-ID"))?;
        let id = String::from_utf8_lossy(field.value.trim_ascii()).into_owned();
        Some(self.shown_id(&id))
    }

    /// A Message-ID, with or without brackets.
    pub fn shown_id(&self, id: &str) -> String {
        let id = id.trim().trim_start_matches('<').trim_end_matches('>');
        match self.message_ids {
            ShownId::None => HIDDEN.to_owned(),
            ShownId::Hash => self.hash("message-id", id),
            ShownId::Whole => id.to_owned(),
        }
    }

    /// What a host said, of this recipient if it is known of which.
    pub fn reply<'a>(&self, text: &'a str, recipient: Option<&Mailbox>) -> Cow<'a, str> {
        if self.recipients == Shown::Whole {
            return Cow::Borrowed(text);
        }
        let local = recipient.map(Mailbox::local);
        let (mut shown, mut changed) = (String::with_capacity(text.len()), false);
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c| !in_address(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word);
            // A full stop ends a sentence more often than an address.
            let bare = word.trim_end_matches('.');
            let as_shown = match bare.rsplit_once('@') {
                Some((before, _)) if !before.is_empty() => Some(self.recipient(bare)),
                _ if local.is_some_and(|local| !bare.is_empty() && local.eq_ignore_ascii_case(bare)) => Some(HIDDEN.into()),
                _ => None,
            };
            changed |= as_shown.is_some();
            shown.push_str(as_shown.as_deref().unwrap_or(bare));
            shown.push_str(&word[bare.len()..]);
            let between = after.find(in_address).unwrap_or(after.len());
            shown.push_str(&after[..between]);
            rest = &after[between..];
        }
        if changed { Cow::Owned(shown) } else { Cow::Borrowed(text) }
    }

    fn address<'a>(&self, shown: Shown, address: &'a str) -> Cow<'a, str> {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        match shown {
            Shown::Whole => Cow::Borrowed(address),
            Shown::Domain => Cow::Owned(format!("{HIDDEN}@{domain}")),
            Shown::Hash => Cow::Owned(format!("{}@{domain}", self.hash("address", &address.to_lowercase()))),
        }
    }

    /// `of` keeps apart what it is for.
    fn hash(&self, of: &str, what: &str) -> String {
        let tag = hmac::sign(&self.key, format!("{of}:{what}").as_bytes());
        HEXLOWER.encode(&tag.as_ref()[..HASH_BYTES])
    }
}

/// Shows everything but the key.
impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recipients, senders, message_ids, .. } = self;
        write!(f, "Redaction(recipients {recipients}, senders {senders}, message_ids {message_ids})")
    }
}

/// What an address is made of as hosts write it: an atom (RFC 5322 §3.2.3), letters of any script (RFC 6531), dots, and the @.
fn in_address(c: char) -> bool {
    c.is_alphanumeric() || "@.!#$%&'*+-/=?^_`{|}~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction(recipients: Shown, senders: Shown, message_ids: ShownId) -> Redaction {
        Redaction::new(&Log { recipients, senders, message_ids, ..Log::default() }, &[7; 32])
    }

    #[test]
    fn a_reply_names_nobody_unless_the_settings_say_so() {
        let alice: Mailbox = "Alice.B@big.example".parse().unwrap();
        let hidden = redaction(Shown::Domain, Shown::Domain, ShownId::None);
        let hash = redaction(Shown::Hash, Shown::Domain, ShownId::None);
        let whole = redaction(Shown::Whole, Shown::Domain, ShownId::None);
        let h = hash.recipient("alice.b@BIG.example").into_owned();
        let h = h.split('@').next().unwrap();
        assert_eq!(h.len(), 24);
        for (said, shown, hashed) in [
            (
                "550 5.1.1 <alice.b@big.example>: Recipient address rejected.",
                "550 5.1.1 <…@big.example>: Recipient address rejected.",
                format!("550 5.1.1 <{h}@big.example>: Recipient address rejected."),
            ),
            ("550 no such user alice.B.", "550 no such user ….", "550 no such user ….".to_owned()),
            ("550 moved to bob+x@else.example.", "550 moved to …@else.example.", String::new()),
            ("550 5.7.1 mail from 192.0.2.1 refused, see https://e.example/?a=1", "", String::new()),
            ("550 \"alice.b\" (ALICE.B@big.example)", "550 \"…\" (…@big.example)", format!("550 \"…\" ({h}@big.example)")),
            ("550 jürgen@münchen.example", "550 …@münchen.example", String::new()),
            ("550 a@b@c.example is two", "550 …@c.example is two", String::new()),
        ] {
            let shown = if shown.is_empty() { said } else { shown };
            assert_eq!(hidden.reply(said, Some(&alice)), shown);
            assert_eq!(whole.reply(said, Some(&alice)), said);
            if !hashed.is_empty() {
                assert_eq!(hash.reply(said, Some(&alice)).replace(&hash.recipient("alice.b@big.example")[..24], h), hashed);
            }
            let by_hash = hash.reply(said, Some(&alice)).to_lowercase();
            assert!(!by_hash.contains("alice.b") && !by_hash.contains("bob"), "{by_hash}");
        }
    }

    #[test]
    fn a_hash_is_of_one_key_and_one_kind_and_the_same_for_the_same() {
        let one = redaction(Shown::Hash, Shown::Hash, ShownId::Hash);
        let other = Redaction::new(&Log { recipients: Shown::Hash, ..Log::default() }, &[8; 32]);
        assert_eq!(one.recipient("Bob@Big.example").split('@').next(), one.recipient("bob@big.example").split('@').next());
        assert_ne!(one.recipient("bob@big.example"), one.recipient("bob@small.example"));
        assert_ne!(one.recipient("bob@big.example"), other.recipient("bob@big.example"));
        assert_eq!(one.sender(&"<bob@big.example>".parse().unwrap()), one.recipient("bob@big.example"));
        assert_ne!(one.shown_id("bob@big.example"), one.recipient("bob@big.example")[..24]);
        assert_eq!(one.sender(&ReversePath::Null), "<>");
        assert!(!format!("{one:?}").contains('7'));
    }

    #[test]
    fn a_message_id_is_found_where_it_stands_and_only_when_it_is_wanted() {
        let octets = Bytes::from("Received: by x\r\nmessage-id:\r\n <1@member.example>\r\nSubject: s\r\n\r\nMessage-ID: <2>\r\n");
        let shown = |how| redaction(Shown::Domain, Shown::Domain, how).message_id(&octets);
        assert_eq!(shown(ShownId::None), None);
        assert_eq!(shown(ShownId::Whole).unwrap(), "1@member.example");
        let hash = redaction(Shown::Domain, Shown::Domain, ShownId::Hash);
        assert_eq!(shown(ShownId::Hash).unwrap(), hash.shown_id("<1@member.example>"));
        assert_eq!(shown(ShownId::Hash).unwrap().len(), 24);
        assert_eq!(redaction(Shown::Whole, Shown::Whole, ShownId::Whole).message_id(&Bytes::from("Subject: s\r\n\r\n")), None);
    }
}
