//! CUDA graphs: a launch sequence that repeats with the same arguments is captured once and
//! replayed as one call. Small batches are launch-bound: their kernels take hardly longer than
//! their launches.
//!
//! This file and [`super::DeviceVectors`] are the only places that know of either; a caller passes
//! a closure that launches.

use super::context::{CudaResult, Gpu, describe};
use cudarc::driver::sys::{
    CUgraphInstantiate_flags, CUresult, CUstreamCaptureMode, CUstreamCaptureStatus,
};
use cudarc::driver::{CudaGraph, DriverError};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// The most graphs that are kept; each takes about 100 KB.
const MAX_GRAPHS: usize = 128;

/// Captured graphs by key: everything that the launches depend on.
#[derive(Debug)]
pub struct GraphCache<K> {
    /// A key that was seen once has no graph yet.
    known: HashMap<K, Option<Graph>>,
    /// True once the driver refused a capture.
    refused: bool,
}

struct Graph(CudaGraph);

// SAFETY: the driver requires one thread at a time, which `&mut self` of the only method ensures.
unsafe impl Send for Graph {}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Graph").finish()
    }
}

impl<K> Default for GraphCache<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), refused: false }
    }
}

impl<K: Eq + Hash> GraphCache<K> {
    /// Runs `launch`, which launches kernels on the main stream and does nothing else, the same for
    /// the same `key`. The first call of a key launches directly, which also loads the kernels; the
    /// second one captures; later ones replay. No other thread may use the stream meanwhile: its
    /// launches would be captured too.
    pub fn run(
        &mut self,
        gpu: &Gpu,
        key: K,
        launch: impl Fn() -> CudaResult<()>,
    ) -> CudaResult<()> {
        if self.refused {
            return launch();
        }
        match self.known.get_mut(&key) {
            Some(Some(graph)) => graph.0.launch(),
            Some(empty) => match capture(gpu, &launch) {
                Ok(graph) => empty.insert(graph).0.launch(),
                Err(e) => {
                    tracing::debug!("CUDA graphs are not used: {}", describe(e));
                    self.refused = true;
                    self.known.clear();
                    launch()
                }
            },
            None => {
                if self.known.len() >= MAX_GRAPHS {
                    self.known.retain(|_, known| known.is_some());
                }
                if self.known.len() >= MAX_GRAPHS {
                    self.known.clear();
                }
                self.known.insert(key, None);
                launch()
            }
        }
    }
}

fn capture(gpu: &Gpu, launch: impl Fn() -> CudaResult<()>) -> CudaResult<Graph> {
    // Thread-local: other threads use other streams.
    gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let launched = launch();
    // Ended in any case: until then the stream launches nothing.
    let end = || gpu.stream.end_capture(CUgraphInstantiate_flags(0));
    let mut graph = end();
    // The call may have returned an older error and left the capture open.
    let none = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    if gpu.stream.capture_status().is_ok_and(|status| status != none) {
        graph = end();
    }
    launched?;
    let nothing = DriverError(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    graph?.map(Graph).ok_or(nothing)
}
