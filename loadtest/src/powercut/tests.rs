//! The library and the undoing, tried on a small program whose every call is known.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// Calls that change or sync something, counted: 1 create a, 2 write, 3 fsync a, 4 fsync the folder, 5 pwrite to a (not
/// synced), 6 write of the first sector through O_DSYNC, 7 create b, 8 rename b over c (made before), 9 unlink d, 10 fsync e.
const VICTIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static char octets[4096];
int main(void) {
    int folder = open(".", O_RDONLY | O_DIRECTORY);
    int a = open("a", O_RDWR | O_CREAT | O_EXCL, 0600);
    memset(octets, 'o', 2000);
    write(a, octets, 2000);
    fsync(a);
    fsync(folder);
    memset(octets, 'n', 4096);
    pwrite(a, octets, 2048, 512);
    int meta = open("a", O_WRONLY | O_DSYNC);
    memset(octets, 'm', 512);
    pwrite(meta, octets, 100, 0);
    int b = open("b", O_RDWR | O_CREAT, 0600);
    rename("b", "c");
    unlink("d");
    int e = open("e", O_RDWR);
    int synced = fsync(e);
    printf("%d\n", synced);
    return 0;
}
"#;

struct Lab {
    folder: TempDir,
    victim: PathBuf,
    shim: Shim,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let data = root.join("data");
        fs::create_dir(&data).unwrap();
        for name in ["c", "d", "e"] {
            fs::write(data.join(name), name).unwrap();
        }
        let (source, victim) = (root.join("victim.c"), root.join("victim"));
        fs::write(&source, VICTIM).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler).arg("-w").arg("-o").arg(&victim).arg(&source).status().unwrap();
        assert!(built.success());
        let shim = Shim::build(&root).unwrap();
        Self { folder, victim, shim }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("data")
    }

    /// Runs the victim with this order; then the power is gone.
    fn cut(&mut self, order: Order, lying: bool, kept: u64) -> Loss {
        self.shim.order(order).unwrap();
        let data = self.data();
        let mut victim = Command::new(&self.victim);
        victim.current_dir(&data).envs(self.shim.environment(&data, lying));
        assert!(victim.output().unwrap().status.code().is_none() || order.cut_after == 0, "it was to be cut off");
        undo::after_power_cut(self.shim.log(), &Dice::seeded(7), Kindness { kept, of: 10 }).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// One letter a sector of `a`: what all its octets are; `?` when they differ.
    fn sectors(&self) -> String {
        let octets = fs::read(self.data().join("a")).unwrap();
        let letter = |sector: &[u8]| if sector.iter().all(|octet| *octet == sector[0]) { char::from(sector[0]) } else { '?' };
        octets.chunks(512).map(letter).collect()
    }
}

fn before(call: u64) -> Order {
    Order { cut_after: call, fail_after: 0, phase: 0 }
}

#[test]
fn an_unkind_disk_shows_what_was_synced_and_nothing_else() {
    let mut lab = Lab::new();
    let loss = lab.cut(before(10), false, 0);
    assert_eq!(loss.cut.as_deref(), Some("before fsync of e"));
    let data = lab.data();
    // The first sector was written through O_DSYNC: 100 octets of it are new.
    assert_eq!(lab.sectors(), "?ooo");
    assert_eq!(fs::read(data.join("a")).unwrap(), [&[b'm'; 100][..], &[b'o'; 1900]].concat());
    assert_eq!(lab.names(), ["a", "c", "d", "e"]);
    assert_eq!(fs::read(data.join("c")).unwrap(), b"c", "the rename over it is lost");
    assert_eq!((loss.names_lost, loss.names_kept, loss.sectors.kept), (3, 0, 0));
    assert!(loss.sectors.lost >= 4);
    assert!(!lab.shim.log().exists());
}

#[test]
fn a_kind_disk_shows_everything() {
    let mut lab = Lab::new();
    let loss = lab.cut(before(10), false, 10);
    assert_eq!(lab.sectors(), "?nnnn");
    assert_eq!(lab.names(), ["a", "c", "e"]);
    assert_eq!(fs::read(lab.data().join("c")).unwrap(), b"");
    assert_eq!((loss.sectors.lost, loss.sectors.torn, loss.names_lost), (0, 0, 0));
}

#[test]
fn a_write_is_kept_sector_by_sector_and_torn_in_one_at_most() {
    let mut seen = std::collections::BTreeSet::new();
    let mut lab = Lab::new();
    for seed in 0..12 {
        let data = lab.data();
        let _ = fs::remove_file(data.join("a"));
        lab.shim.order(Order { cut_after: 5, fail_after: 0, phase: 1 }).unwrap();
        let environment = lab.shim.environment(&data, false);
        Command::new(&lab.victim).current_dir(&data).envs(environment).output().unwrap();
        undo::after_power_cut(lab.shim.log(), &Dice::seeded(seed), Kindness { kept: 5, of: 10 }).unwrap();
        let sectors = lab.sectors();
        let torn = sectors.chars().filter(|letter| *letter == '?').count();
        // The last sector was 464 octets long before: lost, it is as it was or longer with zeros behind.
        assert!(sectors.starts_with('o') && torn <= 2, "{sectors}");
        seen.insert(sectors);
    }
    assert!(seen.len() > 4, "{seen:?}");
}

#[test]
fn in_the_middle_of_a_sync_nothing_is_promised_and_after_it_all_is() {
    let mut lab = Lab::new();
    lab.cut(Order { cut_after: 3, fail_after: 0, phase: 1 }, false, 0);
    assert_eq!(lab.names(), ["c", "d", "e"], "the folder was not synced");
    lab.cut(Order { cut_after: 3, fail_after: 0, phase: 2 }, false, 0);
    assert_eq!(lab.names(), ["c", "d", "e"], "a file's sync does not make its name durable");
    lab.cut(Order { cut_after: 4, fail_after: 0, phase: 2 }, false, 0);
    assert_eq!((lab.names(), lab.sectors()), (["a", "c", "d", "e"].map(str::to_owned).to_vec(), "oooo".to_owned()));
}

#[test]
fn a_lying_disk_keeps_nothing_that_it_does_not_like_to() {
    let mut lab = Lab::new();
    lab.cut(before(10), true, 0);
    assert_eq!(lab.names(), ["c", "d", "e"]);
}

#[test]
fn a_failed_sync_makes_nothing_durable_and_a_later_one_does_not_mend_it() {
    let mut lab = Lab::new();
    // The first sync fails; the one of the folder succeeds.
    let loss = lab.cut(Order { cut_after: 5, fail_after: 1, phase: 0 }, false, 0);
    assert_eq!(loss.syncs_failed, 1);
    assert_eq!((lab.names()[0].as_str(), lab.sectors().as_str()), ("a", ""), "its name is durable, its octets are not");
}
