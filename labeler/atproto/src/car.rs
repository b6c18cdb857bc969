//! CAR files (version 1): a list of roots, then blocks, each under the hash of its octets.
//!
//! A reader for proofs: everything is in memory, bounded, and every block's hash is checked before anyone sees it.

use std::collections::HashMap;

use ipld_core::cid::Cid;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

/// A proof of one record is a few kilobytes: commit, one MST node per layer, record (at most 1 MiB on a PDS, a few hundred octets of an attestation).
pub const CAR_BYTES_MAX: usize = 2 << 20;

/// The blocks of a CAR, each proven to be what its CID says.
#[derive(Debug)]
pub struct Car<'a> {
    /// Where to begin.
    pub roots: Vec<Cid>,
    blocks: HashMap<Cid, &'a [u8]>,
}

/// Why octets are no CAR that we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarError {
    /// Longer than [`CAR_BYTES_MAX`].
    #[error("longer than {CAR_BYTES_MAX} octets")]
    TooLong,
    /// It ends inside of something.
    #[error("truncated")]
    Truncated,
    /// The header is not that of version 1.
    #[error("no CAR header of version 1")]
    Header,
    /// A CID that is not version 1, DAG-CBOR or raw, SHA-256.
    #[error("a CID of a kind that repositories do not use")]
    Cid,
    /// A block is not what its CID says.
    #[error("block {0} has another hash")]
    Hash(Cid),
}

const DAG_CBOR: u64 = 0x71;
const RAW: u64 = 0x55;
const SHA2_256: u64 = 0x12;

impl<'a> Car<'a> {
    /// Reads the whole file and checks every hash.
    pub fn parse(octets: &'a [u8]) -> Result<Self, CarError> {
        #[derive(Deserialize)]
        struct Header {
            version: u64,
            roots: Vec<Cid>,
        }
        if octets.len() > CAR_BYTES_MAX {
            return Err(CarError::TooLong);
        }
        let mut rest = octets;
        let header: Header = serde_ipld_dagcbor::from_slice(section(&mut rest)?).map_err(|_| CarError::Header)?;
        if header.version != 1 {
            return Err(CarError::Header);
        }
        let mut blocks = HashMap::new();
        while !rest.is_empty() {
            let mut block = section(&mut rest)?;
            let cid = Cid::read_bytes(&mut block).map_err(|_| CarError::Cid)?;
            if !matches!(cid.codec(), DAG_CBOR | RAW) || cid.hash().code() != SHA2_256 || cid.hash().digest().len() != 32 {
                return Err(CarError::Cid);
            }
            if digest(&SHA256, block).as_ref() != cid.hash().digest() {
                return Err(CarError::Hash(cid));
            }
            blocks.insert(cid, block);
        }
        Ok(Self { roots: header.roots, blocks })
    }

    /// The octets of a block, if they were sent.
    pub fn block(&self, cid: &Cid) -> Option<&'a [u8]> {
        self.blocks.get(cid).copied()
    }
}

/// Takes a length and as many octets.
fn section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], CarError> {
    let length = usize::try_from(varint(rest)?).map_err(|_| CarError::Truncated)?;
    let (section, after) = rest.split_at_checked(length).ok_or(CarError::Truncated)?;
    *rest = after;
    Ok(section)
}

/// Unsigned LEB128 of at most nine octets (multiformats' unsigned-varint).
fn varint(rest: &mut &[u8]) -> Result<u64, CarError> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (&octet, after) = rest.split_first().ok_or(CarError::Truncated)?;
        *rest = after;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CarError::Truncated)
}
