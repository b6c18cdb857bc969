//! Collecting what a judgement rests on, as one resolver sees it.
//!
//! Nothing is decided here: every answer, also that there was none, goes to [`crate::judge`].

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use atproto::Did;
use futures_util::future::{join, join_all, join3, join4};
use url::Url;
use vouch::organization::organizational;

use crate::admin::Asked;
use crate::dns::Dns;
use crate::fetch::{Fetcher, From, Greeted, Greeter};
use crate::judge::{Answer, Evaluated, Facts, Judgement, Sender, Verdict, has_dmarc, judge, spf_senders};
use crate::quorum;

/// Exchanges whose addresses are looked up.
const MX_HOSTS_MAX: usize = 3;
/// Addresses of a member's SPF record whose names are looked up.
const SENDERS_MAX: usize = 3;
/// Nobody sends from here (RFC 7600 §6, the IPv4 dummy address), so that whoever lets it in lets everybody in.
const PROBE: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// A DID, with space around it.
const WELL_KNOWN_BYTES_MAX: usize = 4 << 10;

/// Whose domain it is, and what they say of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) did: &'a str,
    pub(crate) domain: &'a str,
    /// The handle that the DID document claims.
    pub(crate) handle: Option<&'a str>,
    pub(crate) selectors: &'a [String],
    /// Whether the relay is asked for.
    pub(crate) relay: bool,
}

/// Several resolvers that look from different places.
pub(crate) struct Views {
    collectors: Vec<(String, Collector)>,
    /// How many must say the same.
    quorum: usize,
}

impl Views {
    /// At least one, each with the name that members read.
    pub(crate) fn new(collectors: Vec<(String, Collector)>, quorum: usize) -> Self {
        assert!((1..=collectors.len()).contains(&quorum), "the settings are checked");
        Self { collectors, quorum }
    }

    /// The first resolver, for what need not be agreed on.
    pub(crate) fn dns(&self) -> &Dns {
        &self.first().dns
    }

    /// What each resolver was asked, with its name.
    pub(crate) fn asked(&self) -> Vec<(String, Arc<Asked>)> {
        self.collectors.iter().map(|(name, collector)| (name.clone(), collector.dns.asked())).collect()
    }

    /// The account that a domain names over HTTPS, as the first resolver sees it.
    pub(crate) async fn well_known(&self, domain: &str) -> Answer<String> {
        self.first().well_known(domain).await
    }

    fn first(&self) -> &Collector {
        let Some((_, collector)) = self.collectors.first() else { unreachable!("there is one at least") };
        collector
    }

    /// Whom the domain names, if that is one.
    pub(crate) async fn named(&self, domain: &str) -> Option<Did> {
        let Answer::Found(texts) = self.first().txt("_atproto.", domain).await else { return None };
        let mut dids = texts.iter().filter_map(|text| text.strip_prefix("did=")?.parse().ok());
        let first: Did = dids.next()?;
        dids.all(|other| other == first).then_some(first)
    }

    /// What they agree on. To confirm what stands, one is enough, another one (`first`) each time; to give or to take, all are
    /// asked.
    pub(crate) async fn judge(&self, subject: &Subject<'_>, first: usize, stands: bool) -> Judgement {
        let first = first % self.collectors.len();
        let Some((name, collector)) = self.collectors.get(first) else { unreachable!("there is one at least") };
        let view = judge(&collector.facts(subject).await);
        if self.collectors.len() == 1 || (stands && view.verdict == Verdict::Pass) {
            return view;
        }
        let others = self.collectors.iter().enumerate().filter(|(nth, _)| *nth != first);
        let others = others.map(|(_, (name, collector))| async { (name.clone(), judge(&collector.facts(subject).await)) });
        let mut views = vec![(name.clone(), view)];
        views.extend(join_all(others).await);
        quorum::agree(views, self.quorum)
    }
}

/// Asks one resolver.
#[derive(Clone)]
pub(crate) struct Collector {
    pub(crate) dns: Dns,
    pub(crate) fetcher: Fetcher,
    /// What the co-op sends from.
    pub(crate) sources: Arc<[IpAddr]>,
    /// Of the exchanges, where that is wanted.
    pub(crate) greeter: Option<Greeter>,
}

/// What is known of a domain's SPF.
struct Spf {
    texts: Answer<String>,
    probe: Option<Evaluated>,
    sources: Vec<Evaluated>,
    senders: Vec<Sender>,
}

impl Collector {
    /// Everything at once: the slowest answer decides how long a member waits.
    pub(crate) async fn facts(&self, subject: &Subject<'_>) -> Facts {
        let Subject { domain, relay, handle, .. } = *subject;
        let keys = subject
            .selectors
            .iter()
            .map(|selector| async move { (selector.clone(), self.txt(&format!("{selector}._domainkey."), domain).await) });
        let asked = (self.control(domain, handle), self.mx(domain), self.spf(domain, relay), self.dmarc(domain));
        let must = async {
            let (asked, dkim) = join(join4(asked.0, asked.1, asked.2, asked.3), join_all(keys)).await;
            (asked, dkim)
        };
        let noted = join3(self.txt("_mta-sts.", domain), self.txt("_smtp._tls.", domain), self.txt("default._bimi.", domain));
        let ((((control, well_known), (mx, mx_addresses, mx_greetings), spf, dmarc), dkim), (mta_sts, tls_rpt, bimi)) =
            join(must, noted).await;
        Facts {
            did: subject.did.into(),
            domain: domain.into(),
            handle: handle.map(str::to_owned),
            relay,
            control,
            well_known,
            mx,
            mx_addresses,
            mx_greetings,
            spf: spf.texts,
            spf_probe: spf.probe,
            spf_sources: spf.sources,
            dkim,
            dmarc,
            senders: spf.senders,
            mta_sts,
            tls_rpt,
            bimi,
        }
    }

    async fn txt(&self, prefix: &str, domain: &str) -> Answer<String> {
        self.dns.txt(&format!("{prefix}{domain}")).await
    }

    async fn control(&self, domain: &str, handle: Option<&str>) -> (Answer<String>, Answer<String>) {
        let control = self.txt("_atproto.", domain).await;
        let named = matches!(&control, Answer::Found(texts) if texts.iter().any(|text| text.starts_with("did=")));
        let may_say_so = handle.is_some_and(|handle| handle.eq_ignore_ascii_case(domain));
        let well_known = match (&control, named, may_say_so) {
            (Answer::Unknown(_), ..) | (_, true, _) | (.., false) => Answer::Absent,
            _ => self.well_known(domain).await,
        };
        (control, well_known)
    }

    /// The exchanges, where the most preferred of them are and, where that is wanted, how they greet.
    async fn mx(
        &self,
        domain: &str,
    ) -> (Answer<(u16, String)>, Vec<(String, Answer<IpAddr>)>, Vec<(String, Result<String, String>)>) {
        let answer = self.dns.mx(domain).await;
        let mut hosts = if let Answer::Found(hosts) = &answer { hosts.clone() } else { Vec::new() };
        hosts.retain(|(_, host)| host != "." && !host.is_empty());
        hosts.sort();
        hosts.truncate(MX_HOSTS_MAX);
        let addresses = hosts.into_iter().map(|(_, host)| async {
            let addresses = self.dns.addresses(&host).await;
            (host, addresses)
        });
        let addresses = join_all(addresses).await;
        let greetings = self.greetings(&addresses).await;
        (answer, addresses, greetings)
    }

    /// One after another until one greets.
    async fn greetings(&self, hosts: &[(String, Answer<IpAddr>)]) -> Vec<(String, Result<String, String>)> {
        let mut greetings = Vec::new();
        let Some(greeter) = &self.greeter else { return greetings };
        for (host, answer) in hosts {
            let Answer::Found(addresses) = answer else { continue };
            match greeter.ask(&self.fetcher, addresses).await {
                Greeted::Yes(line) => {
                    greetings.push((host.clone(), Ok(line)));
                    break;
                }
                Greeted::No(why) => greetings.push((host.clone(), Err(why))),
                Greeted::NotAsked => {}
            }
        }
        greetings
    }

    /// The record, what it says of an address of nobody's and of the co-op's sources, and the addresses that it names.
    async fn spf(&self, domain: &str, relay: bool) -> Spf {
        let texts = self.dns.txt(domain).await;
        let mut spf = Spf { texts, probe: None, sources: Vec::new(), senders: Vec::new() };
        let Answer::Found(found) = &spf.texts else { return spf };
        if !found.iter().any(|text| text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"))) {
            return spf;
        }
        // One after another: what the first looks up serves the others.
        let evaluator = self.dns.spf();
        evaluator.know(domain, found);
        spf.probe = Some(evaluator.evaluate(domain, PROBE.into()).await);
        if relay {
            for source in self.sources.iter() {
                spf.sources.push(evaluator.evaluate(domain, *source).await);
            }
        } else {
            let senders = spf_senders(found, SENDERS_MAX).into_iter().map(|address| self.sender(address));
            spf.senders = join_all(senders).await;
        }
        spf
    }

    async fn sender(&self, address: IpAddr) -> Sender {
        let names = self.dns.names(address).await;
        let back = match &names {
            Answer::Found(names) => self.dns.addresses(names.first().map_or(".", String::as_str)).await,
            _ => Answer::Absent,
        };
        Sender { address, names, back }
    }

    /// The domain's policy or, where it has none, its organizational domain's (RFC 7489 §6.6.3).
    async fn dmarc(&self, domain: &str) -> Vec<(String, Answer<String>)> {
        let organization = organizational(domain).filter(|organization| *organization != domain);
        let mut asked = Vec::new();
        for at in [domain].into_iter().chain(organization) {
            let name = format!("_dmarc.{at}");
            let answer = self.dns.txt(&name).await;
            let done = match &answer {
                Answer::Found(texts) => has_dmarc(texts),
                Answer::Unknown(_) => true,
                Answer::Absent => false,
            };
            asked.push((name, answer));
            if done {
                break;
            }
        }
        asked
    }

    /// atproto handle spec, "HTTPS well-known Method".
    async fn well_known(&self, domain: &str) -> Answer<String> {
        let Ok(url) = Url::parse(&format!("https://{domain}/.well-known/atproto-did")) else { return Answer::Absent };
        match self.fetcher.get_on(&url, From::Stranger, WELL_KNOWN_BYTES_MAX).await {
            Ok(answer) if answer.status == 200 => Answer::Found(vec![String::from_utf8_lossy(&answer.body).into_owned()]),
            Ok(answer) if answer.status >= 500 => Answer::Unknown(format!("it answers {}", answer.status)),
            Ok(_) => Answer::Absent,
            Err(why) => Answer::Unknown(why),
        }
    }
}
