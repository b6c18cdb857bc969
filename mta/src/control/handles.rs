//! Members' handles: what their DID documents say, so that a member may authenticate with its handle as user name.
//!
//! A handle in a DID document is a claim. That is enough here: a user name only says which credentials a secret is
//! compared with, and one handle claimed by two members finds those of both.
//!
//! Asked for when a member is new, and once an hour, since handles change. What cannot be looked up stays as it was.

use std::time::Duration;

use atproto::Did;
use atproto::did::{DOCUMENT_BYTES_MAX, Document, web_document_url};

use super::daemon::Daemon;
use super::fetch::Fetch;
use crate::policy::Member;

/// How long a handle that a member has given up still serves as its user name, at most.
const AGAIN: Duration = Duration::from_secs(3600);

/// Looks handles up for as long as the daemon runs.
pub(super) async fn run(daemon: &Daemon, fetch: &Fetch) {
    loop {
        for member in daemon.all_members() {
            look_up(daemon, fetch, &member).await;
        }
        let next = tokio::time::sleep(AGAIN);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                () = daemon.newcomer.notified() => {
                    for member in daemon.all_members().iter().filter(|member| member.handle.is_none()) {
                        look_up(daemon, fetch, member).await;
                    }
                }
            }
        }
    }
}

async fn look_up(daemon: &Daemon, fetch: &Fetch, member: &Member) {
    let plc_url = daemon.config.load().identity.plc_url.trim_end_matches('/').to_owned();
    let Ok(did) = member.did.parse::<Did>() else { return };
    let url = if did.starts_with("did:plc:") { Some(format!("{plc_url}/{}", did.as_str())) } else { web_document_url(&did) };
    let Some(url) = url else { return };
    let handle = match fetch.get(&url, DOCUMENT_BYTES_MAX).await {
        Ok(octets) => match Document::parse(&octets, &did) {
            Ok(document) => document.handle().map(str::to_owned),
            Err(error) => return tracing::debug!(did = member.did, %error, "no handle: the DID document cannot be read"),
        },
        Err(error) => return tracing::debug!(did = member.did, %error, "no handle: the DID cannot be looked up"),
    };
    if handle != member.handle
        && let Err(error) = daemon.set_handle(member.id, handle).await
    {
        tracing::error!(did = member.did, %error, "the member's handle cannot be kept");
    }
}
