//! What `disk::trim_env` takes out of memory, seen by the kernel's own count. A test program of its own: nothing else maps
//! or reads files meanwhile.

#![allow(clippy::unwrap_used)]

use heed::CommitOrAbort;
use heed::types::Bytes;
use host::disk;

/// Mapped pages of files in this process, in KiB.
fn mapped() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn mapped_pages_leave_memory_and_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let env = disk::open_env(folder.path(), 1 << 30, 1).unwrap();
    let opened = env
        .create_databases_and_commit(env.write_txn().unwrap(), |opener, txn| -> heed::Result<_> {
            Ok(CommitOrAbort::<_, ()>::Commit(opener.create_database::<Bytes, Bytes>(txn, None)?))
        })
        .unwrap();
    let table = opened.commit().unwrap();
    let mut txn = env.write_txn().unwrap();
    let row = |number: u32| vec![number as u8; 3000];
    for number in 0..8000_u32 {
        table.put(&mut txn, &number.to_be_bytes(), &row(number)).unwrap();
    }
    txn.commit().unwrap();
    let whole = || {
        let txn = env.read_txn().unwrap();
        (0..8000_u32).all(|number| table.get(&txn, &number.to_be_bytes()).unwrap() == Some(&row(number)[..]))
    };
    assert!(whole());
    let before = mapped();
    assert!(before > 24 << 10, "{before} KiB");

    assert!(!disk::trim_env(folder.path(), usize::MAX).unwrap(), "nothing to do");
    assert!(mapped() + 1024 > before);
    // In the midst of a transaction that has looked at a page.
    let txn = env.read_txn().unwrap();
    let first = table.get(&txn, &0_u32.to_be_bytes()).unwrap().unwrap();
    assert!(disk::trim_env(folder.path(), 0).unwrap());
    assert!(mapped() + (16 << 10) < before, "{} of {before} KiB", mapped());
    assert_eq!(first, row(0));
    assert!(whole());
}
