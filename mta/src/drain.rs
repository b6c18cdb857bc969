//! How the daemon stops, and how far it is with it.
//!
//! Told to stop, it accepts no more connections, but for those that waited already. Sessions that idle hear
//! `421 4.3.2` at once (RFC 5321 §3.8); one that has just come may still bring the message that it came for,
//! within [`GRACE`]; transactions are finished. No new delivery is begun, those that have not begun their
//! transaction are left in the queue as if they had not been tried, and the others are finished. Idle
//! connections to receiving hosts get QUIT. All that within `drain_secs`; what is left then is broken off:
//! sessions hear a 421, and unfinished deliveries are tried again by whoever opens the queue next.
//!
//! Nothing that got 250 depends on any of it: a kill at any point loses nothing.

use std::time::Duration;

use tokio::sync::watch;

/// How long a session that was there before the stop may take to begin its first transaction. Programs that make a
/// connection for each message, as a PDS does, take 421 for a failure and do not come again; a TLS handshake,
/// AUTH and MAIL over a long line are a second and a half.
pub const GRACE: Duration = Duration::from_secs(2);

/// How far the stop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Nobody has told us to stop.
    #[default]
    No,
    /// What has been begun is finished.
    Finish,
    /// Everything is finished, or its time is over: the threads end.
    Over,
}

/// Waits until the stop is as far as `stage`. A daemon that was dropped is as far as one can be.
pub async fn reached(draining: &mut watch::Receiver<Drain>, stage: Drain) {
    let _ = draining.wait_for(|drain| *drain >= stage).await;
}
