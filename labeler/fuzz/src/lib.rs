//! Fuzz targets: octets of strangers in, promises of the parsers asserted. A broken promise is a panic.
//!
//! | target | what it is fed to | what must hold besides that it comes to an end |
//! |---|---|---|
//! | `label` | labels in DAG-CBOR and JSON, pages of `queryLabels` | they read back as they were; a signature holds in both forms, and for nothing else |
//! | `car` | CARs, proofs over search trees, attestations | nothing is proven that the key's holder did not write, nothing hidden that was |
//! | `did` | DID documents, did:web, keys, domains | endpoints are bare origins, keys read back, a spelling is the only one |
//! | `txt` | TXT records of a domain, judged | a verdict follows from its checks; what we tell people to publish passes |
//! | `jwt` | service auth tokens, the memory of those used | a token passes if a second reading of the rules says so, and once |
//! | `frames` | firehose, Jetstream of both versions, label streams | frames of ours read back; one that is cut is refused |
//! | `smtp-server`, `smtp-client`, `smtp-parameters` | SMTP dialogues | those of `smtp::fuzz` |
//!
//! Each is a plain function. `tests/corpus.rs` gives it all of `corpus/` and some mutations of it, on any compiler; the program of this crate
//! gives it to libFuzzer (`tradewind-loadtest labeler fuzz`), which measures coverage and adds to the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise is a panic")]

mod car;
mod did;
mod draw;
mod frames;
mod jwt;
mod label;
mod mst;
mod txt;

/// Octets in; a broken promise is a panic.
pub type Target = fn(&[u8]);

/// Targets by name, which is that of a folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("label", label::fuzz),
    ("car", car::fuzz),
    ("did", did::fuzz),
    ("txt", txt::fuzz),
    ("jwt", jwt::fuzz),
    ("frames", frames::fuzz),
    #[cfg(feature = "libfuzzer")]
    ("smtp-server", smtp::fuzz::fuzz_server),
    #[cfg(feature = "libfuzzer")]
    ("smtp-client", smtp::fuzz::fuzz_client),
    #[cfg(feature = "libfuzzer")]
    ("smtp-parameters", smtp::fuzz::fuzz_parameters),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
