//! Receiving hosts, policy hosts, and the DNS that leads to them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::rows::{Page, Row, Shows, Wish};
use crate::background::Background;
use crate::daemon::{Enrolled, MEMBER_DOMAIN};
use crate::dns::{Failure, Record, Server, Zone};
use crate::sink::{Provider, Script, Sink};
use crate::tls::{client_that_trusts_all, server_config};

/// Octets of a policy that is too long.
const HUGE: usize = (64 << 10) + 1;

/// What is said at each policy host, by its name.
type Pages = Arc<Mutex<HashMap<String, Page>>>;

/// All of them.
pub(super) struct Hosts {
    /// What the daemon trusts, PEM.
    pub(super) trusted: String,
    zone: Zone,
    dns: Server,
    pages: Pages,
    providers: Vec<Arc<Provider>>,
    _sinks: Vec<Sink>,
    _web: Background,
}

impl Hosts {
    pub(super) fn start(rows: &[Row], port: u16, policy_port: u16) -> Result<Self> {
        let authority = authority()?;
        let zone = Zone::new();
        let (mut providers, mut sinks, mut shown) = (Vec::new(), Vec::new(), HashMap::new());
        let pages = Pages::default();
        for row in rows {
            zone.add(&row.domain(), Record::Mx(10, row.mx()));
            let policy_host = format!("mta-sts.{}", row.domain());
            let (chain, key) = certificate(row.policy_host, &policy_host, &authority)?;
            shown.insert(policy_host, certified(chain, &key)?);
            if row.shares.is_none() {
                let count = u32::try_from(providers.len())?;
                let address = IpAddr::from(Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 78, 0, 1)) + count));
                zone.add(&row.mx(), Record::address(address));
                let (chain, key) = certificate(row.host, &row.mx(), &authority)?;
                let starttls = row.host != Shows::Stripped;
                let script = Script { hostname: row.mx(), starttls, require_tls: row.offers, ..Script::accepts_all() };
                let provider = Provider::new(script);
                let config = server_config(chain, &key, false)?;
                sinks.push(Sink::start_with(SocketAddr::new(address, port), provider.clone(), Some(config))?);
                providers.push(provider);
            }
            publish(&zone, &pages, row, &row.records, &row.page);
            if row.silent {
                zone.fail(&format!("_mta-sts.{}", row.domain()), None, Failure::ServFail);
            }
        }
        let dns = Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), zone.clone())?;
        let _web = web(policy_port, shown, pages.clone(), Posts::default())?;
        Ok(Hosts { trusted: authority.pem(), zone, dns, pages, providers, _sinks: sinks, _web })
    }

    /// Who answers the daemon's questions.
    pub(super) fn nameserver(&self) -> SocketAddr {
        self.dns.address()
    }

    /// The second act's records and policies.
    pub(super) fn change(&self, rows: &[Row]) -> Result<()> {
        for row in rows {
            let then = row.then.as_ref().ok_or_else(|| anyhow!("{} has no second act", row.name))?;
            publish(&self.zone, &self.pages, row, &then.records, &then.page);
        }
        Ok(())
    }

    /// Whether the message to this recipient came under TLS, if a host has it; with REQUIRETLS if the sender said so.
    pub(super) fn arrived(&self, row: &Row, recipient: &str) -> Option<bool> {
        let required = row.wish == Wish::Required;
        let messages = self.providers.iter().flat_map(|provider| provider.messages());
        let mut ours = messages.filter(|message| message.recipients.iter().any(|it| it == recipient));
        let asked = |parameters: &str| parameters.split(' ').any(|parameter| parameter == "REQUIRETLS");
        ours.next().filter(|message| asked(&message.parameters.0) == required).map(|message| message.tls)
    }
}

/// Policy hosts for rows of the other tables, and one host that takes reports.
pub(in super::super) struct Beside {
    /// Where they listen.
    pub(in super::super) port: u16,
    /// Who vouches for them, PEM.
    pub(in super::super) trusted: String,
    posts: Posts,
    _web: Background,
}

/// A policy of a domain in the other tables.
pub(in super::super) struct Published {
    pub(in super::super) domain: String,
    pub(in super::super) page: Page,
    /// The policy host's certificate.
    pub(in super::super) shows: Shows,
}

/// What somebody handed over by POST.
#[derive(Clone, Debug)]
pub(in super::super) struct Post {
    pub(in super::super) path: String,
    pub(in super::super) content_type: String,
    pub(in super::super) body: Vec<u8>,
}

type Posts = Arc<Mutex<Vec<Post>>>;

impl Beside {
    /// `takes_reports` is the name of the host for these.
    pub(in super::super) fn start(published: Vec<Published>, takes_reports: &str) -> Result<Self> {
        let (authority, pages, mut shown) = (authority()?, Pages::default(), HashMap::new());
        let (chain, key) = certificate(Shows::Good, takes_reports, &authority)?;
        shown.insert(takes_reports.to_owned(), certified(chain, &key)?);
        for Published { domain, page, shows } in published {
            let host = format!("mta-sts.{domain}");
            let (chain, key) = certificate(shows, &host, &authority)?;
            shown.insert(host.clone(), certified(chain, &key)?);
            pages.lock().unwrap_or_else(PoisonError::into_inner).insert(host, page);
        }
        let (port, posts) = (crate::process::free_address()?.port(), Posts::default());
        Ok(Beside { port, trusted: authority.pem(), posts: posts.clone(), _web: web(port, shown, pages, posts)? })
    }

    pub(in super::super) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Arc<CertifiedKey>> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(Arc::new(CertifiedKey::new(chain, rustls::crypto::ring::sign::any_supported_type(&key)?)))
}

fn publish(zone: &Zone, pages: &Pages, row: &Row, records: &[&str], page: &Page) {
    let policy_host = format!("mta-sts.{}", row.domain());
    zone.set(&format!("_mta-sts.{}", row.domain()), records.iter().map(|text| Record::Txt((*text).to_owned())).collect());
    let address = if matches!(page, Page::Absent) { vec![] } else { vec![Record::A(Ipv4Addr::LOCALHOST)] };
    zone.set(&policy_host, address);
    let page = match page {
        Page::Policy(mode, mx, age) if mx.contains("{mx}") => Page::Policy(mode, Box::leak(row.mx().into_boxed_str()), *age),
        page => page.clone(),
    };
    pages.lock().unwrap_or_else(PoisonError::into_inner).insert(policy_host, page);
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<Authority> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, "a root that the daemon trusts");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn certificate(shows: Shows, name: &str, authority: &Authority) -> Result<(Vec<CertificateDer<'static>>, KeyPair)> {
    let name = if shows == Shows::OtherName { "elsewhere.test" } else { name };
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    if shows == Shows::Ended {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate()?;
    let own = match shows {
        Shows::SelfSigned => params.self_signed(&key)?,
        _ => params.signed_by(&key, authority)?,
    };
    Ok((vec![own.der().clone()], key))
}

/// Shows each policy host's own certificate.
#[derive(Debug)]
struct ByName(HashMap<String, Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(hello.server_name()?).cloned()
    }
}

/// The HTTPS server of all policy hosts.
fn web(port: u16, shown: HashMap<String, Arc<CertifiedKey>>, pages: Pages, posts: Posts) -> Result<Background> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(shown)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(Background::start("policy hosts", move || async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let (acceptor, pages, posts) = (acceptor.clone(), pages.clone(), posts.clone());
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let host = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
                    match stream.read_u8().await {
                        Ok(octet) => head.push(octet),
                        Err(_) => return,
                    }
                }
                if head.starts_with(b"POST ") {
                    let _ = take(&mut stream, &String::from_utf8_lossy(&head), &posts).await;
                    let _ = stream.shutdown().await;
                    return;
                }
                let page = pages.lock().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
                let asked = head.starts_with(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n");
                if matches!(page, Some(Page::Slow)) {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
                let answer = page.filter(|_| asked).map_or_else(|| respond(400, "", ""), |page| say(&page));
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            });
        }
    })?)
}

/// Takes what is posted.
async fn take<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, head: &str, posts: &Posts) -> std::io::Result<()> {
    let field = |name: &str| {
        let fields = head.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(|(it, _)| it.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .next()
            .unwrap_or_default()
    };
    let mut body = vec![0; field("content-length").parse().unwrap_or(0).min(HUGE)];
    stream.read_exact(&mut body).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let post = Post { path, content_type: field("content-type"), body };
    posts.lock().unwrap_or_else(PoisonError::into_inner).push(post);
    stream.write_all(&respond(201, "", "")).await
}

fn say(page: &Page) -> Vec<u8> {
    let good = "version: STSv1\nmode: enforce\nmx: *.sts.test\nmx: *.*.sts.test\nmax_age: 604800\n";
    let plain = "Content-Type: text/plain\r\n";
    match page {
        Page::Policy(mode, mx, age) => {
            respond(200, plain, &format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {age}\r\n"))
        }
        Page::Text(text) => respond(200, plain, text),
        Page::Html => respond(200, "Content-Type: text/html\r\n", good),
        Page::Huge => {
            let policy = "version: STSv1\nmode: enforce\nmx: mx.huge.sts.test\nmax_age: 604800\n".to_owned();
            let filling = "x: y\n".repeat((HUGE - policy.len()).div_ceil(5));
            respond(200, plain, &(policy + &filling))
        }
        Page::Redirect => respond(301, "Location: https://mta-sts.good.sts.test/.well-known/mta-sts.txt\r\n", good),
        Page::Status(status) => respond(*status, plain, good),
        Page::Slow => respond(200, plain, good),
        Page::Absent => respond(404, "", ""),
    }
}

fn respond(status: u16, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

/// Hands one message with REQUIRETLS to the listener that has TLS from the first octet.
pub(in super::super) fn submit_requiring(submissions: SocketAddr, member: &Enrolled, recipient: &str) -> Result<()> {
    let stream = TcpStream::connect(submissions)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let name = ServerName::try_from("relay.test")?;
    let connection = rustls::ClientConnection::new(client_that_trusts_all(false)?, name)?;
    let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
    let mut expect = |said: &str, digit: char| -> Result<String> {
        if !said.is_empty() {
            stream.get_mut().write_all(format!("{said}\r\n").as_bytes())?;
        }
        let mut all = String::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            if !line.starts_with(digit) {
                bail!("the submission listener says {} to {said}", line.trim());
            }
            all.push_str(&line);
            if line.as_bytes().get(3) == Some(&b' ') {
                return Ok(all);
            }
        }
    };
    expect("", '2')?;
    if !expect("EHLO client.test", '2')?.contains("REQUIRETLS") {
        bail!("the submission listener does not offer REQUIRETLS");
    }
    let identity = format!("\0{}\0{}", member.username, member.password);
    expect(&format!("AUTH PLAIN {}", base64::engine::general_purpose::STANDARD.encode(identity)), '2')?;
    let from = format!("app@{MEMBER_DOMAIN}");
    expect(&format!("MAIL FROM:<{from}> REQUIRETLS"), '2')?;
    expect(&format!("RCPT TO:<{recipient}>"), '2')?;
    expect("DATA", '3')?;
    expect(&format!("From: <{from}>\r\nTo: <{recipient}>\r\nSubject: a case\r\n\r\nHello.\r\n."), '2')?;
    expect("QUIT", '2').map(drop)
}
