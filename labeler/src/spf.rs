//! Evaluating SPF for an address (RFC 7208), by mail-auth, against one resolver.
//!
//! mail-auth keeps the limit of ten lookups. Lookups that find nothing are counted here, where its cache is asked and not
//! filled. It takes its own running out of time for a permanent error, which would make a definite failure of a slow name
//! server: what takes long is a temporary one here.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::spf::verify::SpfParameters;
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
        if let Some(record) = texts.iter().find_map(|text| mail_auth::spf::Spf::parse(text.as_bytes()).ok()) {
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
        Evaluated { address, result, voids: self.voids().saturating_sub(voids) }
    }

    fn voids(&self) -> u32 {
        let all = [&self.txt.voids, &self.mx.voids, &self.v4.voids, &self.v6.voids, &self.ptr.voids];
        all.iter().map(|voids| voids.load(Ordering::Relaxed)).sum()
    }
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
