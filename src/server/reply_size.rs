//! The size of replies: a short request must not ask for one that fills the memory.

use super::error::{ApiError, ApiResult};
use super::settings::ServerLimits;
use serde::Serialize;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a vector's component in JSON, about.
const VALUE_BYTES: usize = 12;

/// Bytes of a hit in JSON without its text, title, metadata and vector, about.
const HIT_BYTES: usize = 400;

/// The length of a value in JSON.
pub(super) fn size_of_json(value: &impl Serialize) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A value that cannot be written fails later, with its reply.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// Bytes of a reply so far; shared by the searches of a batch.
#[derive(Debug)]
pub(super) struct ReplySize {
    bytes: AtomicUsize,
    most: usize,
}

impl ReplySize {
    /// An empty reply.
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self { bytes: AtomicUsize::new(0), most: limits.max_reply_bytes }
    }

    /// Counts vectors. Refuses a reply that would be too long; `advice` says how to get a shorter
    /// one.
    pub(super) fn add_vectors(&self, n: usize, dim: usize, advice: &str) -> ApiResult<()> {
        self.add(n.saturating_mul(dim).saturating_mul(VALUE_BYTES), advice)
    }

    /// Counts a hit with text and metadata of so many bytes.
    pub(super) fn add_hit(&self, bytes: usize) -> ApiResult<()> {
        self.add(HIT_BYTES.saturating_add(bytes), "ask for fewer hits, or without their texts")
    }

    fn add(&self, bytes: usize, advice: &str) -> ApiResult<()> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.most {
            return Ok(());
        }
        let most = self.most;
        Err(ApiError::invalid(format!(
            "the reply would be longer than the {most} bytes that this server allows: {advice}"
        )))
    }
}
