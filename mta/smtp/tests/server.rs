//! The server's dialogue as text: each file of `transcripts/server` is played whole, octet by octet, and cut in
//! two at every place, and must give the same replies.
//!
//! ```text
//! # a comment
//! ! starttls          a setting; or something that happens: `tls` (the handshake), `shutdown`, `deadline`, `eof`
//! C: what the client sends, CRLF is added
//! R: octets as they are, with \r \n \t \0 \\ \xHH and no CRLF added
//! S: a line that the server says; `...` at its end stands for anything
//! M: <reverse-path> <forward-path> ... | message   what was handed over, written as in R
//! P: what MAIL declared for notices, deadlines and priority, or <forward-path> and what its RCPT declared
//! S! close            the server closes here
//! ```
//!
//! The policy: user `member` with password `secret`; `refused@` 550, `later@` 451, `closed@` 421 and close,
//! otherwise yes. A message that begins with `Refuse` is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Transcript, escape, unescape};
use smtp::reply::Reply;
use smtp::server::{Answer, Ask, Auth, Envelope, MailParameters, RcptParameters, Session, Settings, Step};

#[derive(Debug, PartialEq)]
enum Event {
    Octets(Vec<u8>),
    Tls,
    Shutdown,
    Deadline,
    Eof,
}

/// What was said and handed over, a line each.
struct Server {
    session: Session,
    seen: Vec<String>,
    output: String,
    closed: bool,
    wants_tls: bool,
    writes: usize,
}

impl Server {
    fn new(settings: &Arc<Settings>) -> Self {
        let mut session = Session::new(settings.clone());
        session.handle_time(now());
        let mut server = Self { session, seen: vec![], output: String::new(), closed: false, wants_tls: false, writes: 0 };
        server.run();
        server
    }

    fn handle(&mut self, event: &Event, pieces: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>) {
        match event {
            Event::Octets(octets) => {
                for piece in pieces(octets) {
                    if !self.closed {
                        assert!(!self.wants_tls, "octets in clear where the handshake was expected; write `! tls`");
                        self.session.handle_octets(Bytes::from(piece));
                        self.run();
                    }
                }
                return;
            }
            Event::Tls => {
                assert!(std::mem::take(&mut self.wants_tls), "`! tls`, but the server did not ask for it");
                self.session.handle_tls();
            }
            Event::Shutdown => self.session.handle_shutdown(),
            Event::Deadline => self.session.handle_deadline(),
            Event::Eof => self.session.handle_octets(Bytes::new()),
        }
        self.run();
    }

    fn run(&mut self) {
        loop {
            match self.session.poll() {
                Step::Read { within, .. } => {
                    assert!(within > Duration::ZERO);
                    return;
                }
                Step::Write(octets) => {
                    self.writes += 1;
                    self.output.push_str(std::str::from_utf8(&octets).unwrap());
                    while let Some(end) = self.output.find('\n') {
                        let line: String = self.output.drain(..=end).collect();
                        self.seen.push(format!("S: {}", line.strip_suffix("\r\n").expect("a reply ends in CRLF")));
                    }
                }
                Step::Ask(ask) => {
                    let answer = self.answer(ask);
                    self.session.handle_answer(answer);
                }
                Step::StartTls => {
                    self.wants_tls = true;
                    return;
                }
                Step::Close => {
                    assert!(self.output.is_empty());
                    if !self.closed {
                        self.seen.push("S! close".to_owned());
                    }
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        let by_name = |name: &str| match name {
            "refused" => Answer::Refuse(Reply::new(550, (5, 7, 1), "not you")),
            "later" => Answer::Refuse(Reply::new(451, (4, 7, 1), "later")),
            "closed" => Answer::RefuseAndClose(Reply::new(421, (4, 7, 0), "go away")),
            _ => Answer::Accept,
        };
        match ask {
            Ask::Auth { username, password, .. } if (&*username, password.expose()) == ("member", "secret") => Answer::Accept,
            Ask::Auth { .. } => Answer::Refuse(Reply::new(535, (5, 7, 8), "wrong")),
            Ask::Mail { path, .. } => by_name(path.mailbox().map_or("", |mailbox| mailbox.local())),
            Ask::Recipient { path, .. } => by_name(path.local()),
            Ask::Message { envelope, octets } => {
                let text = escape(&octets);
                let recipients: Vec<_> = envelope.recipients.iter().map(|(path, _)| format!("<{path}>")).collect();
                let (from, with) = (&envelope.reverse_path, envelope.with_protocol());
                self.seen.push(format!("M: {from} {} {with} | {text}", recipients.join(" ")));
                self.seen.extend(parameters_of(&envelope));
                match text.starts_with("Refuse") {
                    true => Answer::Refuse(Reply::new(554, (5, 7, 1), "no such mail")),
                    false => Answer::AcceptWith(Reply::new(250, (2, 0, 0), "queued")),
                }
            }
        }
    }
}

/// What MAIL and RCPT declared for notices, deadlines and priority.
fn parameters_of(envelope: &Envelope) -> Vec<String> {
    let MailParameters { ret, envid, deliver_by, hold_until, priority, require_tls, .. } = &envelope.parameters;
    let mut mail = vec![];
    mail.extend(ret.map(|ret| format!("RET={}", ret.as_str())));
    mail.extend(envid.as_ref().map(|envid| format!("ENVID={envid}")));
    mail.extend(deliver_by.map(|by| format!("BY={by}")));
    mail.extend(hold_until.map(|until| match until.duration_since(now()) {
        Ok(hold) => format!("held {} s", hold.as_secs()),
        Err(passed) => format!("held until {} s ago", passed.duration().as_secs()),
    }));
    mail.extend(priority.map(|priority| format!("MT-PRIORITY={priority}")));
    mail.extend(require_tls.then(|| "REQUIRETLS".to_owned()));
    let mut lines = vec![];
    if !mail.is_empty() {
        lines.push(format!("P: {}", mail.join(" ")));
    }
    for (path, RcptParameters { notify, orcpt }) in &envelope.recipients {
        let mut rcpt = vec![];
        rcpt.extend(notify.map(|notify| format!("NOTIFY={notify}")));
        rcpt.extend(orcpt.as_ref().map(|orcpt| format!("ORCPT={orcpt}")));
        if !rcpt.is_empty() {
            lines.push(format!("P: <{path}> {}", rcpt.join(" ")));
        }
    }
    lines
}

/// 2026-11-25T15:13:39Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_619_619)
}

fn settings_of(transcript: &Transcript) -> Arc<Settings> {
    let mut settings = Settings::new("mx.example");
    for words in transcript.words('!') {
        match *words {
            ["starttls"] => settings.starttls = true,
            ["implicit-tls"] => settings.implicit_tls = true,
            ["auth"] => settings.auth = Auth::Required,
            ["no-chunking"] => settings.chunking = false,
            ["message-bytes-max", n] => settings.limits.message_bytes_max = n.parse().unwrap(),
            ["text-line-bytes-max", n] => settings.limits.text_line_bytes_max = n.parse().unwrap(),
            ["recipients-max", n] => settings.limits.recipients_max = n.parse().unwrap(),
            ["dsn"] => settings.dsn = true,
            ["deliver-by", least] => settings.deliver_by = Some(least.parse().unwrap()),
            ["hold-max", secs] => settings.hold_max = Duration::from_secs(secs.parse().unwrap()),
            ["mt-priority"] => settings.mt_priority = true,
            ["require-tls"] => settings.require_tls = true,
            ["messages-max", n] => settings.limits.messages_max = n.parse().unwrap(),
            ["errors-max", n] => settings.limits.errors_max = n.parse().unwrap(),
            ["idle-commands-max", n] => settings.limits.idle_commands_max = n.parse().unwrap(),
            ["tls" | "shutdown" | "deadline" | "eof"] => {}
            ref other => panic!("{}: unknown directive {other:?}", transcript.name),
        }
    }
    Arc::new(settings)
}

/// All that the client sends between two happenings is one event: a server must not care how it was cut.
fn events_of(transcript: &Transcript) -> Vec<Event> {
    let mut events = vec![];
    for (kind, text) in &transcript.lines {
        let octets = match (&**kind, &**text) {
            ("C:", line) => [line.as_bytes(), b"\r\n"].concat(),
            ("R:", raw) => unescape(raw),
            ("!", "tls") => {
                events.push(Event::Tls);
                continue;
            }
            ("!", "shutdown") => {
                events.push(Event::Shutdown);
                continue;
            }
            ("!", "deadline") => {
                events.push(Event::Deadline);
                continue;
            }
            ("!", "eof") => {
                events.push(Event::Eof);
                continue;
            }
            _ => continue,
        };
        match events.last_mut() {
            Some(Event::Octets(before)) => before.extend(octets),
            _ => events.push(Event::Octets(octets)),
        }
    }
    events
}

fn check(transcript: &Transcript, how: &str, pieces: &mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>) -> usize {
    let mut server = Server::new(&settings_of(transcript));
    for event in &events_of(transcript) {
        server.handle(event, pieces);
    }
    // Replies are gathered, so a message may be handed over before the replies to its RCPT are written.
    let (messages, replies): (Vec<_>, Vec<_>) =
        server.seen.into_iter().partition(|line| line.starts_with("M:") || line.starts_with("P:"));
    common::compare(&transcript.name, how, &transcript.expected(&["S:", "S!"]), &replies);
    common::compare(&transcript.name, how, &transcript.expected(&["M:", "P:"]), &messages);
    if !server.closed {
        assert!(server.session.buffered_bytes() < 128, "{}: an idle session holds memory", transcript.name);
    }
    server.writes
}

#[test]
fn transcripts_whole_and_cut_anywhere() {
    for transcript in common::transcripts("server") {
        check(&transcript, "whole", &mut |octets| vec![octets.to_vec()]);
        if transcript.name.contains("injection") {
            continue; // It is about octets that come in the same read.
        }
        check(&transcript, "octet by octet", &mut |octets| octets.chunks(1).map(<[u8]>::to_vec).collect());
        let longest =
            events_of(&transcript).iter().map(|event| if let Event::Octets(octets) = event { octets.len() } else { 0 }).max();
        for cut in 1..longest.unwrap_or(0).min(1500) {
            check(&transcript, &format!("cut at {cut}"), &mut |octets| {
                let (one, two) = octets.split_at(cut.min(octets.len()));
                [one, two].iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect()
            });
        }
    }
}

#[test]
fn replies_to_a_batch_of_commands_are_one_write() {
    let transcript = Transcript::parse(
        "batch",
        "S: 220 ...\nC: EHLO c.example\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250-...\nS: 250 ...\n\
         C: MAIL FROM:<a@c.example>\nS: 250 ...\nC: RCPT TO:<b@x.example>\nS: 250 ...\nC: RCPT TO:<refused@x.example>\nS: 550 ...\nC: DATA\nS: 354 ...\n",
    );
    assert_eq!(check(&transcript, "whole", &mut |octets| vec![octets.to_vec()]), 2, "the greeting, then the rest");
}

/// Deadlines: octets that dribble in do not open a new phase; a command or a block of a message does.
#[test]
fn a_dribbler_stays_in_one_phase() {
    let mut settings = Settings::new("mx.example");
    settings.limits.timeouts.data_block = Duration::from_secs(10);
    settings.limits.timeouts.data_rate_min = 100;
    let mut session = Session::new(Arc::new(settings));
    let mut say = |octets: &[u8]| {
        if !octets.is_empty() {
            session.handle_octets(Bytes::copy_from_slice(octets));
        }
        loop {
            match session.poll() {
                Step::Write(_) => {}
                Step::Ask(_) => session.handle_answer(Answer::Accept),
                Step::Read { phase, within } => return (phase, within.as_secs()),
                other => panic!("{other:?}"),
            }
        }
    };
    let (start, within) = say(b"");
    assert_eq!(within, 300);
    for octet in b"EHLO c.example\r" {
        assert_eq!(say(&[*octet]).0, start);
    }
    let ehlo = say(b"\n").0;
    assert_ne!(ehlo, start);
    let (data, within) = say(b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n");
    assert_eq!(within, 10);
    for _ in 0..99 {
        assert_eq!(say(b"12345678\r\n"), (data, 10), "a thousand octets are due in this phase");
    }
    let (block, within) = say(b"12345678\r\n");
    assert_eq!((block != data, within), (true, 10));
    let (after, within) = say(b".\r\n");
    assert_eq!((after != block, within), (true, 300));
}

/// CVE-2023-51764 and its kin: ends of data that some server, somewhere, takes for one.
#[test]
fn nothing_is_smuggled_behind_a_false_end_of_data() {
    let ends = [
        "\n.\n",
        "\r\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\r",
        "\r.\r\n",
        "\n.\r",
        "\r.\n",
        "\n\n.\n\n",
        "\r\r\n.\r\n",
        "\r\r\n.\r\r\n",
        "\r\n.\r\r\n",
        "\r\n\n.\r\n",
        "\r\n\r.\r\n",
        "\r\n.\n\r\n",
        "\n\r\n.\r\n",
    ];
    let open = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n";
    // A dot between other octets than CR and LF ends nothing and is no fault.
    for (end, fault) in
        ends.map(|end| (end, true)).into_iter().chain([("\0.\0", false), ("\u{85}.\u{85}", false), ("\r\n.\0\r\n", false)])
    {
        let stream = format!("EHLO c.example\r\n{open}one{end}{open}two\r\n.\r\nNOOP\r\n");
        let mut server = Server::new(&Arc::new(Settings::new("mx.example")));
        server.handle(&Event::Octets(stream.into_bytes()), &mut |octets| vec![octets.to_vec()]);
        let count = |what: &str| server.seen.iter().filter(|line| line.starts_with(what)).count();
        assert_eq!((count("M:"), count("S: 550 5.6.0"), server.closed), (!fault as usize, fault as usize, fault), "{end:?}");
    }
}

#[test]
fn a_refused_session_says_why_and_closes() {
    let reply = Reply::new(421, (4, 7, 0), "busy");
    let mut session = Session::refused(Arc::new(Settings::new("mx.example")), reply);
    assert!(matches!(session.poll(), Step::Write(octets) if octets == "421 4.7.0 busy\r\n"));
    assert!(matches!(session.poll(), Step::Close));
}
