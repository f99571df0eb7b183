//! The index and the models behind one port, in the words of clients that people have already.
//!
//! `listen` takes connections, `guard` looks at who asks and how, `api` holds the routes, one file a family of clients,
//! `pipeline` is a search, step by step, over `scheduler`, which forms batches across requests. `write` is the one writer
//! of each index; `state` what all of them share.

mod api;
mod body;
mod error;
mod guard;
mod listen;
mod metrics;
mod pipeline;
mod scheduler;
mod state;
mod write;

pub use listen::{Address, Listener};
pub use state::Served;

use crate::answer::Answerer;
use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::hub::http::Secret;
use crate::rerank::Reranker;
use serde::Serialize;
use state::State;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a server may spend on one request, and on all of them together.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Limits {
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Texts, documents, queries or passages of one request.
    pub max_inputs: usize,
    /// Tokens of one request.
    pub max_request_tokens: usize,
    /// Windows that the passages of one request to rerank may take.
    pub max_windows: usize,
    /// Hits of one search, and rows that are reranked for it.
    pub max_hits: usize,
    /// Requests that are worked on at a time.
    pub max_concurrent_requests: usize,
    /// Tokens that may wait for a model.
    pub max_waiting_tokens: usize,
    /// Bytes of all bodies that are being received.
    pub max_receiving_bytes: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Seconds for one request.
    pub timeout_s: f64,
    /// Seconds in which a connection must move on: send a head, a piece of a body, or take a piece of a reply.
    pub stall_s: f64,
    /// Seconds for the requests under way after the server was told to stop.
    pub drain_s: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_inputs: 2048,
            max_request_tokens: 1_000_000,
            max_windows: 10_000,
            max_hits: 1000,
            max_concurrent_requests: 512,
            max_waiting_tokens: 2_000_000,
            max_receiving_bytes: 256 << 20,
            max_connections: 16_384,
            timeout_s: 60.0,
            stall_s: 30.0,
            drain_s: 30.0,
        }
    }
}

/// Who may ask.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Keys, of which a request must carry one; none for everyone.
    pub keys: Vec<Secret>,
    /// Names by which browsers may call this server, beside localhost and addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may call this server.
    pub origins: Vec<String>,
    /// Whether documents may be changed.
    pub read_only: bool,
}

/// The service that writes answers.
#[derive(Debug)]
pub struct Answers {
    /// The service and the prompt.
    pub answerer: Answerer,
    /// The chat model where a request names none.
    pub model: Option<String>,
}

/// A model with the name that it goes by.
#[derive(Debug, Clone)]
pub struct Named<T> {
    /// The name.
    pub name: String,
    /// The sha256 of its weights.
    pub sha256: String,
    /// The model.
    pub model: Arc<T>,
}

/// What a server serves.
#[derive(Debug)]
pub struct Serving {
    /// Indexes, each with a name of its own.
    pub indexes: Vec<Served>,
    /// The models that embed; the first is the default.
    pub embedders: Vec<Named<Embedder>>,
    /// The model that reranks.
    pub reranker: Option<Named<Reranker>>,
    /// Who writes answers.
    pub answers: Option<Answers>,
    /// Who may ask.
    pub access: Access,
    /// What may be spent.
    pub limits: Limits,
    /// What computes, for `/info`.
    pub device: String,
    /// How models compute, for `/info`.
    pub precision: String,
}

impl Served {
    /// The name of the index in `dir` where none is given: that of the folder.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the folder has none.
    pub fn name_of(dir: &std::path::Path) -> Result<String> {
        let full: PathBuf = std::fs::canonicalize(dir).map_err(Error::io("open", dir))?;
        let name = full.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        name.ok_or_else(|| {
            Error::usage(format!("{}: give the index a name, as in NAME=DIR", dir.display()))
        })
    }
}

/// Serves until `stop` is done, then lets requests under way end.
///
/// # Errors
///
/// [`Error::Usage`] for settings that do not fit together, [`Error::Io`] where threads or sockets are refused.
pub fn serve(
    serving: Serving,
    listener: Listener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let limits = serving.limits.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .enable_all()
        .build()
        .map_err(Error::io("start", "the server's threads"))?;
    let outcome = runtime.block_on(async {
        let is_unix = matches!(listener.address(), Address::Unix(_));
        let state = State::new(serving, is_unix)?;
        let router = api::router(&state)?;
        let watch = tokio::spawn(state::follow_changes(Arc::clone(&state)));
        let outcome = listener.run(router, Arc::clone(&state), stop).await;
        watch.abort();
        outcome
    });
    // What still computes is not waited for: nobody listens to it.
    runtime.shutdown_timeout(Duration::from_secs_f64(limits.drain_s.min(1.0)));
    outcome
}
