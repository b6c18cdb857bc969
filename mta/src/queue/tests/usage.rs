//! Whose the messages are, and which were submitted before: random games with books of their own, and one by one.

use std::collections::BTreeMap;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn print(n: u64) -> Fingerprint {
    let mut octets = [7; 16];
    octets[..8].copy_from_slice(&n.to_be_bytes());
    Fingerprint(octets)
}

fn open(dir: &TempDir, options: &Options) -> Bench {
    let bench = Bench::open(dir, options.clone());
    bench.queue.recent().set_window(HOUR);
    bench
}

fn submitted(n: u64, recipients: &[&str], octets: &str) -> NewMessage {
    let admission = Admission { day: 20_000, recipients: recipients.len() as u32, fingerprint: Some(print(n)) };
    NewMessage { admission: Some(admission), ..message(recipients, octets) }
}

/// What the books say of a message.
#[derive(Clone)]
struct Entry {
    account: u32,
    bytes: u64,
    domains: Vec<&'static str>,
}

#[derive(Default)]
struct Books {
    messages: BTreeMap<QueueId, Entry>,
    spent: BTreeMap<u32, (u32, u64)>,
    /// By number of its fingerprint, as long as nothing of it has failed.
    remembered: BTreeMap<u64, QueueId>,
    numbers: u64,
}

struct Game {
    random: Random,
    books: Books,
    dir: TempDir,
    options: Options,
    bench: Option<Bench>,
}

impl Game {
    fn new(seed: u64) -> Self {
        let (dir, options) = (TempDir::new().unwrap(), options());
        let bench = Some(open(&dir, &options));
        Self { random: Random(seed), books: Books::default(), dir, options, bench }
    }

    fn bench(&mut self) -> &mut Bench {
        self.bench.as_mut().unwrap()
    }

    async fn reopen(&mut self, orderly: bool) {
        let bench = self.bench.take().unwrap();
        if orderly {
            bench.close().await
        } else {
            bench.crash().await
        }
        self.options.faults.clear();
        self.bench = Some(open(&self.dir, &self.options));
    }

    fn new_message(&mut self, number: u64) -> (NewMessage, Entry, Admission) {
        let member = 1 + self.random.below(3) as u32;
        let domains = [&["a.example"][..], &["a.example", "b.example"]][self.random.below(2)];
        let length = self.random.below(9_000);
        let day = 20_000 + self.random.below(3) as u32;
        let admission = Admission { day, recipients: domains.len() as u32, fingerprint: Some(print(number)) };
        let recipients: Vec<String> = domains.iter().map(|domain| format!("r@{domain}")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let mut new = NewMessage { member, admission: Some(admission), ..message(&recipients, "") };
        if self.random.below(4) == 0 {
            new.credential = LISTENER_CREDENTIAL;
        }
        new.octets = vec![self.random.octets(length)];
        (new, Entry { account: member, bytes: length as u64, domains: domains.to_vec() }, admission)
    }

    fn accept(&mut self, id: QueueId, number: u64, entry: Entry, admission: Admission) {
        let (day, spent) = self.books.spent.entry(entry.account).or_default();
        match admission.day.cmp(day) {
            std::cmp::Ordering::Greater => (*day, *spent) = (admission.day, u64::from(admission.recipients)),
            std::cmp::Ordering::Equal => *spent += u64::from(admission.recipients),
            std::cmp::Ordering::Less => {}
        }
        self.books.remembered.insert(number, id);
        assert!(self.books.messages.insert(id, entry).is_none(), "{id} was queued already");
    }

    async fn enqueue(&mut self) {
        self.books.numbers += 1;
        let number = self.books.numbers;
        let (new, entry, admission) = self.new_message(number);
        let id = self.bench().queue.enqueue(new).await.unwrap();
        self.accept(id, number, entry, admission);
    }

    /// Something that was submitted before comes again, two at the same time.
    async fn again(&mut self) {
        if self.books.numbers == 0 {
            return;
        }
        let number = 1 + self.random.next() % self.books.numbers;
        let (new, entry, admission) = self.new_message(number);
        let queue = self.bench().queue.clone();
        let (one, two) = tokio::join!(queue.enqueue(new.clone()), queue.enqueue(new));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one, two, "number {number} was queued twice");
        match self.books.remembered.get(&number) {
            Some(first) => assert_eq!(one, *first, "number {number} was queued again"),
            None => self.accept(one, number, entry, admission),
        }
    }

    async fn settle(&mut self) {
        let nth = self.random.below(self.books.messages.len().max(1));
        let Some((&id, entry)) = self.books.messages.iter().nth(nth) else { return };
        let mut entry = entry.clone();
        let domain = entry.domains.remove(self.random.below(entry.domains.len()));
        let index = u16::from(domain == "b.example");
        let outcome = [Fate::Delivered, Fate::Delivered, Fate::Failed, Fate::Expired][self.random.below(4)];
        let mut settlement = settlement(id, domain, vec![fate(index, outcome)], Next::Done);
        let told = outcome != Fate::Delivered && self.random.below(2) == 0;
        if told {
            let notice = NewMessage { credential: 0, admission: None, member: entry.account, ..message(&["s@m.example"], "no") };
            settlement.dsn = Some(NewMessage { reverse_path: ReversePath::Null, ..notice });
        }
        self.bench().notes();
        self.bench().queue.settle(vec![settlement]).await.unwrap();
        if outcome != Fate::Delivered {
            self.books.remembered.retain(|_, known| *known != id);
        }
        match entry.domains.is_empty() {
            true => self.books.messages.remove(&id),
            false => self.books.messages.insert(id, entry),
        };
        // The writer tells the scheduler before it takes the next request.
        self.bench().queue.transact(|_, _| Ok(())).await.unwrap();
        for note in self.bench().notes() {
            if let Note::Enqueued { delivery, .. } = note {
                assert!(told);
                let own = Entry { account: OWN, bytes: 2, domains: vec!["m.example"] };
                self.books.messages.insert(delivery.id, own);
            }
        }
    }

    /// The power fails in the middle of an enqueue, and the client submits it again.
    async fn power_cut(&mut self, fault: Fault) {
        self.books.numbers += 1;
        let number = self.books.numbers;
        let (new, entry, admission) = self.new_message(number);
        self.options.faults.set(fault);
        assert!(self.bench().queue.enqueue(new.clone()).await.is_err());
        self.reopen(false).await;
        let before: Vec<QueueId> = self.bench().list(&Filter::default()).into_iter().map(|found| found.id).collect();
        let id = self.bench().queue.enqueue(new).await.unwrap();
        assert_eq!(before.contains(&id), fault == Fault::StopAfterCommit, "what was durable is not queued again");
        self.accept(id, number, entry, admission);
    }

    fn check(&mut self) {
        let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for entry in self.books.messages.values() {
            let held = expected.entry(entry.account).or_default();
            *held = (held.0 + 1, held.1 + entry.bytes);
        }
        let usages: BTreeMap<u32, Usage> = self.bench().reader.usages().unwrap().into_iter().collect();
        for account in 0..4 {
            let (messages, bytes) = expected.get(&account).copied().unwrap_or_default();
            let (day, spent) = self.books.spent.get(&account).copied().unwrap_or_default();
            let usage = usages.get(&account).copied().unwrap_or_default();
            assert_eq!(usage, Usage { messages, bytes, day, spent }, "account {account}");
            let held = self.bench().queue.held(account, start());
            assert_eq!((held.messages, held.bytes), (messages, bytes), "account {account} in memory");
        }
        let counts = self.bench().reader.counts().unwrap();
        assert_eq!(counts.messages as usize, self.books.messages.len());
    }
}

#[tokio::test(start_paused = true)]
async fn what_each_member_has_queued_and_sent_is_exact_over_random_games_with_crashes() {
    for seed in 0..16 {
        println!("seed {seed}");
        let mut game = Game::new(seed);
        for _ in 0..60 {
            match game.random.below(12) {
                0..=3 => game.enqueue().await,
                4 => game.again().await,
                9 => game.reopen(seed % 2 == 0).await,
                10 => {
                    let fault = [Fault::StopBeforeCommit, Fault::StopAfterCommit][game.random.below(2)];
                    game.power_cut(fault).await;
                }
                11 => game.check(),
                _ => game.settle().await,
            }
        }
        game.check();
        while !game.books.messages.is_empty() {
            game.settle().await;
        }
        game.reopen(false).await;
        game.check();
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_submitted_again_is_answered_with_the_first_id_and_not_queued_again() {
    let dir = TempDir::new().unwrap();
    let mut bench = open(&dir, &options());
    let first = bench.queue.enqueue(submitted(1, &["a@one.example"], "x")).await.unwrap();
    assert_eq!(bench.queue.recent().find(print(1), start()), Some(first), "any thread can see it");
    assert_eq!(bench.queue.enqueue(submitted(1, &["a@one.example"], "x")).await.unwrap(), first);
    let other = bench.queue.enqueue(submitted(2, &["a@one.example"], "y")).await.unwrap();
    assert_ne!(other, first);
    // Without a fingerprint nothing is compared.
    let plain = NewMessage { admission: None, ..submitted(1, &["a@one.example"], "x") };
    assert_ne!(bench.queue.enqueue(plain).await.unwrap(), first);
    assert_eq!(bench.reader.counts().unwrap().messages, 3);
    assert_eq!(bench.notes().len(), 3, "the scheduler hears of each once");
    assert_eq!(bench.queue.stats().duplicates.load(Ordering::Relaxed), 1);
    // It is also known once it has been delivered, and after a restart.
    bench.queue.settle(vec![delivered(first, "one.example")]).await.unwrap();
    bench.close().await;
    let bench = open(&dir, &options());
    assert_eq!(bench.queue.recent().find(print(1), start()), Some(first));
    assert_eq!(bench.queue.enqueue(submitted(1, &["a@one.example"], "x")).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn of_many_at_once_one_is_queued_and_all_are_told_its_fate() {
    let dir = TempDir::new().unwrap();
    let options = options();
    let bench = open(&dir, &options);
    let all_at_once = || {
        let enqueue = |_| {
            let queue = bench.queue.clone();
            tokio::spawn(async move { queue.enqueue(submitted(1, &["a@one.example"], "x")).await })
        };
        (0..20).map(enqueue).collect::<Vec<_>>()
    };
    // The batch fails: nobody is told that it is queued.
    options.faults.set(Fault::SyncFails);
    for task in all_at_once() {
        assert!(task.await.unwrap().is_err());
    }
    let mut ids = Vec::new();
    for task in all_at_once() {
        ids.push(task.await.unwrap().unwrap());
    }
    ids.dedup();
    assert_eq!((ids.len(), bench.reader.counts().unwrap().messages), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_failed_may_be_submitted_again() {
    let dir = TempDir::new().unwrap();
    let bench = open(&dir, &options());
    for outcome in [Fate::Failed, Fate::Expired] {
        let recipients = ["a@one.example", "b@two.example"];
        let first = bench.queue.enqueue(submitted(1, &recipients, "x")).await.unwrap();
        bench.queue.settle(vec![delivered(first, "one.example")]).await.unwrap();
        assert_eq!(bench.queue.enqueue(submitted(1, &recipients, "x")).await.unwrap(), first);
        bench.queue.settle(vec![settlement(first, "two.example", vec![fate(1, outcome)], Next::Done)]).await.unwrap();
        assert_eq!(bench.queue.recent().find(print(1), start()), None);
        let second = bench.queue.enqueue(submitted(1, &recipients, "x")).await.unwrap();
        assert_ne!(second, first);
        bench.queue.settle(vec![settlement(second, "one.example", vec![fate(0, outcome)], Next::Done)]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn records_leave_after_their_time_and_the_oldest_when_there_are_too_many() {
    let dir = TempDir::new().unwrap();
    let bench = open(&dir, &Options { submitted_max: 50, ..options() });
    let records = |bench: &Bench| bench.reader.read(|txn, tables| Ok(tables.submitted.len(txn)?)).unwrap();
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(bench.queue.enqueue(submitted(n, &["a@one.example"], "x")).await.unwrap());
    }
    assert_eq!(records(&bench), 50);
    assert_eq!(bench.queue.enqueue(submitted(199, &["a@one.example"], "x")).await.unwrap(), ids[199]);
    assert_ne!(bench.queue.enqueue(submitted(10, &["a@one.example"], "x")).await.unwrap(), ids[10]);
    tokio::time::sleep(HOUR + Duration::from_secs(1)).await;
    assert_ne!(bench.queue.enqueue(submitted(199, &["a@one.example"], "x")).await.unwrap(), ids[199]);
    assert_eq!(records(&bench), 1);
}

#[tokio::test(start_paused = true)]
async fn a_queue_older_than_the_counts_is_counted_once() {
    let dir = TempDir::new().unwrap();
    let bench = open(&dir, &options());
    for n in 0..6 {
        let new = NewMessage { member: 1 + n as u32 % 2, ..submitted(n, &["a@one.example"], "12345") };
        bench.queue.enqueue(new).await.unwrap();
    }
    bench.queue.transact(|txn, tables| Ok(tables.usage.clear(txn)?)).await.unwrap();
    bench.crash().await;
    let bench = open(&dir, &options());
    let held = |bench: &Bench, member| bench.queue.held(member, start()).bytes;
    assert_eq!((held(&bench, 1), held(&bench, 2)), (15, 15));
    bench.queue.enqueue(submitted(6, &["a@one.example"], "12345")).await.unwrap();
    bench.crash().await;
    let bench = open(&dir, &options());
    assert_eq!((held(&bench, 1), held(&bench, 2)), (20, 15));
}
