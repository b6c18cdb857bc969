//! Which labels were verified before: a signature is checked once, not at every poll, and not again after a restart.
//!
//! Checking one takes some fifty times as long as hashing its label, and between two polls nearly no label changes. So with
//! what is known of a member the poll keeps the SHA-256 of each label that it has verified: who was asked, the key, and the
//! whole label with its signature. Whatever differs in one octet, another issuer or key among it, has another digest and is
//! verified like any other. Whether a label has run out or was taken back is looked at every time.
//!
//! On disk the digests stand beside the labels that hold (table `labels`): whoever could write one there could write the
//! other. A row that is lost or cannot be read costs the time of a signature.
//!
//! Not here: whose labels count and what they mean (`labels`).

use atproto::{Did, did::VerifyingKey, label::Label};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Labels remembered of each member, the last that were given; more are verified at every poll. A labeler that gives its
/// whole history, not only the newest of each, needs the most.
const PER_MEMBER: usize = 8;

/// Of a label that was verified: as it was asked for, with which key, and every octet of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest([u8; SHA256_OUTPUT_LEN]);

/// The digests of the labels of one member that were verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Verified(Vec<Digest>);

impl Verified {
    /// Those that were given at the last poll.
    pub(super) fn of(given: impl IntoIterator<Item = Digest>) -> Self {
        let mut digests: Vec<_> = given.into_iter().collect();
        digests.drain(..digests.len().saturating_sub(PER_MEMBER));
        digests.shrink_to_fit();
        Self(digests)
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }

    /// Labels that are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Makes digests; the part that they begin with is hashed once.
#[derive(Default)]
pub(super) struct Digester(Option<(Did, VerifyingKey, Context)>);

impl Digester {
    /// DIDs and keys as text hold no zero, so where each ends is certain; the label's CBOR has every field that was sent, and
    /// the signature.
    pub(super) fn digest(&mut self, label: &Label, issuer: &Did, key: &VerifyingKey) -> Digest {
        let begun = match &self.0 {
            Some((known_issuer, known_key, begun)) if known_issuer == issuer && known_key == key => begun,
            _ => {
                let mut begun = Context::new(&SHA256);
                for part in [issuer.as_str(), &key.did_key()] {
                    begun.update(part.as_bytes());
                    begun.update(&[0]);
                }
                &self.0.insert((issuer.clone(), key.clone(), begun)).2
            }
        };
        let mut context = begun.clone();
        context.update(&label.to_cbor());
        let mut digest = [0; SHA256_OUTPUT_LEN];
        digest.copy_from_slice(context.finish().as_ref());
        Digest(digest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let octets = BASE64.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        octets.try_into().map(Self).map_err(|_| D::Error::custom("not a SHA-256"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use atproto::{did::SigningKey, label::Signature};

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

    fn digest(label: &Label) -> Digest {
        Digester::default().digest(label, &did(LABELER), &key(0x11).verifying_key())
    }

    #[test]
    fn whatever_is_different_about_a_label_has_another_digest() {
        let (known, other) = (label(1), label(2));
        let edited = |edit: &dyn Fn(&mut Label)| {
            let mut label = known.clone();
            edit(&mut label);
            label
        };
        let different = [
            edited(&|it| it.uri = "did:plc:m2".into()),
            edited(&|it| it.val = "clean-sender".into()),
            edited(&|it| it.neg = Some(true)),
            edited(&|it| it.neg = Some(false)),
            edited(&|it| it.cts = "2026-09-21T14:13:20.001Z".parse().unwrap()),
            // The same instant in other words is not what was signed.
            edited(&|it| it.cts = "2026-09-21T14:13:20Z".parse().unwrap()),
            edited(&|it| it.exp = Some(it.cts.clone())),
            edited(&|it| it.cid = Some("bafyreib2rxk3rh6kzwq".into())),
            edited(&|it| it.ver = None),
            edited(&|it| it.src = did("did:web:labeler.example.tesu")),
            edited(&|it| it.sig = other.sig.clone()),
            edited(&|it| it.sig = Some(Signature(Vec::new()))),
            edited(&|it| it.sig = None),
            edited(&|it| it.sig.as_mut().unwrap().0.push(0)),
            edited(&|it| it.sig.as_mut().unwrap().0[63] ^= 1),
        ];
        let verified = Verified::of([digest(&known)]);
        assert!(verified.has(&digest(&label(1))), "the same octets");
        for (nth, label) in different.iter().enumerate() {
            assert!(!verified.has(&digest(label)), "{nth}");
            assert!(different.iter().skip(nth + 1).all(|other| digest(other) != digest(label)), "{nth}");
        }
    }

    #[test]
    fn another_key_or_another_issuer_that_is_asked_has_verified_nothing_yet() {
        let (mut digester, known) = (Digester::default(), label(1));
        let [ours, theirs] = [0x11, 0x22].map(|octet| key(octet).verifying_key());
        let first = digester.digest(&known, &did(LABELER), &ours);
        assert_ne!(digester.digest(&known, &did(LABELER), &theirs), first);
        assert_ne!(digester.digest(&known, &did("did:web:other.example.test"), &ours), first);
        assert_eq!(digester.digest(&known, &did(LABELER), &ours), first);
    }

    #[test]
    fn digests_are_read_as_they_were_written_the_last_of_them() {
        let digests: Vec<_> = (0..20).map(|nth| digest(&label(nth))).collect();
        let verified = Verified::of(digests.clone());
        let text = serde_json::to_string(&verified).unwrap();
        assert_eq!(serde_json::from_str::<Verified>(&text).unwrap(), verified);
        assert_eq!((verified.len(), verified.has(&digests[19]), verified.has(&digests[11])), (8, true, false));
        for wrong in [r#"["AAAA"]"#, r#"["!"]"#, "[1]", "{}"] {
            assert!(serde_json::from_str::<Verified>(wrong).is_err(), "{wrong}");
        }
    }
}
