//! The encoder on a GPU: packed sequences, in half precision with float32 sums. The kernels are in
//! `kernels/encoder.cu`.
//!
//! ```text
//! sort sequences by length, divide them into micro-batches of about 10,000 tokens
//! for each 8 micro-batches:
//!     copy their indices to the device: token ids, position ids, cu_seqlens, attention tiles
//!     for each micro-batch: launch all layers                                        batch.rs
//!     copy the outputs back, and meanwhile plan the next 8 micro-batches             plan.rs
//! ```
//!
//! A micro-batch fills every multiprocessor, and its activations stay in the L2 cache through all
//! layers. Single sequences are launch-bound; their launches are replayed as a CUDA graph
//! ([`GraphCache`]). One caller at a time has the device.

mod batch;
mod params;
mod plan;
mod weights;

use crate::batching::{longest, micro_batches};
use crate::config::EncoderConfig;
use crate::error::{Error, Result};
use crate::head::ClassifierHead;
use crate::pooling::{NeededStates, Output};
use crate::tokenizer::Sequence;
use crate::weights::Weights;
use batch::{Addresses, BatchLaunch, ScatterTarget, Timeline};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaFunction};
use params::NO_ACTIVATION;
use plan::Plan;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warpseek_compute::device::GpuKernels;
use warpseek_compute::gpu::{
    BufferPool, CudaResult, DeviceBuffer, DeviceVectors, Gpu, GraphCache, HOPPER_SHARED_BYTES,
    HOPPER_STAGES_TWO_BLOCKS, MAX_SHARED_BYTES, StagedBuffer, TILE_SHARED_BYTES, TILE_SIDE,
    TILE_THREADS, device_failed, is_out_of_memory, streamed_bytes, use_warpgroup_products,
};
use weights::{DeviceWeights, PaddedShape, activation_code};

static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/encoder.fatbin"));

/// Tokens of a micro-batch, about: enough for every multiprocessor, few enough for the cache. For
/// MiniLM queries, keys and values take 19 MB, the inside of the feed-forward block 25 MB.
const BATCH_TOKENS: usize = 8192;

/// Micro-batches per transfer.
const TRANSFER_BATCHES: usize = 8;

/// A GPU with an encoder on it.
#[derive(Debug)]
pub(super) struct CudaBert {
    gpu: Arc<Gpu>,
    kernels: EncoderKernels,
    shape: PaddedShape,
    config: EncoderConfig,
    activation: u32,
    weights: DeviceWeights,
    state: Mutex<EncoderState>,
    pool: BufferPool,
}

impl Drop for CudaBert {
    fn drop(&mut self) {
        // Copies from its memory must be complete. A failure here recurs at the next call.
        let _ = self.gpu.stream.synchronize();
    }
}

/// Kernels by their names in `kernels/encoder.cu`.
#[derive(Debug)]
struct EncoderKernels {
    embed: CudaFunction,
    /// `linear`, or `linear_hopper`.
    linear: CudaFunction,
    /// Shared memory of a block of `linear`, in bytes.
    linear_bytes: u32,
    /// `flash_attention_*` for the model's heads.
    attention: CudaFunction,
    rotate: CudaFunction,
    gate: CudaFunction,
    layer_norm: CudaFunction,
    gather_rows: CudaFunction,
    mean_pool: CudaFunction,
    to_f32: CudaFunction,
    classify: CudaFunction,
    normalize_scatter: CudaFunction,
}

impl EncoderKernels {
    fn load(gpu: &Gpu, shape: PaddedShape, allowed: GpuKernels) -> Result<Self> {
        let (mut kernels, hopper) = gpu.load(FATBIN, |load| {
            let attention = format!("flash_attention_hd{}", shape.head_chunks * 32);
            let kernels = Self {
                embed: load("embed", 0)?,
                linear: load("linear", MAX_SHARED_BYTES)?,
                linear_bytes: TILE_SHARED_BYTES,
                attention: load(&attention, MAX_SHARED_BYTES)?,
                rotate: load("rotate", 0)?,
                gate: load("gate", 0)?,
                layer_norm: load("layer_norm", 0)?,
                gather_rows: load("gather_rows", 0)?,
                mean_pool: load("mean_pool", 0)?,
                to_f32: load("to_f32", 0)?,
                classify: load("classify", 0)?,
                normalize_scatter: load("normalize_scatter", 0)?,
            };
            let hopper = |name| load(name, HOPPER_SHARED_BYTES);
            let both = || Ok((hopper("check_wgmma")?, hopper("linear_hopper")?));
            Ok((kernels, gpu.is_hopper().then(both).transpose()?))
        })?;
        if let Some((check, linear)) = hopper
            && use_warpgroup_products(gpu, &check, allowed)?
        {
            kernels.linear = linear;
            kernels.linear_bytes = streamed_bytes(HOPPER_STAGES_TWO_BLOCKS);
        }
        Ok(kernels)
    }
}

/// Memory of one caller at a time.
#[derive(Debug)]
struct EncoderState {
    /// Tokens of a micro-batch; fewer once memory ran out.
    batch_tokens: usize,
    activations: Activations,
    transfers: [Transfer; 2],
    graphs: GraphCache<BatchLaunch>,
}

impl EncoderState {
    fn new(batch_tokens: usize) -> Self {
        let (activations, transfers) = Default::default();
        Self { batch_tokens, activations, transfers, graphs: GraphCache::default() }
    }
}

/// Activations of a micro-batch.
#[derive(Debug, Default)]
struct Activations {
    /// Input and output of a layer, `[tokens, width]`.
    x: DeviceBuffer<u16>,
    /// `[tokens, 3 heads]`.
    qkv: DeviceBuffer<u16>,
    /// `[tokens, heads]`.
    context: DeviceBuffer<u16>,
    /// `[tokens, inner]`, twice as wide with a gate.
    wide: DeviceBuffer<u16>,
    /// `[tokens, inner]`: the output of a gate.
    gated: DeviceBuffer<u16>,
    /// The input of a block with a norm in front, and narrow embeddings; `[tokens, width]`.
    normed: DeviceBuffer<u16>,
    /// States of the CLS tokens, `[sequences, width]`.
    cls: DeviceBuffer<u16>,
}

/// Indices of some micro-batches on their way to the device, and outputs on their way back.
#[derive(Debug, Default)]
struct Transfer {
    /// Event after the last use.
    done: Option<CudaEvent>,
    indices: StagedBuffer<u32>,
    out: StagedBuffer<f32>,
    /// Input number and output values of each sequence; empty if nothing comes back.
    outputs: Vec<(usize, usize)>,
}

impl Transfer {
    fn wait(&mut self) -> CudaResult<()> {
        self.done.take().map_or(Ok(()), |done| done.synchronize())
    }

    /// Waits for the outputs and copies them to `to`, `[sequences, n_out]`.
    fn collect(&mut self, to: &mut [f32], n_out: usize) -> CudaResult<()> {
        self.wait()?;
        let mut values = self.out.downloaded(self.outputs.iter().map(|(_, len)| len).sum())?;
        for (i, len) in self.outputs.drain(..) {
            let (own, rest) = values.split_at(len);
            to[i * n_out..][..len].copy_from_slice(own);
            values = rest;
        }
        Ok(())
    }
}

/// The work of one call.
#[derive(Clone, Copy)]
struct EncodeRequest<'a> {
    sequences: &'a [Sequence],
    output: Output,
    /// Values per sequence that come back.
    n_out: usize,
    /// The target of vectors that stay on the device; nothing comes back then.
    scatter: Option<ScatterTarget>,
    timeline: Option<&'a Timeline>,
}

/// True if the kernels can compute a model of this shape.
pub(super) fn supports(config: &EncoderConfig) -> bool {
    PaddedShape::of(config).is_some()
}

impl CudaBert {
    /// Loads a model to a GPU, given by ordinal and permitted kernels. Fails as [`Gpu::open`],
    /// [`Gpu::load`] and [`Weights::get`].
    pub(super) fn open(
        (ordinal, allowed): (u32, GpuKernels),
        weights: &Weights,
        config: &EncoderConfig,
        head: Option<&ClassifierHead>,
    ) -> Result<Self> {
        let shape = PaddedShape::of(config).ok_or_else(|| {
            let reason = "no kernel computes a model of this shape; use --device cpu";
            Error::unavailable(format!("cuda:{ordinal}"), reason)
        })?;
        let gpu = Arc::new(Gpu::open(ordinal)?);
        let kernels = EncoderKernels::load(&gpu, shape, allowed)?;
        let weights = DeviceWeights::upload(&gpu, weights, config, shape, head)?;
        let activation = activation_code(config.activation).unwrap_or(NO_ACTIVATION);
        let occupancy = kernels.linear.occupancy_max_active_blocks_per_multiprocessor(
            TILE_THREADS,
            kernels.linear_bytes as usize,
            None,
        );
        let blocks = occupancy.map_err(device_failed)?.max(1) * gpu.multiprocessors;
        let state = EncoderState::new(batch_tokens(blocks as usize, shape.width));
        let (state, pool, config) = (Mutex::new(state), BufferPool::default(), config.clone());
        Ok(Self { gpu, kernels, shape, config, activation, weights, state, pool })
    }

    /// See [`super::Encoder::forward`], which checks the sequences.
    pub(super) fn forward(
        &self,
        sequences: &[Sequence],
        output: Output,
        n_out: usize,
    ) -> Result<Vec<f32>> {
        let request = EncodeRequest { sequences, output, n_out, scatter: None, timeline: None };
        self.run(&mut self.lock(), request)
    }

    /// See [`super::Encoder::allocate`].
    pub(super) fn allocate(&self, n: usize, stride: usize) -> Result<DeviceVectors> {
        DeviceVectors::new(&self.gpu, &self.pool, n, stride).map_err(device_failed)
    }

    /// See [`super::Encoder::forward_on_device`]. Returns before the device is done.
    pub(super) fn forward_on_device(
        &self,
        sequences: &[Sequence],
        output: Output,
        unit: bool,
        to: &mut DeviceVectors,
        first: usize,
    ) -> Result<()> {
        let (at, stride) = to.slot(first);
        let scatter = Some(ScatterTarget { at, stride, unit });
        let request = EncodeRequest { sequences, output, n_out: 0, scatter, timeline: None };
        let mut state = self.lock();
        self.run(&mut state, request)?;
        to.mark_ready().map_err(device_failed)
    }

    /// See [`super::Encoder::profile`].
    pub(super) fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        let steps = Timeline::default();
        let (output, n_out, timeline) = (Output::Mean, self.shape.hidden, Some(&steps));
        let request = EncodeRequest { sequences, output, n_out, scatter: None, timeline };
        self.run(&mut self.lock(), request)?;
        let mut seconds: Vec<(&'static str, f64)> = Vec::new();
        for pair in steps.borrow().windows(2) {
            let [(_, before), (step, now)] = pair else { continue };
            let time = f64::from(before.elapsed_ms(now).map_err(device_failed)?) / 1e3;
            match seconds.iter_mut().find(|known| known.0 == *step) {
                Some(known) => known.1 += time,
                None => seconds.push((step, time)),
            }
        }
        Ok(seconds)
    }

    /// Takes the device for one caller: nothing else may use its main stream meanwhile.
    fn lock(&self) -> MutexGuard<'_, EncoderState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a request, with smaller micro-batches if memory runs out.
    fn run(&self, state: &mut EncoderState, request: EncodeRequest<'_>) -> Result<Vec<f32>> {
        loop {
            match self.run_once(state, request) {
                Ok(out) => return Ok(out),
                // Memory must not be freed while the device may use it.
                Err(e) if self.gpu.stream.synchronize().is_err() => return Err(device_failed(e)),
                // A micro-batch has at least one sequence.
                Err(e)
                    if is_out_of_memory(&e) && state.batch_tokens > longest(request.sequences) =>
                {
                    *state = EncoderState::new(state.batch_tokens / 2);
                }
                Err(e) => return Err(device_failed(e)),
            }
        }
    }

    fn run_once(
        &self,
        state: &mut EncoderState,
        request: EncodeRequest<'_>,
    ) -> CudaResult<Vec<f32>> {
        self.gpu.context.bind_to_thread()?;
        // A call that failed may have left some.
        state.transfers.iter_mut().for_each(|transfer| transfer.outputs.clear());
        let mut out = vec![0f32; request.sequences.len() * request.n_out];
        let batches = micro_batches(request.sequences, state.batch_tokens);
        for (i, batches) in batches.chunks(TRANSFER_BATCHES).enumerate() {
            let plan = Plan::new(request.sequences, batches, &self.config);
            self.launch(state, i % 2, plan, request)?;
            if i > 0 {
                // Double buffering: the transfer before this one.
                state.transfers[(i + 1) % 2].collect(&mut out, request.n_out)?;
            }
        }
        // Nobody waits here for vectors that stay on the device.
        if request.scatter.is_none() {
            let [first, second] = &mut state.transfers;
            first.collect(&mut out, request.n_out)?;
            second.collect(&mut out, request.n_out)?;
        }
        Ok(out)
    }

    /// Launches planned micro-batches.
    fn launch(
        &self,
        state: &mut EncoderState,
        transfer: usize,
        plan: Plan,
        request: EncodeRequest<'_>,
    ) -> CudaResult<()> {
        let (gpu, shape) = (&self.gpu, self.shape);
        let EncodeRequest { sequences, output, scatter, timeline, .. } = request;
        let EncoderState { activations, transfers, graphs, .. } = state;
        let width = if output == Output::Logit { 1 } else { shape.hidden };
        let n_rows = if output == Output::Tokens { plan.n_tokens() } else { plan.order.len() };
        let transfer = &mut transfers[transfer];
        transfer.wait()?;
        let indices = transfer.indices.upload(gpu, &plan.indices)?;
        let out_at = transfer.out.reserve(gpu, n_rows * width)?;
        let tokens = plan.batches.iter().map(|batch| batch.n_tokens).max().unwrap_or(0);
        let cls = match output.needs() {
            NeededStates::First => plan.batches.iter().map(|b| b.n_sequences).max().unwrap_or(0),
            NeededStates::All => 0,
        };
        let halves = self.config.up_width() / self.config.intermediate_size;
        let has_normed = self.weights.projection.is_some() || self.weights.final_norm.is_some();
        let normed = if has_normed { shape.width } else { 0 };
        let context = (tokens * shape.heads()).max(cls * shape.width);
        let at = Addresses {
            indices,
            x: activations.x.reserve(gpu, tokens * shape.width)?,
            qkv: activations.qkv.reserve(gpu, tokens * 3 * shape.heads())?,
            context: activations.context.reserve(gpu, context)?,
            wide: activations.wide.reserve(gpu, tokens * shape.inner * halves)?,
            gated: activations.gated.reserve(gpu, tokens * shape.inner * (halves - 1))?,
            normed: activations.normed.reserve(gpu, tokens * normed)?,
            cls: activations.cls.reserve(gpu, cls * shape.width)?,
            out: out_at,
        };
        let mut row = 0;
        for &batch in &plan.batches {
            let out = out_at + (row * width * size_of::<f32>()) as CUdeviceptr;
            let run = BatchLaunch { at: Addresses { out, ..at }, batch, output, scatter };
            // Only single sequences are launch-bound, and their launches repeat.
            match sequences.len() == 1 && timeline.is_none() {
                true => graphs.run(gpu, run, || self.encode(&run, None))?,
                false => self.encode(&run, timeline)?,
            }
            row += if output == Output::Tokens { batch.n_tokens } else { batch.n_sequences };
        }
        if scatter.is_none() {
            let rows = |i: usize| if output == Output::Tokens { sequences[i].ids.len() } else { 1 };
            transfer.outputs.extend(plan.order.into_iter().map(|i| (i, rows(i) * width)));
            transfer.out.download(gpu, n_rows * width)?;
        }
        transfer.done = Some(gpu.stream.record_event(None)?);
        Ok(())
    }
}

/// Returns the tokens of a micro-batch with which the GEMMs that end in a state of `width` fill all
/// `blocks` that run at a time, a whole number of times: no multiprocessor waits for the last ones.
fn batch_tokens(blocks: usize, width: usize) -> usize {
    let side = TILE_SIDE as usize;
    let rows = (blocks / width.div_ceil(side)).max(1) * side;
    ((BATCH_TOKENS + rows / 2) / rows).max(1) * rows
}

#[cfg(test)]
mod tests {
    use super::batch_tokens;

    #[test]
    fn micro_batches_fill_the_device_a_whole_number_of_times() {
        // 132 multiprocessors with two blocks each: 88 tiles of rows with 3 tiles of columns, 44
        // with 6, and 264 with one.
        assert_eq!(batch_tokens(264, 384), 88 * 128);
        assert_eq!(batch_tokens(264, 768), 44 * 128);
        assert_eq!(batch_tokens(264, 128), 264 * 128);
        // A small device more than once.
        assert_eq!(batch_tokens(92, 384), 2 * 30 * 128);
        assert_eq!(batch_tokens(1, 1024), 8192);
    }
}
