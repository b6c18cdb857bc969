//! Which back end to use, the runtimes, and the threads that they run on.

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::mpsc;

use tokio::task::{JoinHandle, LocalSet};

use crate::{sim, uring};

/// What the operator asked for: `io = "auto"` and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where the kernel grants it, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl FromStr for IoChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            other => Err(format!("{other:?} is not a kind of io; one of \"auto\", \"uring\", \"epoll\"")),
        }
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// The back end of sockets.
#[derive(Clone, Debug)]
pub enum Io {
    /// tokio-uring.
    Uring,
    /// tokio.
    Epoll,
    /// The network in memory.
    Sim(sim::Net),
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
            Self::Sim(_) => "sim",
        })
    }
}

/// Settles on a back end. The text, when there is one, says why `auto` fell back to epoll; the caller logs it.
pub fn choose_io(choice: IoChoice) -> io::Result<(Io, Option<String>)> {
    match choice {
        IoChoice::Epoll => Ok((Io::Epoll, None)),
        IoChoice::Uring => uring::probe().map(|()| (Io::Uring, None)).map_err(|error| {
            io::Error::new(error.kind(), format!("io_uring is refused here: {error}; allow it, or set io = \"epoll\""))
        }),
        IoChoice::Auto => Ok(match uring::probe() {
            Ok(()) => (Io::Uring, None),
            Err(error) => (Io::Epoll, Some(format!("io_uring is refused here: {error}; using epoll"))),
        }),
    }
}

/// Runs `main` on this thread to its end. Inside, [`spawn_local`], tokio's timers and its channels work on every back end.
/// What is still spawned when `main` ends is dropped.
pub fn run<F: Future>(io: &Io, main: F) -> io::Result<F::Output> {
    match io {
        Io::Uring => uring::run(main),
        Io::Epoll => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, main))
        }
        Io::Sim(_) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            Ok(LocalSet::new().block_on(&runtime, main))
        }
    }
}

/// Spawns a task on this thread, inside [`run`].
pub fn spawn_local<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(task)
}

/// A named thread with a tokio current_thread runtime: queue, scheduler, signers, control.
pub fn thread<M, F>(name: &str, main: M) -> io::Result<std::thread::JoinHandle<F::Output>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future,
    F::Output: Send + 'static,
{
    thread_on(&Io::Epoll, name, main)
}

/// A named thread with the runtime of `io`: the ring threads. Fails if that runtime cannot be made.
pub fn thread_on<M, F>(io: &Io, name: &str, main: M) -> io::Result<std::thread::JoinHandle<F::Output>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future,
    F::Output: Send + 'static,
{
    if matches!(io, Io::Sim(_)) {
        // A second thread would see another virtual time.
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the simulation has one thread; use spawn_local"));
    }
    let io = io.clone();
    let (started, has_started) = mpsc::sync_channel(1);
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let entered = started.clone();
        let result = run(&io, async move {
            let _ = entered.send(Ok(()));
            main().await
        });
        result.unwrap_or_else(|error| {
            let _ = started.send(Err(error));
            // Nobody gets a handle to this thread, so nobody sees this end; it is quiet, unlike a panic.
            std::panic::resume_unwind(Box::new("the runtime could not be made"))
        })
    })?;
    match has_started.recv() {
        Ok(Err(error)) => Err(error),
        // An end without a word is a panic, which `join` shows.
        Ok(Ok(())) | Err(_) => Ok(handle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_io_reads_as_it_is_written_and_says_what_would_be_right() {
        for choice in [IoChoice::Auto, IoChoice::Uring, IoChoice::Epoll] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("kqueue".parse::<IoChoice>().unwrap_err().contains("\"epoll\""));
    }

    #[test]
    fn auto_is_io_uring_or_says_why_not() {
        let (io, why_not) = choose_io(IoChoice::Auto).unwrap();
        assert_eq!(matches!(io, Io::Uring), why_not.is_none(), "{io} {why_not:?}");
        assert_eq!(matches!(io, Io::Uring), choose_io(IoChoice::Uring).is_ok());
    }

    #[test]
    fn a_thread_has_its_name_a_runtime_and_a_result() {
        let (io, _) = choose_io(IoChoice::Auto).unwrap();
        let named = || async {
            let task = spawn_local(async { std::thread::current().name().map(str::to_owned) });
            task.await.unwrap()
        };
        assert_eq!(thread("queue", named).unwrap().join().unwrap().as_deref(), Some("queue"));
        assert_eq!(thread_on(&io, "ring-0", named).unwrap().join().unwrap().as_deref(), Some("ring-0"));
        let simulated = thread_on(&Io::Sim(sim::Net::new(1)), "sim", named);
        assert_eq!(simulated.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
