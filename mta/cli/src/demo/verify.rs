//! The receiving side's view: DKIM verification of what arrived, with the demo's DNS as the only source of keys; and who vouches.

use std::net::SocketAddr;

use labeler::config::{Dns, Identity};
use labeler::vouching::{Source, Url, verify_message};

use anyhow::anyhow;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};

/// What a verifier says of a message's signatures.
pub(super) struct Signatures {
    /// `d=pds.test rsa`, for each that passed.
    pub(super) passed: Vec<String>,
    /// The same with the reason, for each that did not.
    pub(super) failed: Vec<String>,
}

/// Verifies every DKIM signature of `message`.
pub(super) async fn signatures(message: &[u8], dns: SocketAddr) -> anyhow::Result<Signatures> {
    let mut connection = ConnectionConfig::udp();
    connection.port = dns.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = dns.port();
    let server = NameServerConfig::new(dns.ip(), true, vec![connection, tcp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(ResolverOpts::default())
        .build()?;
    let authenticator = MessageAuthenticator(resolver);
    let parsed = AuthenticatedMessage::parse(message).ok_or_else(|| anyhow!("a message that arrived cannot be parsed"))?;
    let mut signatures = Signatures { passed: Vec::new(), failed: Vec::new() };
    for output in authenticator.verify_dkim(&parsed).await {
        let name = output.signature().map_or_else(|| "?".to_owned(), |s| format!("d={} s={} {:?}", s.d, s.s, s.a));
        match output.result() {
            DkimResult::Pass => signatures.passed.push(name),
            other => signatures.failed.push(format!("{name}: {other:?}")),
        }
    }
    Ok(signatures)
}

/// What `tradewind verify` says of `message`.
pub(super) async fn vouched(
    message: &[u8],
    plc_url: &str,
    dns: SocketAddr,
    labeler: SocketAddr,
) -> anyhow::Result<vouch::Report> {
    let source = Source {
        labeler: "did:web:labeler.test".parse::<atproto::Did>().map_err(anyhow::Error::msg)?,
        labeler_url: Some(Url::parse(&format!("http://{labeler}"))?),
        identity: Identity { plc_url: Url::parse(plc_url)?, ..Identity::default() },
        dns: Dns { nameservers: Some(vec![dns]), ..Dns::default() },
    };
    verify_message(message.to_vec(), &source).await.map_err(anyhow::Error::msg)
}
