//! Operators' tokens.

use mta::control::api::{AddToken, NewToken, TokenRow};

use crate::args::TokenVerb;
use crate::client::{Client, escape};
use crate::show::{Show, pairs, print, table};

pub(crate) async fn run(verb: TokenVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    match verb {
        TokenVerb::Add { name, role } => print(&daemon.post::<NewToken>("/v1/tokens", &AddToken { name, role }).await?, json),
        TokenVerb::List => print(&daemon.get::<Vec<TokenRow>>("/v1/tokens").await?, json),
        TokenVerb::Revoke { name } => print(&daemon.delete::<TokenRow>(&format!("/v1/tokens/{}", escape(&name))).await?, json),
    }
}

impl Show for NewToken {
    fn show(&self) -> String {
        format!("{}\nThe token, shown this once:\n\n  {}\n", self.row.show(), self.token)
    }
}

impl Show for TokenRow {
    fn show(&self) -> String {
        let TokenRow { name, role, made_at, made_by } = self.clone();
        pairs([("name", name), ("role", role.to_string()), ("made", made_at), ("by", made_by)])
    }
}

impl Show for Vec<TokenRow> {
    fn show(&self) -> String {
        if self.is_empty() {
            return "nobody may use the API on the admin port; make a token with: tradewind token add --name N --role R\n"
                .to_owned();
        }
        let row = |it: &TokenRow| [it.name.clone(), it.role.to_string(), it.made_at.clone(), it.made_by.clone()];
        table(["NAME", "ROLE", "MADE", "BY"], self.iter().map(row))
    }
}
