//! The same without a store: the domain, the account and a stated labeler are asked over the network.

use std::time::Duration;

use atproto::Did;
use atproto::did::{DOCUMENT_BYTES_MAX, Document};
use atproto::label::{Label, read_query_labels};
use atproto::lexicon::Attestation;
use url::Url;
use vouch::{Account, Answer, Attested, Bound, Question, Report};

use super::{claim, told};
use crate::config::{Dns, Identity, Verify};
use crate::explain::Checker;
use crate::fetch::{self, From};
use crate::identity::Unresolved;
use crate::judge::{Judgement, Verdict};
use crate::outside;
use crate::store::Found;
use crate::verify::Verifier;

/// For all that is asked about an account.
const TIME_MAX: Duration = Duration::from_secs(40);
/// Of the labeler's answer about one account.
const LABELS_BYTES_MAX: usize = 1 << 20;
/// Pages of it. A labeler that gives all of history has some.
const PAGES_MAX: usize = 8;

/// Whom to believe and how to reach them.
#[derive(Debug, Clone)]
pub struct Source {
    /// Whose labels count.
    pub labeler: Did,
    /// Where it answers. None: where its DID document says.
    pub labeler_url: Option<Url>,
    /// How DIDs are looked up.
    pub identity: Identity,
    /// Whom to ask for DKIM keys and the domain's DID.
    pub dns: Dns,
}

/// Who vouches for a message, as the network says now. The error is for settings that cannot be used; whatever the network does
/// is in the answer.
pub async fn verify_message(message: Vec<u8>, source: &Source) -> Result<Report, String> {
    let tls = fetch::tls().map_err(|error| error.to_string())?;
    let checker = Checker::new(&source.identity, &source.dns, &Verify::default(), &tls)?;
    let claim = match claim(message, checker.views.dns(), outside::now()).await {
        Ok(claim) => claim,
        Err(report) => return Ok(*report),
    };
    let asked = Asked { source, verifier: Verifier { resolver: checker.resolver, views: checker.views } };
    let bound = match claim.question() {
        None => Bound::Nobody(String::new()),
        Some(question) => match tokio::time::timeout(TIME_MAX, asked.bound(question)).await {
            Ok(Ok(account)) => Bound::Account(account),
            Ok(Err(bound)) => bound,
            Err(_) => Bound::Unknown(format!("what is asked about the account took longer than {} s", TIME_MAX.as_secs())),
        },
    };
    Ok(claim.report(bound))
}

struct Asked<'a> {
    source: &'a Source,
    verifier: Verifier,
}

impl Asked<'_> {
    async fn bound(&self, question: &Question) -> Result<Account, Bound> {
        let did = self.named_by(&question.domain).await?;
        if let Some(named) = question.did.as_ref().filter(|named| **named != did) {
            let why = format!("the message names {}, and {} names {}", named.as_str(), question.domain, did.as_str());
            return Err(Bound::Nobody(why));
        }
        let attested = self.attested(&did, &question.domain).await;
        let labels = self.labels(&did).await;
        Ok(Account { did, labeler: self.source.labeler.clone(), attested, labels })
    }

    /// The account that the domain names: a label alone does not say of which of an account's domains it speaks.
    async fn named_by(&self, domain: &str) -> Result<Did, Bound> {
        let name = format!("_atproto.{domain}");
        let texts = match told(self.verifier.views.dns().txt(&name).await) {
            Answer::Found(texts) => texts,
            Answer::Absent => Vec::new(),
            Answer::Unknown(why) => return Err(Bound::Unknown(format!("{name} could not be looked up: {why}"))),
        };
        let mut named: Vec<&str> = texts.iter().filter_map(|text| text.strip_prefix("did=")).collect();
        named.sort_unstable();
        named.dedup();
        let body = match named.as_slice() {
            [] => match told(self.verifier.views.well_known(domain).await) {
                Answer::Found(bodies) => bodies.into_iter().next().unwrap_or_default(),
                Answer::Absent => return Err(Bound::Nobody(format!("{domain} names no account"))),
                Answer::Unknown(why) => return Err(Bound::Unknown(format!("whom {domain} names is not known: {why}"))),
            },
            [one] => (*one).to_owned(),
            _ => return Err(Bound::Nobody(format!("{name} names several accounts"))),
        };
        body.trim().parse().map_err(|_| Bound::Nobody(format!("{domain} names no account")))
    }

    /// The account's attestation of the domain, as its repository proves it now.
    async fn attested(&self, did: &Did, domain: &str) -> Attested {
        let document = match self.document(did).await {
            Ok(document) => document,
            Err(Unresolved::Gone(why)) => return Attested::No(why),
            Err(Unresolved::Unknown(why)) => return Attested::Unknown(why),
        };
        let proof = match self.verifier.record(did, domain, None, &document).await {
            Ok(proof) => proof,
            Err(Found::Judged { judgement: Judgement { verdict: Verdict::Fail, checks }, .. }) => {
                return Attested::No(Judgement::of(checks).reasons().join("; "));
            }
            Err(Found::Judged { judgement, .. }) => return Attested::Unknown(judgement.reasons().join("; ")),
            Err(_) => return Attested::Unknown("the record could not be looked at".into()),
        };
        let Some(record) = proof.record else { return Attested::No(format!("{} does not attest {domain}", did.as_str())) };
        match Attestation::read(&record.octets, domain) {
            Ok(attestation) => {
                let selectors = attestation.dkim_selectors.iter().map(|selector| selector.to_ascii_lowercase()).collect();
                Attested::Yes { selectors, since: None }
            }
            Err(error) => Attested::No(error.to_string()),
        }
    }

    async fn document(&self, did: &Did) -> Result<Document, Unresolved> {
        self.verifier.resolver.resolve(did).await
    }

    /// The labeler's document. A did:web is its host's word; one that is stated with a plain `http` address runs on this machine
    /// or in a test, and is asked for it itself, as the MTA does.
    async fn issuer(&self, labeler: &Did) -> Result<Document, String> {
        let own =
            self.source.labeler_url.as_ref().filter(|url| url.scheme() == "http" && labeler.as_str().starts_with("did:web:"));
        let Some(url) = own.and_then(|url| url.join("/.well-known/did.json").ok()) else {
            return self.document(labeler).await.map_err(|(Unresolved::Gone(why) | Unresolved::Unknown(why))| why);
        };
        let answer = self.verifier.resolver.fetcher.get(&url, From::Configuration, DOCUMENT_BYTES_MAX).await?;
        Document::parse(&answer.body, labeler).map_err(|error| error.to_string())
    }

    /// What the labeler says of the account. Labels that its key did not sign are not among them.
    async fn labels(&self, did: &Did) -> Result<Vec<Label>, String> {
        let labeler = &self.source.labeler;
        let document = self.issuer(labeler).await?;
        let key = document.label_key().map_err(|error| error.to_string())?;
        let (base, from) = match &self.source.labeler_url {
            Some(url) => (url.as_str().trim_end_matches('/').to_owned(), From::Configuration),
            None => (document.labeler().ok_or("its DID document names no labeler")?, From::Stranger),
        };
        let mut labels = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = vec![("uriPatterns", did.as_str()), ("sources", labeler.as_str()), ("limit", "250")];
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let url = Url::parse_with_params(&format!("{base}/xrpc/com.atproto.label.queryLabels"), query);
            let url = url.map_err(|error| error.to_string())?;
            let answer = self.verifier.resolver.fetcher.get(&url, from, LABELS_BYTES_MAX).await?;
            if answer.status != 200 {
                return Err(format!("it answers {}", answer.status));
            }
            let page = read_query_labels(&answer.body).map_err(|error| error.to_string())?;
            let last = page.labels.is_empty() || page.cursor.is_none() || page.cursor == cursor;
            labels.extend(page.labels.into_iter().filter(|label| label.verify(labeler, &key).is_ok()));
            if last {
                return Ok(labels);
            }
            cursor = page.cursor;
        }
        Err(format!("it has more than {PAGES_MAX} pages about one account"))
    }
}
