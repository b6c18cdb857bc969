//! What every request passes: who asks, how often, for how long; and what every answer gets: CORS, gzip.
//!
//! Who asks is the peer, or, where the peer is a proxy of ours, whoever the proxy says. An IPv6 network of /64 is one asker, as one customer gets it whole.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::ServiceExt;

use super::error;
use crate::admin::Counts;
use crate::config::Serve;
use crate::outside;

/// From the head of a request to the head of its answer, with the body of the request in between.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Octets of a request's head. hyper compares only between two reads, the last of which may bring as many again.
pub(super) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Octets of a request's body; nothing that is asked here is longer.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Shorter answers fit into a packet as they are.
const GZIP_BYTES_MIN: usize = 1400;
/// Longer ones, which there are none of, go out as they are.
const GZIP_BYTES_MAX: usize = 4 << 20;
/// Askers that are counted; when all places are taken, further ones share one.
const ASKERS_MAX: usize = 1 << 16;
/// Between two looks for places that nobody needs any more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The address of whoever asks, in a request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Asker(pub(crate) IpAddr);

/// The router, and what stands before it.
pub(super) struct Front {
    router: Router,
    proxies: Vec<IpAddr>,
    limiter: Limiter,
    counts: Arc<Counts>,
}

impl Front {
    pub(super) fn new(router: Router, settings: &Serve, counts: Arc<Counts>) -> Self {
        let router = router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        let proxies = settings.trusted_proxies.clone();
        Self { router, proxies, limiter: Limiter::new(settings.requests_per_minute), counts }
    }

    pub(super) async fn answer(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Result<Response, Infallible> {
        let asker = asker(peer, request.headers(), &self.proxies);
        let uri = request.uri().clone();
        let gzip = request.method() != Method::HEAD && takes_gzip(request.headers());
        let mut response = match self.limiter.take(asker, outside::moment()) {
            Err(wait) => too_many(wait),
            // RFC 6585 §5.
            Ok(()) if head_bytes(request.uri(), request.headers()) > HEAD_BYTES_MAX => {
                error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "RequestHeaderFieldsTooLarge", "a head has 64 KiB at most")
            }
            Ok(()) if request.method() == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
            Ok(()) => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(asker);
                match tokio::time::timeout(REQUEST_MAX, self.router.clone().oneshot(request)).await {
                    Ok(Ok(response)) => response,
                    Err(_) => error(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the request did not come whole in time"),
                }
            }
        };
        self.counts.request(uri.path(), response.status());
        if gzip {
            response = compressed(response).await;
        }
        allow_any_origin(response.headers_mut());
        Ok(response)
    }
}

/// Octets of what was asked for and of the fields.
fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    path + fields.sum::<usize>()
}

fn too_many(wait: Duration) -> Response {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded", "too many requests from this address");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    response
}

/// Nothing here depends on who is logged in where.
fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, authorization"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

/// The last address that a proxy of ours did not write itself.
fn asker(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> Asker {
    let peer = peer.to_canonical();
    if !proxies.contains(&peer) {
        return Asker(peer);
    }
    let named =
        headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let named: Vec<_> = named.map(|name| name.trim().parse::<IpAddr>().map(|address| address.to_canonical())).collect();
    let last = named.into_iter().rev().find(|address| address.as_ref().map_or(true, |address| !proxies.contains(address)));
    Asker(last.and_then(Result::ok).unwrap_or(peer))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip")) && !parts.any(refused)
    })
}

async fn compressed(response: Response) -> Response {
    let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let worth = size.is_some_and(|size| (GZIP_BYTES_MIN..=GZIP_BYTES_MAX).contains(&size));
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !worth || !(kind.starts_with("application/json") || kind.starts_with("text/")) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(plain) = to_bytes(body, GZIP_BYTES_MAX).await else { unreachable!("it is in memory, and its size was looked at") };
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::fast());
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish());
    let Ok(packed) = packed else { unreachable!("memory takes everything") };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(head, Body::from(packed))
}

/// Requests of each asker: a bucket that holds a minute's worth and fills evenly.
struct Limiter {
    per_minute: u32,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    of: HashMap<IpAddr, Bucket>,
    /// When places were last looked for. It takes a while, so a crowd of new askers cannot have it done for each.
    swept: Option<Instant>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Limiter {
    fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: Mutex::default() }
    }

    /// Takes one, or says how long until there is one.
    fn take(&self, asker: Asker, now: Instant) -> Result<(), Duration> {
        let (most, per_second) = (f64::from(self.per_minute), f64::from(self.per_minute) / 60.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = network(asker.0);
        if buckets.of.len() >= ASKERS_MAX && !buckets.of.contains_key(&name) {
            if buckets.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
                // Who has been quiet for a minute has a full bucket, which is no different from none.
                buckets.of.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(60));
                buckets.swept = Some(now);
            }
            if buckets.of.len() >= ASKERS_MAX {
                name = Ipv6Addr::UNSPECIFIED.into();
            }
        }
        let bucket = buckets.of.entry(name).or_insert(Bucket { left: most, at: now });
        bucket.left = (bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * per_second).min(most);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / per_second));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

/// What one customer has: an IPv4 address, or a /64.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_asker_has_a_minutes_worth_and_then_one_after_another() {
        let (limiter, began) = (Limiter::new(60), outside::moment());
        let take = |who: &str, secs| limiter.take(Asker(ip(who)), began + Duration::from_secs(secs));
        for _ in 0..60 {
            assert_eq!(take("192.0.2.1", 0), Ok(()));
        }
        assert_eq!(take("192.0.2.1", 0), Err(Duration::from_secs(1)));
        assert_eq!(take("192.0.2.2", 0), Ok(()), "others are not to blame");
        assert_eq!((take("192.0.2.1", 1), take("192.0.2.1", 1).is_err()), (Ok(()), true));
        for _ in 0..60 {
            assert_eq!(take("2001:db8::1", 0), Ok(()));
        }
        assert!(take("2001:db8::2:3", 0).is_err(), "a /64 is one asker");
        assert_eq!(take("2001:db8:0:1::2", 0), Ok(()));
    }

    #[test]
    fn more_askers_than_places_share_one_and_take_nobodys() {
        let (limiter, now) = (Limiter::new(2), outside::moment());
        for n in 0..ASKERS_MAX as u32 {
            limiter.take(Asker(std::net::Ipv4Addr::from(n).into()), now).unwrap();
        }
        let late = |n: u8| limiter.take(Asker(ip(&format!("198.51.100.{n}"))), now);
        assert_eq!((late(1), late(2), late(3).is_err()), (Ok(()), Ok(()), true));
        assert_eq!(limiter.take(Asker(ip("0.0.0.7")), now), Ok(()));
        assert!(limiter.buckets.lock().unwrap().of.len() <= ASKERS_MAX + 1);
        assert_eq!(limiter.take(Asker(ip("198.51.100.3")), now + Duration::from_secs(61)), Ok(()), "the quiet make room");
        assert_eq!(limiter.buckets.lock().unwrap().of.len(), 1);
    }

    #[test]
    fn a_head_is_as_long_as_its_path_and_fields() {
        let mut headers = HeaderMap::new();
        headers.append("x", "12".parse().unwrap());
        headers.append("x", "345".parse().unwrap());
        assert_eq!(head_bytes(&"/a?b=c".parse().unwrap(), &headers), "/a?b=c".len() + "x: 12\r\nx: 345\r\n".len());
    }

    #[test]
    fn only_our_own_proxy_says_who_asks() {
        let forwarded = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().unwrap());
            }
            asker(ip(peer), &headers, &[ip("127.0.0.1"), ip("10.0.0.2")]).0
        };
        assert_eq!(forwarded("192.0.2.1", &["198.51.100.7"]), ip("192.0.2.1"));
        assert_eq!(forwarded("127.0.0.1", &[]), ip("127.0.0.1"));
        assert_eq!(
            forwarded("127.0.0.1", &["198.51.100.7, 192.0.2.9"]),
            ip("192.0.2.9"),
            "the first is whatever the asker wrote"
        );
        assert_eq!(forwarded("::ffff:127.0.0.1", &["1.2.3.4", "192.0.2.9, 10.0.0.2"]), ip("192.0.2.9"), "through two of ours");
        assert_eq!(forwarded("127.0.0.1", &["198.51.100.7, unknown"]), ip("127.0.0.1"));
    }

    #[test]
    fn gzip_is_for_who_asks_for_it() {
        let takes = |value: &str| takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]));
        assert!(takes("gzip") && takes("deflate, GZIP;q=0.5") && takes("br, gzip"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("gzip; q=0.0, br") && !takes_gzip(&HeaderMap::new()));
    }
}
