//! The hosts: real TLS servers, each on a loopback address of its own with the certificate that its row wants.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData};
use ring::digest;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::case::{Case, Host, Of, Serves, Shows};
use crate::sink::{Act, Message, Provider, Rule, Script, Sink, Stage};
use crate::tls::server_config;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// All hosts of all rows.
pub(super) struct Servers {
    running: HashMap<(&'static str, usize), Server>,
    /// What the daemon trusts, PEM.
    pub(super) trusted: String,
}

/// One host.
pub(super) struct Server {
    pub(super) address: IpAddr,
    /// Its TLSA records, as in a zone file.
    pub(super) tlsa: Vec<String>,
    provider: Arc<Provider>,
    _sink: Sink,
}

impl Servers {
    /// Starts them on `port` of 127.77.0.1 and the addresses after it.
    pub(super) fn start(cases: &[Case], port: u16) -> Result<Self> {
        let root = authority("a root in no store", None)?;
        let middle = authority("below it", Some(&root))?;
        let public = authority("a root that the daemon trusts", None)?;
        let authorities = Authorities { root, middle, public };
        let mut running = HashMap::new();
        for case in cases {
            for nth in 1..=case.hosts.len() {
                let count = u32::try_from(running.len())?;
                let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 77, 0, 1)) + count);
                let server = start(case, nth, SocketAddr::new(address.into(), port), &authorities)
                    .with_context(|| format!("start host {nth} of {}", case.name))?;
                running.insert((case.name, nth), server);
            }
        }
        Ok(Servers { running, trusted: authorities.public.pem() })
    }

    pub(super) fn get(&self, case: &str, nth: usize) -> Option<&Server> {
        self.running.iter().find(|((name, number), _)| *name == case && *number == nth).map(|(_, server)| server)
    }

    /// What the hosts of a row have.
    pub(super) fn arrived_at(&self, case: &str) -> Vec<Message> {
        let of_case = self.running.iter().filter(|((name, _), _)| *name == case);
        of_case.flat_map(|(_, server)| server.provider.messages()).collect()
    }

    /// The message to this recipient, if a host has it.
    pub(super) fn arrived(&self, recipient: &str) -> Option<Message> {
        let messages = self.running.values().flat_map(|server| server.provider.messages());
        messages.into_iter().find(|message| message.recipients.iter().any(|it| it == recipient))
    }
}

struct Authorities {
    root: Authority,
    middle: Authority,
    public: Authority,
}

fn authority(name: &str, by: Option<&Authority>) -> io::Result<Authority> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    match by {
        None => CertifiedIssuer::self_signed(params, key),
        Some(by) => CertifiedIssuer::signed_by(params, key, by),
    }
    .map_err(io::Error::other)
}

/// What a host shows, and the keys of it.
struct Chain {
    own: (CertificateDer<'static>, KeyPair),
    sent: Vec<CertificateDer<'static>>,
}

fn start(case: &Case, nth: usize, address: SocketAddr, authorities: &Authorities) -> Result<Server> {
    let host = &case.hosts[nth - 1];
    let chain = chain(case, host, &case.host_name(nth), authorities)?;
    let starttls = host.serves != Serves::Stripped;
    let mut script = Script { hostname: case.host_name(nth), starttls, require_tls: host.offers, ..Script::accepts_all() };
    if host.serves == Serves::Refused {
        script = script.with(Rule::new(Stage::StartTls, Act::reply("454 4.7.0 TLS is not available today")));
    }
    let provider = Provider::new(script);
    let config = match host.serves {
        // Without a certificate it hangs up where the handshake should begin.
        Serves::Broken | Serves::Stripped | Serves::Refused => None,
        Serves::Tls | Serves::Tls12 => {
            let sent = [vec![chain.own.0.clone()], chain.sent.clone()].concat();
            match host.shows {
                Shows::SelfSignedBySni => Some(by_sni(case.host_name(nth), sent, &chain.own.1)?),
                _ => Some(server_config(sent, &chain.own.1, host.serves == Serves::Tls12)?),
            }
        }
    };
    let sink = Sink::start_with(address, provider.clone(), config)?;
    let tlsa = host.tlsa.iter().map(|record| tlsa(*record, &chain, authorities)).collect::<Result<_>>()?;
    Ok(Server { address: address.ip(), tlsa, provider, _sink: sink })
}

/// Shows its chain to those who ask for its name, and to others a certificate made for nobody.
fn by_sni(name: String, sent: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Arc<rustls::ServerConfig>> {
    let certified = |chain: Vec<CertificateDer<'static>>, key: &KeyPair| -> Result<Arc<CertifiedKey>> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Arc::new(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?)))
    };
    let stranger = KeyPair::generate()?;
    let other = CertificateParams::new(vec!["stranger.test".to_owned()])?.self_signed(&stranger)?;
    let shown = BySni { name, own: certified(sent, key)?, other: certified(vec![other.der().clone()], &stranger)? };
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct BySni {
    name: String,
    own: Arc<CertifiedKey>,
    other: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(if hello.server_name() == Some(&self.name) { self.own.clone() } else { self.other.clone() })
    }
}

fn chain(case: &Case, host: &Host, name: &str, authorities: &Authorities) -> Result<Chain> {
    use Shows::{
        Issued, IssuedEnded, IssuedForDomain, IssuedForOther, IssuedWithoutRoot, Public, PublicEnded, PublicForOther, SelfSigned,
        SelfSignedBySni, SelfSignedEnded, SelfSignedForOther,
    };
    let Authorities { root, middle, public } = authorities;
    let name = match host.shows {
        SelfSignedForOther | IssuedForOther | PublicForOther => "mx.elsewhere.test".to_owned(),
        IssuedForDomain => case.domain(),
        _ => name.to_owned(),
    };
    let mut params = CertificateParams::new(vec![name])?;
    if matches!(host.shows, SelfSignedEnded | IssuedEnded | PublicEnded) {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate()?;
    let (own, sent) = match host.shows {
        SelfSigned | SelfSignedBySni | SelfSignedEnded | SelfSignedForOther => (params.self_signed(&key)?, vec![]),
        IssuedWithoutRoot => (params.signed_by(&key, middle)?, vec![middle.der().clone()]),
        Issued | IssuedEnded | IssuedForOther | IssuedForDomain => {
            (params.signed_by(&key, middle)?, vec![middle.der().clone(), root.der().clone()])
        }
        Public | PublicEnded | PublicForOther => (params.signed_by(&key, public)?, vec![]),
    };
    Ok(Chain { own: (own.der().clone(), key), sent })
}

fn tlsa((usage, selector, matching, of): (u8, u8, u8, Of), chain: &Chain, authorities: &Authorities) -> Result<String> {
    let of_authority = |it: &Authority| (it.der().to_vec(), it.key().subject_public_key_info());
    let (certificate, key) = match of {
        Of::Own | Of::Cut => (chain.own.0.to_vec(), chain.own.1.subject_public_key_info()),
        Of::Middle => of_authority(&authorities.middle),
        Of::Root => of_authority(&authorities.root),
        Of::Other => {
            let key = KeyPair::generate()?;
            (CertificateParams::default().self_signed(&key)?.der().to_vec(), key.subject_public_key_info())
        }
    };
    let selected = if selector == 0 { certificate } else { key };
    let mut data = match matching {
        0 => selected,
        2 => digest::digest(&digest::SHA512, &selected).as_ref().to_vec(),
        _ => digest::digest(&digest::SHA256, &selected).as_ref().to_vec(),
    };
    if of == Of::Cut {
        data.pop();
    }
    Ok(format!("TLSA {usage} {selector} {matching} {}", data_encoding::HEXLOWER.encode(&data)))
}
