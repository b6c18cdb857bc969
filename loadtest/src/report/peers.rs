//! Who is measured: how a peer is named, started, and submitted to.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::Bench;
use crate::daemon::{Daemon, MEMBER_DID, MEMBER_DOMAIN, Setup, Signatures};
use crate::exim::Exim;
use crate::postfix::{Postfix, Role};
use crate::sink::Sink;
use crate::source::{Target, Tls};
use crate::tls::client_that_trusts_all;
use crate::{dns, process};

/// How messages are submitted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From a trusted network over connections that are kept.
    Relay,
    /// Over connections that are kept, under STARTTLS.
    StartTls,
    /// As a PDS does it: for each message a new connection, STARTTLS with a full TLS 1.3 handshake, and AUTH.
    Pds,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Tradewind(&'static str, Signatures, Way),
    Postfix,
    Exim,
}

impl Peer {
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Postfix, Self::Exim];
        for signatures in [Signatures::None, Signatures::One, Signatures::Three] {
            all.extend(["uring", "epoll"].map(|io| Self::Tradewind(io, signatures, Way::Relay)));
        }
        all.extend(["uring", "epoll"].map(|io| Self::Tradewind(io, Signatures::One, Way::Pds)));
        all
    }

    /// For `--starttls`.
    pub(super) fn all_with_starttls() -> Vec<Self> {
        let mut all = vec![Self::Postfix];
        for signatures in [Signatures::None, Signatures::One, Signatures::Three] {
            all.extend(["uring", "epoll"].map(|io| Self::Tradewind(io, signatures, Way::StartTls)));
        }
        all
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Postfix => "postfix".to_owned(),
            Self::Exim => "exim".to_owned(),
            Self::Tradewind(io, signatures, way) => {
                let signed = match signatures {
                    Signatures::None => "unsigned",
                    Signatures::One => "one RSA",
                    Signatures::Three => "three signatures",
                };
                let way = if way == Way::Pds { ", as a PDS" } else { "" };
                format!("tradewind {io}, {signed}{way}")
            }
        }
    }

    /// Why it cannot be measured here, if so.
    pub(super) fn unavailable(self) -> Option<String> {
        match self {
            Self::Postfix => Postfix::unavailable(),
            Self::Exim => Exim::unavailable(),
            Self::Tradewind(..) => None,
        }
    }

    pub(super) fn way(self) -> Way {
        match self {
            Self::Tradewind(_, _, way) => way,
            Self::Postfix | Self::Exim => Way::Relay,
        }
    }

    /// Signatures that each of its messages must bear; `None`: not looked at.
    pub(super) fn signatures(self) -> Option<Signatures> {
        match self {
            Self::Tradewind(_, signatures, _) => Some(signatures),
            Self::Postfix | Self::Exim => None,
        }
    }
}

pub(super) enum Started {
    Postfix(Postfix),
    Exim(Exim),
    Tradewind(Box<Daemon>, tempfile::TempDir),
}

impl Started {
    pub(super) fn start(bench: &Bench, peer: Peer, sink: &Sink, dns: &dns::Server) -> Result<Self> {
        let parent = bench.directory.path();
        Ok(match peer {
            Peer::Postfix => {
                let certificate = bench.starttls.then_some(&bench.certificate);
                let role = Role::Relay { next_hop: sink.address(), certificate };
                Self::Postfix(Postfix::start(parent, process::free_address()?, &role)?)
            }
            Peer::Exim => Self::Exim(Exim::start(parent, process::free_address()?, sink.address())?),
            Peer::Tradewind(io, signatures, _) => {
                let setup = Setup {
                    io,
                    signatures,
                    nameserver: dns.address(),
                    egress_port: sink.address().port(),
                    members: &[(MEMBER_DID, MEMBER_DOMAIN)],
                    more: "",
                };
                let directory = tempfile::Builder::new().prefix("tradewind-").tempdir_in(parent)?;
                let daemon = Daemon::start(directory.path(), &setup, &bench.certificate)?;
                Self::Tradewind(Box::new(daemon), directory)
            }
        })
    }

    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Postfix(postfix) => postfix.pid(),
            Self::Exim(exim) => exim.pid(),
            Self::Tradewind(daemon, _) => daemon.pid(),
        }
    }

    pub(super) fn target(&self, way: Way, starttls: bool) -> Result<Target> {
        let plain = |address: SocketAddr| Ok(Target::plain(address));
        match (self, way) {
            (Self::Postfix(postfix), _) if starttls => {
                Ok(Target::plain(postfix.address()).with_tls(Tls::StartTls(client_that_trusts_all(false)?)))
            }
            (Self::Postfix(postfix), _) => plain(postfix.address()),
            (Self::Exim(exim), _) => plain(exim.address()),
            (Self::Tradewind(daemon, _), Way::Relay) => plain(daemon.relay),
            (Self::Tradewind(daemon, _), Way::Pds | Way::StartTls) => {
                let enrolled = daemon.enrolled.first().context("no member")?;
                let tls = Tls::StartTls(client_that_trusts_all(false)?);
                Ok(Target::plain(daemon.submission).with_tls(tls).with_credentials(&enrolled.username, &enrolled.password))
            }
        }
    }

    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Postfix(postfix) => drop(postfix),
            Self::Exim(exim) => drop(exim),
            Self::Tradewind(daemon, directory) => {
                daemon.stop()?;
                directory.close()?;
            }
        }
        Ok(())
    }
}
