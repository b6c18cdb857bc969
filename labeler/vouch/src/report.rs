//! The answer: what the message proves, what the labeler says, and what neither of them does.

use std::time::SystemTime;

use atproto::label::{Label, newest};
use atproto::lexicon::CooperativeLabel;
use atproto::{Datetime, Did, datetime, instant};
use serde::{Deserialize, Serialize};

use crate::dkim::{Bodies, Checked, Signature};
use crate::message::{Author, Message, Refused, SEEN};
use crate::{Answer, CLOCKS_DIFFER_MAX, Claim, DID_FIELD, Question};

/// Labels that are shown.
const LABELS_MAX: usize = 16;

/// `coop.tradewind.verifyMessage`: who vouches for a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What came of it.
    pub verdict: Verdict,
    /// When it was asked.
    pub asked_at: Datetime,
    /// The address of the only author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its domain, in its one spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The account that is vouched for, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did: Option<Did>,
    /// How the account was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_by: Option<NamedBy>,
    /// Each signature that was looked at.
    pub signatures: Vec<SignatureReport>,
    /// Signatures that were not.
    pub signatures_passed_over: u32,
    /// Fields that a reader sees and that the signature vouched by does not cover.
    pub unsigned_fields: Vec<String>,
    /// What is known of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// Why nobody vouches, or why it cannot be said.
    pub reasons: Vec<String>,
    /// What is proven.
    pub proves: Vec<String>,
    /// What is not.
    pub does_not_prove: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Somebody vouches.
    Vouched,
    /// Nobody does.
    NotVouched,
    /// Somebody may, but DNS or the labeler could not say.
    Unknown,
}

/// How the account was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedBy {
    /// By a field of the message that its domain's signature covers.
    SignedField,
    /// By its domain: who attests it.
    Domain,
}

/// `coop.tradewind.verifyMessage#signature`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureReport {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// `a=`.
    pub algorithm: String,
    /// In the words of RFC 8601.
    pub result: Outcome,
    /// Why it is not `pass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_bits: Option<u32>,
    /// Whether it is of the author's domain or a parent of it within the same organization.
    pub aligned: bool,
    /// `t=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<Datetime>,
    /// `x=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Datetime>,
    /// What is weak about it.
    pub weak: Vec<String>,
}

/// RFC 8601 §2.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It verifies and can be relied on.
    Pass,
    /// It is not to be relied on, whether it verifies or not.
    Policy,
    /// It does not verify.
    Fail,
    /// It or its key cannot be read.
    Permerror,
    /// Its key could not be looked up.
    Temperror,
}

/// `coop.tradewind.verifyMessage#binding`: what is known of the account and the signing domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The attested domain: that of the signature.
    pub domain: String,
    /// Whose word the labels are.
    pub labeler: Did,
    /// Whether the account's attestation of the domain is in force now.
    pub attested: When,
    /// Since when without a break, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Datetime>,
    /// Selectors that it names.
    pub selectors: Vec<String>,
    /// The account's labels, the newest of each value.
    pub labels: Vec<LabelSeen>,
    /// Whether the account was bound to the domain when the signature says that it was made.
    pub at_signature: When,
}

/// Yes, no, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "said by their names")]
pub enum When {
    Yes,
    No,
    Unknown,
}

/// `coop.tradewind.verifyMessage#labelSeen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "as the label has it")]
pub struct LabelSeen {
    pub val: String,
    pub cts: Datetime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<Datetime>,
    /// Now.
    pub in_force: bool,
}

/// What was found out about a [`Question`].
#[derive(Debug, Clone)]
pub enum Bound {
    /// No account speaks for the domain, or not the one that the message names, and why.
    Nobody(String),
    /// It could not be found out, and why.
    Unknown(String),
    /// This one may.
    Account(Account),
}

/// What is known of an account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who.
    pub did: Did,
    /// Whose labels these are.
    pub labeler: Did,
    /// Its attestation of the domain.
    pub attested: Attested,
    /// Labels about it. Only those whose signature was verified, or that are one's own.
    pub labels: Result<Vec<Label>, String>,
}

/// An account's attestation of a domain.
#[derive(Debug, Clone)]
pub enum Attested {
    /// In force.
    Yes {
        /// That it names.
        selectors: Vec<String>,
        /// Since when without a break, as far as it is known.
        since: Option<SystemTime>,
    },
    /// Not in force, and why.
    No(String),
    /// It could not be found out, and why.
    Unknown(String),
}

impl Report {
    /// The answer to what cannot be read.
    pub fn refused(refused: &Refused, now: SystemTime) -> Self {
        let mut report = Self::new(now);
        report.reasons.push(refused.to_string());
        report
    }

    fn new(now: SystemTime) -> Self {
        Self {
            verdict: Verdict::NotVouched,
            asked_at: datetime(now),
            from: None,
            domain: None,
            did: None,
            named_by: None,
            signatures: Vec::new(),
            signatures_passed_over: 0,
            unsigned_fields: Vec::new(),
            binding: None,
            reasons: Vec::new(),
            proves: Vec::new(),
            does_not_prove: Vec::new(),
        }
    }
}

impl Message {
    /// Checks the signatures. `key` says what DNS has at each name of [`Message::keys`].
    pub fn verify(&self, key: impl Fn(&str) -> Answer, now: SystemTime) -> Claim {
        let mut report = Report::new(now);
        report.signatures_passed_over = u32::try_from(self.passed_over).unwrap_or(u32::MAX);
        let mut bodies = Bodies::default();
        let author = self.author.as_ref().ok();
        let mut good: Vec<&Signature> = Vec::new();
        let mut unclear = false;
        for signature in &self.signatures {
            let answer = signature.key_name().map_or(Answer::Absent, |name| key(&name));
            let checked = signature.check(self, &mut bodies, &answer, now);
            let aligned = author.is_some_and(|author| signature.aligns_with(&author.domain));
            unclear |= aligned && checked.result == Outcome::Temperror;
            if aligned && checked.result == Outcome::Pass {
                good.push(signature);
            }
            report.signatures.push(shown(signature, checked, aligned));
        }
        match &self.author {
            Ok(Author { address, domain, .. }) => {
                (report.from, report.domain) = (Some(address.clone()), Some(domain.clone()));
            }
            Err(why) => report.reasons.push(why.clone()),
        }
        // The nearest domain speaks: a parent's attestation does not stand in for its own.
        let nearest = good.iter().map(|it| it.domain.len()).max().unwrap_or(0);
        good.retain(|it| it.domain.len() == nearest);
        let question = match (author, good.first()) {
            (Some(author), Some(first)) => self.question(author, first, &good, &mut report),
            (Some(author), None) => {
                if unclear {
                    report.verdict = Verdict::Unknown;
                }
                report.reasons.push(format!("no signature of {} can be relied on", author.domain));
                None
            }
            (None, _) => None,
        };
        Claim { report, question }
    }

    fn question(&self, author: &Author, first: &Signature, good: &[&Signature], report: &mut Report) -> Option<Question> {
        let Signature { domain, .. } = first;
        report.proves.push(format!(
            "Whoever controls the DNS of {domain} let this message be signed: body, From and the other signed fields."
        ));
        report.does_not_prove = self.limits(author, first);
        report.unsigned_fields = self.unsigned(&first.names);
        let doubled: Vec<&str> = SEEN.iter().filter(|(name, one)| *one && self.named(name).count() > 1).map(|it| it.0).collect();
        if let Some(name) = doubled.first() {
            report.reasons.push(format!("the message has several {name} fields: a reader may see one that is not signed"));
            return None;
        }
        let did = match self.named_did(first, report) {
            Ok(did) => did,
            Err(why) => {
                report.reasons.push(why);
                return None;
            }
        };
        report.named_by = Some(if did.is_some() { NamedBy::SignedField } else { NamedBy::Domain });
        report.did.clone_from(&did);
        let selectors = good.iter().map(|it| it.selector.clone()).collect();
        Some(Question { domain: domain.clone(), did, selectors, signed_at: good.iter().filter_map(|it| it.signed_at).max() })
    }

    /// The account in the field that the MTA writes, if the signature covers each of these fields.
    fn named_did(&self, signature: &Signature, report: &mut Report) -> Result<Option<Did>, String> {
        let values: Vec<&[u8]> = self.named(DID_FIELD).collect();
        let signed = signature.names.iter().filter(|name| name.eq_ignore_ascii_case(DID_FIELD)).count();
        match values.as_slice() {
            [] => Ok(None),
            _ if signed < values.len() => {
                let why = format!("{DID_FIELD} is not signed: anybody on the way may have written it, and it was passed over.");
                report.does_not_prove.push(why);
                if signed > 0 {
                    Err(format!("the message has several {DID_FIELD} fields, of which not all are signed"))
                } else {
                    Ok(None)
                }
            }
            [one] => {
                let did = std::str::from_utf8(one).ok().and_then(|text| text.trim().parse().ok());
                did.map(Some).ok_or_else(|| format!("{DID_FIELD} names no DID"))
            }
            _ => Err(format!("{DID_FIELD} stands several times")),
        }
    }

    /// What a reader sees and the signature does not cover.
    fn unsigned(&self, names: &[String]) -> Vec<String> {
        let signed = |field: &str| names.iter().filter(|name| name.eq_ignore_ascii_case(field)).count();
        let open = SEEN.iter().filter(|(field, _)| self.named(field).count() > signed(field));
        open.map(|(field, _)| (*field).to_owned()).collect()
    }

    /// What even a good signature leaves open.
    fn limits(&self, author: &Author, signature: &Signature) -> Vec<String> {
        let mut limits = vec![
            "That it was meant for whoever shows it: a signed message can be sent again to anybody (a replay).".to_owned(),
            "That the person whose address it is wrote it: the domain answers for its local parts, nobody else.".to_owned(),
            "That what it says is true or harmless.".to_owned(),
        ];
        let unsigned = self.unsigned(&signature.names);
        if !unsigned.is_empty() {
            limits.push(format!("Fields that are not signed and may have been added or changed: {}.", unsigned.join(", ")));
        }
        if author.shows_another {
            limits.push("The name beside the address: it has an address in it, which is not checked.".into());
        }
        if author.domain.split('.').any(|label| label.starts_with("xn--")) {
            limits.push(format!("That the domain is the one it looks like: it is an international name, {}.", author.domain));
        }
        match signature.signed_at {
            None => limits.push("When it was signed: the signature does not say, so that only now was looked at.".into()),
            Some(_) => limits.push("When it was signed, beyond the signer's own word (`t=`).".into()),
        }
        limits
    }
}

fn shown(signature: &Signature, checked: Checked, aligned: bool) -> SignatureReport {
    SignatureReport {
        domain: signature.domain.clone(),
        selector: signature.selector.clone(),
        algorithm: signature.algorithm.clone(),
        result: checked.result,
        why: checked.why,
        key_bits: checked.key_bits.and_then(|bits| u32::try_from(bits).ok()),
        aligned,
        signed_at: signature.signed_at.map(datetime),
        expires_at: signature.expires_at.map(datetime),
        weak: checked.weak,
    }
}

impl Claim {
    /// The answer. `bound` is what was found out about [`Claim::question`]; it is not looked at when there was none.
    pub fn report(self, bound: Bound) -> Report {
        let Self { mut report, question } = self;
        let Some(question) = question else { return report };
        match bound {
            Bound::Nobody(why) => report.reasons.push(why),
            Bound::Unknown(why) => report.doubt(why),
            Bound::Account(account) => report.decide(&question, account),
        }
        report
    }
}

impl Report {
    fn doubt(&mut self, why: String) {
        if self.reasons.is_empty() {
            self.verdict = Verdict::Unknown;
        }
        self.reasons.push(why);
    }

    fn refuse(&mut self, why: String) {
        self.verdict = Verdict::NotVouched;
        self.reasons.push(why);
    }

    fn decide(&mut self, question: &Question, account: Account) {
        let Account { did, labeler, attested, labels } = account;
        let now = instant(&self.asked_at);
        if question.did.as_ref().is_some_and(|named| *named != did) {
            return self.refuse("the message names another account than the one that was looked at".into());
        }
        self.did = Some(did.clone());
        let unknown = labels.as_ref().err().cloned();
        let labels = labels.unwrap_or_default();
        let about = labels.iter().filter(|label| label.src == labeler && label.uri == did.as_str());
        let newest: Vec<&Label> = newest(about).into_values().take(LABELS_MAX).collect();
        let verified = newest.iter().find(|label| label.val == CooperativeLabel::VerifiedMailOperator.as_str());
        match unknown {
            Some(why) => self.doubt(format!("the labels of {} are not known: {why}", labeler.as_str())),
            None if verified.is_some_and(|label| label.in_force(now)) => {}
            None => self.refuse(format!("{} does not call {} a verified mail operator now", labeler.as_str(), did.as_str())),
        }
        let (mut known, mut since_when) = (Vec::new(), None);
        let attested = match attested {
            Attested::Yes { selectors, since } => {
                if !question.selectors.iter().any(|it| selectors.contains(it)) {
                    let those = question.selectors.join(", ");
                    self.refuse(format!("the attestation of {} does not name the selector {those}", question.domain));
                }
                (known, since_when) = (selectors, since);
                When::Yes
            }
            Attested::No(why) => {
                self.refuse(why);
                When::No
            }
            Attested::Unknown(why) => {
                self.doubt(why);
                When::Unknown
            }
        };
        let since_label = verified.filter(|label| label.in_force(now)).map(|label| instant(&label.cts));
        let at_signature = match (question.signed_at, since_when, since_label) {
            (Some(signed), Some(since), _) if signed + CLOCKS_DIFFER_MAX >= since => When::Yes,
            (Some(_), Some(_), _) => When::No,
            // Labels are issued anew before they run out: an older `cts` says something, a newer one nothing.
            (Some(signed), None, Some(since)) if signed + CLOCKS_DIFFER_MAX >= since => When::Yes,
            _ => When::Unknown,
        };
        match at_signature {
            When::Yes => {}
            When::No => self.refuse(format!("it was signed before {} was bound to the account", question.domain)),
            When::Unknown => {
                self.does_not_prove.push("That the account was bound to the domain already when it was signed.".into())
            }
        }
        if self.reasons.is_empty() {
            self.verdict = Verdict::Vouched;
            self.proves.push(format!(
                "{} attests {}, and {} has verified that the domain names the account.",
                did.as_str(),
                question.domain,
                labeler.as_str()
            ));
        }
        let seen = |label: &&Label| LabelSeen {
            val: label.val.clone(),
            cts: label.cts.clone(),
            exp: label.exp.clone(),
            in_force: label.in_force(now),
        };
        self.binding = Some(Binding {
            domain: question.domain.clone(),
            labeler,
            attested,
            since: since_when.map(datetime),
            selectors: known,
            labels: newest.iter().map(seen).collect(),
            at_signature,
        });
    }
}
