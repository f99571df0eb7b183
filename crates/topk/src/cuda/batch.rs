//! The kernels of one batch of queries, in order: see `kernels/topk.cu`.

use super::kernels::ScanGpu;
use super::params::*;
use super::rounds::{rounds, visiting_step};
use super::rows::{Bytes, Shard};
use super::scanning::{SMALL_BATCH, Scanning};
use super::workspace::{Call, Fetched, Vectors, Workspace, found_words};
use warpseek_compute::gpu::{MAX_SHARED_BYTES, Outcome, address, copy_values, launch};
use crate::{Filter, GPU_BYTES_BATCH};
use crate::matrix::MatrixView;
use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;
use std::ops::Range;

/// The largest k that is sorted on the device.
pub(super) const MAX_K: usize = 2048;

/// Queries whose state is on the device at a time.
pub(super) const MAX_QUERIES: usize = 8192;

/// Bytes of candidates on the device.
const CANDIDATE_BYTES: usize = 512 << 20;

/// The most candidates a query is given room for; fewer where there are many queries.
pub(super) const MOST_CANDIDATES: usize = 16384;

/// The largest residual of a row, against the largest norm, with which 8 bits are of use: with more of it than
/// that, too many rows would be candidates.
const MOST_RESIDUAL: f32 = 0.03;

/// Large batches read bytes where there are so many positions for every hit. Their products take half the time, and the error
/// bound lets some five times as many rows become candidates, each of which is then read in half precision; by the
/// rates of an H200, on random vectors.
pub(super) const BYTES_FROM: usize = 16384;

/// Of a batch in one plane, the share of queries with too many candidates from which rows are read in half precision
/// from then on: one in this many.
const COARSE_FROM: usize = 64;

/// Keys that are written out at a time where candidates do not suffice: 64 MiB.
const KEYS_AT_ONCE: usize = 8 << 20;

/// Up to so many candidates are scored canonically by the block that sorts them, even where other blocks have nothing to do.
const FEW_CANDIDATES: usize = 32;

/// Batches of up to this many queries take hardly longer than their launches.
const RECORDED_BATCH: usize = 64;

/// Filters that let fewer than one row in this many pass are scanned by the list of rows that do.
const LISTED_BELOW: usize = 2;

/// A batch of queries on the device.
#[derive(Debug)]
pub(super) struct Batch {
    /// Pointers to the state of all queries.
    all: Queries,
    /// What the queries' preparation needs to know of rows.
    of_queries: Rows,
    n: usize,
    k: usize,
    stride: usize,
    /// Queries that share the room for candidates.
    part: usize,
    reads: Reads,
}

/// The rows of a shard that are to be scanned, and the filter that stays to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    rows: Rows,
}

impl Batch {
    /// What `n` queries for `k` hits read, of so many positions.
    pub(super) fn reads(
        n: usize,
        k: usize,
        positions: usize,
        bytes: Option<&Bytes>,
        max_norm: f32,
        bytes_from: usize,
    ) -> Reads {
        let useful = |b: &&Bytes| b.max_residual <= MOST_RESIDUAL * max_norm;
        let Some(bytes) = bytes.filter(useful) else { return Reads::Halves };
        let fits = 2 * 8 * bytes.stride <= MAX_SHARED_BYTES as usize;
        // What stays of a round, and as much again.
        let has_room = 2 * Reads::TwoPlanes.candidates_a_hit() * k <= MOST_CANDIDATES;
        match n {
            _ if k > MAX_K => Reads::Halves,
            ..=GPU_BYTES_BATCH if fits && has_room => Reads::TwoPlanes,
            ..=SMALL_BATCH => Reads::Halves,
            _ if bytes.is_coarse || positions / k < bytes_from => Reads::Halves,
            _ => Reads::OnePlane,
        }
    }

    /// Whether so many queries with too many candidates speak against bytes.
    pub(super) fn is_coarse(&self, overflowed: usize) -> bool {
        self.reads == Reads::OnePlane && overflowed * COARSE_FROM > self.n
    }

    /// Whether it reads rows in 8 bits.
    pub(super) fn reads_bytes(&self) -> bool {
        self.reads != Reads::Halves
    }

    /// Room for a batch on the device, and its vectors.
    pub(super) fn place(
        gpu: &ScanGpu,
        space: &mut Workspace,
        vectors: &Vectors<'_>,
        n: usize,
        matrix: &MatrixView<'_>,
        k: usize,
        (reads, bytes): (Reads, Option<&Bytes>),
    ) -> Outcome<Self> {
        let stride = matrix.stride();
        let padded = n.next_multiple_of(QUERY_TILE);
        let least = 8 * k + 1024;
        let part =
            (CANDIDATE_BYTES / 8 / least / QUERY_TILE * QUERY_TILE).clamp(QUERY_TILE, padded);
        let room = CANDIDATE_BYTES / 8 / part.min(n);
        let capacity = room.min(space.room).max(least).next_multiple_of(TILE as usize);
        let max_norm = matrix.max_norm();
        let byte_stride = bytes.map_or(0, |b| b.stride);
        let values = match *vectors {
            Vectors::There(at) => at,
            Vectors::Here(values) => {
                // What was sent before has arrived: its results have come.
                let sent = space.sent.reserve(gpu, values.len())?;
                copy_values(sent, values);
                let at = space.values.reserve(gpu, values.len())?;
                // SAFETY: there is room, and `sent` is not touched before the batch is done.
                unsafe { result::memcpy_htod_async(at, sent, gpu.stream.cu_stream()) }?;
                at
            }
        };
        let best = space.found.reserve(gpu, found_words(n, k))?;
        let n_best = best + (n * k * size_of::<u64>()) as CUdeviceptr;
        let all = Queries {
            values,
            halves: space.halves.reserve(gpu, padded * stride)?,
            planes: space.planes.reserve(gpu, padded * reads.planes() * byte_stride)?,
            steps: space.steps.reserve(gpu, n * 2)?,
            powers: space.powers.reserve(gpu, n)?,
            errors: space.errors.reserve(gpu, n)?,
            thresholds: space.thresholds.reserve(gpu, n)?,
            counts: space.counts.reserve(gpu, n)?,
            candidates: space.candidates.reserve(gpu, part.min(n) * capacity)?,
            best,
            n_best,
            flags: n_best + (n * size_of::<u32>()) as CUdeviceptr,
            n: n as u32,
            k: k as u32,
            capacity: capacity as u32,
            max_norm,
        };
        let max_residual = bytes.map_or(0.0, |b| b.max_residual);
        let of_queries = Rows {
            stride: stride as u32,
            byte_stride: byte_stride as u32,
            max_residual,
            ..Rows::default()
        };
        Ok(Self { all, of_queries, n, k, stride, part, reads })
    }

    /// Makes of the vectors what the scan needs of them.
    pub(super) fn begin(&self, gpu: &ScanGpu) -> Outcome<()> {
        let params = PrepareParams { rows: self.of_queries, queries: self.all };
        let kernel = match self.reads {
            Reads::Halves => &gpu.kernels.prepare,
            Reads::OnePlane => &gpu.kernels.prepare_planes[0],
            Reads::TwoPlanes => &gpu.kernels.prepare_planes[1],
        };
        let blocks = self.n.next_multiple_of(QUERY_TILE) as u32;
        launch(gpu, kernel, (blocks, 1), SELECT_THREADS, 0, &params)
    }

    /// [`Batch::begin`] and [`Batch::scan`], which for a few queries are one call.
    pub(super) fn run(&self, gpu: &ScanGpu, space: &mut Workspace, scan: &Scan) -> Outcome<()> {
        let all = || {
            self.begin(gpu)?;
            self.scan(gpu, scan)
        };
        if self.n > RECORDED_BATCH {
            return all();
        }
        let params = PrepareParams { rows: scan.rows, queries: self.all };
        // SAFETY: numbers without padding between them, as params.rs asserts.
        let call: Call = unsafe { std::mem::transmute(params) };
        space.recordings.run(gpu, call, all)
    }

    /// The queries of `range`, which starts at a multiple of the part.
    fn queries(&self, range: &Range<usize>) -> Queries {
        let skip = |at: CUdeviceptr, bytes: usize| at + (range.start * bytes) as CUdeviceptr;
        Queries {
            values: skip(self.all.values, self.stride * 4),
            halves: skip(self.all.halves, self.stride * 2),
            planes: skip(
                self.all.planes,
                self.reads.planes() * self.of_queries.byte_stride as usize,
            ),
            steps: skip(self.all.steps, 8),
            powers: skip(self.all.powers, 4),
            errors: skip(self.all.errors, 4),
            thresholds: skip(self.all.thresholds, 4),
            counts: skip(self.all.counts, 4),
            best: skip(self.all.best, self.k * 8),
            n_best: skip(self.all.n_best, 4),
            flags: skip(self.all.flags, 4),
            n: range.len() as u32,
            ..self.all
        }
    }

    /// Takes the best rows of a shard into the best so far, but for the queries that have too many candidates.
    pub(super) fn scan(&self, gpu: &ScanGpu, scan: &Scan) -> Outcome<()> {
        if scan.rows.n_positions == 0 {
            return Ok(());
        }
        for start in (0..self.n).step_by(self.part) {
            let range = start..self.n.min(start + self.part);
            let mut rows = scan.rows;
            if rows.mask_of != 0 {
                rows.mask_of += (start * 4) as CUdeviceptr;
            }
            self.scan_part(gpu, &rows, self.queries(&range))?;
        }
        Ok(())
    }

    fn scan_part(&self, gpu: &ScanGpu, rows: &Rows, queries: Queries) -> Outcome<()> {
        let n_tiles = rows.n_positions.div_ceil(TILE);
        let step = visiting_step(n_tiles);
        let scanner = Scanning::of(gpu, queries.n, rows, self.reads)?;
        let rounds = rounds(n_tiles, queries.capacity, queries.k, self.reads);
        // Enough blocks for the whole device, however few queries there are.
        let splits = (gpu.multiprocessors * 4 / queries.n).clamp(1, 64);
        let is_short = splits == 1 || self.reads.candidates_a_hit() * self.k <= FEW_CANDIDATES;
        let (query_bytes, sorted_bytes) = (rows.stride * 4, sorted_bytes(queries.k));
        // Worth it where the bound is as wide as that of one plane: a fourth of the candidates stay.
        let second_look = u32::from(self.reads == Reads::OnePlane);
        let look_bytes = second_look * (query_bytes + queries.k * 4);
        let last = rounds.len() - 1;
        for (i, round) in rounds.into_iter().enumerate() {
            let first_round = u32::from(i == 0);
            let n_direct = first_round * round.len() as u32 * TILE;
            let Range { start: begin, end } = round;
            let (rows, outbox) = (*rows, 0);
            let params =
                ScanParams { rows, queries, n_tiles, step, begin, end, first_round, outbox };
            scanner.launch(gpu, params)?;
            let select = |kernel, splits, shared, n_direct| {
                let params = SelectParams { rows, queries, n_direct, second_look };
                launch(gpu, kernel, (queries.n, splits), SELECT_THREADS, shared, &params)
            };
            let kernels = &gpu.kernels;
            if i == last && is_short {
                let shared = (query_bytes.max(sorted_bytes)).max(look_bytes);
                select(&kernels.conclude, 1, shared, n_direct)?;
                break;
            }
            select(&kernels.tighten, 1, look_bytes, n_direct)?;
            if i == last {
                select(&kernels.rescore, splits, query_bytes, 0)?;
                select(&kernels.finish, 1, sorted_bytes, 0)?;
            }
        }
        Ok(())
    }

    /// Waits for the best rows and for who had too many candidates.
    pub(super) fn fetch(&self, gpu: &ScanGpu, space: &mut Workspace) -> Outcome<()> {
        gpu.marks[1].record(&gpu.stream)?;
        let words = found_words(self.n, self.k);
        let to = space.fetched.reserve(gpu, words)?;
        space.found.read(gpu, to)?;
        gpu.stream.synchronize()
    }

    /// The queries that had too many candidates in the shard that was fetched last.
    pub(super) fn overflowed(&self, space: &Workspace) -> Outcome<Vec<usize>> {
        let found = Fetched::of(space, self.n, self.k)?;
        Ok((0..self.n).filter(|&i| found.number(self.n + i) != 0).collect())
    }

    /// Forgets which queries had too many candidates.
    pub(super) fn forget_flags(&self, gpu: &ScanGpu) -> Outcome<()> {
        let bytes = self.n * size_of::<u32>();
        // SAFETY: the flags of the batch, which nothing else writes to at this point of the stream.
        unsafe { result::memset_d8_async(self.all.flags, 0, bytes, gpu.stream.cu_stream()) }
    }

    /// Takes the best rows of a shard into the best so far of one query, by the canonical score of every row.
    pub(super) fn scan_in_full(
        &self,
        gpu: &ScanGpu,
        space: &mut Workspace,
        scan: &Scan,
        query: usize,
    ) -> Outcome<()> {
        self.score_all(gpu, space, scan, query, |space, n_keys| {
            let keys = space.keys.reserve(gpu, n_keys)?;
            let params =
                MergeParams { queries: self.all, keys, n_keys: n_keys as u32, query: query as u32 };
            launch(
                gpu,
                &gpu.kernels.merge,
                (1, 1),
                SELECT_THREADS,
                sorted_bytes(self.all.k),
                &params,
            )
        })
    }

    /// Hands the canonical keys of all rows that pass to `take`, some at a time.
    pub(super) fn keys(
        &self,
        gpu: &ScanGpu,
        space: &mut Workspace,
        scan: &Scan,
        query: usize,
        mut take: impl FnMut(&[u64]),
    ) -> Outcome<()> {
        self.score_all(gpu, space, scan, query, |space, n_keys| {
            let mut keys = vec![0; n_keys];
            space.keys.read(gpu, &mut keys)?;
            gpu.stream.synchronize()?;
            take(&keys);
            Ok(())
        })
    }

    fn score_all(
        &self,
        gpu: &ScanGpu,
        space: &mut Workspace,
        scan: &Scan,
        query: usize,
        mut take: impl FnMut(&mut Workspace, usize) -> Outcome<()>,
    ) -> Outcome<()> {
        let n = scan.rows.n_positions as usize;
        for begin in (0..n).step_by(KEYS_AT_ONCE) {
            let end = n.min(begin + KEYS_AT_ONCE);
            let keys = space.keys.reserve(gpu, end - begin)?;
            let params = ScoreAllParams {
                rows: scan.rows,
                queries: self.all,
                keys,
                query: query as u32,
                begin: begin as u32,
                end: end as u32,
            };
            let blocks = ((end - begin).div_ceil(16) as u32).min(gpu.multiprocessors * 8);
            let query_bytes = scan.rows.stride * 4;
            launch(gpu, &gpu.kernels.score_all, (blocks, 1), SELECT_THREADS, query_bytes, &params)?;
            take(space, end - begin)?;
        }
        Ok(())
    }

    /// What `make` makes of the keys of each query, best first, that were fetched.
    pub(super) fn results<T>(
        &self,
        space: &Workspace,
        make: impl Fn(&[u64]) -> T,
    ) -> Outcome<Vec<T>> {
        let found = Fetched::of(space, self.n, self.k)?;
        let keys_of = |i: usize| &found.keys[i * self.k..][..found.number(i) as usize];
        Ok((0..self.n).map(|i| make(keys_of(i))).collect())
    }
}

impl Scan {
    /// How many rows there are to scan.
    pub(super) fn positions(&self) -> usize {
        self.rows.n_positions as usize
    }

    /// What of `shard` is scanned under `filter`, which speaks of all rows of the index.
    pub(super) fn of(
        gpu: &ScanGpu,
        space: &mut Workspace,
        shard: &Shard,
        matrix: &MatrixView<'_>,
        filter: &Filter<'_>,
    ) -> Outcome<Self> {
        let n_rows = shard.n_rows.min(matrix.n_rows() - shard.first_row);
        let mut rows = Rows {
            values: address(gpu, &shard.values),
            n_positions: n_rows as u32,
            stride: matrix.stride() as u32,
            first_row: shard.first_row as u32,
            ..Rows::default()
        };
        if let Some(bytes) = &shard.bytes {
            rows.bytes = address(gpu, &bytes.values);
            rows.scales = address(gpu, &bytes.scales);
            rows.byte_stride = bytes.stride as u32;
            rows.max_residual = bytes.max_residual;
        }
        let shard_rows = shard.first_row..shard.first_row + n_rows;
        let words: Vec<u32> =
            filter.masks.iter().flat_map(|mask| mask.words_of(shard_rows.clone())).collect();
        let passing: usize = words.iter().map(|w| w.count_ones() as usize).sum();
        if passing == n_rows * filter.masks.len() {
            return Ok(Self { rows });
        }
        let at = space.mask.fill(gpu, &words)?;
        // A list serves all queries or none.
        if passing * LISTED_BELOW >= n_rows || !filter.of.is_empty() {
            (rows.masks, rows.mask_words) = (at, n_rows.div_ceil(32) as u32);
            if !filter.of.is_empty() {
                rows.mask_of = space.mask_of.fill(gpu, filter.of)?;
            }
            return Ok(Self { rows });
        }
        rows.n_positions = passing as u32;
        rows.list = space.list.reserve(gpu, passing)?;
        let params = ListParams {
            mask: at,
            list: rows.list,
            n_listed: space.n_listed.clear(gpu, 1)?,
            n_rows: n_rows as u32,
        };
        let blocks = (words.len() as u32).div_ceil(SELECT_THREADS);
        launch(gpu, &gpu.kernels.list_rows, (blocks, 1), SELECT_THREADS, 0, &params)?;
        Ok(Self { rows })
    }
}

/// The bytes a second that a copy within the device reads and writes, and the products a second of `mma.sync` in
/// half precision.
pub(super) fn measure(gpu: &ScanGpu, space: &mut Workspace) -> Outcome<(f64, f64)> {
    let bytes = (gpu.context.mem_get_info()?.0 / 8).min(1 << 30);
    // SAFETY: what is copied is never looked at.
    let from = unsafe { gpu.stream.alloc::<u8>(bytes) }?;
    let mut to = gpu.stream.alloc_zeros::<u8>(bytes)?;
    let copy = best_seconds(gpu, || gpu.stream.memcpy_dtod(&from, &mut to))?;
    let (blocks, repeats) = (gpu.multiprocessors * 4, 512);
    let sums = space.errors.reserve(gpu, blocks as usize)?;
    let params = MeasureParams { sums, repeats };
    let kernel = &gpu.kernels.multiply_only;
    let multiply =
        best_seconds(gpu, || launch(gpu, kernel, (blocks, 1), SELECT_THREADS, 0, &params))?;
    let warps = (blocks * SELECT_THREADS / 32) as usize;
    let products = (warps * repeats as usize * MEASURED_PRODUCTS) as f64;
    Ok((2.0 * bytes as f64 / copy, products / multiply))
}

/// The least time that `work` takes of the device in five runs.
fn best_seconds(gpu: &ScanGpu, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        gpu.marks[0].record(&gpu.stream)?;
        work()?;
        gpu.marks[1].record(&gpu.stream)?;
        best = best.min(f64::from(gpu.marks[0].elapsed_ms(&gpu.marks[1])?) / 1e3);
    }
    Ok(best)
}

/// Bytes in which `k` keys are sorted, or few.
fn sorted_bytes(k: u32) -> u32 {
    k.next_power_of_two().max(FEW_KEYS) * 8
}
