//! The answers to what the dialogue asks about a submission: who is it, may they send now, from this
//! reverse-path, with this From. Each refusal says what is wrong and what to do, naming both sides.
//!
//! Not here: slowing down those who guess (`throttle.rs`), reading From (`from.rs`).

use std::sync::Arc;
use std::time::SystemTime;

use smtp::address::ReversePath;
use smtp::reply::Reply;

use super::directory::Directory;
use super::from::{self, FromError};
use super::members::{Class, Credential, CredentialKey, Member};
use super::standing::Judgement;
use crate::sign::header::Header;

/// Who is submitting: known by a credential, or by the listener (role `relay`).
#[derive(Debug, Clone)]
pub struct Sender {
    /// Whose mail it is.
    pub member: Arc<Member>,
    /// None: role `relay`, which may use every domain of the member.
    pub credential: Option<Arc<Credential>>,
}

impl Sender {
    /// Domains it may send from.
    pub fn domains(&self) -> &[String] {
        match &self.credential {
            Some(credential) => std::slice::from_ref(&credential.domain),
            None => &self.member.domains,
        }
    }

    /// What its mail is unless it says otherwise.
    pub fn class(&self) -> Class {
        self.credential.as_ref().map_or(Class::Transactional, |credential| credential.class)
    }

    /// The most urgent class that its mail may claim.
    pub fn strongest_class(&self) -> Class {
        self.credential.as_ref().and_then(|credential| credential.classes.iter().min().copied()).unwrap_or(Class::Otp)
    }

    fn may_use(&self, domain: &str) -> bool {
        self.domains().iter().any(|own| own == domain)
    }

    /// Whose domains they are, in a reply.
    fn whose(&self) -> String {
        let domains = self.domains();
        let named = domains.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if domains.len() > 3 { " …" } else { "" };
        match self.credential {
            Some(_) => format!("this credential is for {named}"),
            None => format!("this listener is for {named}{more}"),
        }
    }
}

/// AUTH: finds the credential whose secret this is. As many comparisons are made for a wrong secret as for a
/// right one, and one for a user name that nobody has.
pub fn authenticate(directory: &Directory, key: &CredentialKey, username: &str, password: &str) -> Result<Sender, Reply> {
    let (candidates, secret) = directory.candidates(username, password);
    let mut found = None;
    for credential in &candidates {
        if key.verify(credential, secret) {
            found = found.or(Some(*credential));
        }
    }
    if candidates.is_empty() {
        std::hint::black_box(key.hash(secret));
    }
    let sender = found.and_then(|credential| {
        let member = Arc::clone(directory.member(credential.member)?);
        Some(Sender { member, credential: Some(Arc::clone(credential)) })
    });
    sender.ok_or_else(|| {
        Reply::new(535, (5, 7, 8), "authentication failed: unknown user name (use your domain, handle or DID) or wrong secret")
    })
}

/// Role `relay`: the member that the listener is configured for.
pub fn on_behalf_of(directory: &Directory, did: &str) -> Result<Sender, Reply> {
    match directory.member_by_did(did) {
        Some(member) => Ok(Sender { member: Arc::clone(member), credential: None }),
        None => Err(Reply::new(451, (4, 3, 5), format!("{did}, whose mail this listener takes, is not enrolled here"))),
    }
}

/// MAIL: whether the member is in good standing now.
pub fn may_send(directory: &Directory, sender: &Sender, now: SystemTime) -> Result<(), Reply> {
    let did = &sender.member.did;
    // Read anew: a session may outlive the snapshot that it was authenticated by.
    let Some(member) = directory.member(sender.member.id) else {
        return Err(Reply::new(550, (5, 7, 1), format!("{did} is no longer a member")));
    };
    if let Some(reason) = &member.suspended {
        return Err(Reply::new(550, (5, 7, 1), format!("{did} is suspended: {reason}")));
    }
    if let Some(credential) = &sender.credential
        && !directory.credentials(member.id).iter().any(|current| current == credential)
    {
        return Err(Reply::new(550, (5, 7, 1), format!("the credential for {} was revoked", credential.domain)));
    }
    if !sender.domains().iter().any(|domain| directory.can_sign_for(domain)) {
        let domain = sender.domains().join(", ");
        return Err(Reply::new(451, (4, 3, 5), format!("{domain} has no DKIM key here yet; the operator has been told")));
    }
    is_labelled(directory, did, now)?;
    match directory.pause(did, now) {
        // For a while, and not for good: a client that queues loses nothing.
        Some(doubt) => {
            let text = format!("new mail of {did} waits: {doubt}; ask the relay's operator, or try again later");
            Err(Reply::new(451, (4, 7, 1), text))
        }
        None => Ok(()),
    }
}

/// Whether labels admit the member.
fn is_labelled(directory: &Directory, did: &str, now: SystemTime) -> Result<(), Reply> {
    let Some(need) = directory.requirement() else { return Ok(()) };
    match directory.standing().judge(did, &need.labels, need.stale_after, now) {
        Judgement::Good => Ok(()),
        Judgement::Missing(label) => Err(Reply::new(
            550,
            (5, 7, 1),
            format!(
                "label {label} is missing for {did}; see {}/xrpc/com.atproto.label.queryLabels?uriPatterns={did}",
                need.labeler_url.trim_end_matches('/')
            ),
        )),
        Judgement::Unknown => Err(Reply::new(
            451,
            (4, 7, 1),
            format!("the labels of {did} are not known yet: the labeler {} has not answered; try again later", need.labeler_url),
        )),
    }
}

/// MAIL: whether the sender may be told about failures at this address. The null reverse-path is allowed: a
/// notification must use it (RFC 5321 §4.5.5), and its From is checked like any other.
pub fn reverse_path(sender: &Sender, path: &ReversePath) -> Result<(), Reply> {
    match path.mailbox() {
        Some(mailbox) if !sender.may_use(mailbox.domain()) => {
            Err(Reply::new(550, (5, 7, 1), format!("reverse-path is in {}, but {}", mailbox.domain(), sender.whose())))
        }
        _ => Ok(()),
    }
}

/// DATA: whether the readers may be told that it comes from these authors. Gives the domain that signs.
pub fn header_from(sender: &Sender, header: &Header) -> Result<String, Reply> {
    let authors = from::authors(header).map_err(|error| {
        // RFC 3463: 5.6.0 is about the message's form.
        let text = match &error {
            FromError::Missing => "the message has no From field".to_owned(),
            FromError::Several(count) => format!("the message has {count} From fields; it must have one"),
            FromError::Malformed(reason) => format!("the From field cannot be accepted: {reason}"),
        };
        Reply::new(550, (5, 6, 0), text)
    })?;
    if let Some(stranger) = authors.iter().find(|author| !sender.may_use(author.domain())) {
        return Err(Reply::new(550, (5, 7, 1), format!("From is in {}, but {}", stranger.domain(), sender.whose())));
    }
    let domain = authors[0].domain();
    match authors.iter().find(|author| author.domain() != domain) {
        // One signature has to speak for all of them (RFC 7489 §6.6.1).
        Some(other) => Err(Reply::new(550, (5, 7, 1), format!("From is in {domain} and in {}; use one", other.domain()))),
        None => Ok(domain.to_owned()),
    }
}
