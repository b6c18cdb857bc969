//! `broken`: egress's own `Deliverer` among peers that break off, dawdle, stammer and lie, in virtual time, each by its seed.
//!
//! One seed is one small world: one to three hosts, a few messages one after the other over connections that may be kept, and
//! for each reply a choice of the seed whether and how it goes wrong (`peer.rs`). Afterwards [`check`] reads what was really
//! said (`transcript.rs`) and holds every fate against it: none is missing, none is *delivered* without a 2yz of the peer's to
//! the end of the whole message, none *failed* without a 5yz that speaks of it, and no clean 2yz is forgotten. At the end no
//! socket is open and no operation is under way. One lie cannot be seen by anybody: the 2yz of a host that has not read the whole
//! message, and then hangs up; its victims are counted apart.
//!
//! `tradewind-loadtest broken --dialogues 10000` plays many; a test of the MTA plays some at every run.

mod dice;
mod peer;
mod transcript;

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use host::{Clock, Io, Net, sim, tls};
use mta::egress::deliver::{Attempt, Deliverer, Progress};
use mta::egress::tls_policy::Clients;
use mta::egress::{Job, Source};
use mta::queue::{Parameters, Recipient, StoredDelivery, StoredMessage};
use scheduler::{Demand, Host, Lane, Limits, QueueId, Route, TlsPolicy, Verdict, WindowLimits};
use smtp::address::Mailbox;

use self::dice::Dice;
use self::peer::Peer;
use self::transcript::{Segment, transactions};
use crate::tls::Certificate;

const PORT: u16 = 25;
/// Longer than any deadline of a session: whoever waits then waits for ever.
const AFTERWARDS: Duration = Duration::from_secs(24 * 3600);

/// How many, and from which seed on.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Seeds to play.
    #[arg(long, default_value_t = 10_000)]
    dialogues: u64,
    /// The first of them: to play one again that failed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Plays and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let stage = Stage::new()?;
    let mut count = Count::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.dialogues) {
        let played = stage.play(seed)?;
        if played.misled > 0 {
            println!("seed {seed}: misled {} times", played.misled);
        }
        count.add(&played);
    }
    println!("{} dialogues in {:.1} s, all as the peers said: {count}", arguments.dialogues, began.elapsed().as_secs_f64());
    Ok(())
}

/// What happened, to see that something did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Attempts made.
    pub attempts: u64,
    /// Connections that peers saw.
    pub connections: u64,
    /// Recipients by fate.
    pub delivered: u64,
    /// Failed.
    pub failed: u64,
    /// Deferred.
    pub deferred: u64,
    /// Delivered although something was wrong before or behind it.
    pub delivered_nevertheless: u64,
    /// Delivered by the word of a host that had not read the message.
    pub misled: u64,
    /// Handshakes that succeeded.
    pub tls: u64,
    /// Times that something was done wrong.
    pub mischief: u64,
}

impl Count {
    /// The sum.
    pub fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.connections += other.connections;
        self.delivered += other.delivered;
        self.failed += other.failed;
        self.deferred += other.deferred;
        self.delivered_nevertheless += other.delivered_nevertheless;
        self.misled += other.misled;
        self.tls += other.tls;
        self.mischief += other.mischief;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} attempts over {} connections ({} handshakes), {} recipients delivered ({} in spite of something, {} by \
             the word of a host that had not read the message), {} failed, {} deferred; {} pieces of mischief",
            self.attempts,
            self.connections,
            self.tls,
            self.delivered,
            self.delivered_nevertheless,
            self.misled,
            self.failed,
            self.deferred,
            self.mischief
        )
    }
}

/// What all seeds share: a certificate takes longer to make than a dialogue.
pub struct Stage {
    server: tls::Server,
}

/// What peers write down.
#[derive(Default)]
struct Log {
    segments: Vec<Segment>,
    connections: u64,
    tls: u64,
    mischief: u64,
}

impl Stage {
    /// Makes the certificate.
    pub fn new() -> Result<Self> {
        let certificate = Certificate::generate(&["mx0.broken.example"])?;
        let server = tls::Server::from_pem(certificate.cert_pem.as_bytes(), certificate.key_pem.as_bytes())?;
        Ok(Self { server })
    }

    /// One world; an error names the seed and what was wrong.
    pub fn play(&self, seed: u64) -> Result<Count> {
        let net = sim::Net::new(seed);
        let before = host::operations_in_flight();
        let io = Io::Sim(net.clone());
        let count = host::run(&io.clone(), self.world(seed, io))??;
        ensure!(net.open_sockets() == 0, "seed {seed}: {} sockets are open at the end", net.open_sockets());
        let left = host::operations_in_flight();
        ensure!(left == before, "seed {seed}: {left} operations are under way at the end, {before} before");
        Ok(count)
    }

    async fn world(&self, seed: u64, io: Io) -> Result<Count> {
        let mut dice = Dice::new(seed);
        let log = Rc::new(RefCell::new(Log::default()));
        let net = Net::new(io);
        let hosts = 1 + dice.below(3);
        let (mut stoppers, mut route) = (Vec::new(), Vec::new());
        for nth in 0..hosts {
            let address = SocketAddr::from(([198, 51, 100, nth as u8 + 1], PORT));
            // Some hosts of a route cannot be reached at all.
            if nth + 1 == hosts || !dice.percent(10) {
                stoppers.push(self.listen(&net, address, dice.split(), log.clone())?);
            }
            let name = format!("mx{nth}.broken.example").into();
            route.push(Host { name, preference: nth as u16, addresses: vec![address.ip()], demand: Demand::Opportunistic });
        }
        let clock = Clock::simulated(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000));
        let valid_until = clock.now() + AFTERWARDS;
        let (site, provider) = ("broken".into(), "other".into());
        let route = Arc::new(Route { site, provider, hosts: route, tls: TlsPolicy::default(), valid_until });
        let deliverer = Deliverer::new(net, Clients::new(None)?, PORT, clock.clone());
        let sweeper = host::spawn_local({
            let deliverer = deliverer.clone();
            async move { deliverer.sweep().await }
        });
        let (mut count, mut jobs) = (Count::default(), Vec::new());
        for n in 0..1 + dice.below(3) {
            let job = job(&mut dice, n, route.clone(), clock.now());
            let attempt = deliverer.attempt(&job, &Progress::default()).await;
            let Some(attempt) = attempt else { bail!("seed {seed}: recalled by nobody") };
            count.attempts += 1;
            let segments = log.borrow().segments.clone();
            check(&job, &attempt, &segments, &mut count).with_context(|| {
                let said: String = segments.iter().map(|segment| format!("\n{segment}")).collect();
                format!("seed {seed}, message {n}{said}")
            })?;
            jobs.push(job);
            tokio::time::sleep(Duration::from_millis(dice.below(15_000))).await;
        }
        deliverer.close().await;
        stoppers.iter().for_each(host::Stopper::stop);
        tokio::time::sleep(AFTERWARDS).await;
        sweeper.abort();
        let log = log.borrow();
        for job in &jobs {
            check_copies(job, &log.segments).with_context(|| {
                let said: String = log.segments.iter().map(|segment| format!("\n{segment}")).collect();
                format!("seed {seed}, at the end{said}")
            })?;
        }
        count.connections += log.connections;
        count.tls += log.tls;
        count.mischief += log.mischief;
        Ok(count)
    }

    fn listen(&self, net: &Net, address: SocketAddr, mut dice: Dice, log: Rc<RefCell<Log>>) -> Result<host::Stopper> {
        let mut listener = net.listen(address, 64)?;
        let stopper = listener.stopper();
        let server = self.server.clone();
        let temper = dice.pick(&[0, 0, 2, 5, 15, 40]);
        host::spawn_local(async move {
            while let Ok((connection, _)) = listener.accept().await {
                log.borrow_mut().connections += 1;
                let peer = Peer::new(connection, dice.split(), temper, server.clone(), log.clone());
                host::spawn_local(peer.serve());
            }
        });
        Ok(stopper)
    }
}

/// A message for a few recipients, who have names of their own: what was said of one is never taken for another's.
fn job(dice: &mut Dice, n: u64, route: Arc<Route>, now: SystemTime) -> Job {
    let mut octets =
        format!("From: a@member.example\r\nSubject: message {n}\r\nMessage-ID: <{n}@member.example>\r\n\r\n").into_bytes();
    let eight_bit = dice.percent(15);
    let lines = match dice.below(100) {
        0..60 => dice.below(10),
        60..95 => dice.below(400),
        _ => 10_000 + dice.below(20_000),
    };
    for _ in 0..lines {
        let line =
            dice.pick(&["hello", ".", "..", ".hidden", "", "QUIT", "250 ok", "a rather longer line of text, as there are many"]);
        octets.extend_from_slice(line.as_bytes());
        octets.extend_from_slice(b"\r\n");
    }
    if eight_bit {
        octets.extend_from_slice("grüße\r\n".as_bytes());
    }
    let mailbox = |nth: u64, dice: &mut Dice| {
        let local = if dice.percent(5) { format!("usér{n}x{nth}") } else { format!("user{n}x{nth}") };
        format!("{local}@broken.example").parse::<Mailbox>()
    };
    let recipients = (0..1 + dice.below(4)).filter_map(|nth| {
        let mailbox = mailbox(nth, dice).ok()?;
        Some(Recipient { index: nth as u16, mailbox, notify: None, orcpt: None, delay_told: false, fate: None })
    });
    let recipients = recipients.collect();
    let message = StoredMessage {
        id: QueueId::new(now, n as u32),
        member: 1,
        credential: 0,
        reverse_path: smtp::address::ReversePath::Null,
        parameters: Parameters { eight_bit, ..Parameters::default() },
        lane: Lane::Transactional,
        received_at: now,
        delay_notice_at: None,
        deadline: now + AFTERWARDS,
        octets: octets.into(),
    };
    let stored = StoredDelivery {
        message: Arc::new(message),
        domain: "broken.example".into(),
        attempts: 0,
        last_reply: String::new(),
        recipients,
    };
    let address = IpAddr::from([192, 0, 2, 1]);
    let source = Source { index: 0, name: "one".into(), address, ehlo: "one.relay.example".into() };
    let limits = Arc::new(Limits::without_rules(WindowLimits::default()));
    Job { stored: Arc::new(stored), route, source: Arc::new(source), limits, partial: false }
}

/// A host may take a message long after we have given it up. It was tried once, so no second host can have it.
fn check_copies(job: &Job, segments: &[Segment]) -> Result<()> {
    let told: Vec<_> = segments.iter().flat_map(transactions).collect();
    for recipient in &job.stored.recipients {
        let name = recipient.mailbox.as_str();
        let copies = told.iter().filter(|told| told.took(name, &job.stored.message.octets)).count();
        ensure!(copies < 2, "{name} was accepted {copies} times in one attempt");
    }
    Ok(())
}

/// Holds the fates of one message against what the peers said.
fn check(job: &Job, attempt: &Attempt, segments: &[Segment], count: &mut Count) -> Result<()> {
    let recipients = &job.stored.recipients;
    ensure!(attempt.outcomes.len() == recipients.len(), "{} fates for {} recipients", attempt.outcomes.len(), recipients.len());
    let octets = &job.stored.message.octets;
    let told: Vec<_> = segments.iter().flat_map(transactions).collect();
    for (recipient, outcome) in recipients.iter().zip(&attempt.outcomes) {
        let name = recipient.mailbox.as_str();
        let reply = &outcome.reply;
        ensure!(recipient.index == outcome.index, "the fate of {name} is another's: {outcome:?}");
        let took: Vec<_> = told.iter().filter(|told| told.took(name, octets)).collect();
        ensure!(took.len() < 2, "{name} was accepted {} times in one attempt", took.len());
        match outcome.verdict {
            Verdict::Delivered => {
                // Nobody can know better than the host.
                let lied = told.iter().any(|told| told.lied && told.promised(name));
                ensure!(!took.is_empty() || lied, "{name} is told to be delivered, and no host took it: {reply}");
                ensure!(reply.is_positive() && outcome.from_peer, "{name} delivered by {reply}");
                count.delivered += 1;
                count.delivered_nevertheless += u64::from(took.iter().all(|told| !told.clean));
                count.misled += u64::from(took.is_empty());
            }
            Verdict::Failed => {
                ensure!(reply.is_permanent(), "{name} failed by {reply}");
                let lacks =
                    !recipient.mailbox.is_ascii() || job.stored.message.parameters.eight_bit || octets.len() > peer::SMALL;
                let said = told.iter().any(|told| told.refused(name));
                let right = if outcome.from_peer { said } else { lacks };
                ensure!(right, "{name} failed, and nobody refused it: {reply}");
                count.failed += 1;
            }
            Verdict::Deferred => {
                // A 5yz in the greeting or to EHLO defers, too: it speaks of us or of the host.
                ensure!(!reply.is_positive(), "{name} deferred by {reply}");
                ensure!(!took.iter().any(|told| told.clean), "{name} was taken by a clean 2yz, and is deferred: {reply}");
                count.deferred += 1;
            }
        }
    }
    Ok(())
}
