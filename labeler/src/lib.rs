//! The labeler: verifies mail operators and labels their DIDs.
pub mod config;
pub mod judge;
mod outside;
pub mod store;
