//! The GPU's encoder: sequences end to end without padding, in half precision with float32 sums
//! (`kernels/encoder.cu`).
//!
//! Groups of sequences of like length go through all layers one after the other, so that a group's activations stay
//! in the device's cache. Several groups are a round: while one round runs, the numbers of the next are made and
//! copied. One caller at a time has the device.

mod chain;
mod params;
mod plan;
mod weights;

use super::{NeededStates, Output, Weights, longest, micro_batches};
use crate::config::{Activation, BertConfig};
use crate::error::{Error, Result};
use crate::pooling::ClassifierHead;
use crate::tokenizer::Sequence;
use chain::{At, Call, Marks, There};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaFunction, result};
use params::{GELU, GELU_TANH, RELU};
use plan::Round;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warpseek_compute::gpu::{
    BufferPool, CudaResult, DeviceBuffer, DeviceVectors, Gpu, GraphCache, HOPPER_SHARED_BYTES,
    HOPPER_STAGES_OF_TWO, MAX_SHARED_BYTES, PinnedBuffer, TILE_SHARED_BYTES, TILE_SIDE,
    TILE_THREADS, allow_shared, device_failed, is_out_of_memory, streamed_bytes,
    use_warpgroup_products,
};
use weights::{Model, Shape};

/// The kernels of `kernels/encoder.cu`.
static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/encoder.fatbin"));

/// About the tokens of a group: enough for every multiprocessor, few enough for the cache, in which 19 MB of queries,
/// keys and values and 25 MB between the feed-forward block's layers of MiniLM lie.
const GROUP_TOKENS: usize = 8192;

/// Groups of a round.
const ROUND_GROUPS: usize = 8;

/// A GPU with an encoder on it.
#[derive(Debug)]
pub(super) struct CudaBert {
    gpu: Arc<Gpu>,
    kernels: Kernels,
    shape: Shape,
    n_types: usize,
    activation: u32,
    model: Model,
    held: Mutex<Held>,
    spare: BufferPool,
}

impl Drop for CudaBert {
    fn drop(&mut self) {
        // What it gives back may still be copied from. What fails here fails at the next call.
        let _ = self.gpu.stream.synchronize();
    }
}

#[derive(Debug)]
struct Kernels {
    embed: CudaFunction,
    linear: CudaFunction,
    /// Of shared memory for a block of `linear`.
    linear_bytes: u32,
    attend: CudaFunction,
    normalize: CudaFunction,
    gather: CudaFunction,
    pool_mean: CudaFunction,
    widen: CudaFunction,
    classify: CudaFunction,
    hand_over: CudaFunction,
}

/// Tokens with which the products that end in a state of `width` fill all places of `at_a_time` blocks, a whole number
/// of times: no multiprocessor then waits for the last ones.
fn group_tokens(at_a_time: usize, width: usize) -> usize {
    let rows = (at_a_time / width.div_ceil(TILE_SIDE)).max(1) * TILE_SIDE;
    ((GROUP_TOKENS + rows / 2) / rows).max(1) * rows
}

/// What one caller at a time works with.
#[derive(Debug)]
struct Held {
    /// Tokens of a group; fewer once memory has run out.
    group_tokens: usize,
    space: Space,
    slots: [Slot; 2],
    recordings: GraphCache<Call>,
}

/// Activations of a group.
#[derive(Debug, Default)]
struct Space {
    /// `[tokens, width]`: what a layer reads and, at its end, writes.
    x: DeviceBuffer<u16>,
    /// `[tokens, 3 heads]`.
    qkv: DeviceBuffer<u16>,
    /// `[tokens, heads]`.
    context: DeviceBuffer<u16>,
    /// `[tokens, inner]`.
    wide: DeviceBuffer<u16>,
    /// `[sequences, width]`: first tokens alone.
    first: DeviceBuffer<u16>,
}

/// A round's numbers on their way to the device, and its results on their way back.
#[derive(Debug, Default)]
struct Slot {
    /// When its last round is done with it.
    done: Option<CudaEvent>,
    numbers: PinnedBuffer<u32>,
    numbers_there: DeviceBuffer<u32>,
    out: PinnedBuffer<f32>,
    out_there: DeviceBuffer<f32>,
}

/// A round that was handed to the device.
struct Running {
    order: Vec<usize>,
    /// Tokens of each, where all of their states come back.
    lengths: Vec<usize>,
    slot: usize,
    n_out: usize,
}

/// What a caller wants.
#[derive(Clone, Copy)]
struct Job<'a> {
    sequences: &'a [Sequence],
    output: Output,
    /// Where vectors stay on the device, if they do; nothing comes back then.
    there: Option<There>,
    /// Where the time goes, if that is to be known: what has just ended, and when.
    marks: Option<&'a Marks>,
}

/// Whether the kernels can compute a model of this shape.
pub(super) fn supports(config: &BertConfig) -> bool {
    Shape::of(config).is_some()
}

impl CudaBert {
    /// Puts a model on GPU `ordinal`.
    ///
    /// # Errors
    ///
    /// As [`Gpu::open`] and [`Gpu::load`], as [`Weights::get`], and [`Error::DeviceFailed`].
    pub(super) fn open(
        ordinal: u32,
        weights: &Weights,
        config: &BertConfig,
        head: Option<&ClassifierHead>,
    ) -> Result<Self> {
        let shape = Shape::of(config).ok_or_else(|| Error::DeviceUnavailable {
            device: format!("cuda:{ordinal}"),
            reason: "no kernel computes a model of this shape; use --device cpu".to_owned(),
        })?;
        let gpu = Arc::new(Gpu::open(ordinal)?);
        let (mut kernels, of_hopper) = gpu.load(FATBIN, |load| {
            let roomy = |name: &str| allow_shared(load(name)?, MAX_SHARED_BYTES);
            let kernels = Kernels {
                embed: load("embed")?,
                linear: roomy("linear")?,
                linear_bytes: TILE_SHARED_BYTES,
                attend: roomy(&format!("attend_{}", shape.head_chunks * 32))?,
                normalize: load("normalize")?,
                gather: load("gather")?,
                pool_mean: load("pool_mean")?,
                widen: load("widen")?,
                classify: load("classify")?,
                hand_over: load("hand_over")?,
            };
            if !gpu.is_hopper() {
                return Ok((kernels, None));
            }
            let of_hopper = |name| allow_shared(load(name)?, HOPPER_SHARED_BYTES);
            Ok((kernels, Some((of_hopper("check_products")?, of_hopper("linear_hopper")?))))
        })?;
        if let Some((check, linear)) = of_hopper
            && use_warpgroup_products(&gpu, &check)?
        {
            kernels.linear = linear;
            kernels.linear_bytes = streamed_bytes(HOPPER_STAGES_OF_TWO);
        }
        let model = Model::new(&gpu, weights, config, shape, head)?;
        let activation = match config.activation {
            Activation::Gelu => GELU,
            Activation::GeluTanh => GELU_TANH,
            Activation::Relu => RELU,
        };
        let at_a_time = kernels.linear.occupancy_max_active_blocks_per_multiprocessor(
            TILE_THREADS,
            kernels.linear_bytes as usize,
            None,
        );
        let at_a_time = at_a_time.map_err(device_failed)?.max(1) * gpu.multiprocessors;
        let held = Held {
            group_tokens: group_tokens(at_a_time as usize, shape.width),
            space: Space::default(),
            slots: Default::default(),
            recordings: GraphCache::default(),
        };
        let (held, spare) = (Mutex::new(held), BufferPool::default());
        let n_types = config.n_token_types;
        Ok(Self { gpu, kernels, shape, n_types, activation, model, held, spare })
    }

    /// See [`super::Encoder::forward`], which checks the sequences.
    pub(super) fn forward(
        &self,
        sequences: &[Sequence],
        output: Output,
        n_out: usize,
    ) -> Result<Vec<f32>> {
        self.retry(&mut self.hold(), Job { sequences, output, there: None, marks: None }, n_out)
    }

    /// The device, for one caller at a time: nothing else may be done on its main stream.
    fn hold(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Encoder::room`].
    pub(super) fn allocate(&self, n: usize, stride: usize) -> Result<DeviceVectors> {
        DeviceVectors::new(&self.gpu, &self.spare, n, stride).map_err(device_failed)
    }

    /// See [`super::Encoder::forward_on_device`]. It returns before the device is done.
    pub(super) fn forward_on_device(
        &self,
        sequences: &[Sequence],
        output: Output,
        unit: bool,
        to: &mut DeviceVectors,
        first: usize,
    ) -> Result<()> {
        let there = Some(There { at: to.address_of(first), stride: to.stride() as u32, unit });
        let mut held = self.hold();
        self.retry(&mut held, Job { sequences, output, there, marks: None }, 0)?;
        to.mark_ready().map_err(device_failed)
    }

    /// Seconds of the kernels of a group, by what they compute.
    ///
    /// # Errors
    ///
    /// As [`super::Encoder::forward`].
    pub(super) fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        let marks = Marks::default();
        let job = Job { sequences, output: Output::Mean, there: None, marks: Some(&marks) };
        self.retry(&mut self.hold(), job, self.shape.hidden)?;
        let mut seconds: Vec<(&'static str, f64)> = Vec::new();
        for pair in marks.borrow().windows(2) {
            let [(_, before), (what, now)] = pair else { continue };
            let time = f64::from(before.elapsed_ms(now).map_err(device_failed)?) / 1e3;
            match seconds.iter_mut().find(|known| known.0 == *what) {
                Some(known) => known.1 += time,
                None => seconds.push((what, time)),
            }
        }
        Ok(seconds)
    }

    fn retry(&self, held: &mut Held, job: Job<'_>, n_out: usize) -> Result<Vec<f32>> {
        loop {
            match self.run(held, job, n_out) {
                Ok(out) => return Ok(out),
                // Nothing that is given back may still be written to.
                Err(e) if self.gpu.stream.synchronize().is_err() => return Err(device_failed(e)),
                // Smaller groups need less room; a group has at least one sequence.
                Err(e) if is_out_of_memory(&e) && held.group_tokens > longest(job.sequences) => {
                    held.space = Space::default();
                    held.slots = Default::default();
                    held.recordings = GraphCache::default();
                    held.group_tokens /= 2;
                }
                Err(e) => return Err(device_failed(e)),
            }
        }
    }

    fn run(&self, held: &mut Held, job: Job<'_>, n_out: usize) -> CudaResult<Vec<f32>> {
        let sequences = job.sequences;
        self.gpu.context.bind_to_thread()?;
        let mut out = vec![0f32; sequences.len() * n_out];
        let groups = micro_batches(sequences, held.group_tokens);
        let mut before: Option<Running> = None;
        for (i, groups) in groups.chunks(ROUND_GROUPS).enumerate() {
            let round = Round::new(sequences, groups, self.n_types);
            let running = self.start(held, i % 2, round, job)?;
            if let Some(before) = before.replace(running) {
                self.collect(&mut held.slots, before, &mut out, n_out)?;
            }
        }
        match before {
            // Who needs the vectors waits for them.
            Some(_) if job.there.is_some() => {}
            Some(last) => self.collect(&mut held.slots, last, &mut out, n_out)?,
            None => {}
        }
        Ok(out)
    }

    /// Hands a round to the device.
    fn start(
        &self,
        held: &mut Held,
        slot: usize,
        round: Round,
        job: Job<'_>,
    ) -> CudaResult<Running> {
        let (gpu, shape) = (&self.gpu, self.shape);
        let Job { sequences, output, there, marks } = job;
        let Held { space, slots, recordings, .. } = held;
        let states = output.states();
        let width = if output == Output::Logit { 1 } else { shape.hidden };
        let n_rows = match output {
            Output::Tokens => round.n_tokens(),
            _ => round.order.len(),
        };
        let Slot { done, numbers, numbers_there, out, out_there } = &mut slots[slot];
        if let Some(done) = done.take() {
            done.synchronize()?;
        }
        let here = numbers.reserve(gpu, round.numbers.len())?;
        here.copy_from_slice(&round.numbers);
        let numbers_at = numbers_there.reserve(gpu, here.len())?;
        // SAFETY: there is room, and the slot is not touched before the round is done.
        unsafe { result::memcpy_htod_async(numbers_at, here, gpu.stream.cu_stream()) }?;
        let out_at = out_there.reserve(gpu, n_rows * width)?;

        let tokens = round.groups.iter().map(|g| g.n_tokens).max().unwrap_or(0);
        let most = round.groups.iter().map(|g| g.n_sequences).max().unwrap_or(0);
        let kept = if states == NeededStates::Cls { most } else { 0 };
        let at = At {
            numbers: numbers_at,
            x: space.x.reserve(gpu, tokens * shape.width)?,
            qkv: space.qkv.reserve(gpu, tokens * 3 * shape.attended())?,
            context: space
                .context
                .reserve(gpu, (tokens * shape.attended()).max(kept * shape.width))?,
            wide: space.wide.reserve(gpu, tokens * shape.inner)?,
            first: space.first.reserve(gpu, kept * shape.width)?,
            out: out_at,
        };
        let mut row = 0;
        for &group in &round.groups {
            let out = out_at + (row * width * size_of::<f32>()) as CUdeviceptr;
            let call = Call { at: At { out, ..at }, group, output, there };
            // A query is done as soon as it is launched; others are worth no recording, nor do they come again.
            match sequences.len() == 1 && marks.is_none() {
                true => recordings.run(gpu, call, || self.encode(&call, None))?,
                false => self.encode(&call, marks)?,
            }
            row += if output == Output::Tokens { group.n_tokens } else { group.n_sequences };
        }
        if there.is_none() {
            let here = out.reserve(gpu, n_rows * width)?;
            // SAFETY: as above.
            unsafe { result::memcpy_dtoh_async(here, out_at, gpu.stream.cu_stream()) }?;
        }
        *done = Some(gpu.stream.record_event(None)?);
        let lengths = match output {
            Output::Tokens => round.order.iter().map(|&i| sequences[i].ids.len()).collect(),
            _ => vec![1; round.order.len()],
        };
        let n_out = if there.is_some() { 0 } else { n_rows * width };
        Ok(Running { order: round.order, lengths, slot, n_out })
    }

    /// Waits for a round and puts its results, if any come back, into their places.
    fn collect(
        &self,
        slots: &mut [Slot; 2],
        round: Running,
        out: &mut [f32],
        n_out: usize,
    ) -> CudaResult<()> {
        let slot = &mut slots[round.slot];
        if let Some(done) = slot.done.take() {
            done.synchronize()?;
        }
        if round.n_out == 0 {
            return Ok(());
        }
        let values = slot.out.reserve(&self.gpu, round.n_out)?;
        let n_rows: usize = round.lengths.iter().sum();
        let width = round.n_out / n_rows;
        let mut start = 0;
        for (i, len) in round.order.into_iter().zip(round.lengths) {
            let len = len * width;
            out[i * n_out..][..len].copy_from_slice(&values[start..start + len]);
            start += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::group_tokens;

    #[test]
    fn groups_fill_the_device_a_whole_number_of_times() {
        // 132 multiprocessors with two blocks each: 88 tiles of rows of 3, 44 of 6 and 264 of one tile of columns.
        assert_eq!(group_tokens(264, 384), 88 * 128);
        assert_eq!(group_tokens(264, 768), 44 * 128);
        assert_eq!(group_tokens(264, 128), 264 * 128);
        // A small device more than once.
        assert_eq!(group_tokens(92, 384), 2 * 30 * 128);
        assert_eq!(group_tokens(1, 1024), 8192);
    }
}
