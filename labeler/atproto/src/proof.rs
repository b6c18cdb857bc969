//! Repository proofs: is this really what the holder of a DID wrote under `collection/rkey`?
//!
//! `com.atproto.sync.getRecord` answers with a CAR of the signed commit, the nodes of the search tree (MST) on the way to the key, and the
//! record if there is one. Who serves it need not be trusted: every hash is checked, the commit names the DID and is signed by its
//! `#atproto` key, and the path through the tree shows that the record is there, or that it is not.
//!
//! Not here: fetching (the labeler's business), and whether the commit is the newest: a PDS can answer with an older one. `rev` grows with
//! every commit, so whoever saw a later one before knows.

use std::collections::BTreeMap;

use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use crate::car::{Car, CarError};
use crate::did::{Did, VerifyingKey};

/// SHA-256 has 128 pairs of leading zero bits, but a key whose hash has 32 of them has cost its maker 2^64 tries.
const LAYERS_MAX: usize = 32;

/// What a repository says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The revision that says so. Later revisions are greater, as text.
    pub rev: String,
    /// The record, or `None` when it is proven to be absent.
    pub record: Option<Record>,
}

/// A record as it stands in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its hash.
    pub cid: Cid,
    /// Its DAG-CBOR.
    pub octets: Vec<u8>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a CAR, or one with wrong hashes.
    #[error("CAR: {0}")]
    Car(#[from] CarError),
    /// The root is not a commit of version 3.
    #[error("commit: {0}")]
    Commit(&'static str),
    /// The commit is of another account.
    #[error("the commit is of {0}")]
    OtherAccount(String),
    /// The commit's signature is not of the DID's key. It may have been rotated: resolve the DID again and retry once.
    #[error("the commit's signature does not verify with the #atproto key of the DID")]
    BadSignature,
    /// The tree is not an MST.
    #[error("search tree: {0}")]
    Tree(&'static str),
    /// A block on the way was not sent.
    #[error("block {0} is needed and was not sent")]
    Missing(Cid),
}

/// Checks the answer of `com.atproto.sync.getRecord` for `collection/rkey` of `did`, whose `#atproto` key is `key`.
pub fn verify(car: &[u8], did: &Did, key: &VerifyingKey, collection: &str, rkey: &str) -> Result<Proof, ProofError> {
    let car = Car::parse(car)?;
    let root = car.roots.first().ok_or(ProofError::Commit("no root"))?;
    let commit = commit(block(&car, root)?, did, key)?;
    let record = match find(&car, commit.data, format!("{collection}/{rkey}").as_bytes())? {
        Some(cid) => Some(Record { cid, octets: block(&car, &cid)?.to_vec() }),
        None => None,
    };
    Ok(Proof { rev: commit.rev, record })
}

struct Commit {
    data: Cid,
    rev: String,
}

/// The signature covers the commit as it was written, without `sig`: fields that we do not know included.
fn commit(octets: &[u8], did: &Did, key: &VerifyingKey) -> Result<Commit, ProofError> {
    let mut fields: BTreeMap<String, Ipld> =
        serde_ipld_dagcbor::from_slice(octets).map_err(|_| ProofError::Commit("not a map"))?;
    let Some(Ipld::Bytes(signature)) = fields.remove("sig") else {
        return Err(ProofError::Commit("no signature"));
    };
    if fields.get("version") != Some(&Ipld::Integer(3)) {
        return Err(ProofError::Commit("not version 3"));
    }
    match fields.get("did") {
        Some(Ipld::String(found)) if found == did.as_str() => {}
        Some(Ipld::String(found)) => return Err(ProofError::OtherAccount(found.chars().take(200).collect())),
        _ => return Err(ProofError::Commit("no DID")),
    }
    let unsigned = serde_ipld_dagcbor::to_vec(&fields).map_err(|_| ProofError::Commit("cannot be encoded"))?;
    key.verify(&unsigned, &signature).map_err(|_| ProofError::BadSignature)?;
    match (fields.get("data"), fields.get("rev")) {
        (Some(Ipld::Link(data)), Some(Ipld::String(rev))) => Ok(Commit { data: *data, rev: rev.clone() }),
        _ => Err(ProofError::Commit("no tree or no revision")),
    }
}

#[derive(Deserialize)]
struct Node {
    /// Keys below all entries.
    l: Option<Cid>,
    e: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Octets shared with the key before.
    p: usize,
    /// The rest of the key.
    #[serde(with = "serde_bytes")]
    k: Vec<u8>,
    /// The record.
    v: Cid,
    /// Keys between this entry and the next.
    t: Option<Cid>,
}

/// Walks down to `key`. Order and layers are checked on the way, so that a misbuilt tree cannot hide what it has.
fn find(car: &Car<'_>, root: Cid, key: &[u8]) -> Result<Option<Cid>, ProofError> {
    let (mut at, mut low, mut high, mut layer) = (root, None::<Vec<u8>>, None::<Vec<u8>>, None::<u32>);
    for _ in 0..LAYERS_MAX {
        let node: Node = serde_ipld_dagcbor::from_slice(block(car, &at)?).map_err(|_| ProofError::Tree("not a node"))?;
        if node.e.is_empty() && node.l.is_none() && at != root {
            return Err(ProofError::Tree("an empty node below the root"));
        }
        let mut next = node.l;
        let mut before: Option<Vec<u8>> = None;
        let (mut below, mut above) = (None::<Vec<u8>>, None::<Vec<u8>>);
        for entry in &node.e {
            let shared = before
                .as_deref()
                .unwrap_or_default()
                .get(..entry.p)
                .ok_or(ProofError::Tree("a prefix longer than the key before"))?;
            let full = [shared, &entry.k].concat();
            if before.as_ref().or(low.as_ref()).is_some_and(|bound| full <= *bound)
                || high.as_ref().is_some_and(|bound| full >= *bound)
            {
                return Err(ProofError::Tree("keys out of order"));
            }
            if *layer.get_or_insert(layer_of(&full)) != layer_of(&full) {
                return Err(ProofError::Tree("a key in another layer"));
            }
            if full == key {
                return Ok(Some(entry.v));
            }
            if *full < *key {
                (next, below) = (entry.t, Some(full.clone()));
            } else if above.is_none() {
                above = Some(full.clone());
            }
            before = Some(full);
        }
        // The bounds of the gap that the key falls into: the entries before and after it, or those of the node above.
        low = below.or(low);
        high = above.or(high);
        match next {
            None => return Ok(None),
            Some(cid) => at = cid,
        }
        layer = match layer {
            Some(0) => return Err(ProofError::Tree("something below the lowest layer")),
            Some(layer) => Some(layer - 1),
            None => None,
        };
    }
    Err(ProofError::Tree("too deep"))
}

/// Pairs of leading zero bits of the key's hash (atproto repository spec, "MST Structure").
fn layer_of(key: &[u8]) -> u32 {
    let hash = digest(&SHA256, key);
    let mut zeros = 0;
    for octet in hash.as_ref() {
        zeros += octet.leading_zeros();
        if *octet != 0 {
            break;
        }
    }
    zeros / 2
}

fn block<'a>(car: &Car<'a>, cid: &Cid) -> Result<&'a [u8], ProofError> {
    car.block(cid).ok_or(ProofError::Missing(*cid))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by a real PDS (0.5): the record is there. In `loadtest::atnet` are proofs over larger trees, and of absence.
    const CAR: &[u8] = include_bytes!("../tests/samples/getRecord.car");
    const COLLECTION: &str = "email.atmos.attestation";
    const RKEY: &str = "member.example";

    fn account() -> (Did, VerifyingKey) {
        let said: serde_json::Value = serde_json::from_str(include_str!("../tests/samples/getRecord.json")).unwrap();
        let key = VerifyingKey::from_did_key(said["key"].as_str().unwrap()).unwrap();
        (said["did"].as_str().unwrap().parse().unwrap(), key)
    }

    fn check(car: &[u8], rkey: &str) -> Result<Proof, ProofError> {
        let (did, key) = account();
        verify(car, &did, &key, COLLECTION, rkey)
    }

    #[test]
    fn the_record_of_a_real_pds_is_proven() {
        let proof = check(CAR, RKEY).unwrap();
        assert_eq!(proof.rev, "3n2xtohno522w");
        let attestation = crate::lexicon::Attestation::read(&proof.record.unwrap().octets, RKEY).unwrap();
        assert_eq!(attestation.dkim_selectors, ["atmos1r", "atmos1e"]);
        assert!(attestation.wants_relay());
    }

    #[test]
    fn other_keys_are_proven_absent_where_the_tree_shows_it() {
        for rkey in ["aaa.example", "zzz.example", "member.examplf", "member.exampl"] {
            assert_eq!(check(CAR, rkey).unwrap().record, None, "{rkey}");
        }
    }

    #[test]
    fn another_account_or_key_proves_nothing() {
        let (did, key) = account();
        let other = crate::did::SigningKey::from_octets(&[0x11; 32]).unwrap().verifying_key();
        assert_eq!(verify(CAR, &did, &other, COLLECTION, RKEY), Err(ProofError::BadSignature));
        let stranger = "did:plc:stranger".parse().unwrap();
        assert_eq!(verify(CAR, &stranger, &key, COLLECTION, RKEY), Err(ProofError::OtherAccount(did.into())));
    }

    #[test]
    fn every_flipped_bit_is_refused_or_changes_nothing() {
        let honest = check(CAR, RKEY).unwrap();
        let mut refused = 0;
        for bit in 0..CAR.len() * 8 {
            let mut flipped = CAR.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match check(&flipped, RKEY) {
                Ok(proof) => assert_eq!(proof, honest, "bit {bit} changes what is proven"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > CAR.len() * 8 * 9 / 10, "{refused}");
    }

    #[test]
    fn every_shorter_file_is_refused() {
        for length in 0..CAR.len() {
            assert!(check(&CAR[..length], RKEY).is_err(), "{length}");
        }
    }

    #[test]
    fn rubbish_is_an_error() {
        let (did, key) = account();
        for car in [&[0xff; 64][..], &[0x00], &[0x01, 0xa0], &vec![0u8; crate::car::CAR_BYTES_MAX + 1], &[0x80; 20]] {
            assert!(verify(car, &did, &key, COLLECTION, RKEY).is_err());
        }
    }
}
