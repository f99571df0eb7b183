//! The scan on a GPU: rows stay in its memory, or pass through it in shards where they do not fit.
//!
//! Approximate scores in half precision or in bytes find candidates, and what could be among the best is
//! scored canonically on the device (`kernels/topk.cu`). One caller at a time has the device.

mod chain;
mod kernels;
mod params;
mod rounds;
mod rows;
mod scanning;
mod workspace;

use crate::oracle::{ScoredRow, from_ordered_bits};
use super::{Filter, GpuInfo, GpuLimits, GpuOptions, QueryBatch, Values};
use crate::error::Result;
use warpseek_compute::gpu::{Outcome, allocate, failure, is_out_of_memory, version_text};
use crate::matrix::MatrixView;
use chain::{BYTES_FROM, Batch, MAX_K, MAX_QUERIES, MOST_CANDIDATES, Scan};
use kernels::ScanGpu;
use params::Reads;
use rows::{Bytes, MOST_SHARD_ROWS, Rows, Shard};
use std::sync::{Mutex, PoisonError};
use workspace::{Vectors, Workspace};

/// What queries and candidates may need beside the rows.
const WORKSPACE_BYTES: usize = 1 << 30;

/// The fewest rows of a shard, of which two are on the device at a time.
const LEAST_SHARD_ROWS: usize = 1 << 10;

/// A GPU that scans.
#[derive(Debug)]
pub struct CudaScanner {
    gpu: ScanGpu,
    /// Positions for every hit from which large batches read bytes.
    bytes_from: usize,
    held: Mutex<Held>,
}

/// What one caller at a time works with.
#[derive(Debug)]
struct Held {
    rows: Rows,
    space: Workspace,
    overflows: u64,
    /// Whether the last batch read rows in 8 bits.
    read_bytes: bool,
}

impl CudaScanner {
    /// Opens GPU `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`](crate::error::Error::DeviceUnavailable) with the reason.
    pub fn open(ordinal: u32, options: GpuOptions) -> Result<Self> {
        let gpu = ScanGpu::open(ordinal)?;
        let free = gpu.context.mem_get_info().map_err(failure)?.0;
        let budget = options.row_bytes;
        let budget = budget.unwrap_or(free.saturating_sub(WORKSPACE_BYTES).max(free / 2));
        let space = Workspace::with_room(options.candidates.unwrap_or(MOST_CANDIDATES));
        let held = Held { rows: Rows::new(budget), space, overflows: 0, read_bytes: false };
        let bytes_from = options.bytes_from.unwrap_or(BYTES_FROM);
        Ok(Self { gpu, bytes_from, held: Mutex::new(held) })
    }

    /// What it is.
    pub fn info(&self) -> GpuInfo {
        let (major, minor) = self.gpu.capability;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has_hopper = self.gpu.kernels.hopper.is_some();
        GpuInfo {
            name: self.gpu.name.clone(),
            ordinal: self.gpu.context.ordinal() as u32,
            capability: format!("{major}.{minor}"),
            products: if has_hopper { "mma.sync, wgmma" } else { "mma.sync" },
            driver: version_text(self.gpu.driver),
            memory: self.gpu.total_memory,
            row_bytes: held.rows.budget(),
            uploaded_bytes: held.rows.uploaded(),
            overflows: held.overflows,
        }
    }

    /// Measures what it can do at most.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`](crate::error::Error::DeviceFailed).
    pub fn limits(&self) -> Result<GpuLimits> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (copy_bytes, half_products) =
            chain::measure(&self.gpu, &mut held.space).map_err(failure)?;
        Ok(GpuLimits { copy_bytes, half_products })
    }

    /// The seconds that the kernels of the last batch took on the device.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`](crate::error::Error::DeviceFailed) too where there was none.
    pub fn chain_seconds(&self) -> Result<f64> {
        let _alone = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let [start, end] = &self.gpu.marks;
        Ok(f64::from(start.elapsed_ms(end).map_err(failure)?) / 1e3)
    }

    /// Whether the last batch read rows in 8 bits.
    pub fn has_read_bytes(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).read_bytes
    }

    /// See [`super::Scanner::top_k`], which checks the arguments.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`](crate::error::Error::DeviceFailed).
    pub(super) fn top_k(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        filter: &Filter<'_>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        let k = k.min(matrix.n_rows());
        let is_shared = filter.of.is_empty();
        let nothing = is_shared && filter.masks.iter().any(|mask| mask.count() == 0);
        if k == 0 || queries.is_empty() || nothing {
            return Ok(vec![Vec::new(); queries.len()]);
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let there = match &queries.values {
            Values::There(vectors) if vectors.are_on(&self.gpu) => Some(vectors),
            _ => None,
        };
        if let Some(vectors) = there {
            vectors.wait(&self.gpu).map_err(failure)?;
        }
        let here = if there.is_none() { queries.padded()? } else { &[] };
        let mut results = Vec::with_capacity(queries.len());
        let mut at_once = MAX_QUERIES;
        while results.len() < queries.len() {
            let done = results.len();
            let n = (queries.len() - done).min(at_once);
            let vectors = match there {
                Some(vectors) => Vectors::There(vectors.place(done)),
                None => Vectors::Here(&here[done * matrix.stride()..][..n * matrix.stride()]),
            };
            let of = if is_shared { &[] } else { &filter.of[done..done + n] };
            let filter = Filter { masks: filter.masks, of };
            let work = Work { gpu: &self.gpu, matrix, vectors, n, k, filter };
            match work.run(&mut held, self.bytes_from) {
                Ok(found) => results.extend(found),
                // Nothing that is given back may still be written to, or read.
                Err(e) if self.is_broken() => return Err(failure(e)),
                // Fewer queries need less room; at last rows do not stay on the device.
                Err(e) if is_out_of_memory(&e) && (n > 128 || held.rows.budget() > 0) => {
                    held.space.clear();
                    held.rows.clear();
                    match n > 128 {
                        true => at_once = n / 2,
                        false => held.rows.halve_budget(),
                    }
                }
                Err(e) => return Err(failure(e)),
            }
        }
        Ok(results)
    }

    /// Waits until the device does nothing more; whether it fails at that.
    fn is_broken(&self) -> bool {
        let idle = [&self.gpu.copies, &self.gpu.stream].map(|stream| stream.synchronize());
        idle.iter().any(Result::is_err)
    }
}

/// Waits for copies at its end.
struct Idle<'a>(&'a ScanGpu);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        // What fails here fails at the next call.
        let _ = self.0.copies.synchronize();
    }
}

/// A batch of queries against a matrix.
struct Work<'a> {
    gpu: &'a ScanGpu,
    matrix: &'a MatrixView<'a>,
    vectors: Vectors<'a>,
    n: usize,
    k: usize,
    filter: Filter<'a>,
}

impl Work<'_> {
    /// Large batches read bytes where there are `bytes_from` positions for every hit.
    fn run(&self, held: &mut Held, bytes_from: usize) -> Outcome<Vec<Vec<ScoredRow>>> {
        // Copies ask for the thread's context.
        self.gpu.context.bind_to_thread()?;
        let Held { rows, space, overflows, read_bytes } = held;
        let stride = self.matrix.stride();
        let mut found = Found::new(self.k, self.n, overflows);
        let batch;
        if let Some(shard) = rows.resident(self.gpu, self.matrix)? {
            self.gpu.marks[0].record(&self.gpu.stream)?;
            let (scan, bytes) = (self.scan_of(space, shard)?, shard.bytes.as_ref());
            let norm = self.matrix.max_norm();
            let reads = Batch::reads(self.n, self.k, scan.positions(), bytes, norm, bytes_from);
            batch = self.place(space, reads, bytes)?;
            match self.k <= MAX_K {
                true => batch.run(self.gpu, space, &scan)?,
                false => batch.begin(self.gpu)?,
            }
            if !self.end(space, &batch, &scan, &mut found)? {
                rows.found_coarse();
                return self.run(held, usize::MAX);
            }
        } else {
            // Shards take all the room that rows have.
            rows.clear();
            self.gpu.marks[0].record(&self.gpu.stream)?;
            batch = self.place(space, Reads::Halves, None)?;
            batch.begin(self.gpu)?;
            let bytes = stride * 2;
            let n =
                (rows.budget() / 2 / bytes).clamp(LEAST_SHARD_ROWS, MOST_SHARD_ROWS) / 128 * 128;
            let n = n.min(self.matrix.n_rows().next_multiple_of(128));
            let room = || -> Outcome<Shard> {
                let values = allocate(self.gpu, n * stride)?;
                Ok(Shard { values, bytes: None, first_row: 0, n_rows: 0 })
            };
            let (mut coming, mut here) = (room()?, room()?);
            // Neither is given back while it is copied to, whatever happens.
            let _idle = Idle(self.gpu);
            let mut upload = |shard: &mut Shard, first_row: usize| {
                shard.first_row = first_row;
                shard.n_rows = n.min(self.matrix.n_rows() - first_row);
                let values = &self.matrix.values()[first_row * stride..][..shard.n_rows * stride];
                rows.upload(self.gpu, values, &mut shard.values, 0)
            };
            let mut arrived = upload(&mut coming, 0)?;
            for first_row in (0..self.matrix.n_rows()).step_by(n) {
                self.gpu.stream.wait(&arrived)?;
                std::mem::swap(&mut here, &mut coming);
                let scan = self.scan_of(space, &here)?;
                batch.forget_flags(self.gpu)?;
                if self.k <= MAX_K {
                    batch.scan(self.gpu, &scan)?;
                }
                if first_row + n < self.matrix.n_rows() {
                    // Beside the kernels.
                    arrived = upload(&mut coming, first_row + n)?;
                }
                self.end(space, &batch, &scan, &mut found)?;
            }
        }
        *read_bytes = batch.reads_bytes();
        match found {
            Found::OnDevice { .. } => {
                batch.results(space, |keys| keys.iter().map(|&key| scored_row(key)).collect())
            }
            Found::Here(lists) => Ok(lists.into_iter().map(|l| l.rows(self.k)).collect()),
        }
    }

    fn place(&self, space: &mut Workspace, reads: Reads, bytes: Option<&Bytes>) -> Outcome<Batch> {
        let Self { gpu, matrix, vectors, n, k, .. } = self;
        let bytes = bytes.filter(|_| reads != Reads::Halves);
        Batch::place(gpu, space, vectors, *n, matrix, (*k).min(MAX_K), (reads, bytes))
    }

    fn scan_of(&self, space: &mut Workspace, shard: &Shard) -> Outcome<Scan> {
        Scan::of(self.gpu, space, shard, self.matrix, &self.filter)
    }

    /// Waits for the kernels of a shard, and does again in full what had too many candidates; or says that these are so many that
    /// rows are not to be read in 8 bits.
    fn end(
        &self,
        space: &mut Workspace,
        batch: &Batch,
        scan: &Scan,
        found: &mut Found<'_>,
    ) -> Outcome<bool> {
        match found {
            Found::OnDevice { overflows } => {
                batch.fetch(self.gpu, space)?;
                let again = batch.overflowed(space)?;
                if again.is_empty() || batch.is_coarse(again.len()) {
                    return Ok(again.is_empty());
                }
                **overflows += again.len() as u64;
                for &query in &again {
                    batch.scan_in_full(self.gpu, space, scan, query)?;
                }
                batch.fetch(self.gpu, space)?;
                Ok(true)
            }
            Found::Here(lists) => {
                for (query, list) in lists.iter_mut().enumerate() {
                    batch.keys(self.gpu, space, scan, query, |keys| list.take(keys, self.k))?;
                }
                self.gpu.marks[1].record(&self.gpu.stream)?;
                Ok(true)
            }
        }
    }
}

/// Where the best rows are kept until the end.
enum Found<'a> {
    /// With the batch; queries that had too many candidates are counted.
    OnDevice { overflows: &'a mut u64 },
    /// Here, for a k that the device does not sort; a list a query.
    Here(Vec<Best>),
}

impl<'a> Found<'a> {
    fn new(k: usize, n_queries: usize, overflows: &'a mut u64) -> Self {
        match k <= MAX_K {
            true => Self::OnDevice { overflows },
            false => Self::Here((0..n_queries).map(|_| Best::default()).collect()),
        }
    }
}

/// The best keys of one query, with some that are not.
#[derive(Default)]
struct Best(Vec<u64>);

impl Best {
    fn take(&mut self, keys: &[u64], k: usize) {
        for &key in keys.iter().filter(|&&key| key != 0) {
            self.0.push(key);
            if self.0.len() >= 2 * k + 1024 {
                self.cut(k);
            }
        }
    }

    fn cut(&mut self, k: usize) {
        if self.0.len() > k {
            self.0.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
            self.0.truncate(k);
        }
    }

    fn rows(mut self, k: usize) -> Vec<ScoredRow> {
        self.cut(k);
        self.0.sort_unstable_by(|a, b| b.cmp(a));
        self.0.into_iter().map(scored_row).collect()
    }
}

/// The row and score of a key that the device made, by the rule of [`super::order`].
fn scored_row(key: u64) -> ScoredRow {
    ScoredRow { row: !(key as u32), score: from_ordered_bits((key >> 32) as u32) }
}
