//! The encoder that embedding and reranking share, and its choice of a backend.
//!
//! Three backends compute the same numbers: `packed` on the CPU, without padding; `cuda`, the same
//! on a GPU; and `reference`, Candle's BERT on the CPU, for the family BERT only, which the tests
//! compare the others with.

use crate::batching::longest;
use crate::compute_type::ComputeType;
use crate::config::EncoderConfig;
#[cfg(feature = "cuda")]
use crate::cuda::CudaBert;
use crate::encoder_weights::EncoderWeights;
use crate::error::{Error, Result};
use crate::head::ClassifierHead;
use crate::model_files::ModelFiles;
use crate::packed::PackedEncoder;
use crate::pooling::{Output, Pooler, PoolerKind, Pooling, PoolingMode};
use crate::reference::ReferenceBert;
use crate::tokenizer::Sequence;
use crate::weights::Weights;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "cuda")]
use warpseek_compute::device::GpuKernels;
use warpseek_compute::device::{ComputeOptions, Device, EncoderKind, Precision};
use warpseek_compute::gpu::DeviceVectors;

/// An encoder with its weights.
#[derive(Debug)]
pub struct Encoder {
    backend: Backend,
    config: EncoderConfig,
    /// The head of a cross-encoder.
    head: Option<ClassifierHead>,
}

#[derive(Debug)]
enum Backend {
    Packed(Box<PackedEncoder>),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaBert>),
    Reference(Box<ReferenceBert>),
}

/// The encoders of a model: one for passages, one for queries. With `Precision::Auto` passages, of
/// which there are many, are computed in int8, and queries with more significant bits. Each is
/// loaded when it is first needed.
#[derive(Debug)]
pub struct Encoders {
    weights: Arc<Weights>,
    config: EncoderConfig,
    /// For passages and for queries; equal if both are computed alike.
    kinds: [BackendKind; 2],
    loaded: [OnceLock<Encoder>; 2],
}

/// The choice of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BackendKind {
    Packed(ComputeType),
    /// In half precision on this GPU.
    #[cfg(feature = "cuda")]
    Cuda(u32, GpuKernels),
    Reference,
}

impl Encoders {
    /// Opens the weights of a model folder.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if weights are missing or have another shape,
    /// [`Error::DeviceUnavailable`] if the device or the precision cannot be used,
    /// [`Error::DeviceFailed`].
    pub fn open(
        files: impl Into<ModelFiles>,
        config: &EncoderConfig,
        compute: ComputeOptions,
    ) -> Result<Self> {
        let weights = Arc::new(Weights::open(&files.into())?);
        EncoderWeights::new(&weights, config).check()?;
        let kinds = [
            BackendKind::of(compute)?.or_cpu(config, compute)?,
            BackendKind::of_queries(compute)?.or_cpu(config, compute)?,
        ];
        let encoders = Self { weights, config: config.clone(), kinds, loaded: Default::default() };
        if encoders.is_on_device() {
            // Fails now if the device cannot be used.
            encoders.passages()?;
        }
        Ok(encoders)
    }

    /// Returns the encoder of passages.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if weights are not finite numbers.
    pub fn passages(&self) -> Result<&Encoder> {
        self.get(0)
    }

    /// Returns the encoder of queries.
    ///
    /// # Errors
    ///
    /// As [`Encoders::passages`].
    pub fn queries(&self) -> Result<&Encoder> {
        self.get(usize::from(self.kinds[0] != self.kinds[1]))
    }

    fn get(&self, which: usize) -> Result<&Encoder> {
        if let Some(encoder) = self.loaded[which].get() {
            return Ok(encoder);
        }
        let encoder = Encoder::new(&self.weights, &self.config, self.kinds[which])?;
        // If another thread was faster, its encoder is used.
        Ok(self.loaded[which].get_or_init(|| encoder))
    }

    /// True if the model has a cross-encoder's head.
    pub fn has_head(&self) -> bool {
        EncoderWeights::new(&self.weights, &self.config).has_head()
    }

    /// Describes the computation of passages, for messages.
    pub fn name(&self) -> String {
        self.kinds[0].name()
    }

    /// True if they run on a GPU, which leaves the CPU free for other work.
    pub fn is_on_device(&self) -> bool {
        self.kinds[0].is_gpu()
    }
}

impl BackendKind {
    fn of(compute: ComputeOptions) -> Result<Self> {
        match (compute.encoder, compute.device, compute.precision) {
            (EncoderKind::Reference, ..) => Ok(Self::Reference),
            (_, Device::Cuda(ordinal), Precision::Auto | Precision::F16) => {
                #[cfg(feature = "cuda")]
                return Ok(Self::Cuda(ordinal, compute.gpu_kernels));
                #[cfg(not(feature = "cuda"))]
                Err(warpseek_compute::gpu::not_built(ordinal))
            }
            (_, _, precision) => ComputeType::of(precision, compute.tier).map(Self::Packed),
        }
    }

    /// Replaces a GPU by the CPU for a model that the kernels cannot compute.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    fn or_cpu(self, config: &EncoderConfig, compute: ComputeOptions) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if matches!(self, Self::Cuda(..)) && !crate::cuda::supports(config) {
            return ComputeType::of(Precision::Auto, compute.tier).map(Self::Packed);
        }
        Ok(self)
    }

    fn of_queries(compute: ComputeOptions) -> Result<Self> {
        let kind = Self::of(compute)?;
        if kind.is_gpu() || compute.precision != Precision::Auto {
            return Ok(kind);
        }
        let has_bf16 = compute.tier.kernels().bf16().is_some();
        let precision = if has_bf16 { Precision::Bf16 } else { Precision::F32 };
        Self::of(ComputeOptions { precision, ..compute })
    }

    fn is_gpu(self) -> bool {
        !matches!(self, Self::Packed(_) | Self::Reference)
    }

    fn name(self) -> String {
        match self {
            Self::Packed(compute) => compute.name(),
            #[cfg(feature = "cuda")]
            Self::Cuda(ordinal, _) => format!("float16 (cuda:{ordinal})"),
            Self::Reference => "Candle reference float32".to_owned(),
        }
    }
}

/// Describes how models compute on this machine, for messages.
///
/// # Errors
///
/// As [`Encoders::open`].
pub fn describe(compute: ComputeOptions) -> Result<String> {
    let (passages, queries) = (BackendKind::of(compute)?, BackendKind::of_queries(compute)?);
    Ok(match passages == queries {
        true => passages.name(),
        false => format!("{}; queries in {}", passages.name(), queries.name()),
    })
}

impl Encoder {
    /// Loads the encoder of a model folder for passages.
    ///
    /// # Errors
    ///
    /// As [`Encoders::open`].
    pub fn open(
        files: impl Into<ModelFiles>,
        config: &EncoderConfig,
        compute: ComputeOptions,
    ) -> Result<Self> {
        let weights = Arc::new(Weights::open(&files.into())?);
        Self::new(&weights, config, BackendKind::of(compute)?.or_cpu(config, compute)?)
    }

    fn new(weights: &Arc<Weights>, config: &EncoderConfig, kind: BackendKind) -> Result<Self> {
        let head = ClassifierHead::read(&EncoderWeights::new(weights, config), config)?;
        let backend = match kind {
            BackendKind::Packed(compute) => {
                Backend::Packed(PackedEncoder::new(weights, config, compute)?.into())
            }
            #[cfg(feature = "cuda")]
            BackendKind::Cuda(ordinal, kernels) => {
                let gpu = (ordinal, kernels);
                Backend::Cuda(CudaBert::open(gpu, weights, config, head.as_ref())?.into())
            }
            BackendKind::Reference => {
                Backend::Reference(ReferenceBert::new(weights, config)?.into())
            }
        };
        Ok(Self { backend, config: config.clone(), head })
    }

    /// Returns the seconds of the GPU's kernels for `sequences`, by step; nothing on a CPU.
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward`].
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        match &self.backend {
            #[cfg(feature = "cuda")]
            Backend::Cuda(bert) => bert.profile(sequences),
            _ => Ok(Vec::new()),
        }
    }

    /// True if it runs on a GPU.
    pub fn is_on_device(&self) -> bool {
        !matches!(self.backend, Backend::Packed(_) | Backend::Reference(_))
    }

    /// Runs the encoder. Returns the output of each sequence, `[sequences.len(), width]`, in input
    /// order.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a sequence that is empty, longer than the model's positions, or has ids
    /// beyond its vocabulary, and for the logit of a model that is not a cross-encoder;
    /// [`Error::Compute`] if the tensor library fails, [`Error::DeviceFailed`] if the GPU fails.
    pub fn forward(&self, sequences: &[Sequence], output: Output) -> Result<Vec<f32>> {
        self.forward_until(sequences, output, None)
    }

    /// As [`Encoder::forward`], unless `stop` becomes true meanwhile, which is seen within a
    /// micro-batch on the CPU and after the call on a GPU.
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward`]; [`Error::Interrupted`] if it was stopped.
    pub fn forward_until(
        &self,
        sequences: &[Sequence],
        output: Output,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>> {
        self.check(sequences, output)?;
        let hidden = self.config.hidden_size;
        let (kind, n_out) = match (output, &self.head) {
            (Output::Tokens, _) => (PoolerKind::Tokens, longest(sequences) * hidden),
            (Output::Mean, _) => (PoolerKind::Pooled(&[PoolingMode::Mean], 0), hidden),
            (Output::Cls, _) => (PoolerKind::Pooled(&[PoolingMode::Cls], 0), hidden),
            (Output::Logit, Some(head)) => (PoolerKind::Logit(head), 1),
            (Output::Logit, None) => return Err(no_classifier()),
        };
        let pool = Pooler { kind, n_out, stop };
        let out = match &self.backend {
            Backend::Packed(encoder) => encoder.forward(sequences, pool),
            // The kernels' head reads the first token.
            #[cfg(feature = "cuda")]
            Backend::Cuda(_)
                if self.head.as_ref().is_some_and(|h| output == Output::Logit && h.mean) =>
            {
                self.pooled_on_host(sequences, pool)
            }
            #[cfg(feature = "cuda")]
            Backend::Cuda(bert) => bert.forward(sequences, output, n_out),
            Backend::Reference(bert) => bert.forward(sequences, pool),
        };
        pool.finished(out)
    }

    /// Pools the states of each sequence without its first `n_skipped` tokens; `[sequences.len(),
    /// modes x hidden size]`. As [`Encoder::forward_until`] otherwise.
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward_until`].
    pub fn pooled_until(
        &self,
        sequences: &[Sequence],
        pooling: &Pooling,
        n_skipped: usize,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>> {
        if let Some(output) = pooling.output(n_skipped) {
            return self.forward_until(sequences, output, stop);
        }
        self.check(sequences, Output::Tokens)?;
        let n_out = pooling.modes.len() * self.config.hidden_size;
        let kind = PoolerKind::Pooled(&pooling.modes, n_skipped);
        let pool = Pooler { kind, n_out, stop };
        let out = match &self.backend {
            Backend::Packed(encoder) => encoder.forward(sequences, pool),
            #[cfg(feature = "cuda")]
            Backend::Cuda(_) => self.pooled_on_host(sequences, pool),
            Backend::Reference(bert) => bert.forward(sequences, pool),
        };
        pool.finished(out)
    }

    /// Pools states that a GPU computed, by few sequences at a time, which bounds memory.
    #[cfg(feature = "cuda")]
    fn pooled_on_host(&self, sequences: &[Sequence], pool: Pooler<'_>) -> Result<Vec<f32>> {
        const SEQUENCES: usize = 64;
        let hidden = self.config.hidden_size;
        let mut out = vec![0f32; sequences.len() * pool.n_out];
        for (part, out) in sequences.chunks(SEQUENCES).zip(out.chunks_mut(SEQUENCES * pool.n_out)) {
            let states = self.forward_until(part, Output::Tokens, pool.stop)?;
            let each = states.chunks_exact(longest(part) * hidden).zip(part);
            for ((states, sequence), out) in each.zip(out.chunks_exact_mut(pool.n_out)) {
                pool.apply(&states[..sequence.ids.len() * hidden], out);
            }
        }
        Ok(out)
    }

    /// Allocates `n` vectors, `stride` values apart, on the GPU; none on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(crate) fn allocate(&self, n: usize, stride: usize) -> Result<Option<DeviceVectors>> {
        match &self.backend {
            #[cfg(feature = "cuda")]
            Backend::Cuda(bert) => bert.allocate(n, stride).map(Some),
            _ => Ok(None),
        }
    }

    /// As [`Encoder::forward`] on a GPU, but leaves the vectors there: in `to`, from index `first`
    /// on, of unit length if `unit`. `output` is one vector per sequence, `to` is from
    /// [`Encoder::allocate`].
    ///
    /// # Errors
    ///
    /// As [`Encoder::forward`].
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub(crate) fn forward_on_device(
        &self,
        sequences: &[Sequence],
        output: Output,
        unit: bool,
        to: &mut DeviceVectors,
        first: usize,
    ) -> Result<()> {
        self.check(sequences, output)?;
        match &self.backend {
            #[cfg(feature = "cuda")]
            Backend::Cuda(bert) => bert.forward_on_device(sequences, output, unit, to, first),
            _ => Ok(()),
        }
    }

    /// Checks that the model can take the sequences and has the output.
    fn check(&self, sequences: &[Sequence], output: Output) -> Result<()> {
        let config = &self.config;
        for sequence in sequences {
            let n = sequence.ids.len();
            if n == 0 || n > config.max_tokens {
                return Err(Error::usage(format!(
                    "a sequence of {n} tokens: the model takes 1 to {}",
                    config.max_tokens
                )));
            }
            if sequence.ids.iter().any(|&id| id as usize >= config.vocab_size) {
                return Err(Error::usage(
                    "the tokenizer's vocabulary is larger than the model's: they do not match",
                ));
            }
        }
        if output == Output::Logit && self.head.is_none() {
            return Err(no_classifier());
        }
        Ok(())
    }
}

fn no_classifier() -> Error {
    Error::usage("this model has no classifier: it is not a cross-encoder")
}
