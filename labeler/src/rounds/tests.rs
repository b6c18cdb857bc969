//! The rounds in virtual time, with looks that take as long as they are told.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::UNIX_EPOCH;

use atproto::Did;
use tokio::time::Instant;

use super::*;
use crate::judge::{Check, Judgement, Kind};
use crate::store::{Backfill, Terms, Touch};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);

/// When virtual time begins.
fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn clock() -> SystemTime {
    thread_local!(static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) });
    let now = crate::outside::moment();
    let began = BEGAN.get().unwrap_or(now);
    BEGAN.set(Some(began));
    start() + (now - began)
}

/// `did:plc:<kind><number>`: what is found depends on the kind.
#[derive(Clone, Default)]
struct Script {
    looked: Arc<Mutex<Vec<(String, Duration)>>>,
    at_a_time: Arc<Mutex<(usize, usize)>>,
}

impl Looker for Script {
    async fn look(&self, task: &Task, may: impl Fn(&str) -> Turn + Send + Sync) -> Look {
        let name = task.did.as_str().trim_start_matches("did:plc:").to_owned();
        let spam = name.starts_with("spam");
        let host = if spam { "pds.spam.example".to_owned() } else { format!("pds.{name}.example") };
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Turn::Soon(until) | Turn::Later(until) = may(&host) {
            return Look { host: Some(host), outcome: Err(until), host_works: None };
        }
        {
            let mut at_a_time = self.at_a_time.lock().unwrap();
            at_a_time.0 += 1;
            at_a_time.1 = at_a_time.1.max(at_a_time.0);
        }
        // A spammer's server takes as long as it may.
        tokio::time::sleep(if spam { Duration::from_secs(10) } else { Duration::from_millis(100) }).await;
        self.at_a_time.lock().unwrap().0 -= 1;
        let since = clock().duration_since(start()).unwrap();
        self.looked.lock().unwrap().push((name, since));
        let check = if spam { Check::fail(Kind::Mx, "a.example", "no MX") } else { Check::pass(Kind::Mx, "a.example") };
        let outcome = Ok(Found::Judged { judgement: Judgement::only(check), relay: false, rev: None });
        Look { host: Some(host), outcome, host_works: Some(true) }
    }
}

struct World {
    store: Arc<Store>,
    script: Script,
    bell: Arc<Notify>,
    _stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl World {
    fn start(interval: Duration) -> Self {
        clock();
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let issuer: Did = "did:web:labeler.example.test".parse().unwrap();
        let store = Arc::new(Store::open(folder.path(), &issuer, &key, Terms::default(), clock()).unwrap());
        let (script, bell) = (Script::default(), Arc::new(Notify::new()));
        let (stop, stopped) = watch::channel(false);
        let rounds = Rounds {
            store: store.clone(),
            looker: script.clone(),
            key,
            patience: Patience { interval, failures: 3, failing_for: HOUR, silent_for: Duration::from_secs(7 * 86_400) },
            fair: Fair::new(96, NonZeroU32::new(10).unwrap()),
            bell: bell.clone(),
            clock,
        };
        tokio::spawn(rounds.run(stopped));
        Self { store, script, bell, _stop: stop, _folder: folder }
    }

    fn attest(&self, names: impl Iterator<Item = String>) {
        let touched: Vec<Touch> =
            names.map(|name| Touch::Record(format!("did:plc:{name}").parse().unwrap(), "a.example".into())).collect();
        self.store.touch(&touched, None, clock()).unwrap();
        self.bell.notify_one();
    }

    async fn run(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn looks(&self, kind: &str) -> Vec<Duration> {
        let looked = self.script.looked.lock().unwrap();
        looked.iter().filter(|(name, _)| name.starts_with(kind)).map(|(_, at)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_attestations_keeps_neither_members_nor_newcomers_waiting() {
    let world = World::start(HOUR);
    world.attest((0..50).map(|nth| format!("member{nth}")));
    world.run(Duration::from_secs(5)).await;
    assert_eq!(world.looks("member").len(), 50);
    // They are looked at again within the last tenth of the hour; the flood comes a second before that begins.
    world.run(HOUR * 9 / 10 - Duration::from_secs(6)).await;
    assert_eq!(world.looks("member").len(), 50);
    world.attest((0..2000).map(|nth| format!("spam{nth}")));
    world.run(Duration::from_secs(30)).await;
    world.attest(std::iter::once("newcomer".into()));
    world.run(Duration::from_secs(2)).await;
    assert_eq!(world.looks("newcomer").len(), 1, "a newcomer is not behind the flood");
    world.run(HOUR / 10).await;
    let again = &world.looks("member")[50..];
    assert_eq!(again.len(), 50, "everybody who stands was looked at again on time");
    let at_most = world.script.at_a_time.lock().unwrap().1;
    assert!(at_most <= 96, "{at_most}");
    let spam = world.looks("spam").len();
    assert!(spam > 0, "the flood has its own turns");
    // Eight at a time and ten seconds each: that is what its own server makes of it.
    let secs = 32 + 360;
    assert!(spam <= secs * 8 / 10 + 100, "{spam}");
}

#[tokio::test(start_paused = true)]
async fn a_relays_list_keeps_neither_members_nor_newcomers_waiting() {
    let world = World::start(HOUR);
    world.attest((0..50).map(|nth| format!("member{nth}")));
    world.run(HOUR * 9 / 10 - Duration::from_secs(1)).await;
    assert_eq!(world.looks("member").len(), 50);
    let listed = (0..2000).map(|nth| format!("did:plc:spam{nth}").parse().unwrap()).collect();
    world.store.touch_listed(listed, "https://relay.example", &Backfill::Done, clock()).unwrap();
    world.run(Duration::from_secs(30)).await;
    world.attest(std::iter::once("newcomer".into()));
    world.run(Duration::from_secs(2)).await;
    assert_eq!(world.looks("newcomer").len(), 1, "a newcomer is not behind the list");
    world.run(HOUR / 10).await;
    assert_eq!(world.looks("member")[50..].len(), 50, "everybody who stands was looked at again on time");
    assert!(!world.looks("spam").is_empty());
}

#[tokio::test(start_paused = true)]
async fn those_who_pass_are_looked_at_once_an_interval() {
    let world = World::start(DAY);
    world.attest((0..200).map(|nth| format!("member{nth}")));
    world.run(DAY * 3 + Duration::from_secs(60)).await;
    let looks = world.looks("member").len();
    assert!((200 * 4..=200 * 5).contains(&looks), "{looks}");
    let mut times: Vec<u64> = world.looks("member").iter().map(|at| at.as_secs()).filter(|at| *at > 86_400 * 2).collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 30, "they spread: {}", times.len());
}
