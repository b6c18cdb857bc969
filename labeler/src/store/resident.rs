//! How much of the store lies in this process's memory.
//!
//! LMDB reads through a map of the file, and every page that was looked at counts as ours from then on, although it is the
//! kernel's page cache: after a round over a hundred thousand members that is the whole store, and whoever bounds our
//! memory sees hundreds of megabytes. Letting go of the map's pages takes nothing away: they stay in the page cache while
//! there is room for them, and the next look at one maps it again.

use std::fs;
use std::ops::Range;

use super::{ISSUER, Store, StoreError, env};

impl Store {
    /// Lets go of the pages of the map when files have more than so many octets of this process's memory. Answers whether it did.
    pub fn let_go(&self, above_bytes: u64) -> Result<bool, StoreError> {
        let status = fs::read_to_string("/proc/self/status").map_err(heed::Error::Io)?;
        if of_files(&status).is_none_or(|bytes| bytes <= above_bytes) {
            return Ok(false);
        }
        let maps = fs::read_to_string("/proc/self/maps").map_err(heed::Error::Io)?;
        let txn = self.env.read_txn()?;
        // Where any value lies is in the map.
        let Some(value) = self.meta.get(&txn, ISSUER)? else { return Ok(false) };
        let Some(map) = map_around(&maps, value.as_ptr().addr()) else { return Ok(false) };
        env::let_go(map).map_err(heed::Error::Io)?;
        Ok(true)
    }
}

/// proc_pid_status(5), `RssFile`.
fn of_files(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The addresses of the shared map of the store's file that `address` is in (proc_pid_maps(5)).
fn map_around(maps: &str, address: usize) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
        let shared = fields.next()?.ends_with('s');
        (range.contains(&address) && shared && line.ends_with(&format!("/{}", env::DATA))).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use atproto::key::SigningKey;

    use super::super::{Lane, Terms, Touch};
    use super::*;

    #[test]
    fn only_the_shared_map_of_the_store_is_found() {
        let maps = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0\n\
                    7f0000001000-7f0000002000 r--p 00000000 08:01 7  /x/data.mdb\n\
                    7f0000002000-7f0000004000 r--s 00000000 08:01 7  /x/data.mdb\n\
                    7f0000004000-7f0000005000 rw-s 00000000 08:01 8  /x/lock.mdb\n";
        assert_eq!(map_around(maps, 0x7f00_0000_2abc), Some(0x7f00_0000_2000..0x7f00_0000_4000));
        for address in [0x7f00_0000_0abc, 0x7f00_0000_1abc, 0x7f00_0000_4000, 0x7f00_0000_5000, 0] {
            assert_eq!(map_around(maps, address), None, "{address:x}");
        }
        assert_eq!(of_files("VmRSS:\t 9 kB\nRssFile:\t      12 kB\n"), Some(12 << 10));
    }

    #[test]
    fn what_was_let_go_of_is_read_as_before_and_counts_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_octets(&[0x11; 32]).unwrap();
        let now = SystemTime::UNIX_EPOCH;
        let store = Store::open(folder.path(), &"did:web:x".parse().unwrap(), &key, Terms::default(), now).unwrap();
        let touched: Vec<_> = (0..20_000)
            .map(|n| Touch::Record(format!("did:plc:m{n}").parse().unwrap(), format!("{n}.{}.example", "long".repeat(50))))
            .collect();
        store.touch(&touched, None, now).unwrap();
        let all = || store.due(Lane::Fresh, now, &Default::default(), 20_000, false).unwrap();
        let mapped = || {
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            let map = smaps.split_once(folder.path().to_str().unwrap()).unwrap().1;
            let rss = map.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = all();
        assert_eq!(before.len(), touched.len());
        assert!(mapped() > 4000, "{} KiB", mapped());
        assert!(!store.let_go(u64::MAX).unwrap());
        assert!(store.let_go(0).unwrap());
        assert!(mapped() < 1000, "{} KiB", mapped());
        assert_eq!(all(), before);
    }
}
