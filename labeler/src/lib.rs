//! The labeler: verifies mail operators and labels their DIDs.
