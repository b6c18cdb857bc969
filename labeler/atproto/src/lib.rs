//! DIDs, keys, labels, repository proofs, lexicon types: no IO.
