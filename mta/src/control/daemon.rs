//! The daemon as the control thread holds it: what is on disk about members and keys, and the snapshots of it that the
//! other threads read.
//!
//! A snapshot is replaced as a whole: the [`Directory`] for admission, the [`KeyRing`] for signers. Nothing here is on
//! the way of a message.
//!
//! Not here: what the operator may change (`operations.rs`), what the labeler says (`labels.rs`).

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use host::{Clock, Dice, dns::Resolver};
use scheduler::{MemberPools, Weights};
use tokio::sync::{Notify, watch};

use super::{
    admin::{Gate, OperatorKey},
    labels::{Desk, PollState, Row, kept_standing},
    members::NEXT_ID,
    standing::kept_doubts,
    tiers::{self, Meters},
    tokens::read_tokens,
};
use crate::{
    config::{self, Config},
    egress::{
        plan::Plan,
        question::Asker,
        resolver::RouteAsker,
        watch::{Seen, Sight},
    },
    events::tally::Tally,
    policy::{self, Credential, CredentialKey, Directory, Doubts, Requirement, SharedDirectory, Standing},
    queue::{Counts, OWN, Queue, QueueError, Reader},
    sign::{KeyRing, KeyStore, store::StoreError},
};

/// What the operations work with.
pub struct Parts {
    /// The settings.
    pub config: Arc<Config>,
    /// To write rows.
    pub queue: Queue,
    /// To read them.
    pub reader: Reader,
    /// To ask why something waits.
    pub scheduler: Asker,
    /// To ask how a domain's mail would travel.
    pub routes: RouteAsker,
    /// The time of day.
    pub clock: Clock,
    /// For secrets.
    pub dice: Dice,
    /// The back end in use, for the status.
    pub io: String,
}

/// The daemon, as the operator sees it. Cheap to clone.
#[derive(Clone)]
pub struct Daemon(Arc<Inner>);

/// What a [`Daemon`] holds.
pub struct Inner {
    pub(super) parts: Parts,
    pub(super) config: ArcSwap<Config>,
    pub(super) store: KeyStore,
    pub(super) secrets: CredentialKey,
    pub(super) gate: Arc<Gate>,
    pub(super) directory: SharedDirectory,
    pub(super) keys: Arc<ArcSwap<KeyRing>>,
    rows: Mutex<Rows>,
    meters: Meters,
    /// One change at a time: between looking and writing nobody else writes.
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) wake: Arc<Notify>,
    /// The same for the look-up of handles.
    pub(super) newcomer: Notify,
    pub(super) poll: ArcSwap<ArcSwap<PollState>>,
    pub(super) seen: ArcSwap<ArcSwap<Vec<Sight>>>,
    pub(super) tally: ArcSwap<Tally>,
    /// Whoever asks the DNS. None before the start is over, and in tests.
    pub(super) resolver: ArcSwapOption<Resolver>,
    /// To the scheduler, the resolver and the watch over our sources: what they take from the settings.
    pub(super) plan: ArcSwap<Option<watch::Sender<Arc<Plan>>>>,
    weights: watch::Sender<Arc<Weights>>,
    pools: watch::Sender<Arc<MemberPools>>,
}

impl Deref for Daemon {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The tables `members` and `credentials` in memory, and what labels say.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) members: BTreeMap<u32, policy::Member>,
    pub(super) credentials: BTreeMap<u32, Credential>,
    pub(super) standing: Arc<Standing>,
    pub(super) doubts: Arc<Doubts>,
}

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Look at `data_dir/keys`.
    #[error(transparent)]
    Keys(#[from] StoreError),
    /// Look at `data_dir/lmdb`.
    #[error("members cannot be read: {0}")]
    Queue(#[from] QueueError),
}

impl Daemon {
    /// Reads members, credentials and keys, and makes what is missing: the co-op's own key and the key of credentials.
    pub fn open(parts: Parts) -> Result<Daemon, OpenError> {
        let store = KeyStore::open(&parts.config.data_dir)?;
        let secrets = CredentialKey::open(&parts.config.data_dir, &parts.dice)?;
        let operator_key = OperatorKey::open(&parts.config.data_dir, &parts.dice)?;
        let has_tls = parts.config.admin.as_ref().is_some_and(|admin| admin.tls.is_some());
        let gate = Gate::new(operator_key, read_tokens(&parts.reader)?, parts.clock.clone(), parts.dice.clone(), has_tls);
        let signing = &parts.config.signing;
        if let Some(domain) = &signing.domain {
            store.ensure(domain, &signing.selector)?;
        }
        let mut rows = read_rows(&parts.reader)?;
        // Before the first session: last known labels serve, also while the labeler is away.
        rows.standing = Arc::new(kept_standing(read_labels(&parts.reader)?));
        rows.doubts = Arc::new(kept_doubts(&parts.reader)?);
        let meters = Meters::open(&parts.reader)?;
        parts.queue.recent().set_window(tiers::window(&parts.config));
        tiers::tell_unknown(&parts.config, rows.members.values());
        let daemon = Daemon(Arc::new(Inner {
            config: ArcSwap::new(parts.config.clone()),
            store,
            secrets,
            gate: Arc::new(gate),
            directory: Arc::default(),
            keys: Arc::default(),
            rows: Mutex::new(rows),
            meters,
            changing: tokio::sync::Mutex::default(),
            wake: Arc::default(),
            newcomer: Notify::default(),
            poll: ArcSwap::default(),
            seen: ArcSwap::default(),
            tally: ArcSwap::default(),
            resolver: ArcSwapOption::empty(),
            plan: ArcSwap::default(),
            weights: watch::Sender::default(),
            pools: watch::Sender::default(),
            parts,
        }));
        daemon.load_keys()?;
        daemon.rebuild(&daemon.rows());
        Ok(daemon)
    }

    /// Who may send: for sessions.
    pub fn directory(&self) -> SharedDirectory {
        self.directory.clone()
    }

    /// All keys: for signers.
    pub fn keys(&self) -> Arc<ArcSwap<KeyRing>> {
        self.keys.clone()
    }

    /// How much each member sends in its turn: for the scheduler.
    pub fn weights(&self) -> watch::Receiver<Arc<Weights>> {
        self.weights.subscribe()
    }

    /// The pools that members were put into: for the scheduler.
    pub fn pools(&self) -> watch::Receiver<Arc<MemberPools>> {
        self.pools.subscribe()
    }

    /// New tiers: replaces all weights. Members that are not named send one delivery in each turn. The scheduler's thread
    /// takes it when it next wakes; nobody waits.
    pub fn set_weights(&self, weights: Weights) {
        self.weights.send_replace(Arc::new(weights));
    }

    /// To verify passwords with.
    pub fn credential_key(&self) -> CredentialKey {
        self.secrets.clone()
    }

    /// Who may ask on the admin port.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// Rings when a member is new, for the poll of labels.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Shows how the poll of labels goes.
    pub fn watch_poll(&self, state: Arc<ArcSwap<PollState>>) {
        self.poll.store(state);
    }

    /// Shows what the watch over our sources finds.
    pub fn watch_sources(&self, seen: Seen) {
        self.seen.store(seen);
    }

    /// Shows how the DNS does.
    pub fn watch_resolver(&self, resolver: Resolver) {
        self.resolver.store(Some(Arc::new(resolver)));
    }

    /// Shows what became of mail lately.
    pub fn watch_tally(&self, tally: Tally) {
        self.tally.store(Arc::new(tally));
    }

    /// Where changed plans of warmup go.
    pub fn send_plans_to(&self, plan: watch::Sender<Arc<Plan>>) {
        self.plan.store(Arc::new(Some(plan)));
    }

    /// New settings, after SIGHUP: what admission needs of them changes now.
    pub fn handle_config(&self, config: Arc<Config>) {
        self.parts.queue.recent().set_window(tiers::window(&config));
        tiers::tell_unknown(&config, self.rows().members.values());
        self.config.store(config);
        self.rebuild(&self.rows());
    }

    pub(super) fn all_members(&self) -> Vec<policy::Member> {
        self.rows().members.values().cloned().collect()
    }

    /// Keeps what a member's DID document calls it. One that was removed meanwhile stays removed.
    pub(super) async fn set_handle(&self, id: u32, handle: Option<String>) -> Result<(), QueueError> {
        let _change = self.changing.lock().await;
        let Some(mut member) = self.rows().members.get(&id).cloned() else { return Ok(()) };
        member.handle = handle;
        let row = member.encode().map_err(|_| QueueError::Invalid("a member's row cannot be written"))?;
        self.parts.queue.transact(move |txn, tables| Ok(tables.members.put(txn, &id.to_be_bytes(), &row)?)).await?;
        let mut rows = self.rows();
        rows.members.insert(id, member);
        self.rebuild(&rows);
        Ok(())
    }

    /// Sizes of the queue, if it can be read.
    pub fn counts(&self) -> Option<Counts> {
        self.parts.reader.counts().ok()
    }

    /// Messages in the queue, if it can be read.
    pub fn messages(&self) -> Option<u64> {
        self.counts().map(|counts| counts.messages)
    }

    /// Of them those of our own.
    pub fn own_messages(&self) -> u64 {
        self.parts.queue.held(OWN, self.now()).messages
    }

    /// Makes admission see what the labeler doubts.
    pub(super) fn publish_doubts(&self, doubts: Arc<Doubts>) {
        let mut rows = self.rows();
        if rows.doubts != doubts {
            rows.doubts = doubts;
            self.rebuild(&rows);
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        self.parts.clock.now()
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the new rows to sessions. Called with the lock held, so that a later snapshot is never replaced by an earlier.
    pub(super) fn rebuild(&self, rows: &Rows) {
        let config = self.config.load();
        let requirement = config.labeler.as_ref().map(|labeler| Requirement {
            labels: labeler.require.clone(),
            labeler_url: labeler.url.clone(),
            stale_after: labeler.stale_after,
        });
        let (members, credentials) = (rows.members.values().cloned(), rows.credentials.values().cloned());
        let tiers = tiers::tiers(&config);
        let mut directory = Directory::new(members, credentials, rows.standing.clone(), requirement)
            .with_accounts(&tiers, |member| self.meters.of(member))
            .with_doubts(rows.doubts.clone(), config.standing.as_ref().map(config::Standing::caution));
        if config.signing.required {
            directory = directory.requiring_keys(self.keys.load().domains().map(str::to_owned));
        }
        self.directory.store(Arc::new(directory));
        // Labels are published twice a minute, and the scheduler's thread need not wake for that.
        let weights = tiers::weights(&tiers, rows.members.values());
        if **self.weights.borrow() != weights {
            self.set_weights(weights);
        }
        let pools = tiers::pools(rows.members.values());
        if **self.pools.borrow() != pools {
            self.pools.send_replace(Arc::new(pools));
        }
    }

    /// Shows the keys on disk to signers. One that cannot be read is told and left out.
    pub(super) fn load_keys(&self) -> Result<(), StoreError> {
        let (keys, troubles) = self.store.load_all()?;
        for trouble in troubles {
            tracing::error!(%trouble, "a key is left out");
        }
        let config = self.config.load();
        let coop = config.signing.domain.as_deref().map(|domain| (domain, config.signing.selector.as_str()));
        self.keys.store(Arc::new(KeyRing::new(keys, coop)));
        Ok(())
    }
}

impl Desk for Daemon {
    async fn members(&self) -> Vec<String> {
        self.rows().members.values().map(|member| member.did.clone()).collect()
    }

    async fn load(&self) -> Result<Vec<Row>, String> {
        read_labels(&self.parts.reader).map_err(|error| error.to_string())
    }

    async fn save(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), String> {
        let work = self.parts.queue.transact(move |txn, tables| {
            for (key, row) in &rows {
                match row {
                    Some(row) => tables.labels.put(txn, key, row)?,
                    None => drop(tables.labels.delete(txn, key)?),
                }
            }
            Ok(())
        });
        work.await.map_err(|error| error.to_string())
    }

    fn publish(&self, standing: Arc<Standing>) {
        let mut rows = self.rows();
        rows.standing = standing;
        self.rebuild(&rows);
    }
}

fn read_rows(reader: &Reader) -> Result<Rows, QueueError> {
    reader.read(|txn, tables| {
        let mut rows = Rows::default();
        for entry in tables.members.iter(txn)? {
            let (key, row) = entry?;
            match policy::Member::decode(row) {
                _ if key == NEXT_ID => {}
                Ok(member) => drop(rows.members.insert(member.id, member)),
                Err(error) => tracing::error!(%error, "a member is left out"),
            }
        }
        for entry in tables.credentials.iter(txn)? {
            let (key, row) = entry?;
            match Credential::decode(row) {
                _ if key == NEXT_ID => {}
                Ok(credential) => drop(rows.credentials.insert(credential.id, credential)),
                Err(error) => tracing::error!(%error, "a credential is left out"),
            }
        }
        Ok(rows)
    })
}

fn read_labels(reader: &Reader) -> Result<Vec<Row>, QueueError> {
    reader.read(|txn, tables| {
        let rows = tables.labels.iter(txn)?.map(|row| row.map(|(key, row)| (key.to_vec(), row.to_vec())));
        Ok(rows.collect::<Result<_, _>>()?)
    })
}
