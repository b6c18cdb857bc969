//! Who asks: the peer of the operator's socket, or whoever shows a token on the admin port.
//!
//! Whatever is wrong with a proof is answered alike, and no path below `/v1` is told from another before the proof is good.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::operator::{By, Operator, unknown};
use super::tokens::{OperatorKey, Token};
use super::{Admin, Operations};
use crate::control::{api::Refusal, http::Peer};

/// What proofs are held against.
pub struct Gate {
    key: OperatorKey,
    tokens: ArcSwap<Vec<Token>>,
}

impl Gate {
    /// With the tokens that there are.
    pub fn new(key: OperatorKey, tokens: Arc<Vec<Token>>) -> Gate {
        Gate { key, tokens: ArcSwap::new(tokens) }
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

    /// Who it is that sent this head.
    fn who(&self, peer: Option<Peer>, head: &HeaderMap) -> Result<Operator, Refusal> {
        match peer {
            Some(Peer::User { uid }) => Ok(Operator::of_socket(uid)),
            Some(Peer::Remote { .. }) => self.by_token(head),
            None => Err(unknown()),
        }
    }

    fn by_token(&self, head: &HeaderMap) -> Result<Operator, Refusal> {
        let mut shown = head.get_all(header::AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else { return Err(unknown()) };
        let (scheme, secret) = shown.to_str().ok().and_then(|shown| shown.split_once(' ')).ok_or_else(unknown)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unknown());
        }
        let tokens = self.tokens.load();
        let token = self.key.find(&tokens, secret.trim()).ok_or_else(unknown)?;
        Ok(Operator { name: token.name.clone(), role: token.role, by: By::Token(token.id) })
    }
}

/// Lets in who is known, as an [`Operator`]; all others are answered 401.
pub(super) async fn only_operators<O: Operations>(State(admin): State<Admin<O>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    match admin.gate.who(peer, request.headers()) {
        Ok(operator) => {
            request.extensions_mut().insert(operator);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
impl Gate {
    pub(crate) fn knows_token(&self, secret: &str) -> bool {
        self.key.find(&self.tokens.load(), secret).is_some()
    }
}
