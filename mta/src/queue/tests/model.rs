//! Random games against a plain map: enqueue, defer, settle, restart, crash, in any order.

use std::collections::BTreeMap;
use std::collections::HashMap;

use super::*;
use crate::queue::{Which, Wish};

/// What the queue ought to hold.
#[derive(Default)]
struct Model {
    messages: BTreeMap<QueueId, Entry>,
    /// Final fates written down, for each recipient.
    finals: HashMap<String, usize>,
    /// Recipients ever accepted: each has an address of its own.
    accepted: usize,
}

/// Octets, member, lane, domains.
type Entry = (Bytes, u32, Lane, BTreeMap<String, Waiting>);

struct Waiting {
    /// (index, address) of open recipients.
    open: Vec<(u16, String)>,
    attempts: u16,
    due: SystemTime,
    /// An operator holds it; it would have been due then.
    held: Option<SystemTime>,
}

/// Whose mail it is.
const MEMBERS: [u32; 4] = [1, 2, 256, u32::MAX];

/// When every message of these games expires.
fn deadline() -> SystemTime {
    later(86_400)
}

struct Game {
    random: Random,
    model: Model,
    dir: TempDir,
    options: Options,
    bench: Option<Bench>,
    addresses: usize,
}

impl Game {
    fn new(seed: u64) -> Self {
        let dir = TempDir::new().unwrap();
        // The smaller they are, the sooner there are many, and bodies are copied forward.
        let options = Options { segment_bytes: [4, 32][seed as usize % 2] << 10, ..options() };
        let bench = Some(Bench::open(&dir, options.clone()));
        Self { random: Random(seed), model: Model::default(), dir, options, bench, addresses: 0 }
    }

    fn bench(&self) -> &Bench {
        self.bench.as_ref().unwrap()
    }

    async fn reopen(&mut self, orderly: bool) {
        let bench = self.bench.take().unwrap();
        if orderly {
            bench.close().await
        } else {
            bench.crash().await
        }
        self.options.faults.clear();
        self.bench = Some(Bench::open(&self.dir, self.options.clone()));
    }

    /// A message and what the model would say of it.
    fn new_message(&mut self) -> (NewMessage, Entry) {
        let octets = match self.random.below(10) {
            0 => self.random.octets(0),
            1 => {
                let length = self.random.below(60_000);
                self.random.octets(length)
            }
            _ => {
                let length = self.random.below(5_000);
                self.random.octets(length)
            }
        };
        let lane = Lane::ALL[self.random.below(3)];
        // Neighbours in the index, and far apart.
        let member = MEMBERS[self.random.below(4)];
        let due = later(self.random.below(1000) as u64);
        let mut domains: BTreeMap<String, Waiting> = BTreeMap::new();
        let mut addresses = Vec::new();
        for index in 0..1 + self.random.below(4) as u16 {
            let domain = ["a.example", "b.example", "b.example.org", "c.example"][self.random.below(4)];
            self.addresses += 1;
            addresses.push(format!("r{}@{domain}", self.addresses));
            let waiting = domains.entry(domain.to_owned()).or_insert(Waiting { open: vec![], attempts: 0, due, held: None });
            waiting.open.push((index, addresses.last().unwrap().clone()));
        }
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let new = NewMessage { member, lane, due, octets: vec![octets.clone()], ..message(&addresses, "") };
        (new, (octets, member, lane, domains))
    }

    fn accept(&mut self, id: QueueId, entry: Entry) {
        self.model.accepted += entry.3.values().map(|waiting| waiting.open.len()).sum::<usize>();
        assert!(self.model.messages.insert(id, entry).is_none());
    }

    async fn enqueue(&mut self) {
        let (new, entry) = self.new_message();
        let id = self.bench().queue.enqueue(new).await.unwrap();
        self.accept(id, entry);
    }

    /// An attempt at some delivery, and what it changes in the model.
    fn attempt(&mut self) -> Option<Settlement> {
        let nth = self.random.below(self.model.messages.len().max(1));
        let (&id, (_, _, _, domains)) = self.model.messages.iter_mut().nth(nth)?;
        let nth = self.random.below(domains.len());
        let domain = domains.keys().nth(nth).unwrap().clone();
        let waiting = domains.get_mut(&domain).unwrap();
        let keep = self.random.below(3);
        let mut fates = Vec::new();
        let mut open = Vec::new();
        for (index, address) in std::mem::take(&mut waiting.open) {
            if keep > 0 && self.random.below(3) < keep {
                open.push((index, address));
            } else {
                fates.push(fate(index, [Fate::Delivered, Fate::Failed, Fate::Expired][self.random.below(3)]));
                *self.model.finals.entry(address).or_default() += 1;
            }
        }
        let due = later(1000 + self.random.below(1000) as u64);
        let next = if open.is_empty() { Next::Done } else { Next::RetryAt(due) };
        if open.is_empty() {
            domains.remove(&domain);
            if domains.is_empty() {
                self.model.messages.remove(&id);
            }
        } else {
            let due = if waiting.held.is_some() { deadline() } else { due };
            *waiting = Waiting { open, attempts: waiting.attempts + 1, due, held: waiting.held };
        }
        Some(settlement(id, &domain, fates, next))
    }

    async fn settle(&mut self, most: usize) {
        let settlements: Vec<_> = (0..1 + self.random.below(most)).filter_map(|_| self.attempt()).collect();
        self.bench().queue.settle(settlements).await.unwrap();
    }

    /// An operator holds, releases or flushes a message's, a member's or a domain's deliveries.
    async fn operate(&mut self) {
        let wish = [Wish::Hold, Wish::Release, Wish::Flush][self.random.below(3)];
        let nth = self.random.below(self.model.messages.len().max(1));
        let which = match (self.random.below(8), self.model.messages.keys().nth(nth)) {
            (0 | 1, _) => Which::Member(MEMBERS[self.random.below(4)]),
            (2, _) | (_, None) => Which::Domain("b.example".to_owned()),
            (_, Some(id)) => Which::Message(*id),
        };
        let changed = self.bench().operate(wish, which.clone()).await;
        let mut expected = 0;
        for (id, (_, member, _, domains)) in &mut self.model.messages {
            for (domain, waiting) in domains {
                let meant = match &which {
                    Which::Message(one) => one == id,
                    Which::Member(one) => one == member,
                    Which::Domain(one) => one == domain,
                };
                // The clock stands still at the start, before everything.
                let now = |due: SystemTime| if waiting.attempts == 0 { due } else { start() };
                let (due, held) = match (wish, waiting.held) {
                    (Wish::Hold, None) => (deadline(), Some(waiting.due)),
                    (Wish::Release, Some(due)) => (now(due), None),
                    (Wish::Flush, None) if now(waiting.due) < waiting.due => (start(), None),
                    _ => continue,
                };
                if meant {
                    expected += 1;
                    (waiting.due, waiting.held) = (due, held);
                }
            }
        }
        assert_eq!(changed, expected, "{wish:?} {which:?}");
    }

    async fn cancel(&mut self) {
        let nth = self.random.below(self.model.messages.len().max(1));
        let Some(id) = self.model.messages.keys().nth(nth).copied() else { return };
        let (_, _, _, domains) = self.model.messages.remove(&id).unwrap();
        for (_, address) in domains.values().flat_map(|waiting| &waiting.open) {
            *self.model.finals.entry(address.clone()).or_default() += 1;
        }
        let gone = domains.keys().map(|domain| settlement(id, domain, vec![], Next::Cancelled)).collect();
        self.bench().queue.settle(gone).await.unwrap();
    }

    /// The power fails in the middle of an enqueue.
    async fn power_cut(&mut self, fault: Fault) {
        let (new, entry) = self.new_message();
        self.options.faults.set(fault);
        assert!(self.bench().queue.enqueue(new).await.is_err());
        self.reopen(false).await;
        if fault == Fault::StopAfterCommit {
            // It was durable before anybody was told.
            let known = &self.model.messages;
            let found = self.bench().list(&Filter::default()).into_iter().map(|entry| entry.id);
            let mut unknown: Vec<_> = found.filter(|id| !known.contains_key(id)).collect();
            unknown.dedup();
            assert_eq!(unknown.len(), 1);
            self.accept(unknown[0], entry);
        }
    }

    fn check(&self) {
        let (reader, model) = (&self.bench().reader, &self.model);
        let mut live = 0;
        let mut expected = Vec::new();
        for (id, (octets, _, _, domains)) in &model.messages {
            live += (32 + octets.len() as u64).next_multiple_of(8);
            for (domain, waiting) in domains {
                let stored = reader.fetch(*id, domain).unwrap();
                assert_eq!(stored.message.octets, octets, "{id}");
                let open: Vec<_> =
                    stored.recipients.iter().map(|found| (found.index, found.mailbox.as_str().to_owned())).collect();
                assert_eq!((&open, stored.attempts), (&waiting.open, waiting.attempts), "{id} {domain}");
                expected.push((*id, domain.clone(), waiting.due, waiting.open.len()));
            }
        }
        let listed = self.bench().list(&Filter::default());
        let listed: Vec<_> = listed.into_iter().map(|found| (found.id, found.domain, found.due, found.open)).collect();
        assert_eq!(listed, expected);
        let of = |member| self.bench().list(&Filter { member: Some(member), ..Filter::default() });
        let mut of_members: Vec<_> = MEMBERS.into_iter().flat_map(of).map(|found| (found.id, found.domain)).collect();
        of_members.sort();
        assert_eq!(of_members, expected.iter().map(|(id, domain, ..)| (*id, domain.clone())).collect::<Vec<_>>());
        let mut held = self.bench().held();
        held.sort();
        let all =
            model.messages.iter().flat_map(|(id, (_, _, _, domains))| domains.iter().map(move |(domain, w)| (*id, domain, w)));
        let expected_held: Vec<_> = all.filter(|(.., w)| w.held.is_some()).map(|(id, domain, _)| (id, domain.clone())).collect();
        assert_eq!(held, expected_held);
        let counts = reader.counts().unwrap();
        assert_eq!((counts.messages as usize, counts.pending as usize), (model.messages.len(), expected.len()));
        assert_eq!((counts.deliveries as usize, counts.live_bytes), (expected.len(), live));
        self.check_windows();
        let mut finals: HashMap<String, usize> = HashMap::new();
        for event in self.bench().events().into_iter().filter(|event| event.what.is_final()) {
            *finals.entry(event.recipient).or_default() += 1;
        }
        assert_eq!(finals, model.finals);
        assert!(finals.values().all(|count| *count == 1));
    }

    fn check_windows(&self) {
        type Flow = (String, u32);
        let mut windows: BTreeMap<Flow, Vec<(Lane, SystemTime, QueueId)>> = BTreeMap::new();
        for (id, (_, member, lane, domains)) in &self.model.messages {
            for (domain, waiting) in domains {
                windows.entry((domain.clone(), *member)).or_default().push((*lane, waiting.due, *id));
            }
        }
        let now = later(800);
        let mut backlog = Vec::new();
        for ((domain, member), mut window) in windows {
            window.sort();
            let due: Vec<_> = window.iter().filter(|(_, due, _)| *due <= now).copied().take(5).collect();
            let next = window.iter().filter(|entry| !due.contains(entry)).map(|(_, due, _)| *due).min();
            let (found, next_due) = self.bench().reader.load(&domain, member, now, 5).unwrap();
            assert!(found.iter().all(|found| found.member == member && *found.domain == *domain));
            let found: Vec<_> = found.into_iter().map(|found| (found.lane, found.due, found.id)).collect();
            assert_eq!((found, next_due), (due, next), "{domain}");
            backlog.push((domain, member, window.iter().map(|(_, due, _)| *due).min().unwrap()));
        }
        let found = self.bench().reader.backlog().unwrap().flows;
        let found: Vec<_> = found.into_iter().map(|(domain, member, due)| (domain.to_string(), member, due)).collect();
        assert_eq!(found, backlog);
    }
}

async fn play(seed: u64) {
    let mut game = Game::new(seed);
    // Some games are mostly arrivals, some mostly departures.
    let arrivals = 3 + game.random.below(5);
    for _ in 0..50 {
        match game.random.below(17) {
            n if n < arrivals => game.enqueue().await,
            10 => game.reopen(true).await,
            11 => game.power_cut([Fault::StopBeforeCommit, Fault::StopAfterCommit][seed as usize % 2]).await,
            12 => game.check(),
            13..16 => game.operate().await,
            16 => game.cancel().await,
            _ => game.settle(3).await,
        }
    }
    game.reopen(false).await;
    game.check();
    while !game.model.messages.is_empty() {
        game.settle(30).await;
    }
    game.check();
    assert_eq!(game.model.finals.len(), game.model.accepted);
    let counts = game.bench().reader.counts().unwrap();
    assert_eq!((counts.live_bytes, counts.aside), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn fifty_random_games_end_as_a_plain_map_says() {
    for seed in 0..50 {
        println!("seed {seed}");
        play(seed).await;
    }
}
