//! Who calls, and whether they may: service auth (`atproto::jwt`), held against the MTAs that the operator has named.
//!
//! In this order, so that a stranger costs nothing and fills nothing: what the token says of itself; whether its issuer is one of
//! ours; only then its DID is looked up, the signature is checked, and the token is noted as used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use atproto::Did;
use atproto::did::Document;
use atproto::jwt::{Caller, Expected, JwtError, Token};
use atproto::sending::SERVICE;
use axum::http::{HeaderMap, header};

use crate::identity::{Resolver, Unresolved};
use crate::replay::{Mark, ReplayError, Used};
use crate::store::{Store, StoreError};

/// How long a caller's document is believed: a key that was given up counts no longer than this.
const DOCUMENT_FRESH: Duration = Duration::from_secs(300);
/// A signature that does not fit may mean a new key; its document is looked up again no more often than this.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Why a call is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// 401: no token, or one that is of no use here.
    #[error("{0}")]
    Token(String),
    /// 401.
    #[error("{0}")]
    Jwt(#[from] JwtError),
    /// 403: not one of the MTAs that the operator has named.
    #[error("{0} is not an MTA of this co-op; its operator is who names them")]
    NotPermitted(String),
    /// 401 or 429.
    #[error("{0}")]
    Replay(#[from] ReplayError),
    /// 500: it cannot be kept that the token was used.
    #[error("the store cannot do it just now")]
    Store(#[from] StoreError),
    /// 503: it is not known whose key it is. Try again later.
    #[error("{0} cannot be looked up: {1}")]
    Unresolved(String, String),
}

/// Lets MTAs in.
pub(crate) struct Gate {
    audience: Did,
    mtas: Vec<Did>,
    resolver: Resolver,
    used: Mutex<Used>,
    store: Arc<Store>,
    /// Bounded by the number of MTAs.
    documents: Mutex<HashMap<Did, (Document, SystemTime)>>,
}

impl Gate {
    /// Remembers which tokens were used before.
    pub(crate) fn new(
        audience: Did,
        mtas: Vec<Did>,
        resolver: Resolver,
        store: Arc<Store>,
        now: SystemTime,
    ) -> Result<Self, StoreError> {
        let mut used = Used::default();
        store.used(now)?.into_iter().for_each(|mark| used.remember(mark));
        Ok(Self { audience, mtas, resolver, used: used.into(), store, documents: Mutex::default() })
    }

    /// Who calls `method`; the token is used up.
    pub(super) async fn admit(&self, headers: &HeaderMap, method: &str, now: SystemTime) -> Result<Caller, Refused> {
        let token = Token::parse(bearer(headers)?)?;
        let expected = Expected { audience: &self.audience, service: SERVICE, method, now };
        token.check(expected)?;
        let issuer = token.issuer();
        if !self.mtas.contains(issuer) {
            return Err(Refused::NotPermitted(issuer.as_str().into()));
        }
        let (document, since) = self.document(issuer, DOCUMENT_FRESH, now).await?;
        let caller = match token.verify(&document, expected) {
            // It may have another key now.
            Err(JwtError::BadSignature | JwtError::Algorithm | JwtError::Document(_)) if since != now => {
                token.verify(&self.document(issuer, AGAIN_AFTER, now).await?.0, expected)?
            }
            verified => verified?,
        };
        // Other keys of the document are for other things: labels, mostly.
        if caller.kid != "atproto" {
            return Err(Refused::Token("the token is not signed with the key #atproto".into()));
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).take(&caller, now)?;
        let (store, mark) = (self.store.clone(), Mark::of(&caller));
        let kept = tokio::task::spawn_blocking(move || store.keep_used(&mark, now)).await;
        kept.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(caller)
    }

    /// The caller's document and when it was looked up: no longer ago than `fresh`.
    async fn document(&self, did: &Did, fresh: Duration, now: SystemTime) -> Result<(Document, SystemTime), Refused> {
        let known = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(did).cloned();
        if let Some((document, since)) = known
            && now.duration_since(since).is_ok_and(|age| age < fresh)
        {
            return Ok((document, since));
        }
        let document = self.resolver.resolve(did).await.map_err(|error| {
            let (Unresolved::Gone(why) | Unresolved::Unknown(why)) = error;
            Refused::Unresolved(did.as_str().into(), why)
        })?;
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).insert(did.clone(), (document.clone(), now));
        Ok((document, now))
    }
}

/// What stands after `Bearer ` (RFC 6750 §2.1), of the one field that there may be.
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let text = match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().ok(),
        _ => None,
    };
    let token = text.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token.trim()).ok_or_else(|| Refused::Token("the header Authorization has no Bearer token".into()))
}
