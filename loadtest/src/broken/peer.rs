//! One connection of a host that goes wrong where its seed says so.
//!
//! It reads commands as they come and answers each in its place. Every answer is a choice: the code that is right, a refusal,
//! or a code that has no business there; said plainly, or in one of the ways in which hosts break (`Manner`). Everything is
//! written down in a [`Segment`], and so is up to where nothing was wrong.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use host::{Connection, Stream as _, deadline_in, tls};

use super::Log;
use super::dice::Dice;
use super::transcript::Segment;

/// The least SIZE that is announced.
pub(super) const SMALL: usize = 2_000;
/// Longer than any deadline of the client's.
const FOREVER: Duration = Duration::from_secs(6 * 3600);

/// What is answered.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    End,
    Rset,
    Quit,
    Other,
}

/// How an answer is given.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    // As the standard has it.
    Plain,
    Lines,
    NoText,
    InPieces,
    Late,
    Utf8,
    // Not so.
    Never,
    TooLate,
    Close,
    Reset,
    BareLf,
    Nul,
    BareCr,
    Garbage,
    EndlessLine,
    EndlessReply,
    ChangesCode,
    Twice,
    ThenGoodbye,
    HalfThenClose,
    NoCode,
    WrongCode,
    ThenClose,
    ThenReset,
}

const GOOD: [Manner; 6] = [Manner::Plain, Manner::Lines, Manner::NoText, Manner::InPieces, Manner::Late, Manner::Utf8];
const BAD: [Manner; 18] = [
    Manner::Never,
    Manner::TooLate,
    Manner::Close,
    Manner::Reset,
    Manner::BareLf,
    Manner::Nul,
    Manner::BareCr,
    Manner::Garbage,
    Manner::EndlessLine,
    Manner::EndlessReply,
    Manner::ChangesCode,
    Manner::Twice,
    Manner::ThenGoodbye,
    Manner::HalfThenClose,
    Manner::NoCode,
    Manner::WrongCode,
    Manner::ThenClose,
    Manner::ThenReset,
];

pub(super) struct Peer {
    /// None once it is closed.
    connection: Option<Connection>,
    inbox: Vec<u8>,
    dice: Dice,
    /// Chance in a hundred that something goes wrong at a place.
    temper: u64,
    /// Chance in a hundred of an honest refusal.
    severity: u64,
    server: tls::Server,
    log: Rc<RefCell<Log>>,
    segment: usize,
    clean: bool,
    tls: bool,
    offers: Vec<&'static str>,
}

impl Peer {
    pub(super) fn new(connection: Connection, mut dice: Dice, temper: u64, server: tls::Server, log: Rc<RefCell<Log>>) -> Self {
        let mut offers = Vec::new();
        for (chance, offer) in [
            (75, "PIPELINING"),
            (60, "8BITMIME"),
            (40, "SMTPUTF8"),
            (40, "CHUNKING"),
            (15, "STARTTLS"),
            (30, "SIZE 50000000"),
            (10, "SIZE 2000"),
            (20, "DSN"),
            (60, "ENHANCEDSTATUSCODES"),
            (10, "LIMITS RCPTMAX=2 MAILMAX=2"),
            (5, "LIMITS RCPTMAX=0 RCPTDOMAINMAX=x"),
            (5, "SIZE"),
            (5, "AUTH GSSAPI"),
        ] {
            offers.extend(dice.percent(chance).then_some(offer));
        }
        let severity = dice.pick(&[0, 5, 20]);
        let segment = begin_segment(&log, true);
        Self {
            connection: Some(connection),
            inbox: Vec::new(),
            dice,
            temper,
            severity,
            server,
            log,
            segment,
            clean: true,
            tls: false,
            offers,
        }
    }

    /// Until either has had enough.
    pub(super) async fn serve(mut self) {
        let _ = self.dialogue().await;
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    /// None: the connection is over.
    async fn dialogue(&mut self) -> Option<()> {
        self.answer(Place::Greeting).await?;
        loop {
            let line = self.line().await?;
            let line = String::from_utf8_lossy(&line).to_ascii_uppercase();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.as_slice() {
                ["EHLO", ..] => drop(self.answer(Place::Ehlo).await?),
                ["HELO", ..] => drop(self.answer(Place::Helo).await?),
                ["STARTTLS"] => self.start_tls().await?,
                ["MAIL", ..] => drop(self.answer(Place::Mail).await?),
                ["RCPT", ..] => drop(self.answer(Place::Rcpt).await?),
                ["DATA"] => {
                    if self.answer(Place::Data).await? == 354 {
                        self.message().await?;
                        self.answer(Place::End).await?;
                    }
                }
                ["BDAT", size, "LAST"] => {
                    let size = size.parse().ok()?;
                    while self.inbox.len() < size {
                        self.interrupt().await?;
                        self.read().await?;
                    }
                    self.inbox.drain(..size);
                    self.answer(Place::End).await?;
                }
                ["RSET"] => drop(self.answer(Place::Rset).await?),
                ["QUIT"] => {
                    self.answer(Place::Quit).await?;
                    return None;
                }
                _ => drop(self.answer(Place::Other).await?),
            }
        }
    }

    /// Reads a message behind 354 up to its end.
    async fn message(&mut self) -> Option<()> {
        let mut seen = 0;
        loop {
            let from = seen.max(2) - 2;
            if self.inbox.starts_with(b".\r\n") && seen == 0 {
                self.inbox.drain(..3);
                return Some(());
            }
            if let Some(at) = memchr::memmem::find(&self.inbox[from..], b"\r\n.\r\n") {
                self.inbox.drain(..from + at + 5);
                return Some(());
            }
            seen = self.inbox.len().saturating_sub(3);
            self.interrupt().await?;
            self.read().await?;
        }
    }

    /// In the middle of a message: nothing, mostly; or it stops, answers early, or hangs up.
    async fn interrupt(&mut self) -> Option<()> {
        if !self.dice.percent(self.temper / 4) {
            return Some(());
        }
        self.mischief();
        match self.dice.below(5) {
            0 => self.close().await,
            1 => self.reset(),
            2 => {
                let early = self.dice.pick(&[
                    "552 5.3.4 too big\r\n",
                    "421 4.3.2 going down\r\n",
                    "250 2.0.0 early\r\n",
                    "451 4.3.0 no\r\n",
                ]);
                self.log.borrow_mut().segments[self.segment].lied |= early.starts_with("250");
                self.write(early.as_bytes().to_vec()).await?;
                if self.dice.percent(60) { self.close().await } else { Some(()) }
            }
            3 => {
                // Reads nothing for a while, which may be longer than a write may take.
                tokio::time::sleep(Duration::from_secs(self.dice.below(400))).await;
                Some(())
            }
            _ => {
                tokio::time::sleep(FOREVER).await;
                None
            }
        }
    }

    async fn start_tls(&mut self) -> Option<()> {
        if self.answer(Place::StartTls).await? / 100 != 2 {
            return Some(());
        }
        if self.dice.percent(self.temper * 2) {
            self.mischief();
            match self.dice.below(4) {
                // Injected, to be read as if it had been said inside of TLS.
                0 => self.write(b"250-mx\r\n250 PIPELINING\r\n250 ok\r\n".to_vec()).await?,
                1 => self.write(vec![22, 3, 3, 0, 4, 99, 0, 0, 0]).await?,
                // A fatal alert: handshake_failure.
                2 => self.write(vec![21, 3, 3, 0, 2, 2, 40]).await?,
                _ => tokio::time::sleep(FOREVER).await,
            }
            return self.close().await;
        }
        let connection = self.connection.as_mut()?;
        connection.start_tls_server(&self.server, deadline_in(FOREVER)).await.ok()?;
        self.log.borrow_mut().tls += 1;
        self.tls = true;
        self.inbox.clear();
        self.offers.retain(|offer| *offer != "STARTTLS");
        self.segment = begin_segment(&self.log, false);
        Some(())
    }

    /// Says something at a place; tells the code that was meant. None: the connection is over.
    async fn answer(&mut self, place: Place) -> Option<u16> {
        let code = self.code(place);
        let bad = self.dice.percent(self.temper);
        let manner = if bad { self.dice.pick(&BAD) } else { self.dice.pick(&GOOD) };
        if bad {
            self.mischief();
        }
        let text = self.text(place, code);
        // Who uses enhanced codes uses them in every reply (RFC 2034 §4).
        let label = match text.split_once(' ') {
            Some((label, _)) if code / 100 == 2 && self.offers.contains(&"ENHANCEDSTATUSCODES") => format!(" {label}"),
            _ => String::new(),
        };
        let plain = format!("{code} {text}\r\n").into_bytes();
        let lines = |count: usize, last: u16| {
            let mut out = format!("{code}-{text} and more\r\n").repeat(count).into_bytes();
            out.extend_from_slice(format!("{last} {text}\r\n").as_bytes());
            out
        };
        if place == Place::Ehlo && code == 250 && matches!(manner, Manner::Plain | Manner::NoText | Manner::Utf8 | Manner::Late) {
            let mut out = String::from("250-mx.broken.example\r\n");
            self.offers.iter().for_each(|offer| out.push_str(&format!("250-{offer}\r\n")));
            out.push_str("250 HELP\r\n");
            self.write(out.into_bytes()).await?;
            return Some(code);
        }
        match manner {
            Manner::Plain => self.write(plain).await?,
            Manner::Lines => self.write(lines(1 + self.dice.clone().below(5) as usize, code)).await?,
            Manner::NoText => self.write(format!("{code}{label}\r\n").into_bytes()).await?,
            Manner::Utf8 => self.write(format!("{code}{label} größer als nötig\r\n").into_bytes()).await?,
            Manner::InPieces => self.drip(plain, Duration::from_millis(700)).await?,
            Manner::Late => {
                tokio::time::sleep(Duration::from_secs(self.dice.below(90))).await;
                self.write(plain).await?;
            }
            Manner::Never => {
                tokio::time::sleep(FOREVER).await;
                return None;
            }
            Manner::TooLate => {
                tokio::time::sleep(Duration::from_secs(700)).await;
                self.write(plain).await?;
            }
            Manner::Close => return self.close().await.map(|()| code),
            Manner::Reset => return self.reset().map(|()| code),
            Manner::BareLf => self.write(format!("{code} {text}\n").into_bytes()).await?,
            Manner::Nul => self.write(format!("{code} te\0xt\r\n").into_bytes()).await?,
            Manner::BareCr => self.write(format!("{code} {text}\r250 x\r\n").into_bytes()).await?,
            Manner::Garbage => {
                let garbage = (0..1 + self.dice.below(200)).map(|_| self.dice.below(256) as u8).collect();
                self.write(garbage).await?;
            }
            Manner::EndlessLine => self.write([plain[..4].to_vec(), vec![b'x'; 20_000], b"\r\n".to_vec()].concat()).await?,
            Manner::EndlessReply => self.write(lines(3_000, code)).await?,
            Manner::ChangesCode => self.write(lines(1, code + 1)).await?,
            Manner::Twice => self.write([plain.clone(), plain].concat()).await?,
            Manner::ThenGoodbye => {
                self.write([plain, b"421 4.3.2 bye\r\n".to_vec()].concat()).await?;
                self.close().await?;
            }
            Manner::HalfThenClose => {
                let half = self.dice.below(plain.len() as u64 - 1) as usize;
                self.write(plain[..half].to_vec()).await?;
                self.close().await?;
            }
            Manner::NoCode => {
                self.write(self.dice.clone().pick(&["ok\r\n", "2\r\n", "25x ok\r\n", "999 ok\r\n", "2500 ok\r\n", "\r\n"]).into())
                    .await?
            }
            Manner::WrongCode => {
                let wrong = self.dice.pick(&[199, 220, 299, 334, 354, 600]);
                self.write(format!("{wrong} {text}\r\n").into_bytes()).await?;
                // 354 where the client waits for it is as good as any.
                return Some(if place == Place::Data && wrong / 100 == 3 { 354 } else { wrong });
            }
            Manner::ThenClose => {
                self.write(plain).await?;
                self.close().await?;
            }
            Manner::ThenReset => {
                self.write(plain).await?;
                self.reset()?;
            }
        }
        if code == 421 {
            // Who says so closes (RFC 5321 §3.8); some forget to.
            if self.dice.percent(70) {
                return self.close().await.map(|()| code);
            }
            self.mischief();
        }
        Some(code)
    }

    fn code(&mut self, place: Place) -> u16 {
        let refused = self.dice.percent(self.severity);
        match place {
            Place::Quit => 221,
            Place::Other => 500,
            Place::Greeting if refused && self.dice.percent(30) => self.dice.pick(&[421, 450, 550, 554]),
            Place::Greeting => 220,
            Place::Ehlo if refused => self.dice.pick(&[421, 450, 500, 502, 550]),
            Place::Helo | Place::Rset | Place::StartTls if refused && self.dice.percent(50) => {
                self.dice.pick(&[421, 454, 502, 550])
            }
            Place::StartTls => 220,
            Place::Ehlo | Place::Helo | Place::Rset => 250,
            _ if refused => self.dice.pick(&[421, 450, 451, 452, 452, 503, 550, 550, 552, 554]),
            Place::Data => 354,
            Place::Mail | Place::Rcpt | Place::End => self.dice.pick(&[250, 250, 250, 251]),
        }
    }

    fn text(&mut self, place: Place, code: u16) -> String {
        let class = code / 100;
        let coded = self.offers.contains(&"ENHANCEDSTATUSCODES");
        let text = match (class, place) {
            (2, Place::End) if coded => ["2.0.0 queued as 1234", "2.0.0 OK", "2.6.0 received"],
            (2, Place::Mail) if coded => ["2.1.0 ok", "2.1.0 fine", "2.1.0 good"],
            (2, Place::Rcpt) if coded => ["2.1.5 ok", "2.1.5 fine", "2.1.0 good"],
            (2, Place::End) => ["2.0.0 queued as 1234", "OK", "2.6.0 received"],
            (2, _) => ["2.1.0 ok", "fine", "2.0.0 good"],
            (4, _) => ["4.7.1 later", "4.2.2 full", "too busy"],
            (5, _) => ["5.7.1 policy", "5.1.1 unknown", "no"],
            _ => ["go on", "send it", "yes"],
        };
        self.dice.pick(&text).to_owned()
    }

    /// A line without its end.
    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.inbox) {
                let line = self.inbox.drain(..=end).collect();
                return Some(line);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Option<()> {
        let connection = self.connection.as_mut()?;
        let octets = connection.read(deadline_in(FOREVER)).await.ok().filter(|octets| !octets.is_empty())?;
        self.inbox.extend_from_slice(&octets);
        self.log.borrow_mut().segments[self.segment].heard.extend_from_slice(&octets);
        Some(())
    }

    async fn write(&mut self, octets: Vec<u8>) -> Option<()> {
        let connection = self.connection.as_mut()?;
        {
            let mut log = self.log.borrow_mut();
            let segment = &mut log.segments[self.segment];
            segment.said.extend_from_slice(&octets);
            if self.clean {
                segment.clean = segment.said.len();
            }
        }
        connection.write(Bytes::from(octets), deadline_in(FOREVER)).await.ok()
    }

    async fn drip(&mut self, octets: Vec<u8>, pause: Duration) -> Option<()> {
        for octet in octets {
            self.write(vec![octet]).await?;
            tokio::time::sleep(pause).await;
        }
        Some(())
    }

    async fn close(&mut self) -> Option<()> {
        self.connection.take()?.close().await;
        None
    }

    fn reset(&mut self) -> Option<()> {
        self.connection.take()?.abort();
        None
    }

    fn mischief(&mut self) {
        self.clean = false;
        self.log.borrow_mut().mischief += 1;
    }
}

fn begin_segment(log: &Rc<RefCell<Log>>, greeted: bool) -> usize {
    let mut log = log.borrow_mut();
    log.segments.push(Segment { greeted, ..Segment::default() });
    log.segments.len() - 1
}
