//! Which labels were verified before: a signature is checked once, not at every poll.
//!
//! Checking one takes some hundred times as long as hashing its label, and between two polls nearly no label changes. So the poll keeps
//! the SHA-256 of what it has verified: the key, and the whole label with its signature. Whatever differs in one octet, another
//! key among it, has another digest and is verified like any other; there is no way to be believed without it.
//! What the labeler has ceased to give is forgotten after the next full poll.
//!
//! Not here: whose labels count and what they mean (`labels`). Nothing is kept on disk: after a restart each is verified once.

use std::collections::HashMap;

use atproto::{did::VerifyingKey, label::Label};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Labels remembered for each member on the average; more are verified at every poll. A labeler that gives its whole history, not only
/// the newest of each, needs the most.
const PER_MEMBER: usize = 8;
/// Labels remembered however few the members are.
const ROOM_MIN: usize = 1024;

/// The digests of verified labels, each with the poll that last saw it.
#[derive(Default)]
pub(super) struct Verified {
    seen: HashMap<[u8; SHA256_OUTPUT_LEN], u32>,
    /// A key, and the hash that has taken it in.
    key: Option<(VerifyingKey, Context)>,
    poll: u32,
    room: usize,
}

impl Verified {
    /// A poll begins, about one of so many members.
    pub(super) fn begin(&mut self, members: usize) {
        self.poll = self.poll.wrapping_add(1);
        self.room = ROOM_MIN.max(members.saturating_mul(PER_MEMBER));
    }

    /// What `verify` says of this label and key; not asked again about the same octets once it agreed.
    pub(super) fn check<E>(
        &mut self,
        label: &Label,
        key: &VerifyingKey,
        verify: impl FnOnce(&Label, &VerifyingKey) -> Result<(), E>,
    ) -> Result<(), E> {
        let digest = self.digest(label, key);
        if let Some(poll) = self.seen.get_mut(&digest) {
            *poll = self.poll;
            return Ok(());
        }
        verify(label, key)?;
        if self.seen.len() < self.room {
            self.seen.insert(digest, self.poll);
        }
        Ok(())
    }

    /// A poll about all members has come to its end: what it did not see is forgotten.
    pub(super) fn end(&mut self) {
        let now = self.poll;
        self.seen.retain(|_, poll| *poll == now);
        self.seen.shrink_to(self.seen.len().saturating_mul(2));
    }

    /// Labels that are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// A key as text holds no zero, so where it ends is certain; the label's CBOR has every field that was sent, and the signature.
    fn digest(&mut self, label: &Label, key: &VerifyingKey) -> [u8; SHA256_OUTPUT_LEN] {
        let with_key = match &self.key {
            Some((known, context)) if known == key => context,
            _ => {
                let mut context = Context::new(&SHA256);
                context.update(key.did_key().as_bytes());
                context.update(&[0]);
                &self.key.insert((key.clone(), context)).1
            }
        };
        let mut context = with_key.clone();
        context.update(&label.to_cbor());
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use atproto::{
        Did,
        did::SigningKey,
        label::{LabelError, Signature},
    };

    use super::*;

    const LABELER: &str = "did:web:labeler.example.test";

    fn did(text: &str) -> Did {
        text.parse().unwrap()
    }

    fn key(octet: u8) -> SigningKey {
        SigningKey::from_octets(&[octet; 32]).unwrap()
    }

    fn label(nth: usize) -> Label {
        let cts = atproto::datetime(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000));
        let mut label = Label::account(did(LABELER), &did(&format!("did:plc:m{nth}")), "relay-member", cts);
        label.sign(&key(0x11));
        label
    }

    /// Verifies with a count of its own.
    #[derive(Default)]
    struct World {
        verified: Verified,
        count: usize,
    }

    impl World {
        fn check(&mut self, label: &Label, key: &SigningKey) -> Result<(), LabelError> {
            self.verified.check(label, &key.verifying_key(), |label, key| {
                self.count += 1;
                label.verify(&did(LABELER), key)
            })
        }
    }

    #[test]
    fn a_label_is_verified_once_and_again_when_anything_about_it_is_different() {
        let (mut world, known) = (World::default(), label(1));
        world.verified.begin(1);
        for _ in 0..3 {
            assert_eq!(world.check(&known, &key(0x11)), Ok(()));
        }
        assert_eq!(world.count, 1);

        let forged = |edit: &dyn Fn(&mut Label)| {
            let mut label = known.clone();
            edit(&mut label);
            label
        };
        let other = label(2);
        let forgeries = [
            forged(&|it| it.uri = "did:plc:m2".into()),
            forged(&|it| it.val = "clean-sender".into()),
            forged(&|it| it.neg = Some(true)),
            forged(&|it| it.neg = Some(false)),
            forged(&|it| it.cts = "2026-09-21T14:13:20.001Z".parse().unwrap()),
            // The same instant in other words is not what was signed.
            forged(&|it| it.cts = "2026-09-21T14:13:20Z".parse().unwrap()),
            forged(&|it| it.exp = Some(it.cts.clone())),
            forged(&|it| it.cid = Some("bafyreib2rxk3rh6kzwq".into())),
            forged(&|it| it.sig = other.sig.clone()),
            forged(&|it| it.sig = Some(Signature(Vec::new()))),
            forged(&|it| it.sig.as_mut().unwrap().0.push(0)),
            forged(&|it| it.sig.as_mut().unwrap().0[63] ^= 1),
        ];
        for (nth, label) in forgeries.iter().enumerate() {
            for attempt in 0..2 {
                assert_eq!(world.check(label, &key(0x11)), Err(LabelError::BadSignature), "{nth}");
                assert_eq!(world.count, 2 + 2 * nth + attempt, "what is not believed is never remembered");
            }
        }
        assert_eq!(world.check(&known, &key(0x11)), Ok(()));
        assert_eq!(world.count, 1 + 2 * forgeries.len());
    }

    #[test]
    fn another_key_has_verified_nothing_yet() {
        let (mut world, mut known) = (World::default(), label(1));
        world.verified.begin(1);
        assert_eq!(world.check(&known, &key(0x11)), Ok(()));
        assert_eq!(world.check(&known, &key(0x22)), Err(LabelError::BadSignature));
        assert_eq!(world.count, 2);
        known.sign(&key(0x22));
        for _ in 0..2 {
            assert_eq!(world.check(&known, &key(0x22)), Ok(()));
        }
        assert_eq!(world.count, 3);
        assert_eq!(world.check(&known, &key(0x11)), Err(LabelError::BadSignature), "the old key does not vouch for it");
    }

    #[test]
    fn what_is_no_longer_given_is_forgotten_and_what_finds_no_room_is_verified_each_time() {
        let mut world = World::default();
        let labels: Vec<_> = (0..ROOM_MIN + 2).map(label).collect();
        world.verified.begin(1);
        labels.iter().for_each(|label| world.check(label, &key(0x11)).unwrap());
        assert_eq!((world.count, world.verified.seen.len()), (ROOM_MIN + 2, ROOM_MIN));
        labels.iter().for_each(|label| world.check(label, &key(0x11)).unwrap());
        assert_eq!(world.count, ROOM_MIN + 4);
        world.verified.end();
        assert_eq!(world.verified.seen.len(), ROOM_MIN);

        world.verified.begin(1);
        world.check(&labels[0], &key(0x11)).unwrap();
        world.verified.end();
        assert_eq!((world.count, world.verified.seen.len()), (ROOM_MIN + 4, 1));
        world.check(&labels[1], &key(0x11)).unwrap();
        assert_eq!(world.count, ROOM_MIN + 5);
    }
}
