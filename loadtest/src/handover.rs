//! `handover`: one process takes another's place under load, again and again, and nobody is to notice.
//!
//! In two ways. `tradewind-mta --take-over` asks the running one for its sockets. Under a service manager (a small one of
//! our own, which does what systemd does) the old one is stopped and the new one finds the sockets open.
//!
//! Three kinds of clients submit meanwhile. *Callers* make a connection for each message, some of them with TLS and AUTH, as
//! a PDS does, and try nothing twice: a connection refused or reset, a greeting that is none, a 421 in the middle is a
//! failure each. *Regulars* keep a connection for many messages and have to live with a 421 between two of them. The *idler*
//! says nothing for as long as it is let, and must be told 421 4.3.2 before it is hung up on.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::daemon::{Daemon, MEMBER_DOMAIN};
use crate::ledger::{Ledger, new_histogram};
use crate::manager::Manager;
use crate::outside::{Outside, some_domains};
use crate::sink::{Act, Provider, Rule, Script, Stage};
use crate::source::{self, Client, Target, Tls, Trouble};
use crate::tls::{Certificate, client_that_trusts_all};

/// The sink thinks so long before its `250`, so that there are deliveries in flight.
const SINK_DELAY: Duration = Duration::from_millis(5);
/// Nothing arrived for so long after the last hand-over: what is missing is lost.
const QUIET: Duration = Duration::from_secs(30);
/// A client's pause between two messages.
const PAUSE: Duration = Duration::from_millis(3);
/// The bar for a stop: from SIGTERM to the end, with peers that answer.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Failures kept word by word.
const WORDS_KEPT: usize = 10;

/// How often, and under what load.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Hand-overs of each kind.
    #[arg(long, default_value_t = 3)]
    restarts: u32,
    /// Clients that make a connection for each message; every third with TLS and AUTH.
    #[arg(long, default_value_t = 12)]
    callers: usize,
    /// Clients that keep their connection.
    #[arg(long, default_value_t = 4)]
    regulars: usize,
    /// `uring`, `epoll` or `auto`.
    #[arg(long, default_value = "auto")]
    io: String,
}

/// What clients saw.
struct Tally {
    greetings: Histogram<u64>,
    /// Connections refused, reset, or ended before a greeting.
    unreached: u64,
    /// Callers that were greeted, and sent away or cut off before their 250.
    failed: u64,
    /// Regulars told 421 between two messages, who came again.
    dismissed: u64,
    /// Times that the idler was told 421 4.3.2.
    idlers: u64,
    /// Times that it was not.
    idlers_cut: u64,
    words: Vec<String>,
}

impl Tally {
    fn note(&mut self, trouble: &dyn std::fmt::Display) {
        if self.words.len() < WORDS_KEPT {
            self.words.push(trouble.to_string());
        }
    }
}

/// Hands over and counts.
pub fn run(arguments: &Arguments) -> Result<()> {
    hand_over(arguments, false)?;
    hand_over(arguments, true)
}

fn hand_over(arguments: &Arguments, managed: bool) -> Result<()> {
    let ledger = Arc::new(Ledger::new(1_000_000));
    let script = Script::accepts_all().with(Rule::new(Stage::EndOfData, Act::Delay(SINK_DELAY)));
    let provider = Provider::for_load(script, Some(ledger.clone()));
    let domains = some_domains();
    let outside = Outside::start(provider.clone(), &domains)?;
    let directory = tempfile::Builder::new().prefix("tradewind-handover-").tempdir()?;
    let setup = outside.setup(&arguments.io);
    let manager = managed.then(|| Manager::start(directory.path())).transpose()?;
    let certificate = Certificate::generate(&["relay.test"])?;
    let mut daemon = match &manager {
        Some(manager) => Daemon::start_under(directory.path(), &setup, &certificate, manager)?,
        None => Daemon::start(directory.path(), &setup, &certificate)?,
    };
    let enrolled = daemon.enrolled.first().context("no member")?;
    let clients = Clients {
        relay: Target::plain(daemon.relay),
        submissions: Target::plain(daemon.submissions)
            .with_tls(Tls::Implicit(client_that_trusts_all(false)?))
            .with_credentials(&enrolled.username, &enrolled.password),
        domains,
        ledger: ledger.clone(),
        stop: AtomicBool::new(false),
    };
    let (tally, outcome) = std::thread::scope(|scope| {
        let load = scope.spawn(|| clients.run(arguments));
        let outcome = restarts(arguments, &mut daemon, manager.as_ref());
        clients.stop.store(true, Relaxed);
        (load.join(), outcome)
    });
    let stops = outcome?;
    let tally = tally.map_err(|_| anyhow::anyhow!("the clients panicked"))??;
    ledger.wait_for_all(QUIET);
    let stopped = daemon_end(daemon)?;

    let ms = |quantile| tally.greetings.value_at_quantile(quantile) as f64 / 1_000.0;
    let missing = ledger.missing();
    let duplicates = ledger.duplicates();
    let way = if managed { "restarts under a service manager" } else { "take-overs" };
    println!("\n{} {way}, io {}", arguments.restarts, arguments.io);
    println!("connections                       {}", tally.greetings.len() + tally.unreached);
    println!("  refused, or reset unheard       {}", tally.unreached);
    println!("  wait for the greeting           p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms", ms(0.5), ms(0.99), ms(1.0));
    println!("messages that got 250             {}", ledger.accepted_ids().len());
    println!("  of them missing                 {}", missing.len());
    println!("  arrived twice                   {duplicates}");
    println!("messages sent away or cut off     {}", tally.failed);
    println!("421 between two messages          {}", tally.dismissed);
    println!("idle sessions told 421 4.3.2      {}, hung up on without {}", tally.idlers, tally.idlers_cut);
    for stop in &stops {
        println!("{stop}");
    }
    println!("SIGTERM to exit, at the end       {stopped:.0?}");
    let violations = provider.violations();
    ensure!(violations.is_empty(), "breaches of RFC 5321: {violations:?}");
    ensure!(tally.unreached == 0 && tally.failed == 0, "somebody noticed: {}", tally.words.join(" | "));
    ensure!(missing.is_empty(), "LOST: messages {:?} …", &missing[..missing.len().min(20)]);
    ensure!(duplicates == 0, "{duplicates} copies, although every delivery had time to finish");
    ensure!(
        tally.idlers_cut == 0 && tally.idlers >= u64::from(arguments.restarts),
        "an idle session was not told: {}",
        tally.words.join(" | ")
    );
    ensure!(stopped < STOP_MAX, "the stop took {stopped:?}");
    Ok(())
}

fn daemon_end(daemon: Daemon) -> Result<Duration> {
    let began = Instant::now();
    daemon.stop()?;
    Ok(began.elapsed())
}

/// A moment of load before each and after the last.
fn restarts(arguments: &Arguments, daemon: &mut Daemon, manager: Option<&Manager>) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for nth in 1..=arguments.restarts {
        std::thread::sleep(Duration::from_millis(1_000));
        said.push(match manager {
            None => format!("take-over {nth}                       new one ready after {:.0?}", daemon.take_over()?),
            Some(manager) => {
                let held = manager.held();
                let (stopped, started) = daemon.restart(manager)?;
                format!("restart {nth}                         {held} sockets held; stop {stopped:.0?}, start {started:.0?}")
            }
        });
    }
    std::thread::sleep(Duration::from_millis(1_000));
    Ok(said)
}

struct Clients {
    relay: Target,
    submissions: Target,
    domains: Vec<String>,
    ledger: Arc<Ledger>,
    stop: AtomicBool,
}

impl Clients {
    fn run(&self, arguments: &Arguments) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tally = RefCell::new(Tally {
            greetings: new_histogram(),
            unreached: 0,
            failed: 0,
            dismissed: 0,
            idlers: 0,
            idlers_cut: 0,
            words: Vec::new(),
        });
        LocalSet::new().block_on(&runtime, async {
            let callers = (0..arguments.callers).map(|nth| {
                let target = if nth % 3 == 2 { &self.submissions } else { &self.relay };
                self.caller(target, &tally)
            });
            let regulars = (0..arguments.regulars).map(|_| self.regular(&tally));
            let all = (futures_util::future::join_all(callers), futures_util::future::join_all(regulars), self.idler(&tally));
            tokio::join!(all.0, all.1, all.2);
        });
        Ok(tally.into_inner())
    }

    /// Connects and is greeted; none when that failed.
    async fn open(&self, target: &Target, tally: &RefCell<Tally>) -> Option<Client> {
        let began = Instant::now();
        let opened = Client::open(target).await;
        let mut tally = tally.borrow_mut();
        match opened {
            Ok(client) => {
                tally.greetings.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                Some(client)
            }
            Err(trouble) => {
                tally.unreached += 1;
                tally.note(&format!("greeting: {trouble}"));
                None
            }
        }
    }

    async fn caller(&self, target: &Target, tally: &RefCell<Tally>) {
        while !self.stop.load(Relaxed) {
            let Some(id) = self.ledger.take_id() else { return };
            self.ledger.begun(id, Instant::now());
            if let Some(client) = self.open(target, tally).await {
                match self.call(client, target, id).await {
                    Ok(()) => self.ledger.accepted(id),
                    Err(trouble) => {
                        let mut tally = tally.borrow_mut();
                        tally.failed += 1;
                        tally.note(&trouble);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn call(&self, client: Client, target: &Target, id: u64) -> Result<(), Trouble> {
        let mut client = client.introduce(target).await?.authenticate(target).await?;
        self.send(&mut client, id).await?;
        // The message is in: what becomes of the goodbye changes nothing.
        let _ = client.quit().await;
        Ok(())
    }

    async fn send(&self, client: &mut Client, id: u64) -> Result<(), Trouble> {
        let from = format!("noreply@{MEMBER_DOMAIN}");
        let recipient = format!("user@{}", self.domains[id as usize % self.domains.len()]);
        let octets = source::header(&from, id, &recipient) + "Hello.\r\n";
        client.send(&from, &[&recipient], octets.as_bytes()).await.map(drop)
    }

    async fn regular(&self, tally: &RefCell<Tally>) {
        let mut session = None;
        let mut message = None;
        while !self.stop.load(Relaxed) {
            let Some(id) = message.take().or_else(|| self.ledger.take_id()) else { return };
            self.ledger.begun(id, Instant::now());
            let mut client = match session.take() {
                Some(client) => client,
                None => {
                    let Some(opened) = self.open(&self.relay, tally).await else { continue };
                    match opened.introduce(&self.relay).await {
                        Ok(client) => client,
                        Err(trouble) => {
                            let mut tally = tally.borrow_mut();
                            tally.failed += 1;
                            tally.note(&trouble);
                            continue;
                        }
                    }
                }
            };
            match self.send(&mut client, id).await {
                Ok(()) => {
                    self.ledger.accepted(id);
                    session = Some(client);
                }
                // Nothing of the message was said: it goes over the next connection.
                Err(Trouble::Refused { command: "MAIL", reply }) if reply.code == 421 => {
                    tally.borrow_mut().dismissed += 1;
                    message = Some(id);
                }
                Err(trouble) => {
                    let mut tally = tally.borrow_mut();
                    tally.failed += 1;
                    tally.note(&trouble);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Its session has had a message: one that is new is given a moment to bring one.
    async fn idler(&self, tally: &RefCell<Tally>) {
        while !self.stop.load(Relaxed) {
            let Some(id) = self.ledger.take_id() else { return };
            let Some(opened) = self.open(&self.relay, tally).await else { continue };
            let Ok(mut client) = opened.introduce(&self.relay).await else { continue };
            if self.send(&mut client, id).await.is_err() {
                continue;
            }
            self.ledger.accepted(id);
            let told = loop {
                match tokio::time::timeout(Duration::from_millis(100), client.wait()).await {
                    Err(_) if self.stop.load(Relaxed) => return,
                    Err(_) => {}
                    Ok(()) => break client.reply().await,
                }
            };
            let mut tally = tally.borrow_mut();
            match told {
                Ok(reply) if reply.code == 421 && reply.text.starts_with("4.3.2") => tally.idlers += 1,
                Ok(reply) => {
                    tally.idlers_cut += 1;
                    tally.note(&reply);
                }
                Err(error) => {
                    tally.idlers_cut += 1;
                    tally.note(&error);
                }
            }
        }
    }
}
