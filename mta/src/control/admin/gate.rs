//! Who asks: the peer of the operator's socket, or whoever shows a token or the cookie of a login on the admin port.
//!
//! Whatever is wrong with a proof is answered alike, and no path below `/v1` is told from another before the proof is good.
//!
//! A browser sends its cookie whoever makes it ask. So what changes anything by a cookie must come from a page of ours, which the
//! browser says (`Sec-Fetch-Site`, or `Origin` of an older one), and show a word that only such a page can know, in the field
//! `X-CSRF-Token` or as `csrf` in a form. The cookie is SameSite=Strict besides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use host::{Clock, Dice};

use super::attempts::Attempts;
use super::operator::{By, Operator, unknown};
use super::sessions::{LASTS, Sessions};
use super::tokens::{OperatorKey, Token, random};
use super::{Admin, Operations, forms};
use crate::control::{api::Refusal, http::Peer};

/// What proofs are held against.
pub struct Gate {
    key: OperatorKey,
    tokens: ArcSwap<Vec<Token>>,
    sessions: Mutex<Sessions>,
    attempts: Mutex<Attempts>,
    clock: Clock,
    dice: Dice,
    has_tls: bool,
}

/// The word that a page's forms and scripts must show to change anything. Any handler of a browser's request can take it.
#[derive(Clone)]
pub struct Csrf(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Csrf {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Csrf>().cloned().ok_or_else(unknown)
    }
}

/// A login that has just begun.
pub(super) struct Login {
    /// For `Set-Cookie`.
    pub(super) cookie: String,
    pub(super) operator: Operator,
    pub(super) csrf: Csrf,
}

impl Gate {
    /// With the tokens that there are. `has_tls`: cookies travel over TLS only.
    pub fn new(key: OperatorKey, tokens: Arc<Vec<Token>>, clock: Clock, dice: Dice, has_tls: bool) -> Gate {
        let (sessions, attempts) = Default::default();
        Gate { key, tokens: ArcSwap::new(tokens), sessions, attempts, clock, dice, has_tls }
    }

    /// The daemon's half of all proofs.
    pub fn key(&self) -> &OperatorKey {
        &self.key
    }

    /// The tokens that are good now.
    pub fn tokens(&self) -> Arc<Vec<Token>> {
        self.tokens.load_full()
    }

    /// Others are good from now on.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        self.tokens.store(Arc::new(tokens));
    }

    /// How long this peer must wait before it may try to log in.
    pub(super) fn must_wait(&self, peer: Peer) -> Option<Duration> {
        let Peer::Remote { address } = peer else { return None };
        self.attempts().wait(self.clock.now(), address.ip())
    }

    /// Begins a login with a token.
    pub(super) fn log_in(&self, peer: Peer, secret: &str) -> Result<Login, Refusal> {
        let tokens = self.tokens.load();
        let Some(token) = self.key.find(&tokens, secret.trim()) else {
            if let Peer::Remote { address } = peer {
                self.attempts().handle_failure(address.ip());
            }
            return Err(unknown());
        };
        let word = random(&self.dice);
        self.sessions().begin(self.clock.now(), self.key.hash("cookie", &word), token.id);
        let secure = if self.has_tls { "; Secure" } else { "" };
        let name = self.cookie_name();
        let cookie = format!("{name}={word}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", LASTS.as_secs());
        let operator = Operator { name: token.name.clone(), role: token.role, by: By::Login(token.id) };
        Ok(Login { cookie, operator, csrf: self.csrf(&word) })
    }

    /// Ends the login of this head, if it has one. Answers the `Set-Cookie` that forgets it.
    pub(super) fn log_out(&self, head: &HeaderMap) -> String {
        if let Some(word) = self.cookie(head) {
            self.sessions().end(&self.key.hash("cookie", word));
        }
        let secure = if self.has_tls { "; Secure" } else { "" };
        format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}", self.cookie_name())
    }

    /// A browser holds a cookie of this prefix to its promises (RFC 6265bis §4.1.3.2): over TLS, for this host alone.
    fn cookie_name(&self) -> &'static str {
        if self.has_tls { "__Host-tradewind" } else { "tradewind" }
    }

    /// Who it is that sent this head.
    fn who(&self, peer: Option<Peer>, head: &HeaderMap) -> Result<(Operator, Option<Csrf>), Refusal> {
        match peer {
            Some(Peer::User { uid }) => Ok((Operator::of_socket(uid), None)),
            Some(Peer::Remote { .. }) if head.contains_key(header::AUTHORIZATION) => Ok((self.by_token(head)?, None)),
            Some(Peer::Remote { .. }) => self.by_cookie(head),
            None => Err(unknown()),
        }
    }

    fn by_token(&self, head: &HeaderMap) -> Result<Operator, Refusal> {
        let shown = only(head, header::AUTHORIZATION).ok_or_else(unknown)?;
        let (scheme, secret) = shown.split_once(' ').ok_or_else(unknown)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown());
        }
        let tokens = self.tokens.load();
        let token = self.key.find(&tokens, secret.trim()).ok_or_else(unknown)?;
        Ok(Operator { name: token.name.clone(), role: token.role, by: By::Token(token.id) })
    }

    fn by_cookie(&self, head: &HeaderMap) -> Result<(Operator, Option<Csrf>), Refusal> {
        let word = self.cookie(head).ok_or_else(unknown)?;
        let id = self.sessions().find(self.clock.now(), &self.key.hash("cookie", word)).ok_or_else(unknown)?;
        // A token that was revoked takes its logins along.
        let tokens = self.tokens.load();
        let token = tokens.iter().find(|token| token.id == id).ok_or_else(unknown)?;
        Ok((Operator { name: token.name.clone(), role: token.role, by: By::Login(id) }, Some(self.csrf(word))))
    }

    /// The word of our cookie, if it is there once.
    fn cookie<'a>(&self, head: &'a HeaderMap) -> Option<&'a str> {
        let name = self.cookie_name();
        let pairs = head.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
        let mut words = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
        words.next().filter(|_| words.next().is_none())
    }

    fn csrf(&self, word: &str) -> Csrf {
        Csrf(data_encoding::HEXLOWER.encode(&self.key.hash("csrf", word)))
    }

    /// Whether a browser says that a page of ours asks. `must`: silence is not enough.
    pub(super) fn check_origin(&self, head: &HeaderMap, must: bool) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::Forbidden(format!("another site's page may not ask this: {why}")));
        let (site, origin) = (head.get("sec-fetch-site"), head.get(header::ORIGIN));
        if site.is_some() && only(head, "sec-fetch-site").is_none_or(|site| site != "same-origin") {
            return refuse("Sec-Fetch-Site is not same-origin");
        }
        if origin.is_some() {
            let host = only(head, header::HOST).filter(|host| !host.is_empty());
            let at = only(head, header::ORIGIN).and_then(|origin| origin.split_once("://"));
            let is_ours = at.is_some_and(|(scheme, at)| {
                let fits = scheme == "https" || (scheme == "http" && !self.has_tls);
                fits && host.is_some_and(|host| host.eq_ignore_ascii_case(at))
            });
            if !is_ours {
                return refuse("Origin is not this host");
            }
        }
        if must && site.is_none() && origin.is_none() {
            return refuse("it has neither Origin nor Sec-Fetch-Site");
        }
        Ok(())
    }

    fn check_csrf(&self, csrf: &Csrf, shown: Option<&str>) -> Result<(), Refusal> {
        // Both are hashed again, so that the time of comparing says nothing.
        if shown.is_some_and(|shown| self.key.verify("shown", shown, &self.key.hash("shown", &csrf.0))) {
            return Ok(());
        }
        Err(Refusal::Forbidden("X-CSRF-Token (in a form: csrf) is not that of this login; GET /v1/session tells it".to_owned()))
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A field that stands in the head once, and is text.
fn only(head: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    let mut all = head.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())?.to_str().ok()
}

/// Lets in who is known, as an [`Operator`]; all others are answered 401.
pub(super) async fn only_operators<O: Operations>(State(admin): State<Admin<O>>, request: Request, next: Next) -> Response {
    match know(&admin.gate, request).await {
        Ok((_, Err(refusal))) | Err(refusal) => refusal.into_response(),
        Ok((request, Ok(()))) => next.run(request).await,
    }
}

/// Lets in everybody: for pages that show themselves to strangers too, with [`MaybeOperator`](super::MaybeOperator).
pub(in crate::control) async fn whoever<O: Operations>(State(admin): State<Admin<O>>, request: Request, next: Next) -> Response {
    match know(&admin.gate, request).await {
        Err(refusal) => refusal.into_response(),
        Ok((request, _)) => next.run(request).await,
    }
}

/// Puts into the request who asks, if that is known. An error: it is known, and may not ask like this.
async fn know(gate: &Gate, mut request: Request) -> Result<(Request, Result<(), Refusal>), Refusal> {
    let peer = request.extensions().get::<Peer>().copied();
    let (operator, csrf) = match gate.who(peer, request.headers()) {
        Ok(known) => known,
        Err(refusal) => return Ok((request, Err(refusal))),
    };
    if let Some(csrf) = csrf {
        if !request.method().is_safe() {
            gate.check_origin(request.headers(), true)?;
            let shown = only(request.headers(), "x-csrf-token").map(str::to_owned);
            let shown = match shown {
                None if forms::is_form(request.headers()) => {
                    let (parts, body) = request.into_parts();
                    let body = forms::read(&parts.headers, body).await?;
                    let shown = forms::field(&body, "csrf");
                    request = Request::from_parts(parts, Body::from(body));
                    shown
                }
                shown => shown,
            };
            gate.check_csrf(&csrf, shown.as_deref())?;
        }
        request.extensions_mut().insert(csrf);
    }
    request.extensions_mut().insert(operator);
    Ok((request, Ok(())))
}

#[cfg(test)]
impl Gate {
    pub(crate) fn knows_token(&self, secret: &str) -> bool {
        self.key.find(&self.tokens.load(), secret).is_some()
    }
}
