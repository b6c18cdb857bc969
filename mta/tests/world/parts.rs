//! The parts of the seeded world: a client that notes its 250s, providers on the simulated network, and
//! the life of a daemon between two crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use host::dns::{Resolver, Zone};
use host::{Clock, Dice, Io, Net, Stream, deadline_in, sim, tls};
use loadtest::sink::{Message, Provider, Script, post_on};
use loadtest::tls::Certificate;
use mta::daemon::{self, Environment};
use mta::events::What;
use mta::policy::Member;
use mta::queue::{Fault, Faults, Filter, Options, Reader, Writer};
use tokio::sync::mpsc;

use super::providers::provide;
use super::reload::Reload;
use super::settings::{configuration, configuration_text};
use super::sts::Promises;

/// The first member, which every world has.
const MEMBER: &str = "member.example";
const HEADER: &str = "X-World-Message: ";
/// 2026-11-23, and so far from any edge of the calendar.
pub(crate) const BEGINNING: u64 = 1_795_400_000;

/// A world and what happened in it.
pub(crate) struct World {
    seed: u64,
    pub(crate) folder: tempfile::TempDir,
    zone: Zone,
    providers: BTreeMap<String, (SocketAddr, Arc<Provider>)>,
    /// The web, what is trusted, and who signs.
    pub(crate) promises: Promises,
    /// What those show who speak TLS.
    certificates: BTreeMap<String, tls::Server>,
    /// Domain and tier; each has a listener of its own.
    pub(crate) members: Vec<(&'static str, Option<&'static str>)>,
    pub(crate) settings: String,
    pub(crate) replies: Option<String>,
    pub(crate) plans: Option<String>,
    accepted: Arc<Mutex<BTreeSet<u64>>>,
    unanswered: Arc<Mutex<BTreeSet<u64>>>,
    age: Duration,
    lives: u64,
    lying: bool,
    sectors: sim::disk::Sectors,
}

/// What a story may do while the daemon lives.
#[derive(Clone)]
pub(crate) struct Day {
    net: sim::Net,
    faults: Faults,
    disk: sim::Disk,
    addresses: BTreeMap<String, SocketAddr>,
    listeners: BTreeMap<&'static str, SocketAddr>,
    accepted: Arc<Mutex<BTreeSet<u64>>>,
    unanswered: Arc<Mutex<BTreeSet<u64>>>,
    desk: Option<mta::control::daemon::Daemon>,
    reloads: mpsc::Sender<Reload>,
}

impl World {
    /// An empty world; the same seed gives the same latencies, orders and jitter.
    pub(crate) fn seed(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        World {
            seed,
            folder,
            zone: Zone::new(),
            promises: Promises::default(),
            providers: BTreeMap::new(),
            certificates: BTreeMap::new(),
            members: vec![(MEMBER, None)],
            settings: String::new(),
            replies: None,
            plans: None,
            accepted: Arc::default(),
            unanswered: Arc::default(),
            age: Duration::ZERO,
            lives: 0,
            lying: false,
            sectors: sim::disk::Sectors::default(),
        }
    }

    /// Its disk says that it has synced and has not.
    pub(crate) fn with_a_lying_disk(mut self) -> Self {
        self.lying = true;
        self
    }

    /// One more member, in a tier.
    pub(crate) fn member(mut self, domain: &'static str, tier: &'static str) -> Self {
        self.members.push((domain, Some(tier)));
        self
    }

    /// Lines for the settings.
    pub(crate) fn settings(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self
    }

    /// A file of replies and rules.
    pub(crate) fn replies(mut self, file: &str) -> Self {
        self.replies = Some(file.to_owned());
        self
    }

    /// A provider for one domain.
    pub(crate) fn provider(self, domain: &str, script: Script) -> Self {
        self.host(domain, domain, 10, script)
    }

    /// One more host of a domain, less preferred; it is called `name` where its domain's first is called by the domain.
    pub(crate) fn backup(self, domain: &str, name: &str, script: Script) -> Self {
        self.host(domain, name, 20, script)
    }

    fn host(mut self, domain: &str, name: &str, preference: u16, script: Script) -> Self {
        let (host, nth) = (format!("mx.{name}"), self.providers.len() + 1);
        let address: SocketAddr = format!("198.51.100.{nth}:25").parse().unwrap();
        self.zone.mx(domain, preference, &host).address(&host, address.ip());
        self.providers.insert(name.to_owned(), (address, Provider::new(script)));
        self
    }

    /// A domain's provider shows this certificate after STARTTLS; its script says whether it offers that.
    pub(crate) fn certificate(mut self, domain: &str, server: tls::Server) -> Self {
        self.certificates.insert(domain.to_owned(), server);
        self
    }

    /// What the DNS says; it may be changed while the daemon lives.
    pub(crate) fn zone(&self) -> Zone {
        self.zone.clone()
    }

    /// A domain's provider; its script may be changed while the daemon lives.
    pub(crate) fn provider_of(&self, domain: &str) -> Arc<Provider> {
        self.providers[domain].1.clone()
    }

    /// The daemon starts (again), `story` is told, and it runs for `span` of virtual time, or dies by a fault.
    pub(crate) fn live<F, S>(&mut self, span: Duration, story: F)
    where
        F: FnOnce(Day) -> S,
        S: Future<Output = ()>,
    {
        self.life(span, story, false);
        self.age += span;
    }

    /// The daemon starts (again), `story` is told, and it is told to stop; says how long that took.
    pub(crate) fn live_and_stop<F, S>(&mut self, story: F) -> Duration
    where
        F: FnOnce(Day) -> S,
        S: Future<Output = ()>,
    {
        let (lived, stopping) = self.life(Duration::ZERO, story, true);
        self.age += lived;
        stopping
    }

    /// How long it lived, and how long it took to stop.
    fn life<F, S>(&mut self, span: Duration, story: F, stop: bool) -> (Duration, Duration)
    where
        F: FnOnce(Day) -> S,
        S: Future<Output = ()>,
    {
        let net = sim::Net::new(self.seed);
        let disk = sim::Disk::new(self.seed << 8 | self.lives);
        if self.lying {
            disk.lie();
        }
        let faults = Faults::of_disk(disk.clone());
        let config = Arc::new(configuration(self));
        let io = Io::Sim(net.clone());
        let (reloads_tx, mut reloads) = mpsc::channel::<Reload>(1);
        let addresses = self.providers.iter().map(|(domain, (address, _))| (domain.clone(), *address)).collect();
        let day = Day {
            net: net.clone(),
            faults: faults.clone(),
            disk: disk.clone(),
            addresses,
            listeners: (0..).zip(&self.members).map(|(nth, (domain, _))| (*domain, listener(nth))).collect(),
            accepted: self.accepted.clone(),
            unanswered: self.unanswered.clone(),
            desk: None,
            reloads: reloads_tx,
        };
        let text = configuration_text(self);
        let folder = self.folder.path();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING) + self.age;
        let (age, providers, zone, seed) = (self.age, &self.providers, self.zone.clone(), self.seed);
        let certificates = &self.certificates;
        let (members, pages) = (&self.members, self.promises.pages.clone());
        let lived = host::run(&io.clone(), async move {
            let began = tokio::time::Instant::now();
            for (domain, (address, provider)) in providers {
                let unknown = || provider.script().starttls.then(certified);
                let certificate = certificates.get(domain).cloned().or_else(unknown);
                provide(&io, *address, provider.clone(), certificate, age);
            }
            enrol(&config.data_dir, members).await;
            let environment = Environment {
                io,
                clock: Clock::simulated(start),
                dice: Dice::seeded(seed),
                resolver: Resolver::scripted(zone),
                queue: Options { faults, ..options() },
                pages: Some(pages),
                sockets: Vec::new(),
            };
            let running = daemon::start(config, environment).await.unwrap();
            let mut story = std::pin::pin!(story(Day { desk: Some(running.desk.clone()), ..day }));
            loop {
                tokio::select! {
                    () = &mut story => break,
                    Some(reload) = reloads.recv() => reload.apply(folder, &text, &running),
                }
            }
            tokio::time::sleep_until(began + span).await;
            let told = tokio::time::Instant::now();
            if stop {
                running.stop().await;
            }
            (began.elapsed(), told.elapsed())
        })
        .unwrap();
        self.lives += 1;
        if disk.is_off() {
            let sim::disk::Sectors { kept, lost, torn } = disk.show().unwrap();
            self.sectors.kept += kept;
            self.sectors.lost += lost;
            self.sectors.torn += torn;
        }
        lived
    }

    /// Sectors that losses of power have lost, torn or left as they were.
    pub(crate) fn sectors(&self) -> sim::disk::Sectors {
        self.sectors
    }

    /// Messages that got 250 and arrived nowhere.
    pub(crate) fn lost(&self) -> usize {
        let arrived: BTreeSet<u64> = self.arrivals().into_iter().collect();
        self.accepted.lock().unwrap().difference(&arrived).count()
    }

    /// Every message that got 250 arrived, and exactly once.
    pub(crate) fn check_all_arrived_once(&self) {
        self.check_none_lost();
        self.check_duplicates_within(0);
    }

    /// Every message that got 250 arrived.
    pub(crate) fn check_none_lost(&self) {
        let accepted = self.accepted.lock().unwrap();
        assert!(!accepted.is_empty(), "seed {}: nothing was accepted, so nothing was tested", self.seed);
        let arrived: BTreeSet<u64> = self.arrivals().into_iter().collect();
        let lost: Vec<&u64> = accepted.difference(&arrived).collect();
        assert!(lost.is_empty(), "seed {}: got 250 and never arrived: {lost:?}", self.seed);
    }

    /// No more than `bound` messages too many arrived.
    pub(crate) fn check_duplicates_within(&self, bound: usize) {
        let arrivals = self.arrivals();
        let distinct: BTreeSet<u64> = arrivals.iter().copied().collect();
        let duplicates = arrivals.len() - distinct.len();
        assert!(duplicates <= bound, "seed {}: {duplicates} duplicates, at most {bound} can be explained", self.seed);
    }

    /// Nothing is left in the queue.
    pub(crate) fn check_queue_is_empty(&self) {
        assert_eq!(self.queued(), 0, "seed {}: deliveries are left in the queue", self.seed);
        self.check_one_final_event_each();
    }

    /// Messages that a provider has taken although the queue still holds them: what a crash makes arrive twice.
    pub(crate) fn delivered_and_still_queued(&self) -> usize {
        let distinct: BTreeSet<u64> = self.arrivals().into_iter().collect();
        let known: BTreeSet<u64> = self.accepted.lock().unwrap().union(&distinct).copied().collect();
        // A message whose commit succeeded but whose 250 was never read is known to neither.
        (distinct.len() + self.queued()).saturating_sub(known.len())
    }

    /// What a provider has accepted.
    pub(crate) fn arrived_at(&self, domain: &str) -> Vec<Message> {
        self.providers[domain].1.messages()
    }

    /// Replies of all providers that were not positive.
    pub(crate) fn refusals(&self) -> u64 {
        self.providers.values().map(|(_, provider)| provider.counts().refusals).sum()
    }

    /// Numbers that were submitted without an answer to the end of data, and are not known to have got 250 since.
    pub(crate) fn unanswered(&self) -> BTreeSet<u64> {
        self.unanswered.lock().unwrap().difference(&self.accepted.lock().unwrap()).copied().collect()
    }

    /// Every recipient of every message that became durable has one final event, and those that the queue still holds have
    /// none. What providers have taken is what was told to be delivered.
    pub(crate) fn check_one_final_event_each(&self) {
        let (events, open) = self.read(|reader| {
            let page = reader.list(&Filter::default(), None, usize::MAX).unwrap();
            assert!(page.next.is_none(), "the checker reads one page");
            (reader.events_after(0, usize::MAX).unwrap(), page.entries.iter().map(|found| found.open).sum::<usize>())
        });
        let (mut accepted, mut finals, mut delivered) = (0, BTreeMap::new(), 0);
        for (_, event) in &events {
            accepted += if event.what == What::Accepted { usize::from(event.recipients) } else { 0 };
            delivered += usize::from(event.what == What::Delivered);
            let after = finals.get(&(event.id, &event.recipient)).copied().unwrap_or(0);
            assert_eq!(after, 0, "seed {}: an event follows a final one: {event:?}", self.seed);
            if event.what.is_final() {
                *finals.entry((event.id, &event.recipient)).or_insert(0) += 1;
            }
        }
        assert!(accepted > 0, "seed {}: nothing was accepted, so nothing was tested", self.seed);
        assert_eq!(finals.len() + open, accepted, "seed {}: recipients with a fate, open, and all", self.seed);
        let messages = self.providers.values().flat_map(|(_, it)| it.messages());
        let taken: usize = messages.map(|message| message.recipients.len()).sum();
        assert!(delivered <= taken, "seed {}: {delivered} are told to be delivered, and providers took {taken}", self.seed);
    }

    /// The source that each delivery went from, in their order.
    pub(crate) fn sources(&self) -> Vec<String> {
        let events = self.read(|reader| reader.events_after(0, usize::MAX).unwrap());
        let delivered = events.into_iter().filter(|(_, event)| event.what == What::Delivered);
        delivered.map(|(_, event)| event.source.to_string()).collect()
    }

    fn queued(&self) -> usize {
        self.read(|reader| usize::try_from(reader.counts().unwrap().deliveries).unwrap())
    }

    /// Looks into the queue while no daemon has it.
    pub(crate) fn read<R>(&self, ask: impl FnOnce(&Reader) -> R) -> R {
        let (notes, _kept) = tokio::sync::mpsc::channel(1);
        let (_writer, _queue, reader) =
            Writer::open(&self.folder.path().join("data/queue"), Clock::system(), options(), notes).unwrap();
        ask(&reader)
    }

    /// What has arrived, each as often as it has.
    pub(crate) fn arrivals(&self) -> Vec<u64> {
        let messages = self.providers.values().flat_map(|(_, provider)| provider.messages());
        messages.filter_map(|message| number(&message.octets)).collect()
    }
}

impl Day {
    /// Submits message `n`; notes it if the answer to the end of data was 250. A daemon that dies is not an error here.
    pub(crate) async fn submit(&self, n: u64, recipients: &[&str]) {
        self.submit_from(MEMBER, n, recipients).await;
    }

    /// The same for a member. Tells the last reply; none when the connection broke before it.
    pub(crate) async fn submit_from(&self, member: &str, n: u64, recipients: &[&str]) -> Option<String> {
        let recipients: Vec<_> = recipients.iter().map(|recipient| format!("<{recipient}>")).collect();
        self.submit_as(member, n, &format!("<app@{member}>"), &recipients, "").await
    }

    /// The same with parameters behind reverse-path and forward-paths, and more fields in the header section.
    pub(crate) async fn submit_as(
        &self,
        member: &str,
        n: u64,
        from: &str,
        recipients: &[String],
        fields: &str,
    ) -> Option<String> {
        let said = self.dialogue(member, n, from, recipients, fields).await;
        match &said {
            Some(said) if said.starts_with("250") => drop(self.accepted.lock().unwrap().insert(n)),
            // A daemon that dies here has time to say 421; to the client it is as good as no answer.
            Some(said) if !said.starts_with("421") => {}
            _ => drop(self.unanswered.lock().unwrap().insert(n)),
        }
        said
    }

    async fn dialogue(&self, member: &str, n: u64, from: &str, recipients: &[String], fields: &str) -> Option<String> {
        let net = Net::new(Io::Sim(self.net.clone()));
        let wait = || deadline_in(Duration::from_secs(60));
        let mut connection = net.connect(Some("192.0.2.77".parse().unwrap()), self.listeners[member], wait()).await.ok()?;
        let mut lines = vec!["EHLO world".to_owned(), format!("MAIL FROM:{from}")];
        lines.extend(recipients.iter().map(|recipient| format!("RCPT TO:{recipient}")));
        lines.push("DATA".to_owned());
        let mut said = reply(&mut connection).await?;
        for line in lines {
            if !said.starts_with('2') {
                connection.close().await;
                return Some(said);
            }
            connection.write(Bytes::from(format!("{line}\r\n")), wait()).await.ok()?;
            said = reply(&mut connection).await?;
        }
        let message = format!(
            "From: app@{member}\r\nSubject: hello\r\nMessage-ID: <{n}@{member}>\r\n{fields}{HEADER}{n}\r\n\r\n\
             Your one-time code is {n}.\r\n.\r\n"
        );
        connection.write(Bytes::from(message), wait()).await.ok()?;
        said = reply(&mut connection).await?;
        connection.close().await;
        Some(said)
    }

    /// The settings with more lines, and a file of shaping, are read as after SIGHUP. What was wrong with them, if anything.
    pub(crate) async fn reload(&self, lines: &str, shaping: &str) -> Result<(), String> {
        let (reload, answer) = Reload::new(lines, shaping);
        self.reloads.send(reload).await.unwrap_or_else(|_| panic!("the daemon lives"));
        answer.await.unwrap()
    }

    /// The link to a domain's provider dies.
    pub(crate) fn cut(&self, domain: &str) {
        self.net.cut(self.addresses[domain]);
    }

    /// Sends to the hosts of a domain what a provider of the world has to report by now.
    pub(crate) async fn post(&self, provider: &Provider, domain: &str) {
        let net = Net::new(Io::Sim(self.net.clone()));
        for report in provider.take_reports(Duration::MAX) {
            post_on(&net, "192.0.2.78".parse().unwrap(), self.addresses[domain], &report).await.unwrap();
        }
    }

    /// Nobody answers at an address.
    pub(crate) fn silence(&self, address: SocketAddr) {
        self.net.cut(address);
    }

    /// It can be reached again.
    pub(crate) fn restore(&self, domain: &str) {
        self.net.restore(self.addresses[domain]);
    }

    /// The disk: its power can be cut, and its syncs can fail.
    pub(crate) fn disk(&self) -> &sim::Disk {
        &self.disk
    }

    /// The disk takes so long for each batch.
    pub(crate) fn slow_disk(&self, batch: Duration) {
        self.faults.slow(batch);
    }

    /// What the operator asks and wishes.
    pub(crate) fn desk(&self) -> &mta::control::daemon::Daemon {
        self.desk.as_ref().unwrap()
    }

    /// The queue's writer meets a fault.
    pub(crate) fn fault(&self, fault: Fault) {
        self.faults.set(fault);
    }
}

fn options() -> Options {
    Options { map_bytes: 1 << 30, segment_bytes: 1 << 20, free_bytes_floor: 0, submitted_max: 4096, ..Options::default() }
}

/// The nth member's.
pub(crate) fn listener(nth: u16) -> SocketAddr {
    format!("192.0.2.10:{}", 2525 + nth).parse().unwrap()
}

/// Writes the members' rows, as they were before the daemon starts.
async fn enrol(data_dir: &Path, members: &[(&'static str, Option<&'static str>)]) {
    let rows: Vec<_> = (1u32..)
        .zip(members)
        .map(|(id, (domain, tier))| Member {
            id,
            did: format!("did:web:{domain}"),
            handle: None,
            suspended: None,
            tier: tier.map(str::to_owned),
            pool: None,
            domains: vec![(*domain).to_owned()],
        })
        .map(|member| (member.id.to_be_bytes(), member.encode().unwrap()))
        .collect();
    std::fs::create_dir_all(data_dir).unwrap();
    let (notes, _kept) = tokio::sync::mpsc::channel(1);
    let (writer, queue, _reader) = Writer::open(&data_dir.join("queue"), Clock::system(), options(), notes).unwrap();
    let writer = host::spawn_local(writer.run());
    let put = queue.transact(move |txn, tables| rows.iter().try_for_each(|(key, row)| Ok(tables.members.put(txn, key, row)?)));
    put.await.unwrap();
    queue.stop().await;
    writer.await.unwrap().unwrap();
}

fn number(octets: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(octets).ok()?;
    text.lines().find_map(|line| line.strip_prefix(HEADER))?.trim().parse().ok()
}

/// One reply, all its lines; none when the connection is gone.
async fn reply(connection: &mut host::Connection) -> Option<String> {
    let mut text = String::new();
    loop {
        let octets = connection.read(deadline_in(Duration::from_secs(60))).await.ok()?;
        if octets.is_empty() {
            return None;
        }
        text.push_str(std::str::from_utf8(&octets).ok()?);
        let last = text.strip_suffix("\r\n").map(|all| all.rsplit("\r\n").next().unwrap_or(all));
        if last.is_some_and(|line| line.len() >= 4 && line.as_bytes()[3] == b' ') {
            return Some(text);
        }
    }
}

/// A certificate that nobody vouches for.
fn certified() -> host::tls::Server {
    let certificate = Certificate::generate(&["mx.example"]).unwrap();
    host::tls::Server::from_pem(certificate.cert_pem.as_bytes(), certificate.key_pem.as_bytes()).unwrap()
}
