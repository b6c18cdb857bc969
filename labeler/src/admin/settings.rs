//! The table `[admin]` of `labeler.toml`.

use std::net::SocketAddr;

use serde::Deserialize;

/// The operator's listener: `/metrics` for Prometheus, and `/healthz`. The whole table absent: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Table")]
pub struct Admin {
    /// Address and port. How the labeler is and how often who is asked is nobody's business, and whoever can reach it may read it: an
    /// address that others can reach is refused unless `allow_clear_text`. Port 0 takes a free one.
    pub address: SocketAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    address: SocketAddr,
    /// true: the network of `address` is private, and whoever is in it may read. Default: false.
    #[serde(default)]
    allow_clear_text: bool,
}

impl TryFrom<Table> for Admin {
    type Error = String;

    fn try_from(Table { address, allow_clear_text }: Table) -> Result<Self, String> {
        if !address.ip().is_loopback() && !allow_clear_text {
            return Err(format!(
                "others can reach {address}; write \"127.0.0.1:{}\", or allow_clear_text = true if the network is private",
                address.port()
            ));
        }
        Ok(Self { address })
    }
}
