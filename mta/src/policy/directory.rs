//! Who a user name means. An immutable snapshot: the control thread builds a new one when a member, a
//! credential, a label or a key changes, and sessions read whichever is current.
//!
//! A user name may be the domain, the handle, the DID, or the DID percent-encoded. And since a DID cannot be
//! written as the user of a URL (nodemailer splits at the first colon, decoded or not), user `did` with the
//! password `plc:xyz:secret` is read as the DID `did:plc:xyz` with that secret: our secrets hold no colon.
//!
//! Not here: whether they may send (`admit.rs`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use smtp::address::canonical_domain;

use super::account::{Account, Meter};
use super::doubts::{Caution, Doubted, Doubts};
use super::members::{Credential, Member};
use super::standing::Standing;
use super::tier::Tiers;

/// The current snapshot, for every thread.
pub type SharedDirectory = Arc<ArcSwap<Directory>>;

/// Credentials that one user name can mean and that are compared with the secret. Past it the later ones are
/// not found by DID or handle, only by their domain.
pub const CANDIDATES_MAX: usize = 32;

/// Longer user names are nobody's.
const USERNAME_BYTES_MAX: usize = 512;

/// What labels a member needs, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// All of these.
    pub labels: Vec<String>,
    /// Where a refused member can look.
    pub labeler_url: String,
    /// After this long without an answer, those without labels wait instead of being refused.
    pub stale_after: Duration,
}

/// Members, credentials, standing: all that admission needs.
#[derive(Debug, Default)]
pub struct Directory {
    members: HashMap<u32, Arc<Member>>,
    by_did: HashMap<String, u32>,
    by_domain: HashMap<String, Vec<Arc<Credential>>>,
    by_member: HashMap<u32, Vec<Arc<Credential>>>,
    /// A handle is a claim: two members may make the same one, and neither locks the other out.
    by_handle: HashMap<String, Vec<u32>>,
    accounts: HashMap<u32, Account>,
    standing: Arc<Standing>,
    requirement: Option<Requirement>,
    doubts: Arc<Doubts>,
    /// None: doubts are not consulted.
    caution: Option<Caution>,
    /// None: members without keys may send.
    signed_domains: Option<HashSet<String>>,
}

impl Directory {
    /// From the rows of both tables. `requirement` is None where labels are not consulted.
    pub fn new(
        members: impl IntoIterator<Item = Member>,
        credentials: impl IntoIterator<Item = Credential>,
        standing: Arc<Standing>,
        requirement: Option<Requirement>,
    ) -> Self {
        let mut directory = Self { standing, requirement, ..Self::default() };
        for member in members {
            directory.by_did.insert(canonical_did(&member.did), member.id);
            if let Some(handle) = &member.handle {
                directory.by_handle.entry(handle.to_ascii_lowercase()).or_default().push(member.id);
            }
            directory.members.insert(member.id, Arc::new(member));
        }
        for credential in credentials {
            // Its member or its domain was removed: it opens nothing any more.
            let held =
                directory.members.get(&credential.member).is_some_and(|member| member.domains.contains(&credential.domain));
            if held {
                let credential = Arc::new(credential);
                directory.by_domain.entry(credential.domain.clone()).or_default().push(Arc::clone(&credential));
                directory.by_member.entry(credential.member).or_default().push(credential);
            }
        }
        directory.with_accounts(&Tiers::default(), |_| Arc::default())
    }

    /// What the labeler doubts, and what is done about it.
    #[must_use]
    pub fn with_doubts(mut self, doubts: Arc<Doubts>, caution: Option<Caution>) -> Self {
        (self.doubts, self.caution) = (doubts, caution);
        self
    }

    /// `signing.required` is set: these domains have keys, the others may not send.
    #[must_use]
    pub fn requiring_keys(mut self, domains: impl IntoIterator<Item = String>) -> Self {
        self.signed_domains = Some(domains.into_iter().collect());
        self
    }

    /// Members under the limits of their tiers; without this they have none. `meter` gives a member's, which goes on
    /// counting from snapshot to snapshot.
    #[must_use]
    pub fn with_accounts(mut self, tiers: &Tiers, meter: impl Fn(u32) -> Arc<Meter>) -> Self {
        let account = |member: &Arc<Member>| Account::new(tiers.of(member.tier.as_deref()).clone(), meter(member.id));
        self.accounts = self.members.iter().map(|(id, member)| (*id, account(member))).collect();
        self
    }

    /// What a member may send and has sent.
    pub fn account(&self, member: u32) -> Option<&Account> {
        self.accounts.get(&member)
    }

    /// The credentials that this user name can mean, and the secret to compare with each.
    pub fn candidates<'p>(&self, username: &str, password: &'p str) -> (Vec<&Arc<Credential>>, &'p str) {
        let mut found: Vec<&Arc<Credential>> = Vec::new();
        if username.len() > USERNAME_BYTES_MAX {
            return (found, password);
        }
        let mut secret = password;
        let username = username.trim();
        if username.eq_ignore_ascii_case("did") {
            // What nodemailer makes of `smtp://did:plc:xyz:secret@host`.
            if let Some((rest, last)) = password.rsplit_once(':').filter(|(rest, _)| rest.len() <= USERNAME_BYTES_MAX) {
                found.extend(self.of_member(self.by_did.get(&canonical_did(&format!("did:{rest}")))));
                secret = last;
            }
        } else if username.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("did")) && username.contains([':', '%']) {
            found.extend(self.of_member(self.by_did.get(&canonical_did(username))));
        }
        if let Ok(domain) = canonical_domain(username) {
            found.extend(self.by_domain.get(&*domain).into_iter().flatten());
            for id in self.by_handle.get(&*domain).into_iter().flatten() {
                found.extend(self.of_member(Some(id)));
            }
        }
        found.truncate(CANDIDATES_MAX);
        (found, secret)
    }

    fn of_member(&self, id: Option<&u32>) -> impl Iterator<Item = &Arc<Credential>> {
        id.and_then(|id| self.by_member.get(id)).into_iter().flatten()
    }

    /// A member by its number.
    pub fn member(&self, id: u32) -> Option<&Arc<Member>> {
        self.members.get(&id)
    }

    /// A member by its DID, in any spelling.
    pub fn member_by_did(&self, did: &str) -> Option<&Arc<Member>> {
        self.by_did.get(&canonical_did(did)).and_then(|id| self.members.get(id))
    }

    /// Every member, in no order.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.values()
    }

    /// The credentials of one member.
    pub fn credentials(&self, member: u32) -> &[Arc<Credential>] {
        self.by_member.get(&member).map_or(&[], Vec::as_slice)
    }

    /// What labels say.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// What labels are needed; None: none are consulted.
    pub fn requirement(&self) -> Option<&Requirement> {
        self.requirement.as_ref()
    }

    /// What is doubted about a member now.
    pub fn doubted(&self, did: &str, now: SystemTime) -> Option<&Doubted> {
        self.doubts.of(did, self.caution?.stale_after, now)
    }

    /// The doubt for which a member's new mail waits now.
    pub fn pause(&self, did: &str, now: SystemTime) -> Option<&str> {
        let caution = self.caution.filter(|caution| caution.defers)?;
        self.doubts.of(did, caution.stale_after, now)?.pause.as_deref()
    }

    /// Whether mail from this domain can be signed as the configuration demands.
    pub fn can_sign_for(&self, domain: &str) -> bool {
        self.signed_domains.as_ref().is_none_or(|domains| domains.contains(domain))
    }
}

/// One spelling for `did:plc:x`, `did%3Aplc%3Ax`, `did:web:localhost%3A2583` and its decoded form. Only a key
/// for finding: the secret decides. DIDs of both methods are lower case, so folding joins no two of them.
fn canonical_did(text: &str) -> String {
    let mut did = text.to_ascii_lowercase();
    // A URL inside an .env file may have been encoded twice.
    for _ in 0..3 {
        if !did.contains("%3a") && !did.contains("%25") {
            break;
        }
        did = did.replace("%3a", ":").replace("%25", "%");
    }
    did
}
