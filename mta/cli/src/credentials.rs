//! A member's passwords, one by one.

use clap::{Args, Subcommand};
use hyper::Method;
use mta::control::api::{CredentialRow, NewSecret};

use crate::client::{Client, escape};
use crate::show::{Show, pairs, print, table};

#[derive(Debug, Subcommand)]
pub(crate) enum CredentialVerb {
    /// All of a member's, without their passwords
    List {
        /// DID or domain
        member: String,
    },
    /// Make one worthless, at once; the others go on to work
    Revoke(One),
    /// Another password in the place of one; it is shown once, and the old one is worthless from then on
    Rotate(One),
}

/// Which, and why.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// DID or domain of the member
    member: String,
    /// Its number, as `list` shows it
    id: u32,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(crate) async fn run(verb: CredentialVerb, daemon: &Client, json: bool) -> anyhow::Result<()> {
    let all = |member: &str| format!("/v1/members/{}/credentials", escape(member));
    match verb {
        CredentialVerb::List { member } => print(&daemon.get::<Vec<CredentialRow>>(&all(&member)).await?, json),
        CredentialVerb::Revoke(One { member, id, why }) => {
            let gone: Revoked = daemon.change(Method::DELETE, &format!("{}/{id}", all(&member)), why.as_deref()).await?;
            print(&gone, json)
        }
        CredentialVerb::Rotate(One { member, id, why }) => {
            let path = format!("{}/{id}/rotate", all(&member));
            print(&daemon.change::<NewSecret>(Method::POST, &path, why.as_deref()).await?, json)
        }
    }
}

/// One that is gone.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Revoked(CredentialRow);

impl Show for Revoked {
    fn show(&self) -> String {
        format!("nobody can sign in with credential {} of {} any more\n", self.0.id, self.0.domain)
    }
}

impl Show for NewSecret {
    fn show(&self) -> String {
        let shown = pairs([("username", self.username.clone()), ("password", self.password.clone())]);
        format!("The password is shown this once; the old one is worthless.\n\nPDS_EMAIL_SMTP_URL={}\n\n{shown}", self.smtp_url)
    }
}

impl Show for Vec<CredentialRow> {
    fn show(&self) -> String {
        if self.is_empty() {
            return "no credentials: it cannot sign in; tradewind member add --did DID --domain DOMAIN makes one\n".to_owned();
        }
        let row = |it: &CredentialRow| [it.id.to_string(), it.domain.clone(), it.class.clone(), it.classes.join(" ")];
        table(["ID", "USERNAME", "CLASS", "MAY SEND"], self.iter().map(row))
    }
}
