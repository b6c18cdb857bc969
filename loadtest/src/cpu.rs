//! CPU time of a process with all its descendants, as Linux accounts it.
//!
//! The sum over every live process of the tree of `utime + stime + cutime + cstime` (proc_pid_stat(5)): what a daemon's
//! children used is found either in themselves or, once they have ended and were waited for, in their parent's `cutime`.
//! Nothing is counted twice, and nothing is lost while every child is reaped inside the tree, as Postfix's master does.
//! The kernel counts in ticks (10 ms): measure over seconds, and after a warm-up that has started the processes.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// USER_HZ: 100 on every Linux that this runs on (it is part of the kernel's interface to programs).
const TICKS_PER_SECOND: f64 = 100.0;

/// One line of `/proc/PID/stat`, as far as it concerns us.
struct Stat {
    pid: u32,
    parent: u32,
    /// Its own, and with its ended children's.
    ticks_own: u64,
    ticks: u64,
}

/// CPU time that the tree below `root` has used so far, and how many processes it has now.
pub fn tree(root: u32) -> (Duration, usize) {
    let stats: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect();
    let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
    for stat in &stats {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut ticks = 0;
    let mut processes = 0;
    let mut open: Vec<&Stat> = stats.iter().filter(|stat| stat.pid == root).collect();
    while let Some(stat) = open.pop() {
        ticks += stat.ticks;
        processes += 1;
        open.extend(children.get(&stat.pid).into_iter().flatten());
    }
    (Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND), processes)
}

/// CPU time of one process alone, without its children.
pub fn process(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = parse(&stat).map_or(0, |stat| stat.ticks_own);
    Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND)
}

/// A field of `/proc/PID/status` in KiB, such as `VmRSS`; `None` when the process is gone.
pub fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name in parentheses may hold anything, so fields are counted from its end.
fn parse(stat: &str) -> Option<Stat> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks_own = number(11)? + number(12)?;
    Some(Stat { pid, parent: fields.get(1)?.parse().ok()?, ticks_own, ticks: ticks_own + number(13)? + number(14)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_read() {
        let line = "17 (a) b (c) S 4 17 17 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7";
        let stat = parse(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.ticks), (17, 4, 124));
    }

    #[test]
    fn a_childs_work_is_counted_while_it_lives_and_after() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sh -c 'i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done'; echo done; read x"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let (used, processes) = tree(child.id());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(used >= Duration::from_millis(20), "the ended grandchild counts: {used:?}");
        assert_eq!(processes, 1);
    }
}
