//! Every input that a fuzzer found worth keeping, and some thousand mutations of them, without a fuzzer: what was mended stays mended.
#![allow(clippy::unwrap_used, reason = "tests end where something is wrong")]

use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target, target};

/// Mutations of each target: some seconds without optimisation.
const MUTATIONS: usize = 1500;
/// What a repository can carry without being asked.
const CORPUS_BYTES_MAX: usize = 1 << 20;
const FILES_MAX: usize = 80;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The inputs of one target as they are, then mutated; a failure names what it was fed.
fn check(name: &str) {
    let (target, corpus) = (target(name).unwrap(), corpus(name));
    assert!(corpus.len() >= 10, "{name}: a corpus of {} inputs", corpus.len());
    for (path, octets) in &corpus {
        feed(target, octets, &path.display().to_string());
    }
    let mut dice = Dice(0x5eed_0001);
    for round in 0..MUTATIONS {
        feed(target, &mutated(&mut dice, &corpus), &format!("{name}, mutation {round}"));
    }
}

fn feed(target: Target, octets: &[u8], what: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| target(octets)) {
        println!("{what}: {}", octets.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

/// xorshift: a seed reproduces any failure.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n.max(1) as u64).unwrap()
    }
}

fn mutated(dice: &mut Dice, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut octets = corpus[dice.below(corpus.len())].1.clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(octets.len() + 1);
        let upto = (at + dice.below(20)).min(octets.len());
        match dice.below(5) {
            0 if at < octets.len() => octets[at] ^= 1 << dice.below(8),
            1 if at < octets.len() => octets[at] = u8::try_from(dice.below(256)).unwrap(),
            2 => drop(octets.drain(at..upto)),
            3 => drop(octets.splice(at..at, octets[at..upto].to_vec().repeat(1 + dice.below(20)))),
            _ => {
                let other = &corpus[dice.below(corpus.len())].1;
                let from = dice.below(other.len() + 1);
                drop(octets.splice(at..at, other[from..(from + 40).min(other.len())].to_vec()));
            }
        }
    }
    octets
}

#[test]
fn labels_hold_their_promises() {
    check("label");
}

#[test]
fn proofs_hold_their_promises() {
    check("car");
}

#[test]
fn did_documents_hold_their_promises() {
    check("did");
}

#[test]
fn records_of_domains_hold_their_promises() {
    check("txt");
}

#[test]
fn tokens_hold_their_promises() {
    check("jwt");
}

#[test]
fn frames_hold_their_promises() {
    check("frames");
}

#[test]
fn every_target_has_a_corpus_and_all_of_them_are_small() {
    let folders = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")).unwrap();
    let names: Vec<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(TARGETS.iter().all(|(name, _)| names.iter().any(|folder| folder == name)));
    let mut octets = 0;
    for name in &names {
        let corpus = corpus(name);
        assert!(corpus.len() <= FILES_MAX, "{name} has {} inputs; `labeler fuzz` keeps the best", corpus.len());
        octets += corpus.iter().map(|(_, octets)| octets.len()).sum::<usize>();
    }
    assert!(octets <= CORPUS_BYTES_MAX, "{octets} octets");
}
