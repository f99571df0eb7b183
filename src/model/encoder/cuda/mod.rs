//! The GPU's encoder: sequences end to end without padding, in half precision with float32 sums
//! (`kernels/encoder.cu`).
//!
//! Groups of sequences of like length go through all layers one after the other, so that a group's activations stay
//! in the device's cache. Several groups are a round: while one round runs, the numbers of the next are made and
//! copied. One caller at a time has the device.

mod params;
mod plan;
mod weights;

use super::config::{Activation, BertConfig};
use super::head::Head;
use super::{Output, States, Weights, groups_by_length, longest};
use crate::error::{Error, Result};
use crate::gpu::{
    Buffer, Gpu, HOPPER_SHARED_BYTES, HOPPER_STAGES_OF_TWO, MAX_SHARED_BYTES, Outcome, Pinned,
    TILE_SHARED_BYTES, TILE_SIDE, TILE_THREADS, allow_shared, failure, has_warpgroup_products,
    is_out_of_memory, launch, streamed_bytes,
};
use crate::model::tokenize::Sequence;
use cudarc::driver::sys::{CUdeviceptr, CUevent_flags};
use cudarc::driver::{CudaEvent, CudaFunction, DeviceRepr, result};
use params::*;
use plan::{Group, Round};
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use weights::{Linear, Model, Norm, Shape};

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
    gpu: Gpu,
    kernels: Kernels,
    shape: Shape,
    n_types: usize,
    activation: u32,
    model: Model,
    held: Mutex<Held>,
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
}

/// Activations of a group.
#[derive(Debug, Default)]
struct Space {
    /// `[tokens, width]`: what a layer reads and, at its end, writes.
    x: Buffer<u16>,
    /// `[tokens, 3 heads]`.
    qkv: Buffer<u16>,
    /// `[tokens, heads]`.
    context: Buffer<u16>,
    /// `[tokens, inner]`.
    wide: Buffer<u16>,
    /// `[sequences, width]`: first tokens alone.
    first: Buffer<u16>,
}

/// A round's numbers on their way to the device, and its results on their way back.
#[derive(Debug, Default)]
struct Slot {
    numbers: Pinned<u32>,
    numbers_there: Buffer<u32>,
    out: Pinned<f32>,
    out_there: Buffer<f32>,
}

/// A round that was handed to the device.
struct Running {
    order: Vec<usize>,
    /// Tokens of each, where all of their states come back.
    lengths: Vec<usize>,
    slot: usize,
    n_out: usize,
    done: CudaEvent,
}

/// What a caller wants.
#[derive(Clone, Copy)]
struct Job<'a> {
    sequences: &'a [Sequence],
    output: Output,
    /// Where the time goes, if that is to be known: what has just ended, and when.
    marks: Option<&'a Marks>,
}

type Marks = RefCell<Vec<(&'static str, CudaEvent)>>;

/// Where the parts of a group are.
#[derive(Clone, Copy)]
struct At<'a> {
    marks: Option<&'a Marks>,
    numbers: CUdeviceptr,
    x: CUdeviceptr,
    qkv: CUdeviceptr,
    context: CUdeviceptr,
    wide: CUdeviceptr,
    first: CUdeviceptr,
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
        head: Option<&Head>,
    ) -> Result<Self> {
        let shape = Shape::of(config).ok_or_else(|| Error::DeviceUnavailable {
            device: format!("cuda:{ordinal}"),
            reason: "no kernel computes a model of this shape; use --device cpu".to_owned(),
        })?;
        let gpu = Gpu::open(ordinal)?;
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
            };
            if !gpu.is_hopper() {
                return Ok((kernels, None));
            }
            let of_hopper = |name| allow_shared(load(name)?, HOPPER_SHARED_BYTES);
            Ok((kernels, Some((of_hopper("check_products")?, of_hopper("linear_hopper")?))))
        })?;
        if let Some((check, linear)) = of_hopper
            && has_warpgroup_products(&gpu, &check)?
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
        let at_a_time = at_a_time.map_err(failure)?.max(1) * gpu.multiprocessors;
        let held = Held {
            group_tokens: group_tokens(at_a_time as usize, shape.width),
            space: Space::default(),
            slots: Default::default(),
        };
        let n_types = config.n_token_types;
        Ok(Self { gpu, kernels, shape, n_types, activation, model, held: Mutex::new(held) })
    }

    /// See [`super::Encoder::forward`], which checks the sequences.
    pub(super) fn forward(
        &self,
        sequences: &[Sequence],
        output: Output,
        n_out: usize,
    ) -> Result<Vec<f32>> {
        self.retry(Job { sequences, output, marks: None }, n_out)
    }

    /// Seconds of the kernels of a group, by what they compute.
    ///
    /// # Errors
    ///
    /// As [`super::Encoder::forward`].
    pub(super) fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        let marks = Marks::default();
        self.retry(
            Job { sequences, output: Output::Mean, marks: Some(&marks) },
            self.shape.hidden,
        )?;
        let mut seconds: Vec<(&'static str, f64)> = Vec::new();
        for pair in marks.borrow().windows(2) {
            let [(_, before), (what, now)] = pair else { continue };
            let time = f64::from(before.elapsed_ms(now).map_err(failure)?) / 1e3;
            match seconds.iter_mut().find(|known| known.0 == *what) {
                Some(known) => known.1 += time,
                None => seconds.push((what, time)),
            }
        }
        Ok(seconds)
    }

    fn retry(&self, job: Job<'_>, n_out: usize) -> Result<Vec<f32>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.run(&mut held, job, n_out) {
                Ok(out) => return Ok(out),
                // Nothing that is given back may still be written to.
                Err(e) if self.gpu.stream.synchronize().is_err() => return Err(failure(e)),
                // Smaller groups need less room; a group has at least one sequence.
                Err(e) if is_out_of_memory(&e) && held.group_tokens > longest(job.sequences) => {
                    held.space = Space::default();
                    held.slots = Default::default();
                    held.group_tokens /= 2;
                }
                Err(e) => return Err(failure(e)),
            }
        }
    }

    fn run(&self, held: &mut Held, job: Job<'_>, n_out: usize) -> Outcome<Vec<f32>> {
        let sequences = job.sequences;
        self.gpu.context.bind_to_thread()?;
        let Held { group_tokens, space, slots } = held;
        let mut out = vec![0f32; sequences.len() * n_out];
        let groups = groups_by_length(sequences, *group_tokens);
        let mut before: Option<Running> = None;
        for (i, groups) in groups.chunks(ROUND_GROUPS).enumerate() {
            let round = Round::new(sequences, groups, self.n_types);
            let running = self.start(space, slots, i % 2, round, job)?;
            if let Some(before) = before.replace(running) {
                self.collect(slots, before, &mut out, n_out)?;
            }
        }
        if let Some(last) = before {
            self.collect(slots, last, &mut out, n_out)?;
        }
        Ok(out)
    }

    /// Hands a round to the device.
    fn start(
        &self,
        space: &mut Space,
        slots: &mut [Slot; 2],
        slot: usize,
        round: Round,
        job: Job<'_>,
    ) -> Outcome<Running> {
        let (gpu, shape) = (&self.gpu, self.shape);
        let Job { sequences, output, marks } = job;
        let states = output.states();
        let width = if output == Output::Logit { 1 } else { shape.hidden };
        let n_rows = match output {
            Output::Tokens => round.n_tokens(),
            _ => round.order.len(),
        };
        let Slot { numbers, numbers_there, out, out_there } = &mut slots[slot];
        let here = numbers.reserve(gpu, round.numbers.len())?;
        here.copy_from_slice(&round.numbers);
        let numbers_at = numbers_there.reserve(gpu, here.len())?;
        // SAFETY: there is room, and the slot is not touched before the round is done.
        unsafe { result::memcpy_htod_async(numbers_at, here, gpu.stream.cu_stream()) }?;
        let out_at = out_there.reserve(gpu, n_rows * width)?;

        let tokens = round.groups.iter().map(|g| g.n_tokens).max().unwrap_or(0);
        let most = round.groups.iter().map(|g| g.n_sequences).max().unwrap_or(0);
        let kept = if states == States::First { most } else { 0 };
        let at = At {
            marks,
            numbers: numbers_at,
            x: space.x.reserve(gpu, tokens * shape.width)?,
            qkv: space.qkv.reserve(gpu, tokens * 3 * shape.attended())?,
            context: space
                .context
                .reserve(gpu, (tokens * shape.attended()).max(kept * shape.width))?,
            wide: space.wide.reserve(gpu, tokens * shape.inner)?,
            first: space.first.reserve(gpu, kept * shape.width)?,
        };
        let mut row = 0;
        for group in &round.groups {
            let to = out_at + (row * width * size_of::<f32>()) as CUdeviceptr;
            self.encode(&at, group, output, to)?;
            row += if output == Output::Tokens { group.n_tokens } else { group.n_sequences };
        }
        let here = out.reserve(gpu, n_rows * width)?;
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_async(here, out_at, gpu.stream.cu_stream()) }?;
        let lengths = match output {
            Output::Tokens => round.order.iter().map(|&i| sequences[i].ids.len()).collect(),
            _ => vec![1; round.order.len()],
        };
        let done = gpu.stream.record_event(None)?;
        Ok(Running { order: round.order, lengths, slot, n_out: n_rows * width, done })
    }

    /// Waits for a round and puts its results into their places.
    fn collect(
        &self,
        slots: &mut [Slot; 2],
        round: Running,
        out: &mut [f32],
        n_out: usize,
    ) -> Outcome<()> {
        round.done.synchronize()?;
        let values = slots[round.slot].out.reserve(&self.gpu, round.n_out)?;
        let n_rows: usize = round.lengths.iter().sum();
        let width = round.n_out / n_rows.max(1);
        let mut start = 0;
        for (i, len) in round.order.into_iter().zip(round.lengths) {
            let len = len * width;
            out[i * n_out..][..len].copy_from_slice(&values[start..start + len]);
            start += len;
        }
        Ok(())
    }

    /// Starts the kernels of a group, whose output goes to `out`.
    fn encode(&self, at: &At<'_>, group: &Group, output: Output, out: CUdeviceptr) -> Outcome<()> {
        let (kernels, model, shape) = (&self.kernels, &self.model, self.shape);
        let number = |place: usize| at.numbers + (place * size_of::<u32>()) as CUdeviceptr;
        let mut n_rows = group.n_tokens as u32;
        let mut x = at.x;
        let embed = EmbedParams {
            norm: model.norm.at,
            ids: number(group.ids),
            places: number(group.places),
            words: model.words,
            positions: model.positions,
            types: model.types,
            x,
            n_rows,
        };
        self.mark(at, "between groups")?;
        self.by_rows(&kernels.embed, n_rows, &embed)?;
        self.mark(at, "embedding")?;
        for (i, layer) in model.layers.iter().enumerate() {
            self.linear(&layer.qkv, x, at.qkv, n_rows, |_| {})?;
            self.mark(at, "queries, keys, values")?;
            let is_last = i + 1 == model.layers.len();
            let mut spans = (number(group.spans), group.n_spans);
            if is_last && output.states() == States::First {
                spans = (number(group.first_spans), group.n_sequences);
                n_rows = group.n_sequences as u32;
                let (rows, stride) = (number(group.starts), shape.width as u32);
                let params = GatherParams { x, rows, y: at.first, n_rows, stride };
                self.by_rows(&kernels.gather, n_rows, &params)?;
                x = at.first;
            }
            self.attend(at, spans)?;
            self.mark(at, "attention")?;
            let add = |params: &mut LinearParams| params.residual = params.y;
            self.linear(&layer.attention_out, at.context, x, n_rows, add)?;
            self.mark(at, "attention's output")?;
            self.normalize(&layer.attention_norm, x, n_rows)?;
            self.mark(at, "norms")?;
            let activate = |params: &mut LinearParams| params.activation = self.activation;
            self.linear(&layer.up, x, at.wide, n_rows, activate)?;
            self.mark(at, "feed-forward, up")?;
            self.linear(&layer.down, at.wide, x, n_rows, add)?;
            self.mark(at, "feed-forward, down")?;
            self.normalize(&layer.out_norm, x, n_rows)?;
            self.mark(at, "norms")?;
        }
        let params = OutParams {
            x,
            starts: number(group.starts),
            weight: 0,
            out,
            n: n_rows,
            width: shape.hidden as u32,
            stride: shape.width as u32,
            bias: 0.0,
        };
        match (output, &model.head) {
            (Output::Mean, _) => {
                let blocks = group.n_sequences as u32;
                launch(&self.gpu, &kernels.pool_mean, (blocks, 1), ROW_THREADS, 0, &params)?;
                self.mark(at, "mean")
            }
            (Output::Logit, Some(head)) => {
                self.linear(&head.pooler, x, at.context, n_rows, |_| {})?;
                let (weight, bias) = (head.classifier, head.classifier_bias);
                let params = OutParams { x: at.context, weight, bias, ..params };
                self.by_rows(&kernels.classify, n_rows, &params)
            }
            _ => self.by_rows(&kernels.widen, n_rows, &params),
        }
    }

    fn linear(
        &self,
        layer: &Linear,
        x: CUdeviceptr,
        y: CUdeviceptr,
        n_rows: u32,
        and: impl FnOnce(&mut LinearParams),
    ) -> Outcome<()> {
        let mut params = LinearParams { x, y, n_rows, ..layer.params() };
        and(&mut params);
        let tile = TILE_SIDE as u32;
        let blocks = n_rows.div_ceil(tile) * params.n_out.div_ceil(tile);
        let Kernels { linear, linear_bytes, .. } = &self.kernels;
        launch(&self.gpu, linear, (blocks, 1), TILE_THREADS, *linear_bytes, &params)
    }

    fn attend(&self, at: &At<'_>, (spans, n_spans): (CUdeviceptr, usize)) -> Outcome<()> {
        let shape = self.shape;
        let scale = std::f32::consts::LOG2_E / (shape.head() as f32).sqrt();
        let n_heads = shape.n_heads as u32;
        let params = AttentionParams { qkv: at.qkv, context: at.context, spans, n_heads, scale };
        let bytes = attention_shared_bytes(shape.head_chunks);
        let grid = (n_spans as u32, n_heads);
        launch(&self.gpu, &self.kernels.attend, grid, ATTENTION_THREADS, bytes, &params)
    }

    fn normalize(&self, norm: &Norm, x: CUdeviceptr, n_rows: u32) -> Outcome<()> {
        self.by_rows(&self.kernels.normalize, n_rows, &NormParams { norm: norm.at, x, n_rows })
    }

    /// Notes that `what` has ended, where that is wanted.
    fn mark(&self, at: &At<'_>, what: &'static str) -> Outcome<()> {
        if let Some(marks) = at.marks {
            let with_time = Some(CUevent_flags::CU_EVENT_DEFAULT);
            marks.borrow_mut().push((what, self.gpu.stream.record_event(with_time)?));
        }
        Ok(())
    }

    /// Launches a kernel whose warps take a row each.
    fn by_rows<P: DeviceRepr>(
        &self,
        kernel: &CudaFunction,
        n_rows: u32,
        params: &P,
    ) -> Outcome<()> {
        launch(&self.gpu, kernel, (n_rows.div_ceil(ROWS_AT_ONCE), 1), ROW_THREADS, 0, params)
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
