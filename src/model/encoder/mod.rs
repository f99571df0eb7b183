//! The BERT encoder that embedding and reranking share.
//!
//! Three ways to the same numbers: `packed`, the CPU's fast path without padding, `cuda`, the same on a GPU, and
//! `reference`, Candle's own BERT on the CPU, which tests hold the others against.

mod attention;
pub mod config;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda_disabled.rs"]
mod cuda;
mod elementwise;
mod head;
mod linear;
mod packed;
mod reference;
mod weights;

use super::tokenize::Sequence;
use crate::cpu::bf16::Bf16;
use crate::cpu::{Kernels, Tier};
use crate::device::{Compute, Device, Precision};
use crate::error::{Error, Result};
use crate::gpu::DeviceVectors;
use config::BertConfig;
use cuda::CudaBert;
use head::Head;
use packed::PackedBert;
use reference::ReferenceBert;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, OnceLock};
pub(crate) use weights::Weights;

/// What is made of the hidden states at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// The states of all tokens, `[longest, hidden_size]` a sequence, with zeros behind shorter ones.
    Tokens,
    /// Their mean, `[hidden_size]`.
    Mean,
    /// The state of the first token, `[hidden_size]`, which spares most of the last layer.
    First,
    /// A cross-encoder's output, one number.
    Logit,
}

/// Which hidden states are wanted at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum States {
    /// Those of all tokens.
    All,
    /// Those of the first token.
    First,
}

/// How the CPU multiplies.
#[derive(Debug, Clone, Copy)]
enum Arithmetic {
    Float,
    Halves(Bf16),
    /// Linear layers in bytes, attention in bfloat16 where the CPU has that.
    Bytes(Kernels, Option<Bf16>),
}

impl Arithmetic {
    /// What `precision` means on this CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] for bfloat16 where the CPU has no instruction for it, and for half precision.
    fn of(precision: Precision) -> Result<Self> {
        let bytes = |tier: Tier| Self::Bytes(tier.kernels(), Bf16::best());
        match precision {
            Precision::F32 => Ok(Self::Float),
            Precision::F16 => Err(Error::DeviceUnavailable {
                device: "f16".to_owned(),
                reason:
                    "half precision is computed on a GPU; use --device cuda, or --precision auto"
                        .to_owned(),
            }),
            Precision::Bf16 => {
                Bf16::best().map(Self::Halves).ok_or_else(|| Error::DeviceUnavailable {
                    device: "bf16".to_owned(),
                    reason:
                        "this CPU has no instruction for bfloat16 numbers; use --precision auto"
                            .to_owned(),
                })
            }
            Precision::Int8 => Ok(bytes(Tier::chosen()?)),
            Precision::Auto => Ok(match Tier::chosen()? {
                // Portable code multiplies float32 faster than bytes.
                Tier::Generic => Self::Float,
                tier => bytes(tier),
            }),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Float => "float32".to_owned(),
            Self::Halves(bf16) => format!("bfloat16 ({})", bf16.name()),
            Self::Bytes(kernels, None) => format!("int8 ({})", kernels.tier().name()),
            Self::Bytes(kernels, Some(bf16)) => {
                format!("int8 ({}), attention in bfloat16 ({})", kernels.tier().name(), bf16.name())
            }
        }
    }
}

/// An encoder with its weights.
#[derive(Debug)]
pub struct Encoder {
    runner: Runner,
    config: BertConfig,
    /// Of a cross-encoder.
    head: Option<Head>,
}

#[derive(Debug)]
enum Runner {
    /// Sequences end to end, no padding; CPU.
    Packed(Box<PackedBert>),
    /// The same on a GPU.
    Cuda(Box<CudaBert>),
    /// Candle's BERT over padded batches of like length; CPU.
    Reference(Box<ReferenceBert>),
}

/// The encoders of a model: one for passages, one for queries. Where the precision is chosen automatically,
/// passages, of which there are many, are computed in bytes, and queries in more digits. Each is made when it
/// is first needed.
#[derive(Debug)]
pub struct Encoders {
    weights: Arc<Weights>,
    config: BertConfig,
    /// The same twice where passages and queries are computed alike.
    ways: [Way; 2],
    made: [OnceLock<Encoder>; 2],
}

/// How an encoder computes.
#[derive(Debug, Clone, Copy)]
enum Way {
    Packed(Arithmetic),
    /// On the GPU of this number, in half precision.
    Cuda(u32),
    Reference,
}

impl Encoders {
    /// Looks at the weights of a model folder. The environment variable `WARPSEEK_ENCODER=reference`
    /// forces Candle's own forward pass.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where weights are missing or of another shape,
    /// [`Error::DeviceUnavailable`] where the device or the precision cannot be used, [`Error::DeviceFailed`].
    pub fn open(folder: &Path, config: &BertConfig, compute: Compute) -> Result<Self> {
        let weights = Arc::new(Weights::open(folder)?);
        packed::check(&weights, config)?;
        let ways = [Way::of(compute)?.or_cpu(config)?, Way::of_queries(compute)?.or_cpu(config)?];
        let encoders = Self { weights, config: config.clone(), ways, made: Default::default() };
        if encoders.is_on_device() {
            // Whether the device can be used is to be known now.
            encoders.passages()?;
        }
        Ok(encoders)
    }

    /// The encoder of passages.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where weights are not finite numbers.
    pub fn passages(&self) -> Result<&Encoder> {
        self.get(0)
    }

    /// The encoder of queries.
    ///
    /// # Errors
    ///
    /// As [`Encoders::passages`].
    pub fn queries(&self) -> Result<&Encoder> {
        self.get(if self.ways[0].is_like(self.ways[1]) { 0 } else { 1 })
    }

    fn get(&self, which: usize) -> Result<&Encoder> {
        if let Some(encoder) = self.made[which].get() {
            return Ok(encoder);
        }
        let encoder = Encoder::new(&self.weights, &self.config, self.ways[which])?;
        // Another thread may have been faster; then its encoder counts.
        Ok(self.made[which].get_or_init(|| encoder))
    }

    /// How passages are computed, for messages.
    pub fn name(&self) -> String {
        self.ways[0].name()
    }

    /// Whether they run on a GPU, beside the CPU, which then has time for something else.
    pub fn is_on_device(&self) -> bool {
        matches!(self.ways[0], Way::Cuda(_))
    }
}

impl Way {
    fn of(compute: Compute) -> Result<Self> {
        match std::env::var("WARPSEEK_ENCODER").as_deref() {
            Err(_) | Ok("" | "auto" | "packed") => {}
            Ok("reference") => return Ok(Self::Reference),
            Ok(other) => {
                return Err(Error::usage(format!(
                    "WARPSEEK_ENCODER is '{other}': use auto, packed or reference"
                )));
            }
        }
        match (compute.device, compute.precision) {
            (Device::Cuda(ordinal), Precision::Auto | Precision::F16) => Ok(Self::Cuda(ordinal)),
            (_, precision) => Arithmetic::of(precision).map(Self::Packed),
        }
    }

    /// The same, or the CPU for a model that the kernels cannot compute.
    fn or_cpu(self, config: &BertConfig) -> Result<Self> {
        match self {
            Self::Cuda(_) if !cuda::supports(config) => {
                Arithmetic::of(Precision::Auto).map(Self::Packed)
            }
            way => Ok(way),
        }
    }

    fn of_queries(compute: Compute) -> Result<Self> {
        if let way @ Self::Cuda(_) = Self::of(compute)? {
            return Ok(way);
        }
        let precision = match compute.precision {
            Precision::Auto if Bf16::best().is_some() => Precision::Bf16,
            Precision::Auto => Precision::F32,
            asked => asked,
        };
        Self::of(Compute { precision, ..compute })
    }

    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Packed(a), Self::Packed(b)) => {
                std::mem::discriminant(&a) == std::mem::discriminant(&b)
            }
            (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(&b),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Packed(arithmetic) => arithmetic.name(),
            Self::Cuda(ordinal) => format!("float16 (cuda:{ordinal})"),
            Self::Reference => "Candle reference float32".to_owned(),
        }
    }
}

/// How models compute on this machine, for messages.
///
/// # Errors
///
/// As [`Encoders::open`].
pub fn describe(compute: Compute) -> Result<String> {
    let (passages, queries) = (Way::of(compute)?, Way::of_queries(compute)?);
    Ok(match passages.is_like(queries) {
        true => passages.name(),
        false => format!("{}; queries in {}", passages.name(), queries.name()),
    })
}

impl Encoder {
    /// Loads the encoder of a model folder, for passages.
    ///
    /// # Errors
    ///
    /// As [`Encoders::open`].
    pub fn open(folder: &Path, config: &BertConfig, compute: Compute) -> Result<Self> {
        let weights = Arc::new(Weights::open(folder)?);
        Self::new(&weights, config, Way::of(compute)?.or_cpu(config)?)
    }

    fn new(weights: &Arc<Weights>, config: &BertConfig, way: Way) -> Result<Self> {
        let head = Head::read(weights, config)?;
        let runner = match way {
            Way::Packed(arithmetic) => {
                Runner::Packed(Box::new(PackedBert::new(weights, config, arithmetic)?))
            }
            Way::Cuda(ordinal) => {
                Runner::Cuda(Box::new(CudaBert::open(ordinal, weights, config, head.as_ref())?))
            }
            Way::Reference => Runner::Reference(Box::new(ReferenceBert::new(weights, config)?)),
        };
        Ok(Self { runner, config: config.clone(), head })
    }

    /// Seconds of the device's kernels for `sequences`, by what they compute; nothing on a CPU.
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward`].
    pub fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        match &self.runner {
            Runner::Cuda(bert) => bert.profile(sequences),
            Runner::Packed(_) | Runner::Reference(_) => Ok(Vec::new()),
        }
    }

    /// Whether it runs on a GPU.
    pub fn is_on_device(&self) -> bool {
        matches!(self.runner, Runner::Cuda(_))
    }

    /// Runs the encoder over `sequences`. Returns what `output` says of each, `[sequences.len(), width]` in the order
    /// of the input.
    ///
    /// Sequences must not be empty nor longer than the model's positions, and ids must be below its
    /// vocabulary size; the callers in `embed` and `rerank` see to that.
    ///
    /// # Errors
    ///
    /// [`Error::Compute`] where the tensor library fails, [`Error::DeviceFailed`] where a GPU does, [`Error::Usage`]
    /// for a sequence that does not fit the model, or for the logit of a model that is no cross-encoder.
    pub fn forward(&self, sequences: &[Sequence], output: Output) -> Result<Vec<f32>> {
        self.check(sequences, output)?;
        let config = &self.config;
        let n_out = match output {
            Output::Tokens => longest(sequences) * config.hidden_size,
            Output::Mean | Output::First => config.hidden_size,
            Output::Logit => 1,
        };
        let states = output.states();
        let finish = |states: &[f32], out: &mut [f32]| {
            output.finish(states, self.head.as_ref(), out);
        };
        match &self.runner {
            Runner::Packed(bert) => bert.forward(sequences, states, n_out, finish),
            Runner::Cuda(bert) => bert.forward(sequences, output, n_out),
            Runner::Reference(bert) => bert.forward(sequences, states, n_out, finish),
        }
    }

    /// Room for `n` vectors, `stride` values apart, where it runs on a GPU, and none on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    pub(crate) fn room(&self, n: usize, stride: usize) -> Result<Option<DeviceVectors>> {
        match &self.runner {
            Runner::Cuda(bert) => bert.room(n, stride).map(Some),
            Runner::Packed(_) | Runner::Reference(_) => Ok(None),
        }
    }

    /// As [`Encoder::forward`], but vectors, of unit length if `unit`, stay on the GPU: in `to`, that of the first sequence
    /// at `first`. Needs an `output` of one vector a sequence, and a `to` that came from [`Encoder::room`].
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward`].
    pub(crate) fn forward_there(
        &self,
        sequences: &[Sequence],
        output: Output,
        unit: bool,
        to: &mut DeviceVectors,
        first: usize,
    ) -> Result<()> {
        self.check(sequences, output)?;
        match &self.runner {
            Runner::Cuda(bert) => bert.forward_there(sequences, output, unit, to, first),
            Runner::Packed(_) | Runner::Reference(_) => Ok(()),
        }
    }

    /// Refuses what the model cannot take.
    fn check(&self, sequences: &[Sequence], output: Output) -> Result<()> {
        let config = &self.config;
        for sequence in sequences {
            let n = sequence.ids.len();
            if n == 0 || n > config.max_positions {
                return Err(Error::usage(format!(
                    "a sequence of {n} tokens: the model takes 1 to {}",
                    config.max_positions
                )));
            }
            if sequence.ids.iter().any(|&id| id as usize >= config.vocab_size) {
                return Err(Error::usage(
                    "the tokenizer's vocabulary is larger than the model's: they do not belong together",
                ));
            }
        }
        if output == Output::Logit && self.head.is_none() {
            return Err(Error::usage("this model has no classifier: it is no cross-encoder"));
        }
        Ok(())
    }
}

/// Makes the next of some things to `run` while one runs, where `beside` says that this leaves the CPU idle.
///
/// # Errors
///
/// The first error of `make` or `run`, after which nothing more runs.
pub(crate) fn ahead<P: Send, T: Send>(
    mut parts: impl Iterator<Item = P>,
    beside: bool,
    make: impl Fn(P) -> Result<T> + Sync,
    mut run: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    if !beside {
        return parts.try_for_each(|part| run(make(part)?));
    }
    let mut made = parts.next().map(&make).transpose()?;
    while let Some(now) = made {
        let next = parts.next();
        made = std::thread::scope(|scope| {
            let next = next.map(|part| scope.spawn(|| make(part)));
            run(now)?;
            let next = next.map(|made| made.join().unwrap_or_else(|e| resume_unwind(e)));
            next.transpose()
        })?;
    }
    Ok(())
}

/// The tokens of the longest sequence.
fn longest(sequences: &[Sequence]) -> usize {
    sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0)
}

/// The numbers of `sequences`, longest first, cut into groups of at most about `max_tokens`.
fn groups_by_length(sequences: &[Sequence], max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].ids.len()));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        let len = sequences[i].ids.len();
        match groups.last_mut() {
            Some(group) if tokens + len <= max_tokens => group.push(i),
            _ => {
                groups.push(vec![i]);
                tokens = 0;
            }
        }
        tokens += len;
    }
    groups
}
