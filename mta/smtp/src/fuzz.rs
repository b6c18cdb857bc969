//! Entry points for a fuzzer (feature `fuzz`) and for the seeded mutations below: whatever octets come, the
//! promises of the crate hold. A broken promise is a panic.
//!
//! The first octet chooses the settings and how the rest is cut; the checks count for themselves.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::address::{Mailbox, ReversePath};
use crate::envelope::{self, DeliverBy, Notify, Ret};
use crate::reply::Reply;
use crate::{Secret, client, instant, server};

/// Octets of the peer that any session may hold while its message limit is `MESSAGE_BYTES_MAX`.
const HELD_MAX: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 2000;

/// A client says `data` to a server.
pub fn fuzz_server(data: &[u8]) {
    let Some((&choice, octets)) = data.split_first() else { return };
    let mut settings = server::Settings::new("mx.example");
    settings.starttls = choice & 1 != 0;
    settings.implicit_tls = choice & 2 != 0;
    settings.auth = if choice & 4 != 0 { server::Auth::Required } else { server::Auth::Never };
    settings.limits.message_bytes_max = MESSAGE_BYTES_MAX;
    settings.limits.recipients_max = 5;
    settings.dsn = choice & 64 == 0;
    settings.deliver_by = Some(10);
    settings.mt_priority = true;
    settings.require_tls = true;
    settings.hold_max = Duration::from_secs(1000);
    let mut session = server::Session::new(Arc::new(settings));
    session.handle_time(UNIX_EPOCH + Duration::from_secs(1_795_619_619));
    let mut written = Vec::new();
    let mut said = Vec::new();
    for piece in cut(choice, octets).map(Some).chain([None]) {
        loop {
            match session.poll() {
                server::Step::Read { .. } => break,
                server::Step::Write(octets) => {
                    assert!(!octets.is_empty());
                    written.extend_from_slice(&octets);
                }
                server::Step::StartTls => session.handle_tls(),
                server::Step::Close => return check_replies(&written),
                server::Step::Ask(server::Ask::Message { octets, envelope }) => {
                    assert!(octets.len() <= MESSAGE_BYTES_MAX + 2 && !envelope.recipients.is_empty());
                    assert!(!has_bare(&octets) && (octets.is_empty() || octets.ends_with(b"\r\n")));
                    // BDAT counts octets, so those that it swallowed may be anything.
                    let counted = said.windows(4).any(|four: &[u8]| four.eq_ignore_ascii_case(b"BDAT"));
                    assert!(counted || piece_len(choice) > 1 || !has_bare(&said), "a message was taken after a bare CR or LF");
                    session.handle_answer(server::Answer::Accept);
                }
                server::Step::Ask(server::Ask::Recipient { path, .. }) if path.local().starts_with("refuse") => {
                    session.handle_answer(server::Answer::Refuse(Reply::new(550, (5, 1, 1), "no such mailbox")));
                }
                server::Step::Ask(ask) => {
                    check_parameters(&ask);
                    session.handle_answer(server::Answer::Accept);
                }
            }
        }
        assert!(session.buffered_bytes() < HELD_MAX);
        said.extend_from_slice(piece.unwrap_or_default());
        session.handle_octets(Bytes::copy_from_slice(piece.unwrap_or_default()));
    }
    assert!(matches!(session.poll(), server::Step::Close), "the end of the stream is the end of the session");
    check_replies(&written);
}

/// What MAIL and RCPT hand over can be written into a command again, and into a field of a notice.
fn check_parameters(ask: &server::Ask) {
    match ask {
        server::Ask::Mail { path, parameters } => {
            let returns = parameters.deliver_by.is_some_and(|by| by.mode == envelope::ByMode::Return);
            assert!(!returns || (*path != ReversePath::Null && parameters.deliver_by.is_some_and(|by| by.secs >= 10)));
            assert!(parameters.deliver_by.is_none_or(|by| DeliverBy::parse(&by.to_string()) == Some(by)));
            assert!(parameters.envid.as_ref().is_none_or(|envid| envelope::is_envid(envid)));
            assert!(parameters.priority.is_none_or(|priority| envelope::priority(&priority.to_string()) == Some(priority)));
        }
        server::Ask::Recipient { parameters, .. } => {
            assert!(parameters.notify.is_none_or(|notify| Notify::parse(&notify.to_string()) == Some(notify)));
            if let Some(orcpt) = &parameters.orcpt {
                assert!(orcpt.bytes().all(|octet| octet.is_ascii_graphic()) && envelope::orcpt(orcpt, false).is_some());
                let plain = envelope::original_recipient(orcpt);
                assert!(plain.is_some_and(|(_, address)| !address.chars().any(char::is_control)));
            }
        }
        server::Ask::Auth { .. } | server::Ask::Message { .. } => {}
    }
}

/// The values of parameters alone: whatever is taken is stable.
pub fn fuzz_parameters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for utf8 in [false, true] {
        if let Some(orcpt) = envelope::orcpt(text, utf8) {
            assert!(orcpt.is_ascii() && envelope::orcpt(&orcpt, false).as_deref() == Some(&orcpt));
            assert!(envelope::original_recipient(&orcpt) == envelope::original_recipient(text));
        }
    }
    assert!(envelope::decode_xtext(text).is_none_or(|plain| plain.bytes().all(|octet| (b' '..=b'~').contains(&octet))));
    if let Some(by) = DeliverBy::parse(text) {
        assert!(by.secs.abs() <= envelope::BY_SECS_MAX && DeliverBy::parse(&by.to_string()) == Some(by));
    }
    assert!(Notify::parse(text).is_none_or(|notify| Notify::parse(&notify.to_string()) == Some(notify)));
    assert!(instant::parse(text).is_none_or(|time| instant::parse(&instant::format(time)) == Some(time)));
}

/// A server says `data` to a client.
pub fn fuzz_client(data: &[u8]) {
    let Some((&choice, octets)) = data.split_first() else { return };
    let mut settings = client::Settings::new("c.example");
    settings.starttls = choice & 1 != 0;
    settings.implicit_tls = choice & 2 != 0;
    if choice & 4 != 0 {
        let password = Secret::new("secret");
        settings.credentials = Some(client::Credentials { username: "member".to_owned(), password });
    }
    let Ok(mailbox) = Mailbox::parse("a@x.example", false) else { return };
    let orcpt = Some("rfc822;a@x.example".to_owned());
    let recipient = client::Recipient { mailbox, notify: Some(Notify::NEVER), orcpt };
    let mut session = client::Session::new(settings);
    let mut written = Vec::new();
    let mut begun = 0;
    let mut done = 0;
    for piece in cut(choice, octets).map(Some).chain([None]) {
        loop {
            match session.poll() {
                client::Step::Read { .. } => break,
                client::Step::Write(octets) => {
                    assert!(!octets.is_empty());
                    written.extend_from_slice(&octets);
                }
                client::Step::StartTls => session.handle_tls(),
                client::Step::Ready if begun == 5 => session.quit(),
                client::Step::Ready => {
                    begun += 1;
                    session.begin(client::Transaction {
                        reverse_path: ReversePath::Null,
                        recipients: vec![recipient.clone(); begun],
                        octets: Bytes::from_static(b".\r\nhello\r\n"),
                        eight_bit: false,
                        smtputf8: false,
                        parameters: client::Parameters {
                            ret: Some(Ret::Headers),
                            envid: Some("x".to_owned()),
                            deliver_by: DeliverBy::parse("60;R"),
                            priority: Some(-1),
                            require_tls: choice & 8 != 0,
                        },
                    });
                }
                client::Step::Done(fates) => {
                    done += 1;
                    assert_eq!((fates.len(), done), (begun, begun), "a fate for each recipient, once");
                }
                client::Step::Close => {
                    assert_eq!(begun, done, "the session closed and owes fates");
                    assert!(begun > 0 || session.trouble().is_some());
                    return assert!(!has_bare(&written));
                }
            }
        }
        assert!(session.buffered_bytes() < HELD_MAX);
        session.handle_octets(Bytes::copy_from_slice(piece.unwrap_or_default()));
    }
    while let client::Step::Done(fates) = session.poll() {
        done += 1;
        assert_eq!(fates.len(), begun);
    }
    assert!(begun == done && matches!(session.poll(), client::Step::Close) && !has_bare(&written));
}

fn piece_len(choice: u8) -> usize {
    [1, 2, 7, 30, 100, 1000, 10_000, 1][usize::from(choice >> 3 & 7)]
}

fn cut(choice: u8, octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    octets.chunks(piece_len(choice))
}

fn has_bare(octets: &[u8]) -> bool {
    let crlf = octets.windows(2).filter(|two| two == b"\r\n").count();
    let count = |octet| octets.iter().filter(|&&other| other == octet).count();
    count(b'\n') != crlf || count(b'\r') - usize::from(octets.ends_with(b"\r")) != crlf
}

fn check_replies(written: &[u8]) {
    assert!(!has_bare(written) && written.ends_with(b"\r\n"));
    for line in written.split_inclusive(|&octet| octet == b'\n') {
        assert!(line.len() <= 512 && line[..3].iter().all(u8::is_ascii_digit) && matches!(line[3], b' ' | b'-'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: a seed reproduces any failure.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % n as u64) as usize
        }
    }

    /// What one side says in the transcripts.
    fn corpus(folder: &str, side: &str) -> Vec<Vec<u8>> {
        let folder = format!("{}/tests/transcripts/{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let octets = |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let said = text.lines().filter_map(|line| {
                let raw = line.strip_prefix("R: ").map(|raw| raw.replace("\\r", "\r").replace("\\n", "\n"));
                raw.or_else(|| Some(format!("{}\r\n", line.strip_prefix(side)?)))
            });
            said.collect::<String>().into_bytes()
        };
        paths.iter().map(octets).collect()
    }

    fn mutate(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
        const PIECES: [&[u8]; 14] = [
            b"\r",
            b"\n",
            b"\r\n",
            b".",
            b"\r\n.\r\n",
            b"\n.\n",
            b"\0",
            b"\xff",
            b"<",
            b">",
            b"-",
            b" ",
            b"BDAT 3 LAST\r\n",
            b"250 ",
        ];
        let mut octets = corpus[dice.below(corpus.len())].clone();
        for _ in 0..dice.below(6) {
            let at = dice.below(octets.len() + 1);
            let upto = (at + dice.below(40)).min(octets.len());
            match dice.below(6) {
                0 if at < octets.len() => octets[at] = dice.below(256) as u8,
                1 => drop(octets.drain(at..upto)),
                2 => drop(octets.splice(at..at, octets[at..upto].to_vec().repeat(dice.below(60)))),
                3 => octets.extend_from_slice(&corpus[dice.below(corpus.len())]),
                _ => drop(octets.splice(at..at, PIECES[dice.below(PIECES.len())].to_vec())),
            }
        }
        octets.insert(0, dice.below(256) as u8);
        octets
    }

    fn check(folder: &str, side: &str, target: fn(&[u8])) {
        let corpus = corpus(folder, side);
        let mut dice = Dice(0x5eed);
        for round in 0..10_000 {
            let octets = mutate(&mut dice, &corpus);
            if let Err(panic) = std::panic::catch_unwind(|| target(&octets)) {
                println!("round {round}: {}", octets.escape_ascii());
                std::panic::resume_unwind(panic);
            }
        }
    }

    #[test]
    fn mutated_clients_do_the_server_no_harm() {
        check("server", "C: ", fuzz_server);
    }

    #[test]
    fn mutated_values_of_parameters_are_refused_or_stable() {
        let values =
            ["rfc822;a+2Bb@x.example", "utf-8;a\\x{E9}é@x.example", "SUCCESS,DELAY", "-120;NT", "60;R", "2026-11-25T15:13:39Z"];
        let corpus: Vec<Vec<u8>> = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        let mut dice = Dice(0x5eed);
        for _ in 0..20_000 {
            fuzz_parameters(&mutate(&mut dice, &corpus)[1..]);
        }
    }

    #[test]
    fn mutated_servers_do_the_client_no_harm() {
        check("client", "S: ", fuzz_client);
    }
}
