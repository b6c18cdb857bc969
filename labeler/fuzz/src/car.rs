//! CARs and proofs: of a real PDS with octets changed, over trees that are right with blocks left out, over trees of a liar; and the
//! attestation that a proof ends in.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use atproto::car::Car;
use atproto::did::{Did, VerifyingKey};
use atproto::lexicon::{ATTESTATION, Attestation, canonical_domain, check_domain};
use atproto::proof::{Proof, ProofError, verify};
use ipld_core::cid::Cid;
use serde_json::Value;

use crate::draw::Draw;
use crate::label::key;
use crate::mst::{self, Blocks, Entry, Node};

const SAMPLE: &[u8] = include_bytes!("../../atproto/tests/samples/getRecord.car");
const SAMPLE_OF: &str = include_str!("../../atproto/tests/samples/getRecord.json");
const DID: &str = "did:plc:abc";
const DEPTH_MAX: usize = 5;

pub(crate) fn fuzz(octets: &[u8]) {
    let Some((&kind, rest)) = octets.split_first() else { return };
    match kind & 3 {
        0 => of_a_pds(rest),
        1 => right_tree(&mut Draw(rest)),
        2 => liars_tree(&mut Draw(rest)),
        _ => attestation(rest),
    }
}

/// Whatever is made of the one proof that its key ever signed: it proves the same, or nothing.
fn of_a_pds(octets: &[u8]) {
    static HONEST: OnceLock<(Did, VerifyingKey, Proof)> = OnceLock::new();
    let (did, key, honest) = HONEST.get_or_init(|| {
        let said: Value = serde_json::from_str(SAMPLE_OF).unwrap();
        let did: Did = said["did"].as_str().unwrap().parse().unwrap();
        let key = VerifyingKey::from_did_key(said["key"].as_str().unwrap()).unwrap();
        let proof = verify(SAMPLE, &did, &key, ATTESTATION, "member.example").unwrap();
        (did, key, proof)
    });
    if let Ok(proof) = verify(octets, did, key, ATTESTATION, "member.example") {
        assert_eq!(proof, *honest, "something else is proven");
    }
    if let Ok(proof) = verify(octets, did, key, ATTESTATION, "other.example") {
        assert_eq!((proof.rev, proof.record), (honest.rev.clone(), None));
    }
    if let Ok(car) = Car::parse(octets) {
        for root in &car.roots {
            assert!(car.block(root).is_none_or(|block| mst::put(block.to_vec(), &mut Blocks::new()).hash() == root.hash()));
        }
    }
}

/// A tree as it must be, with a block left out: what is there is found, what is not is proven absent, or a block is missing.
fn right_tree(draw: &mut Draw<'_>) {
    let mut blocks = Blocks::new();
    let mut records = BTreeMap::new();
    let wanted = draw.below(64);
    for nth in 0..draw.below(48) {
        let rkey = if draw.octet() < 200 { format!("m{nth}.example") } else { draw.text() };
        let cid = mst::put(mst::encode(&nth), &mut blocks);
        records.insert(format!("{ATTESTATION}/{rkey}").into_bytes(), cid);
    }
    let root = mst::build(&records, &mut blocks);
    let mut cids: Vec<Cid> = blocks.keys().copied().collect();
    cids.sort();
    let left_out = if draw.is() { Some(draw.one(&cids)) } else { None };
    let car = mst::car(DID, root, &key(0x11), &blocks, left_out);
    let rkey = format!("m{wanted}.example");
    let expected = records.get(format!("{ATTESTATION}/{rkey}").as_bytes());
    match verify(&car, &DID.parse().unwrap(), &key(0x11).verifying_key(), ATTESTATION, &rkey) {
        Ok(proof) => assert_eq!(proof.record.map(|record| record.cid).as_ref(), expected),
        Err(ProofError::Missing(cid)) => assert_eq!(Some(cid), left_out),
        Err(error) => panic!("an honest proof is refused: {error}"),
    }
    if draw.is() {
        let forged = verify(&car, &DID.parse().unwrap(), &key(0x12).verifying_key(), ATTESTATION, &rkey);
        assert!(matches!(forged, Err(ProofError::BadSignature)));
    }
}

/// Any nodes, rightly signed: nothing is found that is nowhere.
fn liars_tree(draw: &mut Draw<'_>) {
    let mut blocks = Blocks::new();
    let value = mst::put(mst::encode(&0), &mut blocks);
    let root = any_node(draw, DEPTH_MAX, value, &mut blocks);
    let car = mst::car(DID, root, &key(0x11), &blocks, None);
    let rkey = format!("m{}.example", draw.below(9));
    let Ok(proof) = verify(&car, &DID.parse().unwrap(), &key(0x11).verifying_key(), ATTESTATION, &rkey) else { return };
    if let Some(record) = proof.record {
        let path = format!("{ATTESTATION}/{rkey}").into_bytes();
        assert!(mst::walk(root, &blocks).contains(&(path, record.cid)), "found, and nowhere in the tree");
        assert_eq!(blocks.get(&record.cid), Some(&record.octets));
    }
}

fn any_node(draw: &mut Draw<'_>, depth: usize, value: Cid, blocks: &mut Blocks) -> Cid {
    let below = |draw: &mut Draw<'_>, blocks: &mut Blocks| {
        (depth > 0 && !draw.is_empty() && draw.below(3) == 1).then(|| any_node(draw, depth - 1, value, blocks))
    };
    let l = below(draw, blocks);
    let mut e = Vec::new();
    for nth in 0..draw.below(4) {
        let (p, k) = match draw.below(4) {
            0 => (0, format!("{ATTESTATION}/m{}.example", draw.below(9)).into_bytes()),
            1 if nth > 0 => (ATTESTATION.len() + 1, format!("m{}.example", draw.below(9)).into_bytes()),
            _ => (draw.below(64), draw.octets().to_vec()),
        };
        e.push(Entry { p, k, v: value, t: below(draw, blocks) });
    }
    let node = mst::encode(&Node { l, e });
    // Some are no nodes at all.
    if draw.octet() == 255 { mst::put(draw.octets().to_vec(), blocks) } else { mst::put(node, blocks) }
}

/// One that is read is within the limits, is written so that it reads back, and lies under the only spelling of its domain.
fn attestation(octets: &[u8]) {
    let mut draw = Draw(octets);
    let rkey = draw.text();
    for rkey in [rkey.as_str(), "member.example"] {
        if let Ok(read) = Attestation::read(draw.0, rkey) {
            assert!(read.domain == rkey && check_domain(rkey).is_ok());
            assert_eq!(Attestation::read(&read.to_cbor(), rkey).as_ref(), Ok(&read));
        }
    }
    if check_domain(&rkey).is_ok() {
        assert_eq!(canonical_domain(&rkey).as_deref(), Some(rkey.as_str()), "a second spelling");
    }
    if let Some(canonical) = canonical_domain(&rkey) {
        assert_eq!(canonical_domain(&canonical).as_deref(), Some(canonical.as_str()));
    }
}
