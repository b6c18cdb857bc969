//! Members as the operations change and show them: rows first, then the snapshots that sessions read.

use smtp::address::canonical_domain;

use super::{
    api::{Member, Refusal},
    daemon::Daemon,
    tiers,
    views::{blocking, time, unable},
};
use crate::{
    config::Role,
    policy::{
        self, Credential, Directory, admit,
        members::{self, is_did},
    },
    queue::{QueueError, Table},
    sign::{key::check_domain, store::StoreError},
};

/// The row of `members`, of `credentials` and of `operators` that holds the next number: no number is given twice.
pub(super) const NEXT_ID: &[u8] = b"next_id";

impl Daemon {
    /// Changes a member's row, then shows it to sessions.
    pub(super) async fn change(&self, member: &str, change: impl FnOnce(&mut policy::Member)) -> Result<Member, Refusal> {
        let _change = self.changing.lock().await;
        let mut member = self.find(member)?;
        change(&mut member);
        let row = member.encode().map_err(unable)?;
        let id = member.id;
        self.parts
            .queue
            .transact(move |txn, tables| Ok(tables.members.put(txn, &id.to_be_bytes(), &row)?))
            .await
            .map_err(unable)?;
        let mut rows = self.rows();
        rows.members.insert(id, member.clone());
        self.rebuild(&rows);
        drop(rows);
        Ok(self.view(&self.directory.load_full(), &member))
    }

    pub(super) fn view(&self, directory: &Directory, member: &policy::Member) -> Member {
        let now = self.now();
        let verdict = admit::on_behalf_of(directory, &member.did).and_then(|sender| admit::may_send(directory, &sender, now));
        let held = self.parts.queue.held(member.id, now);
        let account = directory.account(member.id);
        let doubted = directory.doubted(&member.did, now);
        let (tier, spending) = account.map(|account| tiers::view(member, account, held, now)).unwrap_or_default();
        Member {
            tier,
            pool: member.pool.clone(),
            spending,
            did: member.did.clone(),
            domains: member.domains.clone(),
            suspended: member.suspended.is_some(),
            labels: directory.standing().labels(&member.did, now).map(str::to_owned).collect(),
            doubts: doubted.map(|it| it.says.clone()).unwrap_or_default(),
            doubted_at: doubted.map(|it| time(it.asked)),
            waits_for: directory.pause(&member.did, now).map(str::to_owned),
            admitted: verdict.is_ok(),
            reason: verdict.err().map(|reply| reply.to_string()),
        }
    }

    /// The member with this DID, or that sends from this domain.
    pub(super) fn find(&self, name: &str) -> Result<policy::Member, Refusal> {
        if let Some(member) = self.directory.load().member_by_did(name) {
            return Ok(policy::Member::clone(member));
        }
        let unknown = || Refusal::Unknown(format!("{name} is no member; `tradewind member list` shows them all"));
        if is_did(name) {
            return Err(unknown());
        }
        let domain = canonical_domain(name).map_err(|_| Refusal::Wrong(format!("{name:?} is neither a DID nor a domain")))?;
        let rows = self.rows();
        let found = rows.members.values().find(|member| member.domains.iter().any(|own| *own == *domain));
        found.cloned().ok_or_else(unknown)
    }

    /// Where a member's software connects.
    pub(super) fn smtp_url(&self, domain: &str, secret: &str) -> String {
        let config = self.config.load();
        let port = |role: Role| config.listen.iter().find(|listen| listen.role == role).map(|listen| listen.address.port());
        let (scheme, port) = match (port(Role::Submission), port(Role::Submissions)) {
            (Some(port), _) => ("smtp", port),
            (None, Some(port)) => ("smtps", port),
            (None, None) => ("smtp", 587),
        };
        format!("{scheme}://{domain}:{secret}@{host}:{port}", host = config.hostname)
    }

    /// A domain that keys may be made for: a member's, or the co-op's own.
    pub(super) fn signing_domain(&self, name: &str) -> Result<String, Refusal> {
        let domain = domain(name)?;
        let coop = self.config.load().signing.domain.as_deref() == Some(&domain);
        if coop || self.rows().members.values().any(|member| member.domains.contains(&domain)) {
            return Ok(domain);
        }
        Err(Refusal::Unknown(format!("no member sends from {domain}; enrol it first with `tradewind member add`")))
    }

    /// After a change of key files: signers and admission see it.
    pub(super) async fn handle_keys_changed(&self) -> Result<(), Refusal> {
        blocking(self, |daemon| daemon.load_keys()).await?.map_err(refuse_store)?;
        self.rebuild(&self.rows());
        Ok(())
    }

    pub(super) fn is_coop_key(&self, domain: &str, selector: &str) -> bool {
        let signing = &self.config.load().signing;
        signing.domain.as_deref() == Some(domain) && signing.selector == selector
    }

    /// Both rows in one transaction, with the numbers that it gives them.
    pub(super) async fn write_enrolment(
        &self,
        mut member: policy::Member,
        mut credential: Credential,
    ) -> Result<(policy::Member, Credential), Refusal> {
        let work = self.parts.queue.transact(move |txn, tables| {
            if member.id == 0 {
                member.id = next_id(tables.members, txn)?;
            }
            credential.member = member.id;
            credential.id = next_id(tables.credentials, txn)?;
            let row = |row: Result<Vec<u8>, members::RowError>| row.map_err(|_| QueueError::Invalid("a row cannot be written"));
            tables.members.put(txn, &member.id.to_be_bytes(), &row(member.encode())?)?;
            tables.credentials.put(txn, &credential.id.to_be_bytes(), &row(credential.encode())?)?;
            Ok((member, credential))
        });
        work.await.map_err(unable)
    }
}

pub(super) fn next_id(table: Table, txn: &mut heed::RwTxn<'_>) -> Result<u32, QueueError> {
    let row = table.get(txn, NEXT_ID)?.map(<[u8; 4]>::try_from);
    let id = match row {
        None => 1,
        Some(Ok(row)) => u32::from_be_bytes(row),
        Some(Err(_)) => return Err(QueueError::Invalid("the row next_id is damaged")),
    };
    let next = id.checked_add(1).ok_or(QueueError::Invalid("all numbers are given"))?;
    table.put(txn, NEXT_ID, &next.to_be_bytes())?;
    Ok(id)
}

pub(super) fn domain(name: &str) -> Result<String, Refusal> {
    let wrong = |why: String| Refusal::Wrong(format!("{name:?} is not a domain that mail is sent from: {why}"));
    let domain = canonical_domain(name).map_err(|error| wrong(error.to_string()))?.into_owned();
    check_domain(&domain).map_err(|error| wrong(error.to_string()))?;
    Ok(domain)
}

pub(super) fn refuse_store(error: StoreError) -> Refusal {
    match &error {
        StoreError::Given(_) => Refusal::Wrong(error.to_string()),
        StoreError::Exists(_) | StoreError::TooMany(_) => Refusal::Conflict(error.to_string()),
        StoreError::Missing(_) => Refusal::Unknown(error.to_string()),
        StoreError::Io(..) | StoreError::Key(..) => Refusal::Unable(error.to_string()),
    }
}
