//! The encoder's weights on the device: in half precision, padded as the kernels expect.

use super::params::{
    GELU, GELU_TANH, LinearParams, MAX_WIDTH, NO_ACTIVATION, NormWeights, RELU, TANH,
};
use crate::activation::Activation;
use crate::config::EncoderConfig;
use crate::encoder_weights::{EncoderWeights, LayerNorms};
use crate::error::Result;
use crate::head::ClassifierHead;
use crate::weights::{Affine, Weights};
use cudarc::driver::sys::CUdeviceptr;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::cell::RefCell;
use warpseek_compute::gpu::{DeviceBuffer, Gpu, Pod, device_failed};

/// The widths of a model, without and with padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct PaddedShape {
    pub(super) hidden: usize,
    /// Width of a token's state, padded.
    pub(super) width: usize,
    pub(super) n_heads: usize,
    /// Width of a head.
    pub(super) head: usize,
    /// Width of a head, padded, in units of 32.
    pub(super) head_chunks: usize,
    /// Width inside the feed-forward block, padded.
    pub(super) inner: usize,
}

impl PaddedShape {
    /// Returns the shape of a model; none if the kernels cannot compute it.
    pub(super) fn of(config: &EncoderConfig) -> Option<Self> {
        let head = config.hidden_size / config.n_heads;
        let width = config.hidden_size.next_multiple_of(32);
        let head_chunks = head.div_ceil(32).next_power_of_two();
        let positions = config.n_positions.max(config.n_token_types);
        let fits = width <= MAX_WIDTH as usize && head_chunks <= 4 && positions <= 1 << 16;
        // The kernels have norms behind blocks, learned positions and embeddings of full width.
        let is_plain = config.rotary.is_empty()
            && config.n_relative_buckets == 0
            && !config.is_gated
            && config.embedding_size == config.hidden_size
            && activation_code(config.activation).is_some()
            && activation_code(config.head_activation).is_some();
        (fits && is_plain).then_some(Self {
            hidden: config.hidden_size,
            width,
            n_heads: config.n_heads,
            head,
            head_chunks,
            inner: config.intermediate_size.next_multiple_of(32),
        })
    }

    /// Returns the padded width of all heads.
    pub(super) fn heads(&self) -> usize {
        self.n_heads * self.head_chunks * 32
    }

    /// Returns the padded index of a value of the heads.
    fn in_heads(&self, i: usize) -> usize {
        i / self.head * self.head_chunks * 32 + i % self.head
    }
}

/// The weights of one layer; of linear layers the parameters without rows.
#[derive(Debug)]
pub(super) struct DeviceLayer {
    /// Queries, keys and values in one product.
    pub(super) qkv: LinearParams,
    pub(super) attention_out: LinearParams,
    pub(super) attention_norm: NormWeights,
    pub(super) up: LinearParams,
    pub(super) down: LinearParams,
    pub(super) out_norm: NormWeights,
}

/// A cross-encoder's pooler and classifier.
#[derive(Debug)]
pub(super) struct DeviceHead {
    pub(super) pooler: LinearParams,
    pub(super) classifier: CUdeviceptr,
    pub(super) classifier_bias: f32,
}

/// All weights of a model.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub(super) words: CUdeviceptr,
    pub(super) positions: CUdeviceptr,
    pub(super) types: CUdeviceptr,
    pub(super) norm: NormWeights,
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) head: Option<DeviceHead>,
    /// The memory that all addresses point to.
    _buffers: Vec<DeviceBuffer<u8>>,
}

struct WeightUpload<'a> {
    gpu: &'a Gpu,
    weights: EncoderWeights<'a>,
    config: &'a EncoderConfig,
    shape: PaddedShape,
    buffers: RefCell<Vec<DeviceBuffer<u8>>>,
}

/// One side of a matrix: its length without and with padding, and the padded index of an entry.
#[derive(Clone, Copy)]
struct PaddedAxis<'a> {
    len: usize,
    padded: usize,
    index: &'a (dyn Fn(usize) -> usize + Sync),
}

/// An axis with padding at its end.
fn axis(len: usize, padded: usize) -> PaddedAxis<'static> {
    PaddedAxis { len, padded, index: &|i| i }
}

impl DeviceWeights {
    /// Copies the weights of a model, and of its classifier, to the device. Fails as
    /// [`Weights::get`].
    pub(super) fn upload(
        gpu: &Gpu,
        weights: &Weights,
        config: &EncoderConfig,
        shape: PaddedShape,
        head: Option<&ClassifierHead>,
    ) -> Result<Self> {
        let weights = EncoderWeights::new(weights, config);
        let upload = WeightUpload { gpu, weights, config, shape, buffers: RefCell::default() };
        let states = axis(shape.hidden, shape.width);
        let table = |values: &[f32]| {
            let n = values.len() / shape.hidden;
            padded(values, axis(n, n), states)
        };
        let words = weights.words()?;
        let mut rows = vec![0f32; config.vocab_size * shape.hidden];
        rows.chunks_exact_mut(shape.hidden).enumerate().for_each(|(i, row)| words.read(i, row));
        let words = upload.put(&to_f16(&table(&rows)))?;
        let positions = upload.put(&table(&weights.positions()?))?;
        let mut types = weights.token_types()?;
        // A model without token types has one, of zeros.
        types.resize(types.len().max(shape.hidden), 0.0);
        let types = upload.put(&table(&types))?;
        let head = match head {
            None => None,
            Some(head) => Some(DeviceHead {
                classifier: upload.put(&head.out)?,
                pooler: LinearParams {
                    activation: activation_code(head.activation).unwrap_or(NO_ACTIVATION),
                    ..upload.linear(&head.dense, states, states)?
                },
                classifier_bias: head.out_bias,
            }),
        };
        let norm = upload.norm(&weights.embedding_norm()?)?;
        let layers = (0..config.n_layers).map(|i| upload.layer(i)).collect::<Result<_>>()?;
        let _buffers = upload.buffers.into_inner();
        Ok(Self { words, positions, types, norm, layers, head, _buffers })
    }
}

impl WeightUpload<'_> {
    /// Copies values to memory of their own and returns the address.
    fn put<T: Pod>(&self, values: &[T]) -> Result<CUdeviceptr> {
        let mut buffer = DeviceBuffer::default();
        let at = buffer.fill(self.gpu, T::bytes(values)).map_err(device_failed)?;
        // The caller may free the values.
        self.gpu.stream.synchronize().map_err(device_failed)?;
        self.buffers.borrow_mut().push(buffer);
        Ok(at)
    }

    fn norm(&self, Affine { weight, bias }: &Affine) -> Result<NormWeights> {
        Ok(NormWeights {
            weight: self.put(weight)?,
            bias: self.put(bias)?,
            width: self.shape.hidden as u32,
            stride: self.shape.width as u32,
            epsilon: self.config.layer_norm_eps,
        })
    }

    fn layer(&self, i: usize) -> Result<DeviceLayer> {
        let shape = self.shape;
        let (hidden, n_heads) = (shape.hidden, shape.heads());
        let in_heads = |i| shape.in_heads(i);
        let states = axis(hidden, shape.width);
        let inner = axis(self.config.intermediate_size, shape.inner);
        let heads = PaddedAxis { len: hidden, padded: n_heads, index: &in_heads };
        // Queries, keys and values, one after the other.
        let in_qkv = |i: usize| i / hidden * n_heads + shape.in_heads(i % hidden);
        let qkv = PaddedAxis { len: 3 * hidden, padded: 3 * n_heads, index: &in_qkv };
        let weights = self.weights;
        let LayerNorms { after_attention, after_feed_forward, .. } = weights.norms(i)?;
        let norm = |norm: Option<Affine>| self.norm(&norm.unwrap_or_default());
        Ok(DeviceLayer {
            qkv: self.linear(&weights.qkv(i)?, qkv, states)?,
            attention_out: self.linear(&weights.attention_out(i)?, states, heads)?,
            attention_norm: norm(after_attention)?,
            up: self.linear(&weights.up(i)?, inner, states)?,
            down: self.linear(&weights.down(i)?, states, inner)?,
            out_norm: norm(after_feed_forward)?,
        })
    }

    /// Copies a linear layer with a `weight` of `[out, of]`.
    fn linear(
        &self,
        Affine { weight, bias }: &Affine,
        out: PaddedAxis<'_>,
        of: PaddedAxis<'_>,
    ) -> Result<LinearParams> {
        Ok(LinearParams {
            weight: self.put(&to_f16(&padded(weight, out, of)))?,
            bias: self.put(&padded(bias, axis(1, 1), out))?,
            n_in: of.padded as u32,
            n_out: out.padded as u32,
            activation: NO_ACTIVATION,
            ..LinearParams::default()
        })
    }
}

/// Returns the kernels' number of an activation, if they have it.
pub(super) fn activation_code(activation: Activation) -> Option<u32> {
    match activation {
        Activation::Identity => Some(NO_ACTIVATION),
        Activation::Gelu => Some(GELU),
        Activation::GeluTanh => Some(GELU_TANH),
        Activation::Relu => Some(RELU),
        Activation::Tanh => Some(TANH),
        Activation::Silu | Activation::Sigmoid => None,
    }
}

/// Returns a matrix padded with zeros.
fn padded(values: &[f32], rows: PaddedAxis<'_>, columns: PaddedAxis<'_>) -> Vec<f32> {
    let mut out = vec![0.0; rows.padded * columns.padded];
    for (i, row) in values.chunks_exact(columns.len).enumerate() {
        let to = &mut out[(rows.index)(i) * columns.padded..][..columns.padded];
        row.iter().enumerate().for_each(|(j, &v)| to[(columns.index)(j)] = v);
    }
    out
}

/// Rounds values to half precision; values beyond its range are clamped.
fn to_f16(values: &[f32]) -> Vec<f16> {
    const PART: usize = 1 << 16;
    let mut out = vec![f16::ZERO; values.len()];
    out.par_chunks_mut(PART).zip(values.par_chunks(PART)).for_each(|(to, from)| {
        let most = f16::MAX.to_f32();
        let clamped: Vec<f32> = from.iter().map(|v| v.clamp(-most, most)).collect();
        to.convert_from_f32_slice(&clamped);
    });
    out
}
