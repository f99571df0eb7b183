//! The encoder's weights on the device: in half precision, padded as the kernels expect.

use super::params::{
    ALL_KEYS, GELU, GELU_TANH, LinearParams, MAX_WIDTH, NO_ACTIVATION, NormWeights, RELU, TANH,
};
use crate::activation::Activation;
use crate::attention::relative_bias;
use crate::config::EncoderConfig;
use crate::encoder_weights::EncoderWeights;
use crate::error::Result;
use crate::head::ClassifierHead;
use crate::rotary::Rotary;
use crate::weights::{Affine, Weights};
use cudarc::driver::sys::CUdeviceptr;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;
use warpseek_compute::gpu::{DeviceBuffer, Gpu, Pod, device_failed};

/// The widths of a model, without and with padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct PaddedShape {
    pub(super) hidden: usize,
    /// Width of a token's embedding, padded.
    pub(super) narrow: usize,
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
        let positions = config.max_tokens.max(config.n_positions).max(config.n_token_types);
        let fits = width <= MAX_WIDTH as usize && head_chunks <= 4 && positions <= 1 << 16;
        let has_activations = activation_code(config.activation).is_some()
            && activation_code(config.head_activation).is_some();
        let narrow = config.embedding_size.next_multiple_of(32);
        (fits && narrow <= width && has_activations).then_some(Self {
            hidden: config.hidden_size,
            narrow,
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
    pub(super) before_attention: Option<NormWeights>,
    /// Queries, keys and values in one product.
    pub(super) qkv: LinearParams,
    /// Cosines and sines of rotary positions.
    pub(super) angles: Option<(CUdeviceptr, CUdeviceptr)>,
    /// The window of attention.
    pub(super) window: u32,
    pub(super) attention_out: LinearParams,
    pub(super) after_attention: Option<NormWeights>,
    pub(super) before_feed_forward: Option<NormWeights>,
    pub(super) up: LinearParams,
    pub(super) down: LinearParams,
    pub(super) after_feed_forward: Option<NormWeights>,
}

/// A cross-encoder's head.
#[derive(Debug)]
pub(super) struct DeviceHead {
    pub(super) dense: LinearParams,
    pub(super) norm: Option<NormWeights>,
    pub(super) out: CUdeviceptr,
    pub(super) out_bias: f32,
}

/// All weights of a model.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub(super) words: CUdeviceptr,
    /// Null without.
    pub(super) positions: CUdeviceptr,
    /// Null without.
    pub(super) types: CUdeviceptr,
    pub(super) norm: NormWeights,
    /// From narrow embeddings to hidden states.
    pub(super) projection: Option<LinearParams>,
    /// The relative attention bias; null without.
    pub(super) relative: CUdeviceptr,
    pub(super) layers: Vec<DeviceLayer>,
    pub(super) final_norm: Option<NormWeights>,
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
        let narrow = axis(config.embedding_size, shape.narrow);
        let table = |values: &[f32]| {
            let n = values.len() / narrow.len;
            padded(values, axis(n, n), narrow)
        };
        let words = weights.words()?;
        let mut rows = vec![0f32; config.vocab_size * narrow.len];
        rows.chunks_exact_mut(narrow.len).enumerate().for_each(|(i, row)| words.read(i, row));
        let words = upload.put(&to_f16(&table(&rows)))?;
        let positions = upload.put_some(&table(&weights.positions()?))?;
        let types = upload.put_some(&table(&weights.token_types()?))?;
        let norm = upload.norm(&weights.embedding_norm()?, shape.narrow)?;
        let project = |affine| upload.linear(&affine, states, narrow);
        let projection = weights.projection()?.map(project).transpose()?;
        let mut relative =
            relative_bias(&weights.relative_bias()?, config.n_heads, config.max_tokens);
        relative.iter_mut().for_each(|v| *v *= std::f32::consts::LOG2_E);
        let relative = upload.put_some(&relative)?;
        let head = head.map(|head| upload.head(head)).transpose()?;
        let layers = upload.layers()?;
        let final_norm = upload.norm_if(weights.final_norm()?)?;
        let _buffers = upload.buffers.into_inner();
        Ok(Self {
            words,
            positions,
            types,
            norm,
            projection,
            relative,
            layers,
            final_norm,
            head,
            _buffers,
        })
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

    /// As [`WeightUpload::put`]; null for no values.
    fn put_some(&self, values: &[f32]) -> Result<CUdeviceptr> {
        if values.is_empty() { Ok(0) } else { self.put(values) }
    }

    /// Copies a layer norm of rows that are `stride` values apart.
    fn norm(&self, Affine { weight, bias }: &Affine, stride: usize) -> Result<NormWeights> {
        Ok(NormWeights {
            weight: self.put(weight)?,
            bias: self.put(bias)?,
            width: weight.len() as u32,
            stride: stride as u32,
            epsilon: self.config.layer_norm_eps,
        })
    }

    fn norm_if(&self, norm: Option<Affine>) -> Result<Option<NormWeights>> {
        norm.map(|norm| self.norm(&norm, self.shape.width)).transpose()
    }

    fn head(&self, head: &ClassifierHead) -> Result<DeviceHead> {
        let states = axis(self.shape.hidden, self.shape.width);
        let norm = head.norm.as_ref().map(|(norm, _)| self.norm(norm, self.shape.width));
        Ok(DeviceHead {
            dense: LinearParams {
                activation: activation_code(head.activation).unwrap_or(NO_ACTIVATION),
                ..self.linear(&head.dense, states, states)?
            },
            norm: norm.transpose()?,
            out: self.put(&head.out)?,
            out_bias: head.out_bias,
        })
    }

    /// Copies all layers. Layers of one base of rotary positions share its angles.
    fn layers(&self) -> Result<Vec<DeviceLayer>> {
        let rotary = Rotary::all(self.config);
        let mut made: Vec<(*const Rotary, (CUdeviceptr, CUdeviceptr))> = Vec::new();
        let mut layers = Vec::with_capacity(self.config.n_layers);
        for i in 0..self.config.n_layers {
            let Some((rotary, window)) = rotary.get(i) else {
                layers.push(self.layer(i, None, ALL_KEYS)?);
                continue;
            };
            let known = made.iter().find(|(known, _)| *known == Arc::as_ptr(rotary));
            let angles = match known {
                Some((_, angles)) => *angles,
                None => {
                    let angles = (self.put(&rotary.cosines)?, self.put(&rotary.sines)?);
                    made.push((Arc::as_ptr(rotary), angles));
                    angles
                }
            };
            let window = window.map_or(ALL_KEYS, |window| window as u32);
            layers.push(self.layer(i, Some(angles), window)?);
        }
        Ok(layers)
    }

    fn layer(
        &self,
        i: usize,
        angles: Option<(CUdeviceptr, CUdeviceptr)>,
        window: u32,
    ) -> Result<DeviceLayer> {
        let (shape, weights) = (self.shape, self.weights);
        let (hidden, n_heads) = (shape.hidden, shape.heads());
        let in_heads = |i| shape.in_heads(i);
        let states = axis(hidden, shape.width);
        let wide = self.config.intermediate_size;
        let inner = axis(wide, shape.inner);
        // The gate stands behind the input of the activation.
        let in_up = |i: usize| i / wide * shape.inner + i % wide;
        let halves = self.config.up_width() / wide;
        let up = PaddedAxis { len: halves * wide, padded: halves * shape.inner, index: &in_up };
        let heads = PaddedAxis { len: hidden, padded: n_heads, index: &in_heads };
        // Queries, keys and values, one after the other.
        let in_qkv = |i: usize| i / hidden * n_heads + shape.in_heads(i % hidden);
        let qkv = PaddedAxis { len: 3 * hidden, padded: 3 * n_heads, index: &in_qkv };
        let norms = weights.norms(i)?;
        Ok(DeviceLayer {
            before_attention: self.norm_if(norms.before_attention)?,
            qkv: self.linear(&weights.qkv(i)?, qkv, states)?,
            angles,
            window,
            attention_out: self.linear(&weights.attention_out(i)?, states, heads)?,
            after_attention: self.norm_if(norms.after_attention)?,
            before_feed_forward: self.norm_if(norms.before_feed_forward)?,
            up: self.linear(&weights.up(i)?, up, states)?,
            down: self.linear(&weights.down(i)?, states, inner)?,
            after_feed_forward: self.norm_if(norms.after_feed_forward)?,
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
