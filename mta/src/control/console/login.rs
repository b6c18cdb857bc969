//! Signing in, with an operator's token.

use axum::{extract::Query, http::StatusCode, response::Response};
use maud::html;

use super::{Fields, frame, given};

/// `/login`. It says the same whatever was wrong.
pub(in crate::control) async fn page(Query(fields): Query<Fields>) -> Response {
    let body = html! {
        h1 { "tradewind" }
        p.lead { "Sign in with an operator's token. " code { "tradewind token add --name NAME --role read|operate|admin" } " makes one." }
        @if fields.contains_key("failed") { div.notice.bad role="alert" { "That token is not good here." } }
        form method="post" action="/login" {
            input type="hidden" name="to" value=(given(&fields, "to").as_deref().unwrap_or("/"));
            p {
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password" size="36";
            }
            button.primary { "Sign in" }
        }
    };
    frame::alone(StatusCode::OK, "Sign in", &body)
}
