//! Evaluating SPF for an address (RFC 7208), by mail-auth, against one resolver.
//!
//! mail-auth keeps the limit of ten lookups. Lookups that find nothing are counted here, where its cache is asked and not
//! filled. A name that a term asks for and DNS cannot hold is a temporary error to it, and would be one for ever: here it is named, so
//! that whoever published it hears of it ([`Evaluated::unaskable`]). It takes its own running out of time for a permanent error, which would make a definite failure of a slow name
//! server: what takes long is a temporary one here.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::Name;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::spf::verify::SpfParameters;
use mail_auth::spf::{Macro, Mechanism, Spf, Variables};
use mail_auth::{MX, MessageAuthenticator, Parameters, RecordSet, ResolverCache, Txt};

use crate::admin::Asked;
use crate::judge::{Answer, Evaluated, SpfResult};
use crate::outside;

/// mail-auth gives up after 20 s.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Evaluates the record of one domain for several addresses; what was looked up for one serves the next.
pub(crate) struct Evaluator {
    asked: Arc<Asked>,
    dns: MessageAuthenticator,
    txt: Seen<Box<str>, Txt>,
    mx: Seen<Box<str>, RecordSet<MX>>,
    v4: Seen<Box<str>, RecordSet<Ipv4Addr>>,
    v6: Seen<Box<str>, RecordSet<Ipv6Addr>>,
    ptr: Seen<IpAddr, RecordSet<Box<str>>>,
}

impl Evaluator {
    pub(crate) fn new(resolver: TokioResolver, asked: Arc<Asked>) -> Self {
        Self {
            asked,
            dns: MessageAuthenticator(resolver),
            txt: Seen::new(),
            mx: Seen::new(),
            v4: Seen::new(),
            v6: Seen::new(),
            ptr: Seen::new(),
        }
    }

    /// These texts of a domain were looked up already.
    pub(crate) fn know(&self, domain: &str, texts: &[String]) {
        if let Some(record) = texts.iter().find_map(|text| Spf::parse(text.as_bytes()).ok()) {
            // mail-auth's own form of a name.
            self.txt.put(format!("{domain}.").into_boxed_str(), Txt::from(record));
        }
    }

    pub(crate) async fn evaluate(&self, domain: &str, address: IpAddr) -> Evaluated {
        let (began, voids) = (outside::moment(), self.voids());
        let sender = format!("postmaster@{domain}");
        let parameters = Parameters {
            params: SpfParameters::verify_mail_from(address, domain, domain, &sender),
            cache_txt: Some(&self.txt),
            cache_mx: Some(&self.mx),
            cache_ptr: Some(&self.ptr),
            cache_ipv4: Some(&self.v4),
            cache_ipv6: Some(&self.v6),
        };
        let output = tokio::time::timeout(TIME_MAX, self.dns.verify_spf(parameters)).await;
        let result = match output.map(|output| output.result()) {
            Err(_) => SpfResult::TempError,
            Ok(mail_auth::SpfResult::PermError) if began.elapsed() > TIME_MAX => SpfResult::TempError,
            Ok(result) => read(result),
        };
        // One for all that it has looked up on the way.
        self.asked.answer(&match result {
            SpfResult::TempError => Answer::Unknown(String::new()),
            SpfResult::None => Answer::Absent,
            _ => Answer::Found(vec![()]),
        });
        let errs = matches!(result, SpfResult::TempError | SpfResult::PermError);
        let unaskable = if errs { self.unaskable(domain, address, &sender) } else { None };
        Evaluated { address, result, voids: self.voids().saturating_sub(voids), unaskable }
    }

    /// A name that a term of a record which was read expands to, and that cannot be in DNS: longer than 253 characters, a label of none or of
    /// more than 63 (RFC 1035 §2.3.4). RFC 7208 §7.3 would have the first sort shortened from the left, which mail-auth does not do, and
    /// not every receiver either.
    fn unaskable(&self, domain: &str, address: IpAddr, sender: &str) -> Option<String> {
        let found = self.txt.found.lock().unwrap_or_else(PoisonError::into_inner);
        let name_of_address =
            self.ptr.found.lock().unwrap_or_else(PoisonError::into_inner).get(&address).and_then(|it| it.rrset.first().cloned());
        let mut variables = Variables::new();
        variables.set_ip(&address);
        variables.set_sender(sender.as_bytes());
        variables.set_helo_domain(domain.as_bytes());
        variables.set_host_domain(domain.as_bytes());
        if let Some(name) = &name_of_address {
            variables.set_validated_domain(name.as_bytes());
        }
        found.iter().find_map(|(of, texts)| {
            let Txt::Spf(record) = texts else { return None };
            variables.set_domain(of.trim_end_matches('.').as_bytes().to_vec());
            let names = asked_for(record).map(|name| name.eval(&variables, of, true).into_owned());
            names.into_iter().find(|name| Name::from_str_relaxed(name).is_err())
        })
    }

    fn voids(&self) -> u32 {
        let all = [&self.txt.voids, &self.mx.voids, &self.v4.voids, &self.v6.voids, &self.ptr.voids];
        all.iter().map(|voids| voids.load(Ordering::Relaxed)).sum()
    }
}

/// The names that a record's terms ask for.
fn asked_for(record: &Spf) -> impl Iterator<Item = &Macro> {
    let terms = record.directives.iter().filter_map(|directive| match &directive.mechanism {
        Mechanism::Include { macro_string }
        | Mechanism::A { macro_string, .. }
        | Mechanism::Mx { macro_string, .. }
        | Mechanism::Ptr { macro_string }
        | Mechanism::Exists { macro_string } => Some(macro_string),
        Mechanism::All | Mechanism::Ip4 { .. } | Mechanism::Ip6 { .. } => None,
    });
    terms.chain(&record.redirect)
}

fn read(result: mail_auth::SpfResult) -> SpfResult {
    match result {
        mail_auth::SpfResult::Pass => SpfResult::Pass,
        mail_auth::SpfResult::Fail => SpfResult::Fail,
        mail_auth::SpfResult::SoftFail => SpfResult::SoftFail,
        mail_auth::SpfResult::Neutral => SpfResult::Neutral,
        mail_auth::SpfResult::None => SpfResult::None,
        mail_auth::SpfResult::PermError => SpfResult::PermError,
        mail_auth::SpfResult::TempError => SpfResult::TempError,
    }
}

/// What was found during one look. Bounded by the lookups that SPF allows.
struct Seen<K, V> {
    found: Mutex<HashMap<K, V>>,
    /// Asked and not (yet) filled in.
    voids: AtomicU32,
}

impl<K: Hash + Eq, V: Clone> Seen<K, V> {
    fn new() -> Self {
        Self { found: Mutex::default(), voids: AtomicU32::new(0) }
    }

    fn put(&self, key: K, value: V) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }
}

impl<K: Hash + Eq, V: Clone> ResolverCache<K, V> for Seen<K, V> {
    fn get<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if found.is_none() {
            self.voids.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    fn remove<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    fn insert(&self, key: K, value: V, _: Instant) {
        self.voids.fetch_sub(1, Ordering::Relaxed);
        self.put(key, value);
    }
}
