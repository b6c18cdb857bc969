//! Signing: what a message gets before it is queued, and the keys it is signed with.
//!
//! Read in the order of a message's way: [`header`] finds the fields, [`prepare`] adds what an MSA
//! adds (RFC 6409 §8) and takes out what must not leave, [`dkim`] signs (member RSA, member Ed25519,
//! co-op RSA), [`signers`] is the pool that keeps RSA off the ring threads. [`key`] is one private key,
//! [`store`] the files they live in and the snapshot that signers read.
//!
//! [`caller`] is the key that the labeler knows this MTA by.
//!
//! This is the only place of the MTA with RSA or Ed25519 code. DKIM's own rules (canonical forms, the
//! field's spelling) are mail-auth's; we hash a body once for all signatures, which its `sign` does not.
//!
//! Not here: who may send (`policy`), and where a signed message is kept (`queue`).

pub mod caller;
pub mod dkim;
pub mod header;
pub mod key;
pub mod prepare;
pub mod signers;
pub mod store;

pub use key::{Algorithm, KeyError, SigningKey};
pub use prepare::{Prepared, Trace};
pub use signers::{Job, SignError, Signed, Signer, Signers};
pub use store::{KeyRing, KeyStore};
