//! A thread with a small runtime of its own: scripted servers keep answering whatever their caller's runtime does,
//! and their CPU time never mixes with a session that waits.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

/// A named thread that runs one future on a tokio runtime until it ends or this is dropped.
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the thread. An error of the future is logged: the caller sees it as a peer that went away.
    pub(crate) fn start<F, Fut>(name: &'static str, main: F) -> io::Result<Self>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = io::Result<()>> + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async move {
                tokio::select! {
                    ended = main() => if let Err(error) = ended { tracing::error!(%error, "{name} ended") },
                    _ = stopped => {}
                }
            });
            // Sessions that still wait for a peer end with the runtime.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
