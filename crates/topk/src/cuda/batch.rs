//! The launches of one query batch, in the order of `kernels/topk.cu`. [`super`] explains them.

use super::ScanRequest;
use super::format::{MAX_K, ScanFormat};
use super::kernels::ScanGpu;
use super::launch::ScanLaunch;
use super::params::*;
use super::resident::{DeviceSq8, Segment};
use super::schedule::{passes, tile_step};
use super::workspace::{GraphKey, Workspace};
use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;
use std::ops::Range;
use warpseek_compute::gpu::{CudaResult, address, launch};

/// Bytes of all candidate lists.
const CANDIDATE_BYTES: usize = 512 << 20;

/// Keys that are written at a time for a query whose candidates overflowed: 64 MiB.
const KEYS_AT_A_TIME: usize = 8 << 20;

/// Up to this many candidates are rescored by the block that selects among them, even if other
/// blocks are idle.
const FEW_CANDIDATES: usize = 32;

/// Batches of up to this many queries are launch-bound.
const GRAPH_BATCH: usize = 64;

/// Filters that pass fewer than one row in this many are scanned by a list of rows.
const LISTED_BELOW: usize = 2;

/// Of a batch in [`ScanFormat::Int8High`], the share of queries with too many candidates from which
/// the int8 copy is too coarse: one in this many.
const COARSE_FROM: usize = 64;

/// A query batch on the device.
pub(super) struct ScanBatch<'a> {
    gpu: &'a ScanGpu,
    /// The state of all queries.
    queries: ScanQueries,
    /// The part that `prepare_*` reads: strides and residual.
    row_shape: ScanRows,
    /// Queries whose candidates fit into memory at a time.
    part: usize,
    pub(super) format: ScanFormat,
}

/// Results of a batch: `[n, k]` keys, then for each query the number of its keys, and 1 if its
/// candidates overflowed, `[n]` each, two per word.
pub(super) struct BatchResults<'a> {
    keys: &'a [u64],
    numbers: &'a [u64],
}

impl BatchResults<'_> {
    /// Returns the words of `n` results.
    fn len(n: usize, k: usize) -> usize {
        n * k + n
    }

    fn number(&self, i: usize) -> u32 {
        (self.numbers[i / 2] >> (i % 2 * 32)) as u32
    }

    /// Yields the keys of each query, best first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u64]> {
        let (n, k) = (self.numbers.len(), self.keys.len() / self.numbers.len());
        (0..n).map(move |i| &self.keys[i * k..][..self.number(i) as usize])
    }

    /// Returns the queries whose candidates overflowed.
    pub(super) fn overflowed(&self) -> Vec<u32> {
        let n = self.numbers.len();
        (0..n).filter(|&i| self.number(n + i) != 0).map(|i| i as u32).collect()
    }
}

impl<'a> ScanBatch<'a> {
    /// Allocates the state of a batch, and copies its vectors.
    pub(super) fn allocate(
        request: &ScanRequest<'a>,
        space: &mut Workspace,
        format: ScanFormat,
        sq8: Option<&DeviceSq8>,
    ) -> CudaResult<Self> {
        let (gpu, n, k) = (request.gpu, request.queries.len(), request.k.min(MAX_K));
        let tile = QUERY_TILE as usize;
        let (stride, padded) = (request.matrix.stride(), n.next_multiple_of(tile));
        let sq8 = sq8.filter(|_| format != ScanFormat::F16);
        let int8_stride = sq8.map_or(0, |sq8| sq8.stride);
        let least = 8 * k + 1024;
        let part = (CANDIDATE_BYTES / 8 / least / tile * tile).clamp(tile, padded);
        let most = (CANDIDATE_BYTES / 8 / part.min(n)).min(space.max_candidates);
        let capacity = most.max(least).next_multiple_of(TILE as usize);
        let values = request.vectors.address(gpu, space, &request.queries)?;
        let best = space.results.reserve(gpu, BatchResults::len(n, k))?;
        let n_best = best + (n * k * size_of::<u64>()) as CUdeviceptr;
        let queries = ScanQueries {
            values,
            f16: space.f16.reserve(gpu, padded * stride)?,
            int8: space.int8.reserve(gpu, padded * format as usize * int8_stride)?,
            scales: space.scales.reserve(gpu, n * 2)?,
            exponents: space.exponents.reserve(gpu, n)?,
            errors: space.errors.reserve(gpu, n)?,
            thresholds: space.thresholds.reserve(gpu, n)?,
            counts: space.counts.reserve(gpu, n)?,
            candidates: space.candidates.reserve(gpu, part.min(n) * capacity)?,
            best,
            n_best,
            overflowed: n_best + (n * size_of::<u32>()) as CUdeviceptr,
            n: n as u32,
            k: k as u32,
            capacity: capacity as u32,
            max_norm: request.matrix.max_norm(),
        };
        let row_shape = ScanRows {
            stride: stride as u32,
            int8_stride: int8_stride as u32,
            max_residual: sq8.map_or(0.0, |sq8| sq8.max_residual),
            ..ScanRows::default()
        };
        Ok(Self { gpu, queries, row_shape, part, format })
    }

    /// `n` and `k`.
    fn shape(&self) -> (usize, usize) {
        (self.queries.n as usize, self.queries.k as usize)
    }

    pub(super) fn prepare(&self) -> CudaResult<()> {
        let params = PrepareParams { rows: self.row_shape, queries: self.queries };
        let kernel = match self.format {
            ScanFormat::F16 => &self.gpu.kernels.prepare_f16,
            ScanFormat::Int8High => &self.gpu.kernels.prepare_int8_1,
            ScanFormat::Int8HighLow => &self.gpu.kernels.prepare_int8_2,
        };
        let blocks = self.queries.n.next_multiple_of(QUERY_TILE);
        launch(self.gpu, kernel, (blocks, 1), SELECT_THREADS, 0, &params)
    }

    /// Runs [`ScanBatch::prepare`] and [`ScanBatch::scan`], small batches as a CUDA graph.
    pub(super) fn prepare_and_scan(
        &self,
        space: &mut Workspace,
        rows: &ScanRows,
    ) -> CudaResult<()> {
        let both = || {
            self.prepare()?;
            self.scan(rows)
        };
        if self.shape().0 > GRAPH_BATCH {
            return both();
        }
        let params = PrepareParams { rows: *rows, queries: self.queries };
        // SAFETY: numbers without padding: their sizes add up to the struct's.
        let key: GraphKey = unsafe { std::mem::transmute(params) };
        space.graphs.run(self.gpu, key, both)
    }

    /// Merges the best of `rows` into the best keys so far, for all queries whose candidates do not
    /// overflow.
    pub(super) fn scan(&self, rows: &ScanRows) -> CudaResult<()> {
        let n = self.shape().0;
        if rows.n_positions == 0 {
            return Ok(());
        }
        for start in (0..n).step_by(self.part) {
            let mut rows = *rows;
            if rows.mask_of != 0 {
                rows.mask_of += (start * 4) as CUdeviceptr;
            }
            self.scan_part(rows, self.queries_of(start..n.min(start + self.part)))?;
        }
        Ok(())
    }

    /// Returns the state of the queries of `range`, which share the candidate lists.
    fn queries_of(&self, range: Range<usize>) -> ScanQueries {
        let all = &self.queries;
        let skip = |at: CUdeviceptr, bytes: u32| at + range.start as CUdeviceptr * u64::from(bytes);
        ScanQueries {
            values: skip(all.values, self.row_shape.stride * 4),
            f16: skip(all.f16, self.row_shape.stride * 2),
            int8: skip(all.int8, self.format as u32 * self.row_shape.int8_stride),
            scales: skip(all.scales, 8),
            exponents: skip(all.exponents, 4),
            errors: skip(all.errors, 4),
            thresholds: skip(all.thresholds, 4),
            counts: skip(all.counts, 4),
            best: skip(all.best, all.k * 8),
            n_best: skip(all.n_best, 4),
            overflowed: skip(all.overflowed, 4),
            n: range.len() as u32,
            ..*all
        }
    }

    fn scan_part(&self, rows: ScanRows, queries: ScanQueries) -> CudaResult<()> {
        let (gpu, kernels) = (self.gpu, &self.gpu.kernels);
        let n_tiles = rows.n_positions.div_ceil(TILE);
        let tile_step = tile_step(n_tiles);
        let scan = ScanLaunch::choose(gpu, queries.n, &rows, self.format)?;
        // Enough blocks to rescore on the whole device, however few queries there are.
        let splits = (gpu.multiprocessors * 4 / queries.n).clamp(1, 64);
        let surviving = self.format.candidates_per_hit() * queries.k as usize;
        let is_short = splits == 1 || surviving <= FEW_CANDIDATES;
        let (query_bytes, sorted_bytes) = (rows.stride * 4, sorted_bytes(queries.k));
        // Pays off if the error bound is wide: a fourth of the candidates survive.
        let refine = u32::from(self.format == ScanFormat::Int8High);
        let refine_bytes = refine * (query_bytes + queries.k * 4);
        let passes = passes(n_tiles, queries.capacity, queries.k, self.format);
        let last = passes.len() - 1;
        for (i, Range { start: begin, end }) in passes.into_iter().enumerate() {
            let (first_pass, hits_per_warp) = (u32::from(i == 0), 0);
            let params = ScanParams {
                rows,
                queries,
                n_tiles,
                tile_step,
                begin,
                end,
                first_pass,
                hits_per_warp,
            };
            scan.launch(gpu, params)?;
            let n_first_pass = first_pass * (end - begin) * TILE;
            let params = SelectParams { rows, queries, n_first_pass, refine };
            let select = |kernel, splits, shared| {
                launch(gpu, kernel, (queries.n, splits), SELECT_THREADS, shared, &params)
            };
            if i == last && is_short {
                let shared = query_bytes.max(sorted_bytes).max(refine_bytes);
                select(&kernels.prune_rescore_select, 1, shared)?;
                break;
            }
            select(&kernels.prune, 1, refine_bytes)?;
            if i == last {
                select(&kernels.rescore, splits, query_bytes)?;
                select(&kernels.select_top_k, 1, sorted_bytes)?;
            }
        }
        Ok(())
    }

    /// Copies the results to the host and waits for them.
    pub(super) fn fetch(&self, space: &mut Workspace) -> CudaResult<()> {
        let (n, k) = self.shape();
        self.gpu.marks[1].record(&self.gpu.stream)?;
        space.results.download(self.gpu, BatchResults::len(n, k))?;
        self.gpu.stream.synchronize()
    }

    /// Returns the results that were fetched last.
    pub(super) fn results<'s>(&self, space: &'s Workspace) -> CudaResult<BatchResults<'s>> {
        let (n, k) = self.shape();
        let words = space.results.downloaded(BatchResults::len(n, k))?;
        let (keys, numbers) = words.split_at(n * k);
        Ok(BatchResults { keys, numbers })
    }

    /// True if so many overflows mean that the int8 copy is too coarse.
    pub(super) fn is_too_coarse(&self, n_overflowed: usize) -> bool {
        self.format == ScanFormat::Int8High && n_overflowed * COARSE_FROM > self.shape().0
    }

    /// Clears the overflow flags, before the next segment.
    pub(super) fn clear_overflows(&self) -> CudaResult<()> {
        let (at, bytes) = (self.queries.overflowed, self.shape().0 * size_of::<u32>());
        // SAFETY: the flags of the batch; at this point of the stream nothing else writes them.
        unsafe { result::memset_d8_async(at, 0, bytes, self.gpu.stream.cu_stream()) }
    }

    /// Merges the best of `rows` into the best keys of one query, by the canonical scores of all of
    /// them.
    pub(super) fn scan_in_full(
        &self,
        space: &mut Workspace,
        rows: &ScanRows,
        query: u32,
    ) -> CudaResult<()> {
        self.score_all(space, rows, query, |keys, n_keys| {
            let params = MergeParams { queries: self.queries, keys, n_keys, query };
            let shared = sorted_bytes(self.queries.k);
            launch(self.gpu, &self.gpu.kernels.merge_keys, (1, 1), SELECT_THREADS, shared, &params)
        })
    }

    /// Passes the canonical keys of all `rows` to `take`, some at a time; 0 for those outside the
    /// mask.
    pub(super) fn all_keys(
        &self,
        space: &mut Workspace,
        rows: &ScanRows,
        query: u32,
        mut take: impl FnMut(Vec<u64>),
    ) -> CudaResult<()> {
        self.score_all(space, rows, query, |at, n_keys| {
            let mut keys = vec![0u64; n_keys as usize];
            // SAFETY: `at` has `n_keys` keys, and the vector lives until the copy is complete.
            unsafe { result::memcpy_dtoh_async(&mut keys, at, self.gpu.stream.cu_stream()) }?;
            self.gpu.stream.synchronize()?;
            take(keys);
            Ok(())
        })
    }

    fn score_all(
        &self,
        space: &mut Workspace,
        rows: &ScanRows,
        query: u32,
        mut take: impl FnMut(CUdeviceptr, u32) -> CudaResult<()>,
    ) -> CudaResult<()> {
        for begin in (0..rows.n_positions).step_by(KEYS_AT_A_TIME) {
            let end = rows.n_positions.min(begin.saturating_add(KEYS_AT_A_TIME as u32));
            let keys = space.keys.reserve(self.gpu, (end - begin) as usize)?;
            let (rows, queries) = (*rows, self.queries);
            let params = ScoreAllParams { rows, queries, keys, query, begin, end };
            let blocks = (end - begin).div_ceil(16).min(self.gpu.multiprocessors * 8);
            let (kernel, query_bytes) = (&self.gpu.kernels.score_all, rows.stride * 4);
            launch(self.gpu, kernel, (blocks, 1), SELECT_THREADS, query_bytes, &params)?;
            take(keys, end - begin)?;
        }
        Ok(())
    }
}

/// Bytes of the keys that `select_top_k` sorts.
fn sorted_bytes(k: u32) -> u32 {
    k.next_power_of_two().max(FEW_KEYS) * 8
}

/// Returns the rows of `segment` to scan under the request's masks, which cover all rows of the
/// matrix.
pub(super) fn rows_to_scan(
    request: &ScanRequest<'_>,
    space: &mut Workspace,
    segment: &Segment,
) -> CudaResult<ScanRows> {
    let (gpu, matrix, masks) = (request.gpu, request.matrix, &request.masks);
    let n_rows = segment.n_rows.min(matrix.n_rows() - segment.first_row);
    let mut rows = ScanRows {
        values: address(gpu, &segment.values),
        n_positions: n_rows as u32,
        stride: matrix.stride() as u32,
        first_row: segment.first_row as u32,
        ..ScanRows::default()
    };
    if let Some(sq8) = &segment.sq8 {
        rows.int8 = address(gpu, &sq8.values);
        rows.scales = address(gpu, &sq8.scales);
        rows.int8_stride = sq8.stride as u32;
        rows.max_residual = sq8.max_residual;
    }
    let range = segment.first_row..segment.first_row + n_rows;
    let words: Vec<u32> =
        masks.masks.iter().flat_map(|mask| mask.words_of(range.clone())).collect();
    let passing: usize = words.iter().map(|w| w.count_ones() as usize).sum();
    if passing == n_rows * masks.masks.len() {
        return Ok(rows);
    }
    let mask = space.masks.fill(gpu, &words)?;
    if !masks.of.is_empty() {
        rows.mask_of = space.mask_of.fill(gpu, masks.of)?;
    }
    // A list serves all queries or none.
    if passing * LISTED_BELOW >= n_rows || !masks.of.is_empty() {
        (rows.masks, rows.mask_words) = (mask, n_rows.div_ceil(32) as u32);
        return Ok(rows);
    }
    rows.n_positions = passing as u32;
    rows.list = space.list.reserve(gpu, passing)?;
    let n_listed = space.n_listed.fill(gpu, &[0])?;
    let params = ListParams { mask, list: rows.list, n_listed, n_rows: n_rows as u32 };
    let blocks = (words.len() as u32).div_ceil(SELECT_THREADS);
    launch(gpu, &gpu.kernels.list_rows, (blocks, 1), SELECT_THREADS, 0, &params)?;
    Ok(rows)
}
