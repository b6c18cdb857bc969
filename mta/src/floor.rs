//! Where the daemon's actors run, and whether they still do.
//!
//! Each thread that is started here has a task beside its work that answers each round of the [`Rounds`]. The task gets its turn
//! only when the thread is back at its runtime: one that waits for a disk or turns in a circle does not answer, nor does one whose
//! actor has ended. The control thread asks for the service manager, which ends a daemon that hangs (`WatchdogSec=`).
//!
//! In the simulation all are tasks of one runtime, and nobody asks.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::Io;
use tokio::sync::watch;

/// Where actors run.
#[derive(Clone)]
pub(crate) enum Floor {
    /// Each on a thread of its own.
    Threads(Rounds),
    /// All as tasks of the caller's runtime.
    Here,
}

impl Floor {
    /// The one that fits the sockets.
    pub(crate) fn of(io: &Io) -> Self {
        if matches!(io, Io::Sim(_)) { Floor::Here } else { Floor::Threads(Rounds::default()) }
    }

    /// Whether there is but one thread.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Floor::Here)
    }

    /// To be asked who answers; without threads there is nobody to ask.
    pub(crate) fn rounds(&self) -> Rounds {
        match self {
            Floor::Threads(rounds) => rounds.clone(),
            Floor::Here => Rounds::default(),
        }
    }

    /// Starts an actor.
    pub(crate) fn start<F>(&self, io: &Io, name: &str, make: impl FnOnce() -> F + Send + 'static) -> io::Result<()>
    where
        F: Future<Output = ()> + 'static,
    {
        match self {
            Floor::Threads(rounds) => {
                let answer = rounds.attend(name);
                let work = move || async move {
                    let answering = host::spawn_local(answer.run());
                    make().await;
                    answering.abort();
                };
                host::thread_on(io, name, work).map(drop)
            }
            Floor::Here => {
                host::spawn_local(make());
                Ok(())
            }
        }
    }
}

/// The rounds of asking: who is on them, and who answered last.
#[derive(Clone)]
pub struct Rounds {
    number: watch::Sender<u64>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

struct Asked {
    name: String,
    answered: Arc<AtomicU64>,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { number: watch::Sender::new(0), asked: Arc::default() }
    }
}

impl Rounds {
    /// One more who is asked.
    fn attend(&self, name: &str) -> Answer {
        let answered = Arc::new(AtomicU64::new(*self.number.borrow()));
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Asked { name: name.to_owned(), answered: answered.clone() });
        Answer { number: self.number.subscribe(), answered }
    }

    /// Who has not answered the last question.
    fn silent(&self) -> Vec<String> {
        let number = *self.number.borrow();
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.answered.load(Relaxed) < number).map(|asked| asked.name.clone()).collect()
    }

    /// Asks all of them every `every`, and says `alive` after each round that all have answered. Never ends.
    pub(crate) async fn run(&self, every: Duration, alive: impl Fn()) {
        let mut before = Vec::new();
        loop {
            let silent = self.silent();
            if silent.is_empty() {
                alive();
            } else if silent != before {
                tracing::error!(
                    threads = silent.join(", "),
                    "threads do not answer; the service manager is told nothing meanwhile"
                );
            }
            before = silent;
            self.number.send_modify(|number| *number += 1);
            tokio::time::sleep(every).await;
        }
    }
}

/// The answering half, on the thread that is asked.
struct Answer {
    number: watch::Receiver<u64>,
    answered: Arc<AtomicU64>,
}

impl Answer {
    async fn run(mut self) {
        // Ends with the daemon.
        while self.number.changed().await.is_ok() {
            self.answered.store(*self.number.borrow_and_update(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    /// Asks until `enough` says so; every round is a moment that the others may take to answer.
    async fn ask(rounds: &Rounds, alive: &AtomicUsize, enough: impl Fn() -> bool) {
        let asking = rounds.run(Duration::from_millis(1), || {
            alive.fetch_add(1, Relaxed);
        });
        let until = async {
            while !enough() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = asking => unreachable!("it never ends"),
            () = until => {}
        }
    }

    #[test]
    fn nobody_says_alive_while_a_thread_hangs_or_has_ended() {
        let floor = Floor::Threads(Rounds::default());
        let rounds = floor.rounds();
        let (let_go, hold) = mpsc::channel::<()>();
        let (hung, hangs) = mpsc::channel::<()>();
        floor.start(&Io::Epoll, "well", std::future::pending).unwrap();
        let wake = Arc::new(tokio::sync::Notify::new());
        let woken = wake.clone();
        let work = move || async move {
            woken.notified().await;
            hung.send(()).unwrap();
            // Not `await`: the thread is not back at its runtime.
            let _ = hold.recv();
            woken.notified().await;
        };
        floor.start(&Io::Epoll, "queue", work).unwrap();

        let alive = AtomicUsize::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(ask(&rounds, &alive, || alive.load(Relaxed) >= 3));

        wake.notify_one();
        hangs.recv().unwrap();
        // One round may have been answered before it hung, and the question of the round is older than the hanging.
        let number = *rounds.number.borrow();
        alive.store(0, Relaxed);
        runtime.block_on(ask(&rounds, &alive, || *rounds.number.borrow() > number + 20));
        assert!(alive.load(Relaxed) <= 1, "said alive {} times", alive.load(Relaxed));
        while rounds.silent() != ["queue"] {
            std::thread::yield_now();
        }

        let_go.send(()).unwrap();
        alive.store(0, Relaxed);
        runtime.block_on(ask(&rounds, &alive, || alive.load(Relaxed) >= 3));

        wake.notify_one();
        alive.store(0, Relaxed);
        // Whoever has ended is silent, too.
        runtime.block_on(ask(&rounds, &alive, || rounds.silent() == ["queue"]));
    }
}
