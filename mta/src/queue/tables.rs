//! The tables of the LMDB environment, the queue's own and those that others keep beside them.
//!
//! One environment holds everything that must commit together. All tables map octets to octets:
//! whoever owns one encodes its rows. They are opened once, at start.
//!
//! The map is as large as the tables may ever grow: address space costs nothing, the file grows as
//! it is written, and LMDB forbids changing the map while anybody reads.

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, RoTxn, WithoutTls};
use scheduler::QueueId;

use super::keys::{last_number, member_key};
use super::rows::MessageRow;
use super::types::QueueError;

/// A table of octets.
pub type Table = Database<'static, Bytes, Bytes>;

/// The environment as all of us use it: its read transactions may move between threads.
pub type Environment = Env<WithoutTls>;

/// How many there are.
const COUNT: usize = 26;

/// Tables that the environment has room for; later versions may open more.
pub(crate) const TABLES_MAX: u32 = 32;

/// Every table.
#[derive(Clone, Copy)]
pub struct Tables {
    /// id → envelope and place of the body.
    pub(crate) messages: Table,
    /// (id, domain) → recipients, fates, attempts, last reply.
    pub(crate) deliveries: Table,
    /// (domain, member, lane, due, id) → what the scheduler must know.
    pub(crate) pending: Table,
    /// (source, provider, day, hour) → count.
    pub(crate) ledger: Table,
    /// number → use of a segment file.
    pub(crate) segments: Table,
    /// sequence number → event.
    pub(crate) events: Table,
    /// name → the writer's own memory.
    pub(crate) state: Table,
    /// id → why it was set aside.
    pub(crate) aside: Table,
    /// account → messages and octets in the queue, recipients sent to today.
    pub(crate) usage: Table,
    /// id → fingerprint of what was submitted.
    pub(crate) submitted: Table,
    /// (member, id) → nothing: the messages of a member.
    pub(crate) by_member: Table,
    /// (domain, id) → since when an operator holds it.
    pub(crate) held: Table,
    /// (id, sequence number) → nothing: the events of a message.
    pub(crate) story: Table,
    /// id → what the scheduler does about trouble by itself.
    pub(crate) actions: Table,
    /// (source, provider) → where the one stands with the other.
    pub(crate) climbs: Table,
    /// (source, provider, time) → what was decided then.
    pub(crate) climb_steps: Table,
    /// (id, domain) → the source that the delivery stays with.
    pub(crate) pins: Table,
    /// time and number → what an operator changed.
    pub(crate) audit: Table,
    /// `control`'s: operators' tokens.
    pub operators: Table,
    /// `policy`'s.
    pub members: Table,
    /// `policy`'s.
    pub credentials: Table,
    /// `sign`'s.
    pub keys: Table,
    /// `policy`'s.
    pub suppressions: Table,
    /// `control`'s.
    pub labels: Table,
    /// `control`'s: what became of members' mail, by day.
    pub(crate) sending: Table,
    /// `control`'s: what the labeler doubts about members.
    pub(crate) standing: Table,
}

impl Tables {
    /// Opens all of them, making those that are absent.
    pub(crate) fn open(env: &Environment) -> Result<Self, QueueError> {
        let txn = env.write_txn()?;
        let opened = env.create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            let mut open = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
            Ok(CommitOrAbort::<_, ()>::Commit([
                open("messages")?,
                open("deliveries")?,
                open("pending")?,
                open("ledger")?,
                open("segments")?,
                open("events")?,
                open("state")?,
                open("aside")?,
                open("usage")?,
                open("submitted")?,
                open("members")?,
                open("credentials")?,
                open("keys")?,
                open("suppressions")?,
                open("labels")?,
                open("by_member")?,
                open("held")?,
                open("story")?,
                open("actions")?,
                open("climbs")?,
                open("climb_steps")?,
                open("pins")?,
                open("audit")?,
                open("operators")?,
                open("sending")?,
                open("standing")?,
            ]))
        })?;
        // The closure above says commit.
        let tables = opened.commit().ok_or(QueueError::Invalid("the database's tables could not be opened"))?;
        Ok(Self::from(tables))
    }

    /// Octets in use, free pages not counted.
    pub(crate) fn used_bytes(&self, txn: &RoTxn<'_, WithoutTls>) -> Result<usize, QueueError> {
        let mut used = 0;
        for table in self.all() {
            used += table.stat(txn)?.non_free_page_size();
        }
        Ok(used)
    }

    /// Makes the index of members where it does not fit: for a queue that an older daemon wrote.
    pub(crate) fn index_members(&self, env: &Environment) -> Result<(), QueueError> {
        let mut txn = env.write_txn()?;
        if self.by_member.len(&txn)? == self.messages.len(&txn)? {
            return Ok(());
        }
        tracing::info!("indexing the queue by member");
        let mut keys = Vec::new();
        for entry in self.messages.iter(&txn)? {
            let (key, row) = entry?;
            // Under member 0 it counts; its damage shows when its turn comes.
            let member = MessageRow::decode(row).map_or(0, |row| row.member);
            keys.extend(last_number(key).map(|id| member_key(member, QueueId(id))));
        }
        self.by_member.clear(&mut txn)?;
        for key in keys {
            self.by_member.put(&mut txn, &key, &[])?;
        }
        Ok(txn.commit()?)
    }

    /// What is about mail in the queue, and worth nothing without it.
    pub(crate) fn of_mail(&self) -> [Table; 11] {
        let Self { messages, deliveries, pending, segments, aside, usage, submitted, by_member, held, story, pins, .. } = *self;
        [messages, deliveries, pending, segments, aside, usage, submitted, by_member, held, story, pins]
    }

    fn all(&self) -> [Table; COUNT] {
        [
            self.messages,
            self.deliveries,
            self.pending,
            self.ledger,
            self.segments,
            self.events,
            self.state,
            self.aside,
            self.usage,
            self.submitted,
            self.members,
            self.credentials,
            self.keys,
            self.suppressions,
            self.labels,
            self.by_member,
            self.held,
            self.story,
            self.actions,
            self.climbs,
            self.climb_steps,
            self.pins,
            self.audit,
            self.operators,
            self.sending,
            self.standing,
        ]
    }
}

impl From<[Table; COUNT]> for Tables {
    fn from(tables: [Table; COUNT]) -> Self {
        let [
            messages,
            deliveries,
            pending,
            ledger,
            segments,
            events,
            state,
            aside,
            usage,
            submitted,
            members,
            credentials,
            keys,
            suppressions,
            labels,
            by_member,
            held,
            story,
            actions,
            climbs,
            climb_steps,
            pins,
            audit,
            operators,
            sending,
            standing,
        ] = tables;
        Self {
            messages,
            deliveries,
            pending,
            ledger,
            segments,
            events,
            state,
            aside,
            usage,
            submitted,
            members,
            credentials,
            keys,
            suppressions,
            labels,
            by_member,
            held,
            story,
            actions,
            climbs,
            climb_steps,
            pins,
            audit,
            operators,
            sending,
            standing,
        }
    }
}
