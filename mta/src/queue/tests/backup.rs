//! Copies: what is in them, and what is not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_copy_has_what_lasts_and_no_mail_and_ids_go_on_rising() {
    let dir = TempDir::new().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    std::fs::create_dir_all(data.join("keys/member.example")).unwrap();
    std::fs::write(data.join("keys/member.example/a.pem"), "secret").unwrap();
    std::fs::create_dir(data.join("plans")).unwrap();
    std::fs::write(data.join("plans/gentle.toml"), "[[plan]]").unwrap();
    std::fs::write(data.join("shaping.toml"), "[[shape]]").unwrap();
    let bench = Bench::open_at(&data.join("queue"), options(), start());
    let put = |txn: &mut heed::RwTxn<'_>, tables: &Tables| Ok(tables.members.put(txn, b"one", b"member")?);
    bench.queue.transact(put).await.unwrap();
    let id = bench.queue.enqueue(message(&["a@one.example", "b@two.example"], &"x".repeat(9000))).await.unwrap();
    let events = bench.events().len();
    drop(bench.reader);
    drop(bench.queue);
    bench.writer.await.unwrap().unwrap();

    backup(&data, &copy).unwrap();
    assert!(matches!(backup(&data, &copy), Err(BackupError::Exists(_))));
    assert_eq!(std::fs::read(copy.join("keys/member.example/a.pem")).unwrap(), b"secret");
    assert_eq!(std::fs::read(copy.join("plans/gentle.toml")).unwrap(), b"[[plan]]");
    assert_eq!(std::fs::read(copy.join("shaping.toml")).unwrap(), b"[[shape]]");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["copy", "data"], "nothing is left behind");

    let bench = Bench::open_at(&copy.join("queue"), options(), start());
    assert!(bench.backlog.flows.is_empty() && bench.list(&Filter::default()).is_empty());
    let member = bench.reader.read(|txn, tables| Ok(tables.members.get(txn, b"one")?.map(<[u8]>::to_vec))).unwrap();
    assert_eq!(member.as_deref(), Some(&b"member"[..]));
    assert_eq!(bench.events().len(), events);
    let next = bench.queue.enqueue(message(&["a@one.example"], "y")).await.unwrap();
    assert!(next > id, "{next} after {id}");
    assert_eq!(octets_of(&bench.reader.fetch(next, "one.example").unwrap()), "y");
    bench.close().await;

    let nothing = dir.path().join("nothing");
    assert!(matches!(backup(&nothing, &dir.path().join("other")), Err(BackupError::NoQueue(_))));
}
