//! Settings that are read again while mail is in motion.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loadtest::sink::Script;
use mta::config::Config;
use mta::daemon::Running;
use tokio::sync::oneshot;

use super::HOUR;
use super::parts::World;

/// New settings, and the way back for what was wrong with them.
pub(crate) struct Reload {
    lines: String,
    shaping: String,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Reload {
    pub(crate) fn new(lines: &str, shaping: &str) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (answer, answered) = oneshot::channel();
        (Reload { lines: lines.to_owned(), shaping: shaping.to_owned(), answer }, answered)
    }

    /// As the program does after SIGHUP.
    pub(crate) fn apply(self, folder: &Path, text: &str, running: &Running) {
        let file = folder.join("world.toml");
        std::fs::write(&file, format!("{text}\n{}\n[shaping]\nfiles = [\"shaping.toml\"]\n", self.lines)).unwrap();
        std::fs::write(folder.join("shaping.toml"), self.shaping).unwrap();
        let told = match Config::load(&file) {
            Ok(config) => running.reload(Arc::new(config)).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string().replace(&format!("{}/", folder.display()), "")),
        };
        let _ = self.answer.send(told);
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn new_limits_hold_from_the_reload_on_and_a_wrong_file_changes_nothing() {
    let mut world =
        World::seed(60).provider("big.example", Script::accepts_all()).provider("small.example", Script::accepts_all());
    let (big, small) = (world.provider_of("big.example"), world.provider_of("small.example"));
    world.live(2 * HOUR, |day| async move {
        let submit = async |from: u64, many: u64, to: &str| {
            for n in from..from + many {
                day.submit(n, &[to]).await;
            }
        };
        submit(0, 20, "someone@big.example").await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(big.messages().len(), 20);

        // Everything is checked before anything changes, and whoever reads the log knows where to look.
        let limit = "[[shape]]\ndomain = \"big.example\"\nrate = \"6/1m\"\nburst = 1\n";
        let wrong = format!("{limit}[[shape]]\nsite = \"mx.small.example\"\nconnections = 0\n");
        let told = day.reload("", &wrong).await.unwrap_err();
        assert_eq!(told, "shaping.toml:7: key `shape.connections`: 0 is out of range; choose 1 to 1000");
        let told = day.reload("[[pool]]\nname = \"default\"\nsources = [\"ip-z\"]\n", limit).await.unwrap_err();
        assert!(told.contains("key `pool.sources`: no [[source]] is named \"ip-z\"; there are: ip-a"), "{told}");
        submit(100, 20, "someone@big.example").await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(big.messages().len(), 40, "the old settings stay");

        day.reload("", limit).await.unwrap();
        submit(200, 60, "someone@big.example").await;
        submit(300, 20, "someone@small.example").await;
        tokio::time::sleep(5 * MINUTE).await;
        let since = big.messages().len() - 40;
        assert!((29..=32).contains(&since), "{since} in five minutes at six a minute");
        assert_eq!(small.messages().len(), 20, "others are not held by it");

        // What waits follows at once.
        day.reload("", "").await.unwrap();
        tokio::time::sleep(MINUTE).await;
        assert_eq!(big.messages().len(), 100);
    });
    world.check_all_arrived_once();
    world.check_queue_is_empty();
}

#[test]
fn sources_and_pools_that_are_new_send_without_a_restart() {
    let mut world = World::seed(61).provider("big.example", Script::accepts_all());
    let big = world.provider_of("big.example");
    let more = "[[source]]\nname = \"ip-b\"\naddress = \"192.0.2.12\"\nehlo = \"b.relay.world.test\"\n\
                [[pool]]\nname = \"default\"\nsources = [\"ip-b\", \"ip-a\"]\nweights = [1, 0]\n";
    world.live(HOUR, |day| async move {
        day.submit(1, &["someone@big.example"]).await;
        tokio::time::sleep(MINUTE).await;
        day.reload(more, "").await.unwrap();
        day.submit(2, &["someone@big.example"]).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(big.messages().len(), 2);
    });
    let events = world.sources();
    assert_eq!(events, ["ip-a", "ip-b"]);
    world.check_all_arrived_once();
}
