//! The world outside of one daemon: a mailbox provider, and the DNS server that leads there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;

use crate::daemon::{MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::dns;
use crate::sink::{Provider, Sink};

/// Both on loopback, on ports of their own, until it is dropped.
pub(crate) struct Outside {
    /// What DNS says; it may be changed at any time.
    pub(crate) zone: dns::Zone,
    sink: Sink,
    dns: dns::Server,
}

impl Outside {
    /// `provider` takes the mail of all of `domains`, which share one MX.
    pub(crate) fn start(provider: Arc<Provider>, domains: &[impl AsRef<str>]) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sink = Sink::start(any, provider, None)?;
        let zone = dns::Zone::new();
        for domain in domains {
            zone.mail_domain(domain.as_ref(), "mx.big.test", sink.address().ip());
        }
        let dns = dns::Server::start(any, zone.clone())?;
        Ok(Self { zone, sink, dns })
    }

    /// A daemon with one member and no signatures that delivers into it.
    pub(crate) fn setup<'a>(&self, io: &'a str) -> Setup<'a> {
        Setup {
            io,
            signatures: Signatures::None,
            nameserver: self.dns.address(),
            egress_port: self.sink.address().port(),
            members: &[(MEMBER_DID, MEMBER_DOMAIN)],
            more: "",
        }
    }
}

/// The domains of a load that goes through many of them.
pub(crate) fn some_domains() -> Vec<String> {
    (0..20).map(|n| format!("d{n}.test")).collect()
}
