//! The log as a stream: frames from a number on, made once for everybody who wants them.
//!
//! There is no separate way for what is new and what is old: a reader asks for the frames after the last one that it has, and sleeps on
//! [`Store::news`] when there are none. Many readers are mostly at the same place (all live, or all catching up after the same outage), so
//! a few pages are held in memory, and each frame is there once however many send it. A read transaction lives for one page.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use atproto::stream::labels_frame;
use bytes::Bytes;
use tokio::sync::watch;

use super::{FLOOR, Store, StoreError, number};

/// Frames of a page. Pages begin at multiples of it, except for the first of a reader, so that readers share them.
const PAGE_FRAMES: u64 = 128;
/// Pages held in memory: some 2 MB of labels.
const PAGES_MAX: usize = 64;

/// Some frames of the log, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct LogPage {
    /// The frames, ready to be sent.
    pub frames: Vec<Bytes>,
    /// Where the next page begins.
    pub next: u64,
}

/// Pages that somebody has read lately.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<VecDeque<Kept>>);

#[derive(Debug)]
struct Kept {
    from: u64,
    /// The last number when it was read. A page at the end of the log serves only until there is more.
    last: u64,
    whole: bool,
    page: Arc<LogPage>,
}

impl Store {
    /// The frames from number `from` on, up to a page. None when there is nothing.
    pub fn frames(&self, from: u64) -> Result<Arc<LogPage>, StoreError> {
        let last = *self.news.borrow();
        let mut pages = self.pages.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &Kept| kept.from == from && (kept.whole || kept.last == last);
        if let Some(kept) = pages.iter().find(|kept| fits(kept)) {
            return Ok(kept.page.clone());
        }
        // Read under the lock: a thousand readers that want the same page wait for one of them.
        let (page, whole) = self.read_frames(from)?;
        let page = Arc::new(page);
        if !page.frames.is_empty() {
            pages.retain(|kept| kept.from != from);
            pages.push_back(Kept { from, last, whole, page: page.clone() });
            if pages.len() > PAGES_MAX {
                pages.pop_front();
            }
        }
        Ok(page)
    }

    fn read_frames(&self, from: u64) -> Result<(LogPage, bool), StoreError> {
        let txn = self.env.read_txn()?;
        let start = from.to_be_bytes();
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&start), Bound::Unbounded);
        let mut page = LogPage { frames: Vec::new(), next: from };
        let mut end = None;
        let mut octets = Vec::new();
        let mut ends = Vec::new();
        for entry in self.log.range(&txn, &range)? {
            let (seq, label) = entry?;
            let seq = number(seq)?;
            // Numbers may have gaps, so the page is that of the first one found.
            if seq >= *end.get_or_insert((seq / PAGE_FRAMES + 1) * PAGE_FRAMES) {
                break;
            }
            octets.extend_from_slice(&labels_frame(seq, label));
            ends.push(octets.len());
            page.next = seq + 1;
        }
        // One piece of memory for the page; the frames point into it.
        let octets = Bytes::from(octets);
        let mut begin = 0;
        for at in ends {
            page.frames.push(octets.slice(begin..at));
            begin = at;
        }
        let last = self.counter(&txn, super::SEQ)?;
        let whole = end.is_some_and(|end| end <= last + 1);
        if let (Some(end), true) = (end, whole) {
            page.next = end;
        }
        Ok((page, whole))
    }

    /// The highest number that was forgotten: who comes from before it has missed labels that newer ones superseded.
    pub fn floor(&self) -> Result<u64, StoreError> {
        let txn = self.env.read_txn()?;
        self.counter(&txn, FLOOR)
    }

    /// The last number, now and whenever there is a new one.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Tells who waits that something was committed.
    pub(super) fn tell(&self) {
        if let Ok(last) = self.last_seq() {
            self.news.send_if_modified(|known| std::mem::replace(known, last) != last);
        }
    }
}
