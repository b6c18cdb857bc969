//! `kill -9` of a real process at any moment: nothing acknowledged is lost, nothing is invented.
//!
//! The test program starts itself again as the victim, which enqueues and settles as fast as it can
//! and says on its standard output what was acknowledged. Each round continues with the same queue.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

const VICTIM: &str = "TRADEWIND_TEST_QUEUE_VICTIM";
const ROUNDS: u64 = 5;

/// The body of a message, by its number: long enough to span pages, different for each.
fn body(number: u64) -> String {
    format!("message {number} ").repeat(1 + (number % 700) as usize)
}

fn number_of(body: &str) -> u64 {
    body.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Not a test but the victim of the one below; by itself it does nothing.
#[tokio::test]
async fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let round: u64 = std::env::var("ROUND").unwrap().parse().unwrap();
    let bench = Bench::open_at(dir.as_ref(), options(), start());
    let mut workers = Vec::new();
    for worker in 0..8u64 {
        let queue = bench.queue.clone();
        workers.push(tokio::spawn(async move {
            for nth in 0.. {
                let number = round << 32 | worker << 24 | nth;
                let domain = format!("d{}.example", number % 5);
                let id = queue.enqueue(message(&[&format!("a@{domain}")], &body(number))).await.unwrap();
                println!("\nenqueued {} {number}", id.0);
                if nth % 3 == 0 {
                    println!("\nsettling {} {number}", id.0);
                    queue.settle(vec![delivered(id, &domain)]).await.unwrap();
                    println!("\nsettled {} {number}", id.0);
                }
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_nothing_acknowledged_and_invents_nothing() {
    let dir = TempDir::new().unwrap();
    let mut random = Random(9);
    let (mut enqueued, mut settling, mut settled) = (HashMap::new(), HashSet::new(), HashSet::new());
    for round in 1..=ROUNDS {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "queue::tests::crash::victim", "--nocapture", "--test-threads=1"])
            .env(VICTIM, dir.path())
            .env("ROUND", round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        // Killed after so many words of it: the moment is random as seen from the disk.
        let enough = 50 + random.below(400);
        let mut heard = 0;
        let mut hear = |line: String, heard: &mut usize| {
            let words: Vec<_> = line.split(' ').collect();
            // The last line may be cut short by the kill; numbers are checked below, so take whole lines only.
            let [what, id, number] = words[..] else { return };
            let (Ok(id), Ok(number)) = (id.parse::<u64>(), number.parse::<u64>()) else { return };
            *heard += 1;
            match what {
                "enqueued" => assert!(enqueued.insert(QueueId(id), number).is_none(), "{id} was given out twice"),
                "settling" => drop(settling.insert(QueueId(id))),
                "settled" => drop(settled.insert(QueueId(id))),
                _ => {}
            }
        };
        for line in lines.by_ref() {
            hear(line.unwrap(), &mut heard);
            if heard >= enough {
                break;
            }
        }
        victim.kill().unwrap(); // SIGKILL
        for line in lines.map_while(Result::ok) {
            hear(line, &mut heard);
        }
        victim.wait().unwrap();
        assert!(heard >= enough, "the victim died by itself in round {round}");

        let bench = Bench::open(&dir, options());
        let mut found = HashMap::new();
        for entry in bench.list(&Filter::default()) {
            let stored = bench.reader.fetch(entry.id, &entry.domain).unwrap();
            let number = number_of(octets_of(&stored));
            assert_eq!(octets_of(&stored), body(number));
            assert!(found.insert(entry.id, number).is_none());
        }
        for (id, number) in &enqueued {
            match found.get(id) {
                Some(found) => assert!(found == number && !settled.contains(id), "{id} is not what it was"),
                None => assert!(settling.contains(id), "{id} was acknowledged and is lost"),
            }
        }
        // Beyond what was acknowledged there is at most what each worker had in flight.
        let unknown: Vec<u64> = found.iter().filter(|(id, _)| !enqueued.contains_key(*id)).map(|(_, n)| *n).collect();
        assert!(unknown.len() <= 8 * round as usize, "{} came from nowhere", unknown.len());
        let workers: HashSet<u64> = unknown.iter().map(|number| number >> 24).collect();
        assert_eq!(workers.len(), unknown.len(), "a worker cannot have had two in flight");
        bench.close().await;
    }
}
