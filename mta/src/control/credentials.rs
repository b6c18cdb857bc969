//! Credentials of a member: listed, rotated, revoked. A new one is made by enrolling the member again with the same domain.
//!
//! What is changed is committed before it is said to be done, and holds for the next AUTH.

use super::api::{CredentialRow, NewSecret, Refusal};
use super::daemon::Daemon;
use super::views::unable;
use crate::policy::{Credential, members};

impl Daemon {
    /// All of a member.
    pub(super) fn list_credentials(&self, member: &str) -> Result<Vec<CredentialRow>, Refusal> {
        let member = self.find(member)?;
        Ok(self.rows().credentials.values().filter(|it| it.member == member.id).map(row).collect())
    }

    /// Gives one another secret. The old one opens nothing any more.
    pub(super) async fn renew_credential(&self, member: &str, id: u32) -> Result<NewSecret, Refusal> {
        let _change = self.changing.lock().await;
        let mut credential = self.credential(member, id)?;
        let secret = members::new_secret(&self.parts.dice);
        credential.hash = self.secrets.hash(secret.expose());
        let encoded = credential.encode().map_err(unable)?;
        let work = self.parts.queue.transact(move |txn, tables| Ok(tables.credentials.put(txn, &id.to_be_bytes(), &encoded)?));
        work.await.map_err(unable)?;
        let shown = row(&credential);
        let mut rows = self.rows();
        rows.credentials.insert(id, credential);
        self.rebuild(&rows);
        drop(rows);
        let smtp_url = self.smtp_url(&shown.domain, secret.expose());
        Ok(NewSecret { username: shown.domain.clone(), row: shown, password: secret.expose().to_owned(), smtp_url })
    }

    /// Makes one worthless. Answers it as it was.
    pub(super) async fn drop_credential(&self, member: &str, id: u32) -> Result<CredentialRow, Refusal> {
        let _change = self.changing.lock().await;
        let credential = self.credential(member, id)?;
        let work = self.parts.queue.transact(move |txn, tables| Ok(tables.credentials.delete(txn, &id.to_be_bytes())?));
        work.await.map_err(unable)?;
        let mut rows = self.rows();
        rows.credentials.remove(&id);
        self.rebuild(&rows);
        drop(rows);
        Ok(row(&credential))
    }

    fn credential(&self, member: &str, id: u32) -> Result<Credential, Refusal> {
        let member = self.find(member)?;
        let found = self.rows().credentials.get(&id).filter(|it| it.member == member.id).cloned();
        found.ok_or_else(|| Refusal::Unknown(format!("{} has no credential {id}", member.did)))
    }
}

fn row(credential: &Credential) -> CredentialRow {
    // Of a keyed hash, again hashed: says that a secret is another one, and nothing about it.
    let mark = ring::digest::digest(&ring::digest::SHA256, &credential.hash);
    CredentialRow {
        id: credential.id,
        domain: credential.domain.clone(),
        class: credential.class.to_string(),
        classes: credential.classes.iter().map(ToString::to_string).collect(),
        mark: data_encoding::HEXLOWER.encode(&mark.as_ref()[..4]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::Operations;
    use crate::control::operations::tests::{DID, DOMAIN, World};

    #[tokio::test]
    async fn a_rotated_secret_serves_instead_of_the_old_one_and_a_revoked_one_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::start(folder.path());
        let old = world.add(DID, DOMAIN).await.unwrap();
        let other = world.add(DID, "two.example.test").await.unwrap();
        let rows = world.daemon.credentials(DOMAIN).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.domain.as_str()).collect::<Vec<_>>(), [DOMAIN, "two.example.test"]);
        let new = world.daemon.rotate_credential(DID, rows[0].id).await.unwrap();
        assert!(!format!("{new:?}").contains(&new.password) && new.smtp_url.contains(&new.password));
        assert_eq!((new.row.id, new.row.mark == rows[0].mark), (rows[0].id, false));
        assert!(!world.may_log_in(DOMAIN, &old.password) && world.may_log_in(DOMAIN, &new.password));
        assert!(world.may_log_in("two.example.test", &other.password));
        world.daemon.revoke_credential(DID, rows[0].id).await.unwrap();
        assert!(!world.may_log_in(DOMAIN, &new.password));
        assert!(matches!(world.daemon.revoke_credential(DID, rows[0].id).await, Err(Refusal::Unknown(_))));
        world.add("did:plc:other", "other.example.test").await.unwrap();
        let theirs = world.daemon.credentials("did:plc:other").await.unwrap()[0].id;
        assert!(matches!(world.daemon.rotate_credential(DID, theirs).await, Err(Refusal::Unknown(_))), "another member's");
        world.stop().await;
        let world = World::start(folder.path());
        assert!(!world.may_log_in(DOMAIN, &new.password) && world.may_log_in("two.example.test", &other.password));
        world.stop().await;
    }
}
