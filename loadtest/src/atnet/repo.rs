//! A repository as a PDS keeps it: records in a search tree (MST), each state signed, and proofs of single records.
//!
//! Written from the atproto repository specification and not from `atproto::proof`, which it is used to test. The tree is built anew for each
//! commit: the repositories here are small.

use std::collections::{BTreeMap, HashMap};

use atproto::key::SigningKey;
use ipld_core::cid::Cid;
use ipld_core::cid::multihash::Multihash;
use ring::digest::{SHA256, digest};
use serde::Serialize;

/// DAG-CBOR and SHA-256 of multicodec.
const DAG_CBOR: u64 = 0x71;
const SHA2_256: u64 = 0x12;

/// The CID of a DAG-CBOR block.
pub fn cid_of(octets: &[u8]) -> Cid {
    match Multihash::wrap(SHA2_256, digest(&SHA256, octets).as_ref()) {
        Ok(hash) => Cid::new_v1(DAG_CBOR, hash),
        Err(_) => unreachable!("a SHA-256 fits"),
    }
}

/// One account's records, and the commit that signs them.
pub(crate) struct Repo {
    did: String,
    key: SigningKey,
    records: BTreeMap<String, Vec<u8>>,
    tree: Tree,
    commit: Vec<u8>,
    rev: String,
}

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

impl Repo {
    /// An empty repository, signed.
    pub(crate) fn new(did: &str, key: SigningKey, rev: String) -> Self {
        let mut repo = Self {
            did: did.into(),
            key,
            records: BTreeMap::new(),
            tree: Tree::build(&BTreeMap::new()),
            commit: Vec::new(),
            rev: String::new(),
        };
        repo.commit(rev);
        repo
    }

    /// Writes or deletes `collection/rkey` and signs the new state. Returns the record's CID.
    pub(crate) fn write(&mut self, path: &str, record: Option<Vec<u8>>, rev: String) -> Option<Cid> {
        let cid = record.as_deref().map(cid_of);
        match record {
            Some(octets) => self.records.insert(path.into(), octets),
            None => self.records.remove(path),
        };
        self.commit(rev);
        cid
    }

    pub(super) fn commit(&mut self, rev: String) {
        self.rev = rev;
        self.tree = Tree::build(&self.records);
        let mut commit = Commit { did: &self.did, version: 3, data: self.tree.root, rev: &self.rev, prev: None, sig: None };
        commit.sig = Some(self.key.sign(&encode(&commit)).to_vec());
        self.commit = encode(&commit);
    }

    /// The octets of a record.
    pub(super) fn record(&self, path: &str) -> Option<&[u8]> {
        self.records.get(path).map(Vec::as_slice)
    }

    /// The paths of a collection's records.
    pub(super) fn paths(&self, collection: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{collection}/");
        self.records.keys().map(String::as_str).filter(move |path| path.starts_with(&prefix))
    }

    /// The revision of the newest commit.
    pub(super) fn rev(&self) -> &str {
        &self.rev
    }

    /// The CID of the newest commit.
    pub(super) fn head(&self) -> Cid {
        cid_of(&self.commit)
    }

    /// What `com.atproto.sync.getRecord` answers: commit, tree nodes on the way, and the record if it is there.
    pub(crate) fn proof(&self, path: &str) -> Vec<u8> {
        let record = self.record(path);
        let nodes = self.tree.way(path.as_bytes());
        car(self.head(), [self.commit.as_slice()].into_iter().chain(record).chain(nodes))
    }

    /// The same with the octets of the commit given: for proofs that must be refused.
    pub(super) fn proof_with(&self, path: &str, key: &SigningKey) -> Vec<u8> {
        let mut commit = Commit { did: &self.did, version: 3, data: self.tree.root, rev: &self.rev, prev: None, sig: None };
        commit.sig = Some(key.sign(&encode(&commit)).to_vec());
        let commit = encode(&commit);
        let nodes = self.tree.way(path.as_bytes());
        car(cid_of(&commit), [commit.as_slice()].into_iter().chain(self.record(path)).chain(nodes))
    }
}

/// A CAR file, version 1.
fn car<'a>(root: Cid, blocks: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Header {
        roots: Vec<Cid>,
        version: u8,
    }
    let mut car = Vec::new();
    let header = encode(&Header { roots: vec![root], version: 1 });
    varint(&mut car, header.len());
    car.extend(header);
    for block in blocks {
        let cid = cid_of(block).to_bytes();
        varint(&mut car, cid.len() + block.len());
        car.extend(cid);
        car.extend(block);
    }
    car
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// DAG-CBOR of what cannot fail to be encoded.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match serde_ipld_dagcbor::to_vec(value) {
        Ok(octets) => octets,
        Err(_) => unreachable!("plain structures can be encoded"),
    }
}

/// Every node of the search tree, by CID.
struct Tree {
    root: Cid,
    nodes: HashMap<Cid, Node>,
}

struct Node {
    octets: Vec<u8>,
    left: Option<Cid>,
    /// Key, and the subtree after it.
    entries: Vec<(Vec<u8>, Option<Cid>)>,
}

struct Leaf {
    key: Vec<u8>,
    value: Cid,
    layer: u32,
}

impl Tree {
    fn build(records: &BTreeMap<String, Vec<u8>>) -> Self {
        let leaf = |(path, octets): (&String, &Vec<u8>)| Leaf {
            key: path.clone().into(),
            value: cid_of(octets),
            layer: layer(path.as_bytes()),
        };
        let leaves: Vec<Leaf> = records.iter().map(leaf).collect();
        let top = leaves.iter().map(|leaf| leaf.layer).max().unwrap_or(0);
        let mut nodes = HashMap::new();
        let root = match subtree(&leaves, top, &mut nodes) {
            Some(root) => root,
            None => node(None, &[], &[], &mut nodes),
        };
        Self { root, nodes }
    }

    /// The nodes from the root to where `key` is or would be.
    fn way(&self, key: &[u8]) -> Vec<&[u8]> {
        let (mut way, mut next) = (Vec::new(), Some(self.root));
        while let Some(node) = next.and_then(|cid| self.nodes.get(&cid)) {
            way.push(node.octets.as_slice());
            let before = node.entries.iter().take_while(|(entry, _)| entry.as_slice() <= key).last();
            next = match before {
                Some((entry, _)) if entry == key => None,
                Some((_, after)) => *after,
                None => node.left,
            };
        }
        way
    }
}

/// Keys of this layer are entries of the node; the runs between them are subtrees one layer down.
fn subtree(leaves: &[Leaf], layer: u32, nodes: &mut HashMap<Cid, Node>) -> Option<Cid> {
    if leaves.is_empty() {
        return None;
    }
    let mut runs = leaves.split(|leaf| leaf.layer == layer);
    let below = |run: &[Leaf], nodes: &mut HashMap<Cid, Node>| layer.checked_sub(1).and_then(|below| subtree(run, below, nodes));
    let left = below(runs.next().unwrap_or_default(), nodes);
    let after: Vec<Option<Cid>> = runs.map(|run| below(run, nodes)).collect();
    let own: Vec<&Leaf> = leaves.iter().filter(|leaf| leaf.layer == layer).collect();
    Some(node(left, &own, &after, nodes))
}

fn node(left: Option<Cid>, leaves: &[&Leaf], after: &[Option<Cid>], nodes: &mut HashMap<Cid, Node>) -> Cid {
    #[derive(Serialize)]
    struct Wire<'a> {
        l: Option<Cid>,
        e: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        p: usize,
        #[serde(with = "serde_bytes")]
        k: &'a [u8],
        v: Cid,
        t: Option<Cid>,
    }
    let mut before: &[u8] = &[];
    let mut e = Vec::new();
    for (leaf, t) in leaves.iter().zip(after) {
        let p = before.iter().zip(&leaf.key).take_while(|(a, b)| a == b).count();
        e.push(Entry { p, k: &leaf.key[p..], v: leaf.value, t: *t });
        before = &leaf.key;
    }
    let octets = encode(&Wire { l: left, e });
    let cid = cid_of(&octets);
    let entries = leaves.iter().zip(after).map(|(leaf, t)| (leaf.key.clone(), *t)).collect();
    nodes.insert(cid, Node { octets, left, entries });
    cid
}

/// Leading zero bits of the hash, in pairs.
fn layer(key: &[u8]) -> u32 {
    let hash = digest(&SHA256, key);
    let bits = hash.as_ref().iter().flat_map(|octet| (0..4).rev().map(move |pair| octet >> (2 * pair) & 3));
    bits.take_while(|pair| *pair == 0).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use atproto::proof::{ProofError, verify};

    fn key(octet: u8) -> SigningKey {
        SigningKey::from_octets(&[octet; 32]).unwrap()
    }

    fn repo(records: usize) -> Repo {
        let mut repo = Repo::new("did:plc:abc", key(7), "3n2xtohno522w".into());
        for n in 0..records {
            repo.records.insert(format!("email.atmos.attestation/member-{n}.example"), encode(&n));
        }
        repo.commit("3n2xtohno522x".into());
        repo
    }

    #[test]
    fn layers_are_those_of_the_specification() {
        for (key, expected) in
            [("2653ae71", 0), ("blue", 1), ("app.bsky.feed.post/454397e440ec", 4), ("app.bsky.feed.post/9adeb165882c", 8)]
        {
            assert_eq!(layer(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        // atproto interop tests, mst/known-maps (value bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454).
        let value: Cid = "bafyreie5cvv4h45feadgeuwhbcutmh6t2ceseocckahdoe6uat64zmz454".parse().unwrap();
        let root = |keys: &[&str]| {
            let leaves: Vec<Leaf> =
                keys.iter().map(|key| Leaf { key: key.as_bytes().into(), value, layer: layer(key.as_bytes()) }).collect();
            let top = leaves.iter().map(|leaf| leaf.layer).max().unwrap_or(0);
            subtree(&leaves, top, &mut HashMap::new()).unwrap().to_string()
        };
        assert_eq!(Tree::build(&BTreeMap::new()).root.to_string(), "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm");
        assert_eq!(root(&["com.example.record/3jqfcqzm3fo2j"]), "bafyreibj4lsc3aqnrvphp5xmrnfoorvru4wynt6lwidqbm2623a6tatzdu");
        assert_eq!(root(&["com.example.record/3jqfcqzm3fx2j"]), "bafyreih7wfei65pxzhauoibu3ls7jgmkju4bspy4t2ha2qdjnzqvoy33ai");
    }

    #[test]
    fn every_record_of_a_tree_is_proven_and_every_other_is_proven_absent() {
        for records in [0, 1, 2, 30, 500] {
            let repo = repo(records);
            let did = "did:plc:abc".parse().unwrap();
            let check = |rkey: &str| {
                let car = repo.proof(&format!("email.atmos.attestation/{rkey}"));
                verify(&car, &did, &key(7).verifying_key(), "email.atmos.attestation", rkey).unwrap().record
            };
            for n in 0..records {
                assert_eq!(check(&format!("member-{n}.example")).unwrap().octets, encode(&n));
                assert_eq!(check(&format!("member-{n}.exampl")), None);
            }
            assert_eq!(check("zzz"), None);
        }
    }

    #[test]
    fn a_proof_of_another_key_does_not_hide_a_record() {
        let repo = repo(500);
        let did = "did:plc:abc".parse().unwrap();
        for n in 0..500 {
            let car = repo.proof(&format!("email.atmos.attestation/member-{}.example", (n + 250) % 500));
            let rkey = format!("member-{n}.example");
            match verify(&car, &did, &key(7).verifying_key(), "email.atmos.attestation", &rkey) {
                Ok(proof) => assert!(proof.record.is_some(), "{n} is there"),
                Err(error) => assert!(matches!(error, ProofError::Missing(_)), "{error}"),
            }
        }
    }

    #[test]
    fn a_misbuilt_tree_is_no_proof_of_absence() {
        let did = "did:plc:abc".parse().unwrap();
        // Everything in one flat node: keys of several layers side by side.
        let mut repo = repo(0);
        let mut leaves: Vec<Leaf> = (0..50)
            .map(|n| Leaf { key: format!("email.atmos.attestation/member-{n:02}.example").into(), value: cid_of(b"x"), layer: 0 })
            .collect();
        leaves.reverse();
        for (order, leaves) in [("reversed", leaves.iter().collect::<Vec<_>>()), ("flat", leaves.iter().rev().collect())] {
            let mut nodes = HashMap::new();
            let root = node(None, &leaves, &vec![None; leaves.len()], &mut nodes);
            repo.tree = Tree { root, nodes };
            let car = repo.proof_with("email.atmos.attestation/zzz", &key(7));
            let found = verify(&car, &did, &key(7).verifying_key(), "email.atmos.attestation", "zzz");
            assert!(matches!(found, Err(ProofError::Tree(_))), "{order}: {found:?}");
        }
    }

    #[test]
    fn a_commit_signed_by_another_key_is_refused() {
        let repo = repo(3);
        let path = "email.atmos.attestation/member-1.example";
        let found = verify(
            &repo.proof_with(path, &key(8)),
            &"did:plc:abc".parse().unwrap(),
            &key(7).verifying_key(),
            "email.atmos.attestation",
            "member-1.example",
        );
        assert_eq!(found, Err(ProofError::BadSignature));
    }
}
