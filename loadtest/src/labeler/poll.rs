//! The MTA's own poll of the labels of all its members, against a labeler that runs: `mta::control::labels` with the queue's
//! LMDB under it.
//!
//! Twice: once by an MTA that knows nothing yet, which verifies every signature, and once by the same after a restart.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use host::Clock;
use mta::config::Config;
use mta::control::fetch::Fetch;
use mta::control::labels::{Desk, LabelPoll, Row};
use mta::policy::standing::Standing;
use mta::queue::Options;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::speed::DID;
use crate::cpu;
use crate::store::Store;

/// A poll of a hundred thousand takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a poll took.
pub(super) struct Polled {
    pub(super) seconds: f64,
    /// Of the MTA alone.
    pub(super) cpu_seconds: f64,
}

/// Stands in for the daemon: the same table, the same writer.
struct Kept {
    members: Vec<String>,
    store: Store,
    published: UnboundedSender<Arc<Standing>>,
}

impl Desk for Kept {
    async fn members(&self) -> Vec<String> {
        self.members.clone()
    }

    async fn load(&self) -> Result<Vec<Row>, String> {
        let rows = self.store.reader.read(|txn, tables| {
            let rows = tables.labels.iter(txn)?.map(|row| row.map(|(key, row)| (key.to_vec(), row.to_vec())));
            Ok(rows.collect::<Result<_, _>>()?)
        });
        rows.map_err(|error| error.to_string())
    }

    async fn save(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), String> {
        let work = self.store.queue.transact(move |txn, tables| {
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
        // Whoever measures may have gone.
        let _ = self.published.send(standing);
    }
}

/// Polls with an MTA that keeps its state in `at`; each of `members` must turn out to have the label.
pub(super) fn poll(at: &Path, address: SocketAddr, members: &[String]) -> Result<Polled> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = format!(
        "hostname = \"relay.example.test\"\ndata_dir = \"{at}\"\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\nmember = \"{member}\"\n\
         [[source]]\nname = \"a\"\naddress = \"127.0.0.2\"\nehlo = \"a.example\"\n\
         [labeler]\nurl = \"http://{address}\"\ndid = \"{DID}\"\npoll_interval = \"1h\"\n",
        at = at.display(),
        member = members.first().context("no members")?,
    );
    let config = Config::parse(at, &text)?;
    runtime.block_on(async {
        let (published, mut done) = unbounded_channel();
        let desk = Arc::new(Kept { members: members.to_vec(), store: Store::open(at, Options::default())?, published });
        let poll = LabelPoll::new(&config, Fetch::new()?, Clock::system(), desk.clone(), Arc::default());
        let mut poll = poll.context("there is a labeler in the settings")?;
        poll.restore().await;
        // What was known before is published at once; what counts is what the poll finds.
        while done.try_recv().is_ok() {}
        let state = poll.state();
        let (began, cpu_before) = (Instant::now(), cpu::process(std::process::id()));
        let running = tokio::spawn(poll.run());
        let standing = tokio::time::timeout(PATIENCE, done.recv()).await.context("the poll does not end")?.context("no poll")?;
        let polled = Polled {
            seconds: began.elapsed().as_secs_f64(),
            cpu_seconds: (cpu::process(std::process::id()) - cpu_before).as_secs_f64(),
        };
        running.abort();
        let _ = running.await;
        ensure!(state.load().trouble.is_none(), "{:?}", state.load());
        let now = SystemTime::now();
        let with = members.iter().filter(|did| standing.labels(did, now).count() == 1).count();
        ensure!(with == members.len(), "{with} of {} members have their label", members.len());
        let desk = Arc::into_inner(desk).context("the poll still runs")?;
        desk.store.close().await?;
        Ok(polled)
    })
}
