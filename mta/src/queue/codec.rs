//! The queue's rows as octets: a short, length-prefixed encoding with a version in front.
//!
//! A row is written for each message and read for each attempt, so it is plain little-endian fields
//! without names. The first octet is the row's version: a newer daemon reads old rows by it and
//! refuses unknown ones. Keys are big-endian, because LMDB sorts them as octets.
//!
//! What is read may be damaged: every step is bounds-checked and answers [`Damaged`], and counts
//! are believed only as far as octets follow.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The row is not what was written: cut short, too long, or of a version that we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Builds one row.
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn new(version: u8) -> Self {
        let mut row = Vec::with_capacity(192);
        row.push(version);
        Self(row)
    }

    pub(crate) fn u8(&mut self, n: u8) -> &mut Self {
        self.0.push(n);
        self
    }

    pub(crate) fn u16(&mut self, n: u16) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(crate) fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(crate) fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(crate) fn time(&mut self, time: SystemTime) -> &mut Self {
        self.u64(millis(time))
    }

    /// Text up to 64 KiB; what is longer is cut at a character's border (callers bound their text
    /// long before).
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let text = cut(text, usize::from(u16::MAX));
        // `cut` keeps it within u16.
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    pub(crate) fn text_or_none(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.u8(1).text(text),
            None => self.u8(0),
        }
    }

    pub(crate) fn time_or_none(&mut self, time: Option<SystemTime>) -> &mut Self {
        match time {
            Some(time) => self.u8(1).time(time),
            None => self.u8(0),
        }
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes one row apart.
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Begins a row; its version must be `version`.
    pub(crate) fn new(row: &'a [u8], version: u8) -> Result<Self, Damaged> {
        match row.split_first() {
            Some((&found, rest)) if found == version => Ok(Self(rest)),
            _ => Err(Damaged),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }

    pub(crate) fn time(&mut self) -> Result<SystemTime, Damaged> {
        Ok(time(self.u64()?))
    }

    pub(crate) fn time_or_none(&mut self) -> Result<Option<SystemTime>, Damaged> {
        Ok(if self.flag()? { Some(self.time()?) } else { None })
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Damaged)
    }

    pub(crate) fn text_or_none(&mut self) -> Result<Option<&'a str>, Damaged> {
        Ok(if self.flag()? { Some(self.text()?) } else { None })
    }

    /// How many items follow, each of at least `least` octets: a damaged count cannot make us
    /// reserve more than the row could hold.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let count = self.u32()? as usize;
        if count > self.0.len() / least.max(1) { Err(Damaged) } else { Ok(count) }
    }

    /// Ends the row: nothing may follow.
    pub(crate) fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// At most `max` octets of `text`, not splitting a character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Milliseconds since 1970; times before it count as 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(MILLIS_MAX)
}

/// The time of `millis`, which may come from a damaged row.
pub(crate) fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(MILLIS_MAX))
}

/// The year 11000 or so: far enough, and no arithmetic on it overflows.
const MILLIS_MAX: u64 = 1 << 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<u8> {
        let mut row = Encoder::new(3);
        row.u8(1).u16(2).u32(3).u64(4).text("grüße").text_or_none(None).text_or_none(Some("x"));
        row.u32(2).u8(8).u8(9);
        row.done()
    }

    fn read(row: &[u8]) -> Result<(String, usize), Damaged> {
        let mut fields = Decoder::new(row, 3)?;
        assert_eq!((fields.u8()?, fields.u16()?, fields.u32()?, fields.u64()?), (1, 2, 3, 4));
        let text = fields.text()?.to_owned();
        fields.text_or_none()?;
        fields.text_or_none()?;
        let count = fields.count(1)?;
        for _ in 0..count {
            fields.u8()?;
        }
        fields.end()?;
        Ok((text, count))
    }

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        assert_eq!(read(&row()), Ok(("grüße".to_owned(), 2)));
    }

    #[test]
    fn a_row_cut_anywhere_or_with_more_behind_is_damaged() {
        let row = row();
        for length in 0..row.len() {
            assert_eq!(read(&row[..length]), Err(Damaged), "cut at {length}");
        }
        let mut longer = row.clone();
        longer.push(0);
        assert_eq!(read(&longer), Err(Damaged));
    }

    #[test]
    fn a_count_beyond_the_row_is_not_believed() {
        let mut row = Encoder::new(1);
        row.u32(u32::MAX).u8(0);
        let row = row.done();
        assert_eq!(Decoder::new(&row, 1).and_then(|mut fields| fields.count(1)), Err(Damaged));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
    }

    #[test]
    fn times_survive_in_milliseconds_and_never_overflow() {
        let now = UNIX_EPOCH + Duration::from_millis(1_790_000_000_123);
        assert_eq!(time(millis(now)), now);
        assert!(time(u64::MAX) + Duration::from_secs(1 << 32) > now);
        assert_eq!(millis(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
