//! The command against a whole daemon whose mail cannot leave: the receiving host refuses every connection.

// Clippy takes the helpers of an integration test for product code.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use host::{
    Clock, Dice, Io,
    dns::{Resolver, Zone},
};
use mta::{
    config::Config,
    daemon::{self, Environment},
    queue::Options,
};
use serde_json::Value;

const DID: &str = "did:web:member.example";

/// How often the site has failed before the test looks.
const FAILURES: usize = 5;

struct Daemon {
    file: PathBuf,
    relay: SocketAddr,
}

/// Runs on a thread until the test's process ends.
fn start(folder: &Path) -> Daemon {
    let file = folder.join("mta.toml");
    // Nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "hostname = \"relay.example.test\"\ndata_dir = \"data\"\nio = \"epoll\"\nthreads = 1\n\
         [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\ntrusted_networks = [\"127.0.0.0/8\"]\nmember = \"{DID}\"\n\
         [[source]]\nname = \"ip-a\"\naddress = \"127.0.0.1\"\nehlo = \"a.relay.example.test\"\n\
         [egress]\nport = {port}\nallow_private_addresses = true\n\
         [[climb]]\nsource = \"ip-a\"\nprovider = \"other\"\nplan = \"gentle\"\n"
    );
    std::fs::write(&file, settings).unwrap();
    let config = Arc::new(Config::load(&file).unwrap());
    let (bound, is_bound) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let zone = Zone::new();
            zone.mx("big.example", 10, "mx.big.example").address("mx.big.example", "127.0.0.1".parse().unwrap());
            let environment = Environment {
                io: Io::Epoll,
                clock: Clock::system(),
                dice: Dice::seeded(7),
                resolver: Resolver::scripted(zone),
                queue: Options { map_bytes: 64 << 20, segment_bytes: 1 << 20, free_bytes_floor: 0, ..Options::default() },
                pages: None,
                sockets: Vec::new(),
            };
            let running = daemon::start(config, environment).await.unwrap();
            let _control = running.control(None).await.unwrap();
            bound.send(running.addresses[0]).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let relay = is_bound.recv().unwrap();
    Daemon { file, relay }
}

impl Daemon {
    fn tradewind(&self, line: &str) -> (i32, String, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tradewind"));
        let output = command.arg("--config").arg(&self.file).args(line.split(' ')).output().unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn json(&self, line: &str) -> Value {
        let (code, out, err) = self.tradewind(&format!("{line} --json"));
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        serde_json::from_str(&out).unwrap()
    }

    /// Waits until a message has so many events: what they say.
    fn events(&self, id: &str, count: usize) -> Vec<String> {
        let (code, out, err) = self.tradewind(&format!("events --after 0 --follow --limit {count} --id {id} --json"));
        assert_eq!((code, err.as_str()), (0, ""));
        let what = |line| serde_json::from_str::<Value>(line).unwrap()["what"].as_str().unwrap().to_owned();
        out.lines().map(what).collect()
    }

    /// Submits a message and returns its queue id.
    fn submit(&self, recipients: &[&str]) -> String {
        let stream = TcpStream::connect(self.relay).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut answer = move || loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.as_bytes()[3] == b' ' {
                return line;
            }
        };
        let mut say = |text: &str, code: &str| {
            (&stream).write_all(text.as_bytes()).unwrap();
            let reply = answer();
            assert!(reply.starts_with(code), "{text}{reply}");
            reply
        };
        say("", "220");
        say("EHLO host.member.example\r\n", "250");
        say("MAIL FROM:<pds@member.example>\r\n", "250");
        for recipient in recipients {
            say(&format!("RCPT TO:<{recipient}>\r\n"), "250");
        }
        say("DATA\r\n", "354");
        let reply = say("From: pds@member.example\r\nTo: a@big.example\r\nSubject: 123456\r\n\r\nHello\r\n.\r\n", "250");
        say("QUIT\r\n", "221");
        let is_id = |word: &&str| word.len() == 13 && word.bytes().all(|octet| octet.is_ascii_alphanumeric());
        reply.split_whitespace().find(is_id).unwrap().to_owned()
    }

    /// Makes a site fail until it is left alone for a quarter of an hour: longer than the slowest machine takes for the test, and
    /// after one failure it is half a minute. No mail is left there.
    fn fail_often(&self, domain: &str) {
        let id = self.submit(&[&format!("first@{domain}")]);
        self.events(&id, 2);
        for nth in 2..=FAILURES {
            self.json(&format!("queue flush --site {domain}"));
            self.events(&id, 1 + nth);
        }
        assert_eq!(self.json(&format!("queue cancel {id}"))["changed"], 1);
    }
}

#[test]
fn the_operator_asks_why_mail_waits_and_holds_flushes_and_cancels_it() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path());
    daemon.json(&format!("member add --did {DID} --domain member.example"));

    let unknown = daemon.json("where big.example");
    assert_eq!((&unknown["route"], &unknown["site"]), (&"looked_up".into(), &"mx.big.example".into()));
    assert_eq!(unknown["hosts"][0]["addresses"][0], "127.0.0.1");
    assert_eq!(unknown["would"][0]["would"]["send"]["source"], "ip-a");
    assert_eq!(unknown["sources"][0]["window"], 10);
    let nowhere = daemon.json("where nowhere.example");
    assert_eq!((&nowhere["route"], &nowhere["would"][2]["would"]["hold"]["reason"]), (&"trouble".into(), &"unroutable".into()));

    daemon.fail_often("big.example");
    let id = daemon.submit(&["a@big.example", "b@big.example"]);
    daemon.events(&id, 1);
    daemon.json("queue flush --site big.example");
    assert_eq!(daemon.events(&id, 2), ["accepted", "deferred"]);
    let why = daemon.json(&format!("why {id}"));
    let delivery = &why["deliveries"][0];
    assert_eq!((&why["queued"], &why["member"], &delivery["attempts"]), (&true.into(), &DID.into(), &1.into()));
    assert_eq!((&delivery["state"], &delivery["next"]["hold"]["clears"]), (&"deferred".into(), &"at".into()));
    assert_eq!(delivery["next"]["hold"]["clears_at"], delivery["due_at"]);
    assert!(delivery["last"].as_str().unwrap().starts_with("451 4.4.1 "), "{delivery}");
    assert!(!why.to_string().contains("123456"));
    let place = daemon.json("where big.example");
    assert_eq!(place["route"], "known");
    assert!(place["site_failures"].as_u64().unwrap() > FAILURES as u64, "{place}");
    assert_eq!(place["would"][1]["would"]["hold"]["reason"], "site_suspended");
    assert_eq!(place["would"][1]["would"]["hold"]["clears_at"], place["site_suspended_until"]);
    assert_eq!(place["mail"]["queued"], 1);

    // A second one waits in memory, and the site is what holds it.
    let second = daemon.submit(&["c@big.example"]);
    daemon.events(&second, 1);
    let waits = daemon.json(&format!("why {second}"));
    assert_eq!((&waits["deliveries"][0]["state"], &waits["deliveries"][0]["turn"]), (&"waiting".into(), &"big.example".into()));
    assert_eq!(waits["deliveries"][0]["next"]["hold"]["set_by"]["layer"], "feedback");
    let (_, text, _) = daemon.tradewind(&format!("why {second}"));
    let says = "why       the site is left alone after ";
    assert!(
        text.contains(says)
            && text.contains(" failures in a row (action ")
            && text.contains("\nset by    what the peer did\nclears    at 20"),
        "{text}"
    );

    assert_eq!(daemon.json(&format!("queue hold {id} --reason look"))["changed"], 1);
    let held = daemon.json(&format!("why {id}"));
    assert_eq!((&held["deliveries"][0]["state"], &held["deliveries"][0]["due_at"]), (&"held".into(), &held["expires_at"]));
    let by = held["deliveries"][0]["next"]["hold"]["set_by"]["name"].as_str().unwrap();
    assert!(by.starts_with("uid ") && by.ends_with(": look"), "{by}");
    let list = daemon.json("queue list --held");
    assert_eq!((list["deliveries"].as_array().unwrap().len(), &list["deliveries"][0]["id"]), (1, &id.as_str().into()));

    // What is held does not go with the rest.
    let flushed = daemon.json("queue flush --site big.example");
    assert_eq!((&flushed["lifted"][0], &flushed["changed"]), (&"mx.big.example".into(), &0.into()));
    assert_eq!(daemon.events(&second, 2), ["accepted", "deferred"]);
    assert_eq!(daemon.events(&id, 3), ["accepted", "deferred", "held"]);
    assert_eq!(daemon.json(&format!("queue release {id}"))["changed"], 1);
    assert_eq!(daemon.json("queue flush --site mx.big.example")["lifted"][0], "mx.big.example");
    assert_eq!(daemon.events(&id, 5)[3..], ["released", "deferred"]);

    assert_eq!(daemon.json("queue list --member member.example --limit 1")["more"], true);
    let cancelled = daemon.json(&format!("queue cancel {id}"));
    assert_eq!(cancelled["changed"], 1);
    let gone = daemon.json(&format!("why {id}"));
    assert_eq!((&gone["queued"], gone["deliveries"].as_array().unwrap().len()), (&false.into(), 0));
    let finals: Vec<_> = gone["events"].as_array().unwrap().iter().filter(|event| event["final"] == true).collect();
    assert_eq!(
        finals.iter().map(|event| event["recipient"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a@big.example", "b@big.example"]
    );
    assert!(finals.iter().all(|event| event["what"] == "cancelled"));
    assert_eq!(daemon.json("queue cancel --member member.example --notify")["changed"], 1);
    // The notice that the sender gets is mail of the same member.
    let notice = daemon.json("queue list --member member.example");
    let notices: Vec<_> = notice["deliveries"].as_array().unwrap().iter().map(|it| it["domain"].as_str().unwrap()).collect();
    assert!(notices.iter().all(|domain| *domain == "member.example"), "{notices:?}");

    let (code, _, says) = daemon.tradewind(&format!("queue hold {id}"));
    assert_eq!((code, says), (1, format!("tradewind: {id} is not in the queue (any more); `tradewind why {id}` may say why\n")));
    let (code, _, _) = daemon.tradewind("why 0000000000001");
    assert_eq!(code, 1);
}

#[test]
fn the_operator_sees_and_steers_a_climb_and_the_history_says_who_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = start(folder.path());
    let page = daemon.json("warmup show");
    let climb = &page["climbs"][0];
    assert_eq!((&climb["source"], &climb["provider"], &climb["plan"]), (&"ip-a".into(), &"other".into(), &"gentle".into()));
    assert_eq!((&climb["state"], &climb["stage"], &climb["allowance"]), (&"warming".into(), &1.into(), &50.into()));
    let (code, out, _) = daemon.tradewind("warmup show ip-a");
    assert_eq!(code, 0);
    assert!(out.contains("warming 1/19") && out.contains("0 of 50"), "{out}");
    for (line, state, stage, allowance) in [
        ("set ip-a other --stage 4 --why moved", "warming", 4, 300),
        ("pin ip-a other 7 --why careful", "warming", 4, 7),
        ("pin ip-a other --off --why enough", "warming", 4, 300),
        ("skip ip-a other --why known", "warming", 5, 450),
        ("rewind ip-a other --stages 3 --why complaints", "warming", 2, 100),
        ("pause ip-a other --why listed", "paused", 2, 0),
        ("resume ip-a other --why delisted", "warming", 2, 100),
    ] {
        let climb = daemon.json(&format!("warmup {line}"));
        let now = (climb["state"].as_str(), climb["stage"].as_u64(), climb["allowance"].as_u64());
        assert_eq!(now, (Some(state), Some(stage), Some(allowance)), "{line}");
    }
    let steps = daemon.json("warmup history ip-a other");
    let reasons: Vec<_> = steps.as_array().unwrap().iter().map(|step| step["reason"].as_str().unwrap()).collect();
    let expected = ["resumed", "paused", "rewound to stage 2", "skipped to stage 5", "no longer pinned", "pinned to 7 a day"];
    assert_eq!((&reasons[..6], reasons.len()), (&expected[..], 7));
    let by = steps[1]["by"].as_str().unwrap();
    assert!(by.starts_with("uid ") && by.ends_with(": listed"), "{by}");
    let (code, out, _) = daemon.tradewind("warmup history ip-a --limit 1");
    assert!(code == 0 && out.contains("resumed (uid ") && !out.contains("paused"), "{out}");
    let shown = daemon.json("warmup show ip-a other --days 5");
    assert_eq!((shown["stages"].as_array().unwrap().len(), shown["days"].as_array().unwrap().len()), (19, 1));
    for (line, says) in [
        ("set ip-a other --stage 99 --why x", "there is no stage 99; plan gentle has stages 1 to 19"),
        ("resume ip-a other --why x", "ip-a at other is not paused: it is warming"),
        ("skip ip-b other --why x", "ip-b does not warm up at other; sources that warm up: ip-a; providers where some do: other"),
        ("show ip-b", "ip-b does not warm up; `tradewind warmup show` lists what does"),
    ] {
        let (code, _, err) = daemon.tradewind(&format!("warmup {line}"));
        assert_eq!((code, err), (1, format!("tradewind: {says}\n")), "{line}");
    }
}
