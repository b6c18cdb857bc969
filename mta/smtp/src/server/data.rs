//! The octets of a message as they arrive: by DATA (dots unstuffed, ended by CRLF.CRLF and nothing else) or by
//! BDAT (counted), one copy into one buffer.
//!
//! SMTP smuggling (CVE-2023-51764 and its kin) lives on two servers that see different ends of one message.
//! So here a bare CR or LF is a fault wherever it stands; a faulty message is read to its true end, kept no
//! longer, and refused, and the session ends with it.

use bytes::Bytes;
use memchr::memchr2;

/// What is wrong with a message. Found while reading; told at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    BareCr,
    BareLf,
    TooBig,
    LineTooLong,
    /// Past the end of patience: the peer sends on and on. No true end is waited for.
    Endless,
}

impl Fault {
    /// Whether the session is to end with the refusal. After a bare CR or LF the two sides may not agree where
    /// the message ends, so what follows may be its forged second half: nothing of it is obeyed.
    pub(super) fn is_suspect(self) -> bool {
        matches!(self, Self::BareCr | Self::BareLf | Self::Endless)
    }
}

/// Where the last octet left us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    LineStart,
    Text,
    /// After a CR in a line: LF must follow.
    Cr,
    /// After a dot that began a line (not in the buffer).
    Dot,
    /// After CRLF.CR: LF ends the message.
    DotCr,
}

/// Collects one message.
#[derive(Debug)]
pub(super) struct Receiver {
    buffer: Vec<u8>,
    at: At,
    line_bytes: usize,
    /// Octets seen, kept or not.
    seen: usize,
    fault: Option<Fault>,
    bytes_max: usize,
    line_max: usize,
    /// DATA, not BDAT.
    dots: bool,
}

impl Receiver {
    pub(super) fn new(bytes_max: usize, line_max: usize, dots: bool) -> Self {
        Self { buffer: Vec::new(), at: At::LineStart, line_bytes: 0, seen: 0, fault: None, bytes_max, line_max, dots }
    }

    /// Octets in memory, for bounds and for display.
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Octets of the message so far.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// What is wrong so far.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Takes octets up to the end of DATA; gives how many it took and whether that was the end.
    pub(super) fn feed(&mut self, octets: &[u8]) -> (usize, bool) {
        // `keep..here` was looked at and is to be copied: in one piece, but for the dots.
        let mut here = 0;
        let mut keep = 0;
        while here < octets.len() {
            let octet = octets[here];
            match self.at {
                At::LineStart if self.dots && octet == b'.' => {
                    self.keep(&octets[keep..here]);
                    here += 1;
                    keep = here;
                    self.at = At::Dot;
                }
                At::DotCr if octet == b'\n' => return (here + 1, true),
                At::DotCr => {
                    // CRLF.CR and something else: a bare CR.
                    self.fail(Fault::BareCr);
                    self.at = if octet == b'\r' { At::Cr } else { At::Text };
                    here += usize::from(octet == b'\r');
                }
                At::Dot if octet == b'\r' => {
                    // If this is the end, the CR is none of the message; if not, the message is refused.
                    here += 1;
                    keep = here;
                    self.at = At::DotCr;
                }
                At::Cr if octet == b'\n' => {
                    here += 1;
                    self.at = At::LineStart;
                    self.line_bytes = 0;
                }
                At::Cr => {
                    self.fail(Fault::BareCr);
                    self.at = At::Text;
                }
                At::LineStart | At::Dot | At::Text => {
                    let rest = &octets[here..];
                    let length = memchr2(b'\r', b'\n', rest);
                    self.line_bytes += length.map_or(rest.len(), |length| length + 2);
                    if self.line_bytes > self.line_max {
                        self.fail(Fault::LineTooLong);
                    }
                    let Some(length) = length else {
                        self.at = At::Text;
                        break;
                    };
                    here += length + 1;
                    if rest[length] == b'\n' {
                        self.fail(Fault::BareLf);
                        self.at = At::Text;
                        self.line_bytes = 0;
                    } else if rest.get(length + 1) == Some(&b'\n') {
                        here += 1;
                        self.at = At::LineStart;
                        self.line_bytes = 0;
                    } else {
                        self.at = At::Cr;
                    }
                }
            }
        }
        self.keep(&octets[keep..]);
        self.seen = self.seen.saturating_add(octets.len());
        if self.seen > self.bytes_max.saturating_mul(2).saturating_add(1 << 16) {
            self.fail(Fault::Endless);
            return (octets.len(), true);
        }
        (octets.len(), false)
    }

    /// The message, or what was wrong with it.
    pub(super) fn finish(mut self) -> Result<Bytes, Fault> {
        if !self.dots {
            match self.at {
                At::Cr => self.fail(Fault::BareCr),
                // BDAT may leave the last line open; sent on by DATA it would be closed anyway (RFC 3030 §2).
                At::Text => self.keep(b"\r\n"),
                At::LineStart | At::Dot | At::DotCr => {}
            }
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Bytes::from(self.buffer)),
        }
    }

    fn keep(&mut self, octets: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        if self.buffer.len() + octets.len() > self.bytes_max {
            return self.fail(Fault::TooBig);
        }
        // By four and not by two, as a Vec would: of 64 KB half as much is copied again. What is not filled is not touched.
        if self.buffer.capacity() - self.buffer.len() < octets.len() {
            let room = self.buffer.capacity().saturating_mul(4).min(self.bytes_max).saturating_sub(self.buffer.len());
            self.buffer.reserve_exact(room.max(octets.len()));
        }
        self.buffer.extend_from_slice(octets);
    }

    /// The first fault is told, unless a later one is a reason to end the session. The message is not kept.
    fn fail(&mut self, fault: Fault) {
        if self.fault.is_none_or(|first| fault.is_suspect() && !first.is_suspect()) {
            self.fault = Some(fault);
        }
        self.buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same rules, as slow and plain as possible: cut at the first CRLF.CRLF, refuse bare CR and LF, unstuff.
    fn plainly(stream: &[u8]) -> Option<(usize, Option<Vec<u8>>)> {
        let framed = [b"\r\n", stream].concat();
        let end = framed.windows(5).position(|five| five == b"\r\n.\r\n")?;
        let text = &framed[..end + 2];
        let crlf = text.windows(2).filter(|two| two == b"\r\n").count();
        let count = |octet| text.iter().filter(|&&other| other == octet).count();
        if count(b'\r') != crlf || count(b'\n') != crlf {
            return Some((end + 3, None));
        }
        let text = String::from_utf8(text[2..].to_vec()).unwrap();
        let lines = text.split_inclusive("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line));
        Some((end + 3, Some(lines.collect::<String>().into_bytes())))
    }

    fn receive(pieces: &[&[u8]]) -> Option<(usize, Option<Vec<u8>>)> {
        let mut receiver = Receiver::new(1000, 1000, true);
        let mut taken = 0;
        for piece in pieces {
            let (octets, ended) = receiver.feed(piece);
            taken += octets;
            if ended {
                return Some((taken, receiver.finish().ok().map(Vec::from)));
            }
            assert_eq!(octets, piece.len());
        }
        None
    }

    /// Every stream of up to eight octets over the four that matter, whole, by octets, and cut once anywhere.
    #[test]
    fn every_short_stream_is_read_as_the_plain_rules_say() {
        let mut accepted = 0;
        for length in 0..=8_u32 {
            for number in 0..4_usize.pow(length) {
                let mut stream: Vec<u8> = (0..length).map(|place| b"\r\n.a"[number >> (2 * place) & 3]).collect();
                stream.extend_from_slice(if number % 2 == 0 { b"\r\n.\r\nx" } else { b"" });
                let expected = plainly(&stream);
                accepted += usize::from(matches!(expected, Some((_, Some(_)))));
                assert_eq!(receive(&[&stream]), expected, "{:?}", stream.escape_ascii().to_string());
                let octets: Vec<&[u8]> = stream.chunks(1).collect();
                assert_eq!(receive(&octets), expected, "{:?} by octets", stream.escape_ascii().to_string());
                if length <= 6 {
                    for cut in 0..stream.len() {
                        let (one, two) = stream.split_at(cut);
                        assert_eq!(receive(&[one, two]), expected, "{:?} cut at {cut}", stream.escape_ascii().to_string());
                    }
                }
            }
        }
        assert!(accepted > 1000);
    }

    #[test]
    fn limits_hold_and_memory_is_given_back() {
        let mut receiver = Receiver::new(10, 1000, true);
        assert_eq!(receiver.feed(b"0123456789abc\r\n"), (15, false));
        assert_eq!((receiver.held(), receiver.feed(b".\r\n")), (0, (3, true)));
        assert_eq!(receiver.finish(), Err(Fault::TooBig));

        let mut receiver = Receiver::new(100, 10, true);
        for piece in [&b"12345678\r\n"[..], b"1234", b"56789\r\n.\r\n"] {
            receiver.feed(piece);
        }
        assert_eq!(receiver.finish(), Err(Fault::LineTooLong));

        let mut receiver = Receiver::new(10, 1000, true);
        receiver.feed(b"0123456789abc\r\nbare\nend\r\n.\r\n");
        assert_eq!(receiver.finish(), Err(Fault::BareLf), "a fault hides one that ends the session");

        let mut receiver = Receiver::new(10, 1000, true);
        let ended = (0..200).any(|_| receiver.feed(&[b'x'; 1000]).1);
        assert!(ended && receiver.held() == 0);
        assert_eq!(receiver.finish(), Err(Fault::Endless));
    }

    #[test]
    fn counted_octets_keep_their_dots_and_get_a_last_crlf() {
        let finish = |pieces: &[&[u8]]| {
            let mut receiver = Receiver::new(1000, 1000, false);
            for piece in pieces {
                assert_eq!(receiver.feed(piece), (piece.len(), false));
            }
            receiver.finish().map(Vec::from)
        };
        assert_eq!(finish(&[b".\r", b"\n..a\r\n.\r\n", b"b"]), Ok(b".\r\n..a\r\n.\r\nb\r\n".to_vec()));
        assert_eq!(finish(&[]), Ok(vec![]));
        assert_eq!(finish(&[b"a\r"]), Err(Fault::BareCr));
        assert_eq!(finish(&[b"a\n"]), Err(Fault::BareLf));
        assert_eq!(finish(&[b"a\rb"]), Err(Fault::BareCr));
    }
}
