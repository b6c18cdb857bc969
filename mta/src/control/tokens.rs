//! Operators' tokens: made, listed, revoked. Each change is in the database before it is said to be done, and holds from then on:
//! the next request that shows a revoked token, or the cookie of a login with it, is refused.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::admin::tokens::{TOKENS_MAX, Token, new_token};
use super::api::{AddToken, NewToken, Refusal, TokenRow};
use super::daemon::Daemon;
use super::members::next_id;
use super::views::{time, unable};
use crate::queue::{QueueError, Reader};

/// Names of tokens.
const NAME_BYTES_MAX: usize = 64;

impl Daemon {
    /// Makes one.
    pub(super) async fn make_token(&self, new: AddToken, by: &str) -> Result<NewToken, Refusal> {
        let AddToken { name, role } = new;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
            return Err(Refusal::Wrong("a name has 1 to 64 letters, digits, and . _ - @".to_owned()));
        }
        let _change = self.changing.lock().await;
        let tokens = self.gate.tokens();
        if tokens.iter().any(|token| token.name == name) {
            return Err(Refusal::Conflict(format!("{name} has a token already; revoke it first, or choose another name")));
        }
        if tokens.len() >= TOKENS_MAX {
            return Err(Refusal::Conflict(format!("there are {TOKENS_MAX} tokens already; revoke one first")));
        }
        let secret = new_token(&self.parts.dice);
        let made_secs = self.now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        let mut token = Token { id: 0, name, role, hash: self.gate.key().hash_token(&secret), made_secs, made_by: by.to_owned() };
        let work = self.parts.queue.transact(move |txn, tables| {
            token.id = next_id(tables.operators, txn)?;
            let row = serde_json::to_vec(&token).map_err(|_| QueueError::Invalid("a token's row cannot be written"))?;
            tables.operators.put(txn, &token.id.to_be_bytes(), &row)?;
            Ok(token)
        });
        let token = work.await.map_err(unable)?;
        let row = row(&token);
        self.gate.set_tokens(tokens.iter().cloned().chain([token]).collect());
        Ok(NewToken { row, token: secret.expose().to_owned() })
    }

    /// All of them.
    pub(super) fn list_tokens(&self) -> Vec<TokenRow> {
        self.gate.tokens().iter().map(row).collect()
    }

    /// Makes one worthless. Answers it as it was.
    pub(super) async fn drop_token(&self, name: &str) -> Result<TokenRow, Refusal> {
        let _change = self.changing.lock().await;
        let tokens = self.gate.tokens();
        let token = tokens.iter().find(|token| token.name == name);
        let token =
            token.ok_or_else(|| Refusal::Unknown(format!("{name} has no token; `tradewind token list` shows them all")))?;
        let id = token.id;
        let work = self.parts.queue.transact(move |txn, tables| Ok(tables.operators.delete(txn, &id.to_be_bytes())?));
        work.await.map_err(unable)?;
        self.gate.set_tokens(tokens.iter().filter(|other| other.id != id).cloned().collect());
        Ok(row(token))
    }
}

/// Those in the database. A damaged one is told and left out: it opens nothing.
pub(super) fn read_tokens(reader: &Reader) -> Result<Arc<Vec<Token>>, QueueError> {
    reader.read(|txn, tables| {
        let mut tokens = Vec::new();
        for entry in tables.operators.iter(txn)? {
            let (key, row) = entry?;
            match serde_json::from_slice::<Token>(row) {
                _ if key == super::members::NEXT_ID => {}
                Ok(token) => tokens.push(token),
                Err(error) => tracing::error!(%error, "an operator's token is left out"),
            }
        }
        Ok(Arc::new(tokens))
    })
}

fn row(token: &Token) -> TokenRow {
    TokenRow {
        name: token.name.clone(),
        role: token.role,
        made_at: time(UNIX_EPOCH + Duration::from_secs(token.made_secs)),
        made_by: token.made_by.clone(),
    }
}
