//! Benchmarks: the limits of this machine, and the share of them that scan and models reach.
//!
//! Everything is measured over the threads of the current rayon pool. A limit is the best of
//! several repeats, any other rate their median. Other programs on the machine lower all rates.

use crate::error::{Error, Result};
use crate::search::embed_queries;
use candle_core::{DType, Device, Tensor};
use fastrand::Rng;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use serde::Serialize;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warpseek_bert::embedder::{Embedder, Role};
use warpseek_bert::reranker::{RerankJob, Reranker};
use warpseek_compute::cpu::{AlignedVec, Bf16, Kernels, OperandRows, PANEL, Tier};
use warpseek_topk::Sq8Matrix;
use warpseek_topk::layout::MAX_DIM;
use warpseek_topk::layout::sq8_stride;
use warpseek_topk::scanner::{GpuLimits, MAX_COMPONENT, QueryBatch, Scanner};
use warpseek_topk::sq8::RowScale;
use warpseek_topk::{MatrixView, RowMask, row_norm_upper, stride_of};

/// The least time to measure a rate.
const MEASURE: Duration = Duration::from_millis(400);

/// Bytes to read for the memory rate: more than caches hold.
const MEMORY_BYTES: usize = 512 << 20;

/// Limits of the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineLimits {
    /// Bytes read from memory per second.
    pub memory_bytes: f64,
    /// Products of int8 numbers, summed, per second, by the tier in use: of AMX in tile registers
    /// alone, of other tiers as `int8_gemm`.
    pub int8_products: f64,
    /// The same of matrices that stay in the first-level cache, with loads and stores.
    pub int8_gemm: f64,
    /// Products of bfloat16 numbers per second, if the CPU has an instruction for them.
    pub bf16_products: Option<f64>,
    /// The same of matrices, as `int8_gemm`.
    pub bf16_gemm: Option<f64>,
    /// Products of float32 numbers per second.
    pub f32_products: f64,
    /// Limits of the GPU, if one searches.
    pub gpu: Option<GpuLimits>,
}

/// The rate of a batch of searches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScanRate {
    /// Rows of the matrix.
    pub rows: usize,
    /// The measured search.
    #[serde(flatten)]
    pub shape: SearchShape,
    /// Queries answered per second.
    pub queries_per_second: f64,
    /// Seconds of the GPU per batch, without copies to and from it.
    pub gpu_seconds: Option<f64>,
    /// True if the int8 copy of the rows was read.
    pub reads_bytes: bool,
    /// The share of the memory rate that reading the int8 copy (or the rows, if those are read)
    /// once per batch takes; on a GPU, in the time of its kernels.
    pub memory_share: f64,
    /// The share of the int8 products; on a GPU, of the half-precision products.
    pub multiply_share: f64,
}

/// The rate of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRate {
    /// Tokens per text, special tokens included.
    pub tokens: usize,
    /// Texts (or pairs) per second in large batches.
    pub texts_per_second: f64,
    /// The same without tokenization, from token ids to vectors (or logits).
    pub encoded_per_second: f64,
    /// Milliseconds of one search: for a query of 12 tokens, or for 25 passages of `tokens`.
    pub one_search_ms: f64,
    /// The share of each kind of GPU kernel in the time of all.
    pub shares: Vec<(&'static str, f64)>,
}

/// Measures the limits of the machine, and of the GPU if `scanner` uses one.
///
/// # Errors
///
/// [`Error::Compute`] if the float32 product fails, [`Error::DeviceFailed`].
pub fn limits(scanner: &Scanner, tier: Tier) -> Result<MachineLimits> {
    let kernels = tier.kernels();
    let int8_gemm = int8_rate(kernels);
    let bf16_gemm = kernels.bf16().map(|bf16| bf16_rate(kernels, bf16));
    let bf16_registers = |bf16: Bf16| register_rate(|steps| bf16.multiply_registers(steps));
    Ok(MachineLimits {
        memory_bytes: memory_rate(),
        int8_products: register_rate(|steps| kernels.multiply_registers(steps)).max(int8_gemm),
        int8_gemm,
        bf16_products: kernels.bf16().zip(bf16_gemm).map(|(b, gemm)| bf16_registers(b).max(gemm)),
        bf16_gemm,
        f32_products: f32_rate().map_err(Error::compute("a matrix product"))?,
        gpu: scanner.gpu_limits()?,
    })
}

/// A matrix to search, and queries.
#[derive(Debug, Clone)]
pub struct SearchData {
    dim: usize,
    rows: Vec<f16>,
    max_norm: f32,
    sq8: Sq8Matrix,
    queries: Vec<f32>,
}

/// A search to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SearchShape {
    /// Queries per batch; queries are repeated if there are fewer.
    pub queries: usize,
    /// Hits per query.
    pub k: usize,
    /// Percentage of rows that pass the filter; 100 is no filter.
    pub percent: usize,
    /// True if the rows have an int8 copy.
    #[serde(rename = "prefilter")]
    pub sq8: bool,
}

impl SearchData {
    /// Stores `rows` and `queries`, `[n, dim]` each, as an index does.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if either is empty or not a whole number of vectors, or has components or
    /// dimensions that no index takes.
    pub fn new(rows: &[f32], queries: Vec<f32>, dim: usize) -> Result<Self> {
        let whole = |values: &[f32]| !values.is_empty() && values.len().is_multiple_of(dim);
        if dim == 0 || !whole(rows) || !whole(&queries) {
            return Err(Error::usage("a search needs rows and queries of one dimension"));
        }
        let fits = |v: &f32| v.abs() <= MAX_COMPONENT;
        if dim > MAX_DIM || !rows.iter().chain(&queries).all(fits) {
            return Err(Error::usage(format!(
                "vectors have at most {MAX_DIM} dimensions and components within ±{MAX_COMPONENT}"
            )));
        }
        let stride = stride_of(dim);
        let mut padded = vec![f16::ZERO; rows.len() / dim * stride];
        for (padded, row) in padded.chunks_exact_mut(stride).zip(rows.chunks_exact(dim)) {
            padded[..dim].convert_from_f32_slice(row);
        }
        let max_norm = padded.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
        let sq8 = Sq8Matrix::of(&padded, dim);
        Ok(Self { dim, rows: padded, max_norm, sq8, queries })
    }

    /// Random unit vectors from a fixed seed.
    ///
    /// # Errors
    ///
    /// As [`SearchData::new`].
    pub fn random(n_rows: usize, n_queries: usize, dim: usize) -> Result<Self> {
        let vectors = |n: usize, seed: u64| -> Vec<f32> {
            let mut values = vec![0f32; n * dim];
            values.par_chunks_exact_mut(dim.max(1)).enumerate().for_each(|(i, vector)| {
                let mut random = Rng::with_seed(seed ^ (i as u64) << 8);
                vector.iter_mut().for_each(|v| *v = gaussian(&mut random));
                warpseek_bert::embedder::normalize(vector);
            });
            values
        };
        Self::new(&vectors(n_rows, 1), vectors(n_queries, 2), dim)
    }

    fn matrix<'a>(&'a self, sq8: bool, owner: &'a Arc<()>) -> Result<MatrixView<'a>> {
        Ok(MatrixView::new(&self.rows, self.dim, self.max_norm)
            .ok_or_else(|| Error::usage("a search needs rows and dimensions"))?
            .with_sq8(self.sq8.view(self.dim).filter(|_| sq8))
            .with_owner(owner, &[]))
    }

    /// Measures searches of one shape.
    ///
    /// # Errors
    ///
    /// As [`limits`]; [`Error::Usage`] if `k` is 0.
    pub fn search(
        &self,
        scanner: &Scanner,
        shape: SearchShape,
        limits: &MachineLimits,
    ) -> Result<ScanRate> {
        let owner = Arc::new(());
        let matrix = self.matrix(shape.sq8, &owner)?;
        let n_rows = matrix.n_rows();
        let values = self.queries.iter().copied().cycle().take(shape.queries * self.dim);
        let queries = QueryBatch::new(&values.collect::<Vec<_>>(), self.dim)?;
        let mut mask = RowMask::empty(n_rows);
        (0..n_rows).filter(|row| row * 61 % 100 < shape.percent).for_each(|row| mask.insert(row));
        let mask = (shape.percent < 100).then_some(&mask);
        let seconds = median(|| scanner.top_k(&matrix, &queries, shape.k, mask))?;
        let passing = mask.map_or(n_rows, RowMask::count) as f64;
        let (gpu_seconds, reads_bytes) = match scanner.last_gpu_batch()? {
            Some(batch) => (Some(batch.seconds), batch.read_int8),
            None => (None, shape.sq8),
        };
        let row_bytes = match reads_bytes {
            true => sq8_stride(self.dim) + size_of::<RowScale>(),
            false => matrix.stride() * size_of::<f16>(),
        };
        let (memory_bytes, multiply) = match limits.gpu {
            Some(gpu) if gpu_seconds.is_some() => (gpu.copy_bytes, gpu.half_products),
            _ => (limits.memory_bytes, limits.int8_products),
        };
        let busy = gpu_seconds.unwrap_or(seconds);
        let products = shape.queries as f64 * passing * self.dim as f64;
        Ok(ScanRate {
            gpu_seconds,
            reads_bytes,
            rows: n_rows,
            shape,
            queries_per_second: shape.queries as f64 / seconds,
            memory_share: passing * row_bytes as f64 / busy / memory_bytes,
            multiply_share: products / busy / multiply,
        })
    }
}

/// Milliseconds from the text of a query of 12 tokens to its ten best of `n_rows` random rows.
///
/// # Errors
///
/// As [`Embedder::embed`] and [`Scanner::top_k`].
pub fn query_ms(embedder: &Embedder, scanner: &Scanner, n_rows: usize) -> Result<f64> {
    let data = SearchData::random(n_rows, 1, embedder.dim())?;
    let (owner, query) = (Arc::new(()), [text(0, 10)]);
    let matrix = data.matrix(true, &owner)?;
    let search = || scanner.top_k(&matrix, &embed_queries(embedder, &query)?.0, 10, None);
    Ok(median(search)? * 1e3)
}

/// Measures an embedder on texts of about `tokens` tokens, and on a query of 12 tokens.
///
/// # Errors
///
/// As [`Embedder::embed`].
pub fn embed(embedder: &Embedder, tokens: usize) -> Result<ModelRate> {
    let n = embedder.batch_texts() / 2;
    let texts: Vec<String> = (0..n).map(|i| text(i, tokens.saturating_sub(2))).collect();
    let many = median(|| embedder.embed(&texts, Role::Passage))?;
    let tokenized = embedder.tokenize(&texts, Role::Passage)?;
    let sequences: Vec<_> = tokenized.into_iter().map(|t| t.sequence).collect();
    let tokens = sequences.first().map_or(0, |s| s.ids.len());
    let encoded = median(|| embedder.pooled(&sequences, Role::Passage))?;
    let query = [text(0, 10)];
    let one = median(|| embedder.embed(&query, Role::Query))?;
    let mut shares = embedder.profile(&sequences)?;
    let total: f64 = shares.iter().map(|s| s.1).sum();
    shares.iter_mut().for_each(|s| s.1 /= total);
    Ok(ModelRate {
        tokens,
        texts_per_second: n as f64 / many,
        encoded_per_second: n as f64 / encoded,
        one_search_ms: one * 1e3,
        shares,
    })
}

/// Measures a reranker on pairs of about `tokens` tokens.
///
/// # Errors
///
/// As [`Reranker::score`].
pub fn rerank(reranker: &Reranker, tokens: usize) -> Result<ModelRate> {
    let query = text(0, 10);
    let n = reranker.batch_pairs();
    let texts: Vec<String> = (0..n).map(|i| text(i, tokens.saturating_sub(13))).collect();
    let passages: Vec<&str> = texts.iter().map(String::as_str).collect();
    let many = median(|| reranker.score(&query, &passages))?;
    let one = median(|| reranker.score(&query, &passages[..25]))?;
    let (_, sequences) = reranker.plan(&RerankJob { query: &query, passages })?;
    let encoded = median(|| reranker.logits(&sequences))?;
    Ok(ModelRate {
        tokens,
        texts_per_second: n as f64 / many,
        encoded_per_second: n as f64 / encoded,
        one_search_ms: one * 1e3,
        shares: Vec::new(),
    })
}

/// The shortest time of a run of `work`, in seconds.
fn best(work: impl FnMut()) -> f64 {
    times(work)[0]
}

/// The median time of a run of `work`, in seconds.
fn median<T>(mut work: impl FnMut() -> Result<T>) -> Result<f64> {
    let mut outcome = Ok(());
    let times = times(|| {
        if outcome.is_ok() {
            outcome = work().map(drop);
        }
    });
    outcome.map(|()| times[times.len() / 2])
}

/// The times of the runs that fit into [`MEASURE`], at least three, shortest first. The first run,
/// which fills caches, does not count.
fn times(mut work: impl FnMut()) -> Vec<f64> {
    work();
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || started.elapsed() < MEASURE {
        let began = Instant::now();
        work();
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times
}

fn memory_rate() -> f64 {
    let words = vec![1u64; MEMORY_BYTES / size_of::<u64>()];
    let chunk = words.len().div_ceil(rayon::current_num_threads());
    let seconds = best(|| {
        let sum: u64 = words
            .par_chunks(chunk)
            .map(|words| {
                // With independent sums, only reading takes time.
                let mut sums = [0u64; 32];
                for chunk in words.as_chunks::<32>().0 {
                    sums.iter_mut().zip(chunk).for_each(|(s, w)| *s = s.wrapping_add(*w));
                }
                sums.iter().fold(0, |a: u64, b| a.wrapping_add(*b))
            })
            .sum();
        black_box(sum);
    });
    MEMORY_BYTES as f64 / seconds
}

/// Products per second of all threads, for rows and columns that stay in the first-level cache.
/// Each thread makes its work.
fn product_rate<W: FnMut()>(make: impl Fn() -> W + Sync) -> f64 {
    const REPEATS: usize = 2_000;
    let threads = rayon::current_num_threads();
    let seconds = best(|| {
        let repeat = |_| {
            let mut work = make();
            (0..REPEATS).for_each(|_| work());
        };
        (0..threads).into_par_iter().with_max_len(1).for_each(repeat);
    });
    (threads * REPEATS * N_ROWS * LENGTH * COLUMNS) as f64 / seconds
}

/// Products per second of all threads in registers; `multiply` returns their number, or 0 if there
/// are no such registers.
fn register_rate(multiply: impl Fn(usize) -> usize + Sync) -> f64 {
    const STEPS: usize = 20_000;
    let threads = rayon::current_num_threads();
    let run = || (0..threads).into_par_iter().with_max_len(1).map(|_| multiply(STEPS)).sum();
    let products: usize = run();
    if products == 0 {
        return 0.0;
    }
    let seconds = best(|| {
        let again: usize = run();
        black_box(again);
    });
    products as f64 / seconds
}

/// Rows of the small matrices.
const N_ROWS: usize = 32;

/// Values per row of the small matrices.
const LENGTH: usize = 384;

/// Columns to multiply them by.
const COLUMNS: usize = 2 * PANEL;

fn int8_rate(kernels: Kernels) -> f64 {
    let (mut rows, mut panels) =
        (AlignedVec::zeros(N_ROWS * LENGTH), AlignedVec::zeros(COLUMNS * LENGTH));
    rows.fill(1i8);
    panels.fill(2u8);
    product_rate(|| {
        let tiles = kernels.tile_scope();
        let mut products = AlignedVec::zeros(N_ROWS * COLUMNS);
        let rows = OperandRows { values: &rows, stride: LENGTH, n: N_ROWS, length: LENGTH };
        let panels = &panels;
        move || {
            kernels.gemm_rows_i8(rows, panels, &mut products, COLUMNS);
            black_box((&products, &tiles));
        }
    })
}

fn bf16_rate(kernels: Kernels, bf16: Bf16) -> f64 {
    let (mut rows, mut panels) =
        (AlignedVec::zeros(N_ROWS * LENGTH), AlignedVec::zeros(COLUMNS * LENGTH));
    rows.fill(0x3f80u16);
    panels.fill(0x3f80u16);
    product_rate(|| {
        let tiles = kernels.tile_scope();
        let mut products = AlignedVec::zeros(N_ROWS * COLUMNS);
        let rows = OperandRows { values: &rows, stride: LENGTH, n: N_ROWS, length: LENGTH };
        let panels = &panels;
        move || {
            bf16.gemm(rows, panels, &mut products, COLUMNS);
            black_box((&products, &tiles));
        }
    })
}

fn f32_rate() -> candle_core::Result<f64> {
    const N: usize = 1024;
    let a = Tensor::ones((N, N), DType::F32, &Device::Cpu)?;
    let mut outcome = Ok(());
    let seconds = best(|| outcome = a.matmul(&a).map(|product| drop(black_box(product))));
    outcome?;
    Ok((N * N * N) as f64 / seconds)
}

/// A text of `n` words of one token each.
fn text(seed: usize, n: usize) -> String {
    const WORDS: [&str; 16] = [
        "water", "light", "house", "music", "river", "stone", "paper", "green", "north", "story",
        "table", "world", "small", "night", "market", "science",
    ];
    let words: Vec<&str> = (0..n).map(|i| WORDS[(i * 7 + seed * 5 + i * i) % 16]).collect();
    words.join(" ")
}

/// The sum of twelve uniform numbers less six, which is close to a standard normal number.
fn gaussian(random: &mut Rng) -> f32 {
    (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
}
