//! Exact top-k on a GPU. The kernels are in `kernels/topk.cu`.
//!
//! ```text
//! for each 8,192 queries:
//!     prepare: quantize the queries, bound their errors e                batch.rs, prepare_*
//!     for each segment of the matrix; mostly one, resident:                resident.rs
//!         list the rows that pass a selective filter                     list_rows
//!         for each part of the queries whose candidates fit:
//!             for each pass over some tiles of rows:                     schedule.rs
//!                 scan: approximate scores; those at or above the
//!                     query's threshold become candidates                launch.rs, scan_*
//!                 prune: threshold = k-th best candidate - 2 e;
//!                     drop the candidates below it                       prune
//!             rescore the remaining candidates canonically               rescore
//!             select the best k of these and of the earlier segments       select_top_k
//!         for each query whose candidates overflowed:
//!             the same with the canonical scores of all rows             score_all, merge_keys
//! ```
//!
//! **Passes.** The k-th best score of any subset of the rows is at most the k-th best of all, so a
//! threshold from the rows seen so far is valid for the rest. The first pass scans a few tiles and
//! keeps every score; each later pass scans several times as many tiles as were seen before, and
//! only about k rows per doubling reach the threshold. So there are few passes, each is long enough
//! to fill the device, and blocks never have to exchange thresholds within a pass. Tiles are
//! visited in a permuted order, so that rows sorted by score defeat no threshold.
//!
//! **Selection** never writes the matrix of scores to memory. Hits are rare: a warp collects them
//! in a buffer in shared memory, and appends them to the queries' lists 32 at a time by atomicAdd.
//! One block per query then finds the k-th best by radix selection and compacts the list in place;
//! only the last k are sorted.
//!
//! **Rescoring** makes the results exact. An approximate score is within e of the canonical one,
//! however rows, queries and sums are rounded, so every row that can be among the best k is still a
//! candidate in the end. Its canonical score depends on nothing but query and row. Which kernel
//! ran, in what order blocks appended, and how passes were cut, leaves no trace in the results.
//!
//! **Formats.** Int8 halves the bytes and the time of the products, but widens e, so that more rows
//! have to be rescored: format.rs weighs the two. Large batches read the high part of the queries
//! alone and refine the threshold instead: the lowest canonical score of k candidates is a tighter
//! bound than the k-th best approximate score less e.
//!
//! **Overflow.** Lists of candidates have a fixed capacity. Many nearly equal rows can exceed it; a
//! query is then flagged and answered from the canonical scores of all rows. If that happens to
//! more than one query in 64 of a batch with high parts alone, the matrix's int8 copy counts as too
//! coarse, and large batches read half precision.
//!
//! **Segments.** A matrix larger than the memory passes through two buffers (double buffering): one
//! is scanned while the next is copied. Best keys and thresholds carry over.
//!
//! **Large k.** Beyond 2,048 hits all canonical keys are copied to the host, which selects.
//!
//! One caller at a time has the device. Small batches are launch-bound; a sequence of launches that
//! repeats is replayed as a CUDA graph ([`GraphCache`](warpseek_compute::gpu::GraphCache)).

mod batch;
mod format;
mod kernels;
mod launch;
mod measure;
mod params;
mod resident;
mod schedule;
mod workspace;

use crate::error::Result;
use crate::gpu::{GpuBatch, GpuInfo, GpuLimits, GpuOptions};
use crate::matrix::MatrixView;
use crate::oracle::{ScoredRow, from_ordered_bits};
use crate::queries::{BatchMasks, QueryBatch};
use batch::{ScanBatch, rows_to_scan};
use format::{INT8_FROM, MAX_CANDIDATES, MAX_K, ScanFormat};
use kernels::ScanGpu;
use resident::{MAX_SEGMENT_ROWS, ResidentMatrices, Segment};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use warpseek_compute::gpu::{CudaResult, allocate, device_failed, is_out_of_memory, version_text};
use workspace::{QueryVectors, Workspace};

/// Device memory that is left for queries and candidates.
const WORKSPACE_BYTES: usize = 1 << 30;

/// Queries on the device at a time.
const MAX_QUERIES: usize = 8192;

/// Out of memory, a batch is halved down to this many queries.
const MIN_QUERIES: usize = 128;

/// The fewest rows of a segment; two segments are on the device at a time.
const MIN_SEGMENT_ROWS: usize = 1 << 10;

/// A GPU that scans.
#[derive(Debug)]
pub struct CudaScanner {
    gpu: ScanGpu,
    int8_from: usize,
    state: Mutex<ScannerState>,
}

/// Memory and counters, for one caller at a time.
#[derive(Debug)]
struct ScannerState {
    matrices: ResidentMatrices,
    space: Workspace,
    /// Queries so far whose candidates overflowed.
    overflows: u64,
    /// True if the last batch read the int8 copy.
    read_int8: bool,
}

impl CudaScanner {
    /// See [`Scanner::cuda`](crate::Scanner::cuda).
    pub(crate) fn open(ordinal: u32, options: GpuOptions) -> Result<Self> {
        let gpu = ScanGpu::open(ordinal, options.kernels)?;
        let free = gpu.context.mem_get_info().map_err(device_failed)?.0;
        let default = free.saturating_sub(WORKSPACE_BYTES).max(free / 2);
        let state = ScannerState {
            matrices: ResidentMatrices::new(options.row_bytes.unwrap_or(default)),
            space: Workspace::new(options.candidates.unwrap_or(MAX_CANDIDATES)),
            overflows: 0,
            read_int8: false,
        };
        let int8_from = options.int8_from.unwrap_or(INT8_FROM);
        Ok(Self { gpu, int8_from, state: Mutex::new(state) })
    }

    /// Describes the GPU.
    pub(crate) fn info(&self) -> GpuInfo {
        let (major, minor) = self.gpu.capability;
        let state = self.lock();
        GpuInfo {
            name: self.gpu.name.clone(),
            ordinal: self.gpu.context.ordinal() as u32,
            capability: format!("{major}.{minor}"),
            products: if self.gpu.uses_wgmma { "mma.sync, wgmma" } else { "mma.sync" },
            driver: version_text(self.gpu.driver),
            memory: self.gpu.total_memory,
            row_bytes: state.matrices.budget,
            uploaded_bytes: state.matrices.uploaded,
            overflows: state.overflows,
        }
    }

    /// Measures the limits of the GPU.
    pub(crate) fn limits(&self) -> Result<GpuLimits> {
        let _state = self.lock();
        measure::limits(&self.gpu).map_err(device_failed)
    }

    /// Describes the last batch; fails before the first one.
    pub(crate) fn last_batch(&self) -> Result<GpuBatch> {
        let read_int8 = self.lock().read_int8;
        let seconds = self.gpu.seconds_between_marks().map_err(device_failed)?;
        Ok(GpuBatch { seconds, read_int8 })
    }

    fn lock(&self) -> MutexGuard<'_, ScannerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Scanner::top_k`](crate::Scanner::top_k), which checks the arguments.
    pub(crate) fn top_k(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        masks: &BatchMasks<'_>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        let k = k.min(matrix.n_rows());
        let is_shared = masks.of.is_empty();
        let nothing_passes = is_shared && masks.masks.iter().any(|mask| mask.count() == 0);
        if k == 0 || queries.is_empty() || nothing_passes {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let mut state = self.lock();
        let vectors = &QueryVectors::of(&self.gpu, queries, matrix.stride())?;
        let mut results = Vec::with_capacity(queries.len());
        let mut most = MAX_QUERIES;
        while results.len() < queries.len() {
            let range = results.len()..queries.len().min(results.len() + most);
            let of = if is_shared { &[] } else { &masks.of[range.clone()] };
            let masks = BatchMasks { masks: masks.masks, of };
            let (gpu, int8_from, n) = (&self.gpu, self.int8_from, range.len());
            let request = ScanRequest { gpu, matrix, vectors, queries: range, k, masks, int8_from };
            match request.run(&mut state) {
                Ok(found) => results.extend(found),
                // Memory must not be freed while the device may use it.
                Err(e) if self.is_broken() => return Err(device_failed(e)),
                // Fewer queries need less memory; in the end the matrix is passed in segments.
                Err(e)
                    if is_out_of_memory(&e) && (n > MIN_QUERIES || state.matrices.budget > 0) =>
                {
                    state.space.clear();
                    state.matrices.clear();
                    match n > MIN_QUERIES {
                        true => most = n / 2,
                        false => state.matrices.budget /= 2,
                    }
                }
                Err(e) => return Err(device_failed(e)),
            }
        }
        Ok(results)
    }

    /// Waits until the device is idle. Returns true if it fails.
    fn is_broken(&self) -> bool {
        let waits = [&self.gpu.copies, &self.gpu.stream].map(|stream| stream.synchronize());
        waits.iter().any(CudaResult::is_err)
    }
}

/// A scan of some queries against a matrix.
struct ScanRequest<'a> {
    gpu: &'a ScanGpu,
    matrix: &'a MatrixView<'a>,
    vectors: &'a QueryVectors<'a>,
    /// The queries among `vectors`.
    queries: Range<usize>,
    k: usize,
    masks: BatchMasks<'a>,
    /// The fewest rows per hit for which large batches read int8.
    int8_from: usize,
}

impl ScanRequest<'_> {
    fn run(&self, state: &mut ScannerState) -> CudaResult<Vec<Vec<ScoredRow>>> {
        // Copies need the thread's context.
        self.gpu.context.bind_to_thread()?;
        let ScannerState { matrices, space, overflows, read_int8 } = state;
        let mut lists = vec![Vec::new(); if self.k > MAX_K { self.queries.len() } else { 0 }];
        let batch = if let Some(segment) = matrices.get(self.gpu, self.matrix)? {
            self.gpu.marks[0].record(&self.gpu.stream)?;
            let rows = rows_to_scan(self, space, segment)?;
            let sq8 = segment.sq8.as_ref();
            let format = ScanFormat::choose(self, rows.n_positions as usize, sq8);
            let batch = ScanBatch::allocate(self, space, format, sq8)?;
            match self.k <= MAX_K {
                true => batch.prepare_and_scan(space, &rows)?,
                false => batch.prepare()?,
            }
            if !self.complete(space, &batch, &rows, &mut lists, overflows)? {
                if let Some(sq8) = &mut segment.sq8 {
                    sq8.is_too_coarse = true;
                }
                let (queries, masks) = (self.queries.clone(), self.masks);
                return Self { queries, masks, int8_from: usize::MAX, ..*self }.run(state);
            }
            batch
        } else {
            self.run_in_segments(matrices, space, &mut lists, overflows)?
        };
        *read_int8 = batch.format != ScanFormat::F16;
        if self.k <= MAX_K {
            let results = batch.results(space)?;
            return Ok(results.keys().map(|keys| keys.iter().map(scored_row).collect()).collect());
        }
        lists.iter_mut().for_each(|list| list.sort_unstable_by(|a, b| b.cmp(a)));
        Ok(lists.iter().map(|list| list.iter().map(scored_row).collect()).collect())
    }

    /// Passes the matrix through two buffers.
    fn run_in_segments(
        &self,
        matrices: &mut ResidentMatrices,
        space: &mut Workspace,
        lists: &mut [Vec<u64>],
        overflows: &mut u64,
    ) -> CudaResult<ScanBatch<'_>> {
        let (gpu, stride, n_rows) = (self.gpu, self.matrix.stride(), self.matrix.n_rows());
        matrices.clear();
        gpu.marks[0].record(&gpu.stream)?;
        let batch = ScanBatch::allocate(self, space, ScanFormat::F16, None)?;
        batch.prepare()?;
        let most = (matrices.budget / 2 / (stride * 2)).clamp(MIN_SEGMENT_ROWS, MAX_SEGMENT_ROWS);
        let n = (most / 128 * 128).min(n_rows.next_multiple_of(128));
        let buffer = || -> CudaResult<Segment> {
            let values = allocate(gpu, n * stride)?;
            Ok(Segment { values, sq8: None, first_row: 0, n_rows: 0 })
        };
        let (mut next, mut segment) = (buffer()?, buffer()?);
        let mut upload = |segment: &mut Segment, first_row: usize| {
            segment.first_row = first_row;
            segment.n_rows = n.min(n_rows - first_row);
            let values = &self.matrix.values()[first_row * stride..][..segment.n_rows * stride];
            matrices.upload(gpu, values, &mut segment.values, 0)
        };
        let mut pass_through = || {
            let mut arrived = upload(&mut next, 0)?;
            for first_row in (0..n_rows).step_by(n) {
                gpu.stream.wait(&arrived)?;
                std::mem::swap(&mut segment, &mut next);
                let rows = rows_to_scan(self, space, &segment)?;
                batch.clear_overflows()?;
                if self.k <= MAX_K {
                    batch.scan(&rows)?;
                }
                if first_row + n < n_rows {
                    // Copied while the kernels run.
                    arrived = upload(&mut next, first_row + n)?;
                }
                self.complete(space, &batch, &rows, lists, overflows)?;
            }
            Ok(())
        };
        let passed = pass_through();
        // The buffers are freed below; copies to them must be complete by then.
        let waited = gpu.copies.synchronize();
        passed.and(waited)?;
        Ok(batch)
    }

    /// Waits for the scan of a segment and repeats in full what overflowed; for a large k, selects
    /// on the host. Returns false if so many queries overflowed that int8 is too coarse.
    fn complete(
        &self,
        space: &mut Workspace,
        batch: &ScanBatch<'_>,
        rows: &params::ScanRows,
        lists: &mut [Vec<u64>],
        overflows: &mut u64,
    ) -> CudaResult<bool> {
        if self.k > MAX_K {
            for (query, list) in lists.iter_mut().enumerate() {
                let keep = |keys| keep_best(list, keys, self.k);
                batch.all_keys(space, rows, query as u32, keep)?;
            }
            self.gpu.marks[1].record(&self.gpu.stream)?;
            return Ok(true);
        }
        batch.fetch(space)?;
        let overflowed = batch.results(space)?.overflowed();
        if batch.is_too_coarse(overflowed.len()) {
            return Ok(false);
        }
        *overflows += overflowed.len() as u64;
        for &query in &overflowed {
            batch.scan_in_full(space, rows, query)?;
        }
        if !overflowed.is_empty() {
            batch.fetch(space)?;
        }
        Ok(true)
    }
}

/// Merges `keys` into the best `k` of a list, unsorted. Zeros are rows outside the mask.
fn keep_best(list: &mut Vec<u64>, mut keys: Vec<u64>, k: usize) {
    keys.retain(|&key| key != 0);
    keys.append(list);
    if keys.len() > k {
        keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        keys.truncate(k);
    }
    // A copy, for `keys` has the capacity of all rows.
    *list = keys.as_slice().to_vec();
}

/// Row and score of a key from the device; see [`crate::oracle`].
fn scored_row(key: &u64) -> ScoredRow {
    ScoredRow { row: !(*key as u32), score: from_ordered_bits((*key >> 32) as u32) }
}
