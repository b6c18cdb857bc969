//! Is this the message that was submitted a moment ago? What it is known by, so that a client that never read its `250`
//! may submit it again and the recipient gets it once.
//!
//! Always part of it: credential, reverse-path, and the recipients in any order. Beyond that:
//!
//! - With an ENVID (RFC 3461 §4.4: the sender's own name for this transaction) it and the content, but for Date and
//!   Message-ID: a client may write those anew when it tries again. The rest of the content counts, because there are
//!   clients whose ENVID is always the same, and a one-time code in Subject or body must never be held to be another.
//! - Without one, the content to the octet. So a Message-ID that is used again for something else is no duplicate.
//! - With neither ENVID nor Message-ID nor Date there is nothing that tells a second try from a second message, such as
//!   one alarm after another: it is never held to be a duplicate.
//!
//! A member at a limit is refused before its message is seen, so there a second try waits like any other mail; when the
//! wait is longer than the window, it is a new message.
//!
//! Not here: where it is remembered (`queue::duplicates`).

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};
use ring::digest::{Context, SHA256};
use smtp::address::ReversePath;

use crate::queue::Fingerprint;
use crate::sign::header::Header;

/// What is known of a submission before its body.
#[derive(Clone, Copy)]
pub struct Submitted<'a> {
    /// The member's number.
    pub member: u32,
    /// The credential's.
    pub credential: u32,
    /// From the envelope.
    pub reverse_path: &'a ReversePath,
    /// From the envelope, if it has one.
    pub envid: Option<&'a str>,
    /// The message's header section, as it was submitted.
    pub header: &'a Header,
}

/// A fingerprint that the body is still missing from.
pub struct Beginning(Context);

/// The body goes into the fingerprint as two hashes of 64 bits for each piece, and not whole: SHA-256 over it was an eighth
/// of what a message of 64 KB cost. That these can be made to collide by intent harms nobody: only messages of the same
/// credential are compared, so a member could hide its own mail from itself.
const SECRETS: [RapidSecrets; 2] = [RapidSecrets::seed(0x7472_6164_6577_696e), RapidSecrets::seed(0x6d65_6d62_6572_7321)];

/// Everything but the body. None: it cannot be told from another.
pub fn begin<'a>(submitted: &Submitted<'_>, recipients: impl Iterator<Item = &'a str>) -> Option<Beginning> {
    let header = submitted.header;
    let names = |name: &str| header.named(name).next().is_some();
    if submitted.envid.is_none() && !names("Message-ID") && !names("Date") {
        return None;
    }
    let mut print = Beginning(Context::new(&SHA256));
    print.0.update(&submitted.member.to_be_bytes());
    print.0.update(&submitted.credential.to_be_bytes());
    print.part(submitted.reverse_path.as_str().as_bytes());
    let mut recipients: Vec<&str> = recipients.collect();
    recipients.sort_unstable();
    recipients.dedup();
    print.0.update(&(recipients.len() as u64).to_be_bytes());
    for recipient in recipients {
        print.part(recipient.as_bytes());
    }
    match submitted.envid {
        Some(envid) => {
            print.0.update(b"E");
            print.part(envid.as_bytes());
            for field in header.fields().filter(|field| !field.is("Date") && !field.is("Message-ID")) {
                print.part(field.octets);
            }
        }
        None => {
            print.0.update(b"M");
            print.part(&header.octets()[..header.body_at()]);
        }
    }
    Some(print)
}

impl Beginning {
    /// Some of the body. A caller with much of it feeds it piece by piece and lets others run in between; always in
    /// pieces of the same size, since they are part of the fingerprint.
    pub fn feed(&mut self, body: &[u8]) {
        self.0.update(&(body.len() as u64).to_be_bytes());
        SECRETS.iter().for_each(|secrets| self.0.update(&rapidhash_v3_seeded(body, secrets).to_be_bytes()));
    }

    /// The body has ended.
    pub fn end(self) -> Fingerprint {
        let digest = self.0.finish();
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_ref()[..16]);
        Fingerprint(half)
    }

    /// With its length in front, so that no two lists of parts look the same.
    fn part(&mut self, octets: &[u8]) {
        self.0.update(&(octets.len() as u64).to_be_bytes());
        self.0.update(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const WHOLE: &str =
        "From: a@member.example\r\nSubject: Your code\r\nDate: today\r\nMessage-ID: <1@member.example>\r\n\r\n123456\r\n";

    struct Try {
        credential: u32,
        from: &'static str,
        to: &'static [&'static str],
        envid: Option<&'static str>,
        message: String,
    }

    fn first() -> Try {
        Try {
            credential: 7,
            from: "a@member.example",
            to: &["b@one.example", "c@two.example"],
            envid: None,
            message: WHOLE.to_owned(),
        }
    }

    fn print(it: &Try) -> Option<Fingerprint> {
        let octets = Bytes::copy_from_slice(it.message.as_bytes());
        let header = Header::parse(&octets).unwrap();
        let reverse_path = ReversePath::Mailbox(it.from.parse().unwrap());
        let submitted =
            Submitted { member: 1, credential: it.credential, reverse_path: &reverse_path, envid: it.envid, header: &header };
        let mut print = begin(&submitted, it.to.iter().copied())?;
        for piece in octets[header.body_at()..].chunks(3) {
            print.feed(piece);
        }
        Some(print.end())
    }

    fn same(one: Try, two: Try) -> bool {
        print(&one).unwrap() == print(&two).unwrap()
    }

    #[test]
    fn a_second_try_is_the_same_and_whatever_the_order_of_its_recipients() {
        assert!(same(first(), first()));
        assert!(same(first(), Try { to: &["c@two.example", "b@one.example", "c@two.example"], ..first() }));
    }

    #[test]
    fn another_sender_recipient_or_content_is_another_message() {
        assert!(!same(first(), Try { credential: 8, ..first() }));
        assert!(!same(first(), Try { from: "z@member.example", ..first() }));
        for to in [&["b@one.example"][..], &["b@one.example", "c@two.example", "d@x.example"], &["b@one.examplec@two.example"]] {
            assert!(!same(first(), Try { to, ..first() }), "{to:?}");
        }
        for (from, to) in [("123456", "123457"), ("Your code", "Your code 1"), ("today", "later"), ("<1@", "<2@")] {
            assert!(!same(first(), Try { message: WHOLE.replace(from, to), ..first() }), "{to}");
        }
    }

    #[test]
    fn with_an_envid_date_and_message_id_may_be_written_anew_and_nothing_else() {
        let named = || Try { envid: Some("QQ314159"), ..first() };
        for (from, to) in [("today", "later"), ("<1@", "<2@"), ("Date: today\r\n", "")] {
            assert!(same(named(), Try { message: WHOLE.replace(from, to), ..named() }), "{to}");
        }
        assert!(!same(named(), first()));
        assert!(!same(named(), Try { envid: Some("QQ314160"), ..first() }));
        // A client with one ENVID for everything is not robbed of its next code.
        for (from, to) in [("123456", "123457"), ("Your code", "Your code is 1"), ("Subject", "Comments")] {
            assert!(!same(named(), Try { message: WHOLE.replace(from, to), ..named() }), "{to}");
        }
    }

    #[test]
    fn what_says_nothing_of_itself_is_never_a_duplicate() {
        let bare = || "From: a@member.example\r\nSubject: disk full\r\n\r\nagain\r\n".to_owned();
        assert_eq!(print(&Try { message: bare(), ..first() }), None);
        assert!(print(&Try { message: bare(), envid: Some("1"), ..first() }).is_some());
        assert!(print(&Try { message: format!("date: today\r\n{}", bare()), ..first() }).is_some());
    }
}
