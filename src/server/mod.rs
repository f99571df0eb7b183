//! HTTP server: indexes and models behind one port, for clients that people have already.
//!
//! | file | contents |
//! | --- | --- |
//! | `listen` | connections over TCP or a Unix socket, with limits and graceful shutdown |
//! | `guard` | request log, access control (keys, origins, DNS rebinding), time limit |
//! | `dialects` | the routes: one file per family of clients, and warpseek's own |
//! | `body`, `error` | JSON bodies within limits; errors in each dialect's format |
//! | `own`, `mistakes` | unknown fields and values of a wrong type |
//! | `scheduled` | models and search steps by way of the scheduler |
//! | `scheduler` | batches across requests, ordered by virtual deadlines |
//! | `served`, `writer` | snapshots of an index; the one writer of each index |
//! | `open`, `settings` | what is served, to whom, within which limits |
//! | `state`, `keys`, `metrics` | what requests share |

mod body;
mod dialects;
mod error;
mod guard;
mod keys;
mod listen;
mod metrics;
mod mistakes;
mod open;
mod own;
mod reply_size;
mod scheduled;
mod scheduler;
mod served;
mod settings;
mod state;
mod writer;

pub use listen::{Address, Listener};
pub use open::ServedModels;
pub use served::Served;
pub use settings::{Access, Answers, Named, ServerLimits, Serving};

use crate::error::{Error, Result};
use state::AppState;
use std::sync::Arc;
use std::time::Duration;

/// Serves until `stop` is finished, then completes the requests in progress.
///
/// # Errors
///
/// [`Error::Usage`] for settings that contradict each other, [`Error::Io`] if threads or sockets
/// are refused.
pub fn serve(
    serving: Serving,
    listener: Listener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let drain = serving.limits.drain_s;
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let is_unix = matches!(listener.address(), Address::Unix(_));
        let state = AppState::new(serving, is_unix)?;
        let router = dialects::router(&state)?;
        let watch = tokio::spawn(state::follow_changes(Arc::clone(&state)));
        let outcome = listener.run(router, Arc::clone(&state), stop).await;
        watch.abort();
        outcome
    });
    // Work that is still in progress has no client any more.
    runtime.shutdown_timeout(Duration::from_secs_f64(drain.min(1.0)));
    outcome
}

/// Serves one agent over stdin and stdout, by the Model Context Protocol, until it closes them or
/// `stop` is finished. Nothing but the protocol is written to stdout.
///
/// # Errors
///
/// As [`serve`]; [`Error::Remote`] if the client does not keep to the protocol.
pub fn serve_stdio(
    serving: Serving,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        // Like a Unix socket: no host name leads to this server.
        let state = AppState::new(serving, true)?;
        let watch = tokio::spawn(state::follow_changes(Arc::clone(&state)));
        let outcome = dialects::serve_stdio(&state, stop).await;
        watch.abort();
        outcome
    });
    // A thread that reads stdin cannot be ended: it is left behind.
    runtime.shutdown_background();
    outcome
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .build()
        .map_err(Error::io("start", "the server's threads"))
}

/// A server on a thread of its own, which ends with this value.
#[derive(Debug)]
pub struct BackgroundServer {
    address: Address,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl BackgroundServer {
    /// Starts to serve.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses a thread.
    pub fn start(serving: Serving, listener: Listener) -> Result<Self> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let address = listener.address().clone();
        // A server whose owner is gone stops too.
        let stopped = async { stopped.await.unwrap_or_default() };
        let thread = std::thread::Builder::new()
            .name("warpseek-server".to_owned())
            .spawn(|| serve(serving, listener, stopped))
            .map_err(Error::io("start", "the server's thread"))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// The address of the socket.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// True until the server has ended.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops the server and waits for the requests in progress.
    ///
    /// # Errors
    ///
    /// As [`serve`].
    pub fn stop(&mut self) -> Result<()> {
        // It fails if the server has ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| {
            let reason = "it panicked: internal error, please report it".to_owned();
            Err(Error::Compute { what: "serving", reason })
        })
    }
}

impl Drop for BackgroundServer {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            tracing::warn!("{e}");
        }
    }
}
