//! What the daemon needs from the machine: clock, dice, sockets, TLS, disk, DNS, threads.
//!
//! `host` knows no mail. It is the one crate that reads the clock, throws dice or says `unsafe`; all others take
//! time as an argument and bytes as they come, so that the whole daemon also runs on [`sim`], in virtual time.
//!
//! Sockets have three back ends behind one contract ([`Stream`], [`Connection`], [`Listener`]):
//! `uring` (tokio-uring), `epoll` (tokio) and [`sim`]. [`choose_io`] picks, [`run`] enters; `tests/contract.rs` runs the same
//! cases on all three.
//!
//! The rule that shapes all of it: dropping a future does not stop the kernel. An operation is never raced and
//! dropped; on its deadline the socket is shut down and the operation awaited ([`operations_in_flight`] tells).

pub mod disk;
pub mod dns;
pub mod handover;
pub mod memory;
pub mod sim;
pub mod tls;

mod clock;
mod dice;
mod epoll;
mod inflight;
mod listener;
mod net;
mod runtime;
mod socket;
mod uring;
mod wire;

pub use clock::{Clock, deadline_in};
pub use dice::Dice;
pub use inflight::operations_in_flight;
pub use listener::{Bound, Listener, Stopper};
pub use net::{Connection, Net, Stream};
pub use runtime::{Io, IoChoice, choose_io, run, spawn_local, thread, thread_on};
pub use tokio::time::Instant;
pub use wire::Interrupter;
