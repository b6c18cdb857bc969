//! A race among the addresses of a host: when one does not answer soon, the next is tried beside it (RFC 8305 in spirit).
//!
//! A source has one address and so one family; what races here are the host's addresses of that family. Where that family leads
//! nowhere and the host has the other one, the scheduler gives the delivery to a source of the other at once. Connects are never
//! dropped half-way: each is a task, and one that comes too late is closed by whoever finds it. The next address is tried
//! only while nobody has a connection, so a host that answers sees one.
//!
//! Not here: which addresses (`deliver.rs`), what is said over a connection (`link.rs`).

use std::collections::VecDeque;
use std::io;

use host::{Connection, Net, Stream};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::Source;
use super::link::Target;

/// RFC 8305 §5: the connection attempt delay.
const STAGGER: Duration = Duration::from_millis(250);

/// The race.
pub(super) struct Race<'a> {
    net: &'a Net,
    source: &'a Source,
    port: u16,
    waiting: VecDeque<Target>,
    running: usize,
    /// Has room for every target, so that nobody waits in it.
    finish: mpsc::Sender<(Target, io::Result<Connection>)>,
    finished: mpsc::Receiver<(Target, io::Result<Connection>)>,
}

impl<'a> Race<'a> {
    pub(super) fn new(net: &'a Net, source: &'a Source, port: u16, targets: &[Target]) -> Self {
        let (finish, finished) = mpsc::channel(targets.len().max(1));
        Race { net, source, port, waiting: targets.iter().cloned().collect(), running: 0, finish, finished }
    }

    /// The next one that has a connection or none to be had, in the order in which that turns out. It only waits, and the
    /// connects go on elsewhere; none: all targets have had their turn.
    pub(super) async fn next(&mut self) -> Option<(Target, io::Result<Connection>)> {
        if self.running == 0 && self.waiting.len() == 1 {
            let target = self.waiting.pop_front()?;
            let connection = target.connect(self.net, self.source, self.port).await;
            return Some((target, connection));
        }
        loop {
            if self.running == 0 {
                let target = self.waiting.pop_front()?;
                self.begin(target);
            }
            let finished = match self.waiting.is_empty() {
                true => self.finished.recv().await,
                false => match timeout(STAGGER, self.finished.recv()).await {
                    Ok(finished) => finished,
                    Err(_) => {
                        if let Some(target) = self.waiting.pop_front() {
                            self.begin(target);
                        }
                        continue;
                    }
                },
            };
            self.running -= 1;
            return finished;
        }
    }

    fn begin(&mut self, target: Target) {
        self.running += 1;
        let (net, source, port, finish) = (self.net.clone(), self.source.clone(), self.port, self.finish.clone());
        host::spawn_local(async move {
            let connection = target.connect(&net, &source, port).await;
            if let Err(unwanted) = finish.try_send((target, connection))
                && let (_, Ok(connection)) = unwanted.into_inner()
            {
                connection.close().await;
            }
        });
    }
}

impl Drop for Race<'_> {
    fn drop(&mut self) {
        self.finished.close();
        while let Ok((_, late)) = self.finished.try_recv() {
            // Nothing was said over it, and nobody can wait here.
            late.into_iter().for_each(Connection::abort);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;
    use std::sync::Arc;

    use host::{Io, sim};
    use scheduler::{Demand, Limits, WindowLimits};
    use tokio::time::Instant;

    use super::super::link::Tested;
    use super::*;

    const FIRST: &str = "198.51.100.1:25";
    const SECOND: &str = "198.51.100.2:25";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Runs a race between two addresses of which `prepare` says how they are. In which order they came, with what, and
    /// when the first did; and how many sockets were left open when all was over.
    fn run(prepare: impl FnOnce(&sim::Net), wanted: usize) -> (Vec<(String, bool)>, Duration, usize) {
        let sim = sim::Net::new(1);
        let net = Net::new(Io::Sim(sim.clone()));
        host::run(&Io::Sim(sim.clone()), async {
            let mut listeners: Vec<_> = [FIRST, SECOND].map(|address| net.listen(at(address), 9).unwrap()).into();
            prepare(&sim);
            for mut listener in listeners.drain(..) {
                host::spawn_local(async move {
                    while let Ok((mut connection, _)) = listener.accept().await {
                        // Until the client goes.
                        let _ = connection.read(host::deadline_in(Duration::from_secs(600))).await;
                        connection.close().await;
                    }
                });
            }
            let source = Source { index: 0, name: "a".into(), address: "192.0.2.1".parse().unwrap(), ehlo: "a.test".into() };
            let target = |address: &str| Target {
                host: "mx.test".into(),
                address: at(address).ip(),
                demand: Demand::Opportunistic,
                require_tls: false,
                tested: Tested::No,
                limits: Arc::new(Limits::without_rules(WindowLimits::default())),
                patience: Duration::MAX,
                trail: Rc::default(),
            };
            let began = Instant::now();
            let (mut order, mut first) = (Vec::new(), None);
            let mut race = Race::new(&net, &source, 25, &[target(FIRST), target(SECOND)]);
            while order.len() < wanted
                && let Some((target, connection)) = race.next().await
            {
                first.get_or_insert(began.elapsed());
                order.push((target.address.to_string(), connection.is_ok()));
                if let Ok(connection) = connection {
                    connection.close().await;
                }
            }
            drop(race);
            tokio::time::sleep(Duration::from_secs(60)).await;
            (order, first.unwrap(), sim.open_sockets())
        })
        .unwrap()
    }

    fn order(order: &[(&str, bool)]) -> Vec<(String, bool)> {
        order.iter().map(|(address, good)| ((*address).to_owned(), *good)).collect()
    }

    #[test]
    fn an_address_that_answers_is_the_only_one_that_is_spoken_to() {
        let (came, took, open) = run(|_| {}, 1);
        assert_eq!(came, order(&[("198.51.100.1", true)]));
        assert!(took < STAGGER && open == 0, "{took:?}, {open} left open");
    }

    #[test]
    fn a_silent_address_costs_a_quarter_of_a_second() {
        let (came, took, open) = run(|net| net.cut(at(FIRST)), 1);
        assert_eq!(came, order(&[("198.51.100.2", true)]));
        assert!(took >= STAGGER && took < 2 * STAGGER && open == 0, "{took:?}, {open} left open");
    }

    #[test]
    fn a_refusing_address_costs_nothing_and_all_have_their_turn() {
        let (came, took, _) = run(|net| net.refuse(at(FIRST)), 9);
        assert_eq!(came, order(&[("198.51.100.1", false), ("198.51.100.2", true)]));
        assert!(took < STAGGER, "{took:?}");
        let (came, _, _) = run(|net| [FIRST, SECOND].into_iter().for_each(|it| net.cut(at(it))), 9);
        assert_eq!(came, order(&[("198.51.100.1", false), ("198.51.100.2", false)]));
    }

    #[test]
    fn a_connection_that_comes_too_late_is_closed() {
        // Both answer, and the first takes longer than the second was waited for.
        let slow = |net: &sim::Net| net.set_latency_of(at(FIRST), Duration::from_millis(200));
        let (came, took, open) = run(slow, 1);
        assert_eq!(came, order(&[("198.51.100.2", true)]));
        assert!(took < 2 * STAGGER && open == 0, "{took:?}, {open} left open");
    }
}
