//! Kernels that are launched with the same arguments over and over, in one call: for work that takes hardly longer than
//! its launches.

use super::driver::{Gpu, describe};
use super::memory::Outcome;
use cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{CudaGraph, DriverError};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// As many recordings are kept; each takes some 100 KB.
const MOST_RECORDINGS: usize = 128;

/// Recordings, by all that the launches depend on.
#[derive(Debug)]
pub(crate) struct Recordings<K> {
    /// What was seen once has none yet.
    known: HashMap<K, Option<Recording>>,
    /// Whether the driver records; it says so when it is asked.
    refused: bool,
}

struct Recording(CudaGraph);

// SAFETY: the driver wants one thread at a time, which the only reference, a mutable one, sees to.
unsafe impl Send for Recording {}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recording").finish()
    }
}

impl<K> Default for Recordings<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), refused: false }
    }
}

impl<K: Eq + Hash> Recordings<K> {
    /// Does what `launch` does, which launches kernels on the main stream, the same for the same `key`, and nothing else. The
    /// first time it is called; by then all of its kernels are loaded. The second time it is recorded, and no other thread may
    /// use that stream meanwhile: what it does there would be recorded too.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub(crate) fn run(
        &mut self,
        gpu: &Gpu,
        key: K,
        launch: impl Fn() -> Outcome<()>,
    ) -> Outcome<()> {
        if self.refused {
            return launch();
        }
        match self.known.get_mut(&key) {
            Some(Some(recording)) => recording.0.launch(),
            Some(empty) => match record(gpu, &launch) {
                Ok(recording) => empty.insert(recording).0.launch(),
                Err(e) => {
                    tracing::debug!("launches are not recorded: {}", describe(e));
                    self.refused = true;
                    self.known.clear();
                    launch()
                }
            },
            None => {
                if self.known.len() >= MOST_RECORDINGS {
                    self.known.retain(|_, known| known.is_some());
                }
                if self.known.len() >= MOST_RECORDINGS {
                    self.known.clear();
                }
                self.known.insert(key, None);
                launch()
            }
        }
    }
}

fn record(gpu: &Gpu, launch: impl Fn() -> Outcome<()>) -> Outcome<Recording> {
    // What other threads do with other streams is none of it.
    gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let launched = launch();
    // In any case: the stream launches nothing before.
    let end = || gpu.stream.end_capture(CUgraphInstantiate_flags(0));
    let mut graph = end();
    // The call may have told of an older error instead.
    let none = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    if gpu.stream.capture_status().is_ok_and(|status| status != none) {
        graph = end();
    }
    launched?;
    let nothing = DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    graph?.map(Recording).ok_or(nothing)
}
