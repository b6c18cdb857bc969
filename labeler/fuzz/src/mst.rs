//! Search trees for proofs: built as the specification says, or as a liar might, and a full walk that knows what is in them.
//!
//! Written from the atproto repository specification and not from `atproto::proof`, which it is held against.

use std::collections::{BTreeMap, HashMap};

use atproto::key::SigningKey;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) l: Option<Cid>,
    pub(crate) e: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) p: usize,
    #[serde(with = "serde_bytes")]
    pub(crate) k: Vec<u8>,
    pub(crate) v: Cid,
    pub(crate) t: Option<Cid>,
}

/// Blocks by CID.
pub(crate) type Blocks = HashMap<Cid, Vec<u8>>;

pub(crate) fn put(octets: Vec<u8>, blocks: &mut Blocks) -> Cid {
    let cid = Cid::new_v1(0x71, Multihash::wrap(0x12, digest(&SHA256, &octets).as_ref()).unwrap());
    blocks.insert(cid, octets);
    cid
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).unwrap()
}

/// The tree over these records, as it must be; its root.
pub(crate) fn build(records: &BTreeMap<Vec<u8>, Cid>, blocks: &mut Blocks) -> Cid {
    let leaves: Vec<(&[u8], Cid, u32)> = records.iter().map(|(key, cid)| (key.as_slice(), *cid, layer(key))).collect();
    let top = leaves.iter().map(|leaf| leaf.2).max().unwrap_or(0);
    subtree(&leaves, top, blocks).unwrap_or_else(|| put(encode(&Node { l: None, e: Vec::new() }), blocks))
}

fn subtree(leaves: &[(&[u8], Cid, u32)], layer: u32, blocks: &mut Blocks) -> Option<Cid> {
    if leaves.is_empty() {
        return None;
    }
    let mut below = |run: &[(&[u8], Cid, u32)]| layer.checked_sub(1).and_then(|below| subtree(run, below, blocks));
    let mut runs = leaves.split(|leaf| leaf.2 == layer);
    let l = below(runs.next().unwrap_or_default());
    let mut before: &[u8] = b"";
    let mut e = Vec::new();
    for (key, v, _) in leaves.iter().filter(|leaf| leaf.2 == layer) {
        let p = before.iter().zip(*key).take_while(|(a, b)| a == b).count();
        e.push(Entry { p, k: key[p..].to_vec(), v: *v, t: below(runs.next().unwrap_or_default()) });
        before = key;
    }
    Some(put(encode(&Node { l, e }), blocks))
}

/// Everything that the nodes below `root` hold, in whatever order: also what a search would not come by.
pub(crate) fn walk(root: Cid, blocks: &Blocks) -> Vec<(Vec<u8>, Cid)> {
    let (mut found, mut next, mut steps) = (Vec::new(), vec![root], 0);
    while let Some(cid) = next.pop() {
        steps += 1;
        assert!(steps < 10_000, "the trees here are small");
        let Some(node) = blocks.get(&cid).and_then(|octets| serde_ipld_dagcbor::from_slice::<Node>(octets).ok()) else {
            continue;
        };
        next.extend(node.l);
        let mut before = Vec::new();
        for entry in node.e {
            let Some(shared) = before.get(..entry.p) else { break };
            let key = [shared, &entry.k].concat();
            found.push((key.clone(), entry.v));
            before = key;
            next.extend(entry.t);
        }
    }
    found
}

/// A signed commit over the tree and a CAR of all blocks but `left_out`.
pub(crate) fn car(did: &str, root: Cid, key: &SigningKey, blocks: &Blocks, left_out: Option<Cid>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Commit<'a> {
        did: &'a str,
        version: u8,
        data: Cid,
        rev: &'a str,
        prev: Option<Cid>,
        #[serde(skip_serializing_if = "Option::is_none", with = "serde_bytes")]
        sig: Option<Vec<u8>>,
    }
    #[derive(Serialize)]
    struct Header {
        roots: [Cid; 1],
        version: u8,
    }
    let mut commit = Commit { did, version: 3, data: root, rev: "3n2xtohno522w", prev: None, sig: None };
    commit.sig = Some(key.sign(&encode(&commit)).to_vec());
    let mut all = BTreeMap::from_iter(blocks.iter().filter(|(cid, _)| Some(**cid) != left_out));
    let mut one = Blocks::new();
    let head = put(encode(&commit), &mut one);
    all.extend(&one);
    let mut car = Vec::new();
    let mut section = |parts: &[&[u8]]| {
        let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
        while length >= 0x80 {
            car.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        car.push(length as u8);
        parts.iter().for_each(|part| car.extend_from_slice(part));
    };
    section(&[&encode(&Header { roots: [head], version: 1 })]);
    for (cid, octets) in all {
        section(&[&cid.to_bytes(), octets]);
    }
    car
}

/// Pairs of leading zero bits of the key's hash.
fn layer(key: &[u8]) -> u32 {
    let hash = digest(&SHA256, key);
    let first = u64::from_be_bytes(hash.as_ref()[..8].try_into().unwrap());
    first.leading_zeros() / 2
}
