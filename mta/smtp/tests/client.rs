//! The client's dialogue as text: each file of `transcripts/client` is played with the server's octets whole,
//! octet by octet, and cut in two at every place, and must give the same commands and fates.
//!
//! ```text
//! # a comment
//! ! no-starttls       a setting; or something that happens: `tls`, `eof`, `broken`, `unwritten ... | what was said`, `quit`, or
//! ! begin <from> <to> <to> 8bit utf8 | message     with \r \n \t \0 \\ \xHH; also RET= ENVID= BY= MT-PRIORITY=, and
//!                   behind a <to> its NOTIFY= ORCPT=
//! S: what the server says, CRLF is added
//! R: octets as they are
//! C: a line that the client sends; `...` at its end stands for anything
//! F: a fate, in the order of the recipients
//! T: the session's trouble
//! C! ready, C! close  what the client wants
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use bytes::Bytes;
use common::{Transcript, unescape};
use smtp::Secret;
use smtp::address::Mailbox;
use smtp::client::{Credentials, Fate, Parameters, Recipient, Session, Settings, Step, Transaction};
use smtp::envelope::{DeliverBy, Notify, Ret, priority};

struct Client {
    session: Session,
    seen: Vec<String>,
    at: Option<&'static str>,
}

impl Client {
    fn new(settings: Settings) -> Self {
        let mut client = Self { session: Session::new(settings), seen: vec![], at: None };
        client.run();
        client
    }

    fn run(&mut self) {
        let mut output = String::new();
        let now_at = loop {
            match self.session.poll() {
                Step::Read { .. } => break "read",
                Step::Write(octets) => output.extend(octets.iter().map(|&octet| char::from(octet))),
                Step::StartTls => break "tls",
                Step::Ready => break "ready",
                Step::Close => break "close",
                Step::Done(fates) => {
                    self.written(&std::mem::take(&mut output));
                    self.seen.extend(fates.iter().map(|fate| format!("F: {}", show(fate))));
                }
            }
        };
        self.written(&output);
        if now_at == "close" && self.at != Some("close") {
            self.seen.extend(self.session.trouble().map(|fate| format!("T: {}", show(fate))));
        }
        if matches!(now_at, "close" | "ready") && self.at != Some(now_at) {
            self.seen.push(format!("C! {now_at}"));
        }
        self.at = Some(now_at);
    }

    fn written(&mut self, output: &str) {
        assert!(output.is_empty() || output.ends_with("\r\n"));
        for line in output.split_terminator("\r\n") {
            assert!(!line.contains(['\r', '\n']), "bare CR or LF in {line:?}");
            self.seen.push(format!("C: {line}"));
        }
    }

    fn hear(&mut self, octets: &[u8]) {
        if self.at != Some("close") {
            self.session.handle_octets(Bytes::copy_from_slice(octets));
            self.run();
        }
    }

    fn happen(&mut self, text: &str) {
        let (words, octets) = text.split_once(" | ").unwrap_or((text, ""));
        match words.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["begin", words @ ..] => {
                let octets = unescape(octets);
                let mut paths = words.iter().filter_map(|word| word.strip_prefix('<')?.strip_suffix('>'));
                let transaction = Transaction {
                    reverse_path: paths.next().unwrap().parse().unwrap(),
                    recipients: recipients_of(words),
                    eight_bit: words.contains(&"8bit"),
                    smtputf8: words.contains(&"utf8"),
                    octets: octets.into(),
                    parameters: parameters_of(words),
                };
                self.at = None;
                self.session.begin(transaction);
            }
            ["quit"] => self.session.quit(),
            ["tls"] => {
                assert_eq!(self.at, Some("tls"));
                self.session.handle_tls();
            }
            ["unwritten", ..] => self.session.handle_unwritten(unescape(octets).into(), words),
            ["eof"] => self.session.handle_octets(Bytes::new()),
            ["broken", ..] => self.session.handle_broken(words),
            _ => return,
        }
        self.run();
    }
}

fn parameters_of(words: &[&str]) -> Parameters {
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Parameters {
        ret: value("RET").map(|value| Ret::parse(value).unwrap()),
        envid: value("ENVID").map(str::to_owned),
        deliver_by: value("BY").map(|value| DeliverBy::parse(value).unwrap()),
        priority: value("MT-PRIORITY").map(|value| priority(value).unwrap()),
        require_tls: words.contains(&"REQUIRETLS"),
    }
}

fn recipients_of(words: &[&str]) -> Vec<Recipient> {
    let mut recipients: Vec<Recipient> = vec![];
    for word in &words[1..] {
        if let Some(path) = word.strip_prefix('<') {
            recipients.push(path.strip_suffix('>').unwrap().parse::<Mailbox>().unwrap().into());
        } else if let Some(notify) = word.strip_prefix("NOTIFY=") {
            recipients.last_mut().unwrap().notify = Some(Notify::parse(notify).unwrap());
        } else if let Some(orcpt) = word.strip_prefix("ORCPT=") {
            recipients.last_mut().unwrap().orcpt = Some(orcpt.to_owned());
        }
    }
    recipients
}

fn show(fate: &Fate) -> String {
    match fate {
        Fate::Accepted(reply) => format!("accepted {reply}"),
        Fate::Refused { reply, stage } => format!("refused {stage}: {reply}"),
        Fate::Broken { stage, reason } => format!("broken {stage}: {reason}"),
        Fate::Untried => "untried".to_owned(),
    }
}

fn settings_of(transcript: &Transcript) -> Settings {
    let mut settings = Settings::new("c.example");
    for words in transcript.words('!') {
        match *words {
            ["no-starttls"] => settings.starttls = false,
            ["no-chunking"] => settings.chunking = false,
            ["require-tls"] => settings.require_tls = true,
            ["implicit-tls"] => settings.implicit_tls = true,
            ["credentials"] => {
                settings.credentials = Some(Credentials { username: "member".into(), password: Secret::new("secret") });
            }
            ["begin" | "quit" | "tls" | "eof" | "broken" | "unwritten", ..] => {}
            ref other => panic!("{}: unknown directive {other:?}", transcript.name),
        }
    }
    settings
}

fn check(transcript: &Transcript, how: &str, pieces: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>) {
    let mut client = Client::new(settings_of(transcript));
    let mut octets = vec![];
    for (kind, text) in transcript.lines.iter().chain([&("end".to_owned(), String::new())]) {
        match &**kind {
            "S:" => octets.extend([text.as_bytes(), b"\r\n"].concat()),
            "R:" => octets.extend(unescape(text)),
            _ => {
                for piece in pieces(&std::mem::take(&mut octets)) {
                    client.hear(&piece);
                }
                if kind == "!" {
                    client.happen(text);
                }
            }
        }
    }
    let expected = transcript.expected(&["C:", "F:", "T:", "C!"]);
    common::compare(&transcript.name, how, &expected, &client.seen);
    assert_eq!(client.session.buffered_bytes(), 0, "{}", transcript.name);
}

#[test]
fn transcripts_whole_and_cut_anywhere() {
    let whole = |octets: &[u8]| if octets.is_empty() { vec![] } else { vec![octets.to_vec()] };
    for transcript in common::transcripts("client") {
        check(&transcript, "whole", &mut { whole });
        if transcript.name.contains("injection") {
            continue; // It is about octets that come in the same read.
        }
        check(&transcript, "octet by octet", &mut |octets| octets.chunks(1).map(<[u8]>::to_vec).collect());
        for cut in 1..600 {
            check(&transcript, &format!("cut at {cut}"), &mut |octets| {
                let (one, two) = octets.split_at(cut.min(octets.len()));
                [whole(one), whole(two)].concat()
            });
        }
    }
}

#[test]
fn replies_are_bounded() {
    for endless in [&b"220-x\r\n"[..], b"2", b"220 x"] {
        let mut client = Client::new(Settings::new("c.example"));
        for _ in 0..100_000 {
            client.hear(endless);
            assert!(client.session.buffered_bytes() < 64 << 10);
        }
        assert_eq!(client.at, Some("close"));
        assert!(client.seen[0].starts_with("T: broken greeting: reply"), "{:?}", client.seen);
    }
}

/// Client and server of this crate, mouth to mouth: whatever the octets, what is handed over is what was sent.
#[test]
fn a_message_arrives_as_it_was_sent() {
    use smtp::server;
    for chunking in [true, false] {
        let octets = b".\r\n..\r\nSubject: x\r\n\r\n.hidden\r\n.\r\n".repeat(20_000);
        let mut settings = server::Settings::new("mx.example");
        settings.chunking = chunking;
        let mut server = server::Session::new(settings.into());
        let mut client = Session::new(Settings::new("c.example"));
        let mut received = vec![];
        // By BDAT once the first one has gone by DATA.
        let mut begun = 0;
        loop {
            // The client's turn, to its next read; then the server's.
            match client.poll() {
                Step::Write(octets) => {
                    server.handle_octets(octets);
                    continue;
                }
                Step::Ready if begun == 2 => break,
                Step::Ready => {
                    begun += 1;
                    client.begin(Transaction {
                        reverse_path: "<>".parse().unwrap(),
                        recipients: ["a@x.example", "b@x.example"].map(|path| path.parse::<Mailbox>().unwrap().into()).into(),
                        octets: octets.clone().into(),
                        eight_bit: false,
                        smtputf8: false,
                        parameters: Parameters::default(),
                    });
                    continue;
                }
                Step::Done(fates) => {
                    assert!(matches!(&*fates, [Fate::Accepted(_), Fate::Accepted(_)]), "{fates:?}");
                    continue;
                }
                Step::Read { .. } => {}
                other => panic!("{other:?}"),
            }
            loop {
                match server.poll() {
                    server::Step::Write(octets) => client.handle_octets(octets),
                    server::Step::Ask(ask) => {
                        if let server::Ask::Message { octets, .. } = ask {
                            received.push(octets);
                        }
                        server.handle_answer(server::Answer::Accept);
                    }
                    server::Step::Read { .. } => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(received == [octets.clone(), octets], "chunking {chunking}");
    }
}
