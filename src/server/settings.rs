//! Settings of a server: what it serves, to whom, and its limits.

use super::served::Served;
use crate::answer::Answerer;
use serde::Serialize;
use std::sync::Arc;
use warpseek_bert::embedder::Embedder;
use warpseek_bert::reranker::Reranker;
use warpseek_hub::http::Secret;

/// Everything that a server serves.
#[derive(Debug)]
pub struct Serving {
    /// Indexes, each with a name of its own.
    pub indexes: Vec<Served>,
    /// Name of the index of requests that name none; without it, the only one.
    pub default_index: Option<String>,
    /// Embedding models; the first is the default.
    pub embedders: Vec<Named<Embedder>>,
    /// The reranker.
    pub reranker: Option<Named<Reranker>>,
    /// The chat service behind `/v1/answer`.
    pub answers: Option<Answers>,
    /// Access control.
    pub access: Access,
    /// Limits of requests and connections.
    pub limits: ServerLimits,
    /// Name of the compute device, for `/info`.
    pub device: String,
    /// Precision that models compute in, for `/info`.
    pub precision: String,
}

/// A model with its name.
#[derive(Debug, Clone)]
pub struct Named<T> {
    /// The name.
    pub name: String,
    /// The sha256 of its weights.
    pub sha256: String,
    /// The model.
    pub model: Arc<T>,
}

/// The chat service that writes answers.
#[derive(Debug)]
pub struct Answers {
    /// The service and the prompt.
    pub answerer: Answerer,
    /// The chat model of requests that name none.
    pub model: Option<String>,
}

/// Access control.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Keys, one of which a request must carry. Empty: no key is needed.
    pub keys: Vec<Secret>,
    /// Names by which browsers may call this server, beside localhost and addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may call this server (CORS).
    pub origins: Vec<String>,
    /// Refuse changes of documents.
    pub read_only: bool,
    /// Offer agents the tools that change documents.
    pub agent_writes: bool,
}

/// Limits of one request and of all requests together.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = Limits)]
pub struct ServerLimits {
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
    /// Bytes of a reply, and of each event of a stream.
    pub max_reply_bytes: usize,
    /// Bytes of the bodies of all requests that are received or worked on; a quarter more for those
    /// of up to 64 KiB.
    pub max_receiving_bytes: usize,
    /// Open connections.
    pub max_connections: usize,
    /// Seconds for one request.
    pub timeout_s: f64,
    /// Seconds in which a metadata filter must be evaluated.
    pub filter_s: f64,
    /// Seconds in which a connection must make progress: send its head or take a part of a reply.
    pub stall_s: f64,
    /// Seconds for the requests in progress when the server is told to stop.
    pub drain_s: f64,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 32 << 20,
            max_inputs: 2048,
            max_request_tokens: 1_000_000,
            max_windows: 10_000,
            max_hits: 1000,
            max_concurrent_requests: 512,
            max_waiting_tokens: 2_000_000,
            max_reply_bytes: 64 << 20,
            max_receiving_bytes: 64 << 20,
            max_connections: 16_384,
            timeout_s: 60.0,
            filter_s: 5.0,
            stall_s: 30.0,
            drain_s: 30.0,
        }
    }
}
