//! Questions to DNS, with answers that say whether somebody who knows has answered.
//!
//! Nothing is kept: a member who is just now putting records right must not wait for a cache of ours. The recursive name server
//! has one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::admin::Asked;
use crate::judge::Answer;
use crate::spf::Evaluator;

/// One try; there are two.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Records of one answer that are looked at. Honest ones have a handful.
const RECORDS_MAX: usize = 100;

/// Asks the configured name servers.
#[derive(Clone)]
pub(crate) struct Dns {
    resolver: TokioResolver,
    asked: Arc<Asked>,
}

impl Dns {
    /// These name servers, or the system's.
    pub(crate) fn new(nameservers: Option<&[SocketAddr]>) -> Result<Self, NetError> {
        let mut builder = match nameservers {
            None => TokioResolver::builder_tokio()?,
            Some(servers) => {
                let servers = servers.iter().map(|server| {
                    let on_port = |mut connection: ConnectionConfig| {
                        connection.port = server.port();
                        connection
                    };
                    NameServerConfig::new(
                        server.ip(),
                        true,
                        vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())],
                    )
                });
                let config = ResolverConfig::from_name_servers(servers.collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        options.attempts = 2;
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self { resolver: builder.build()?, asked: Arc::default() })
    }

    /// What it was asked so far, and will be.
    pub(crate) fn asked(&self) -> Arc<Asked> {
        self.asked.clone()
    }

    /// TXT records, each joined from its strings (RFC 7208 §3.3).
    pub(crate) async fn txt(&self, name: &str) -> Answer<String> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    /// MX records: preference and host.
    pub(crate) async fn mx(&self, name: &str) -> Answer<(u16, String)> {
        self.ask(name, RecordType::MX, |data| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii().to_ascii_lowercase())),
            _ => None,
        })
        .await
    }

    /// Names of an address.
    pub(crate) async fn names(&self, address: IpAddr) -> Answer<String> {
        self.ask(&Name::from(address).to_ascii(), RecordType::PTR, |data| match data {
            RData::PTR(ptr) => Some(ptr.0.to_ascii().to_ascii_lowercase()),
            _ => None,
        })
        .await
    }

    /// An evaluator of SPF that asks the same name servers.
    pub(crate) fn spf(&self) -> Evaluator {
        Evaluator::new(self.resolver.clone(), self.asked.clone())
    }

    /// Addresses of a host.
    pub(crate) async fn addresses(&self, name: &str) -> Answer<IpAddr> {
        let Ok(name) = absolute(name) else { return Answer::Absent };
        let answer = match self.resolver.lookup_ip(name).await {
            Ok(found) => Answer::Found(found.iter().take(RECORDS_MAX).collect()),
            Err(error) => missing(error),
        };
        self.asked.answer(&answer);
        answer
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, read: impl Fn(&RData) -> Option<T>) -> Answer<T> {
        // A name that DNS cannot hold has no records in it.
        let Ok(name) = absolute(name) else { return Answer::Absent };
        let answer = match self.resolver.lookup(name, kind).await {
            Ok(found) => {
                let records: Vec<T> = found.answers().iter().filter_map(|record| read(&record.data)).take(RECORDS_MAX).collect();
                if records.is_empty() { Answer::Absent } else { Answer::Found(records) }
            }
            Err(error) => missing(error),
        };
        self.asked.answer(&answer);
        answer
    }
}

/// With the final dot: no search list.
fn absolute(name: &str) -> Result<Name, ()> {
    let mut name = Name::from_ascii(name).map_err(|_| ())?;
    name.set_fqdn(true);
    Ok(name)
}

/// Only NXDOMAIN and an empty answer say that there is nothing; everything else says nothing.
fn missing<T>(error: NetError) -> Answer<T> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError) =>
        {
            Answer::Absent
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Answer::Unknown(format!("the name server answers {code}")),
        other => Answer::Unknown(other.to_string()),
    }
}
