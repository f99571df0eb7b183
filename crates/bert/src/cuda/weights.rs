//! The encoder's weights on the device: in half precision, with widths padded as the kernels want them.

use super::params::{LinearParams, MOST_WIDTH, NO_ACTIVATION, NormWeights, TANH};
use crate::config::BertConfig;
use crate::error::Result;
use crate::model::encoder::head::Head;
use crate::model::encoder::weights::Weights;
use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::CUdeviceptr;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use warpseek_compute::gpu::{CudaResult, DeviceBuffer, Gpu, failure};

/// The widths of a model, as they are and as they are padded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    /// Of a token's state.
    pub(super) width: usize,
    pub(super) n_heads: usize,
    head: usize,
    /// Heads are 32 times this wide.
    pub(super) head_chunks: usize,
    /// Inside the feed-forward block.
    pub(super) inner: usize,
}

impl Shape {
    /// None where the kernels cannot compute the model.
    pub(super) fn of(config: &BertConfig) -> Option<Self> {
        let head = config.hidden_size / config.n_heads;
        let width = config.hidden_size.next_multiple_of(32);
        let head_chunks = head.div_ceil(32).next_power_of_two();
        let places = config.max_positions.max(config.n_token_types);
        (width <= MOST_WIDTH && head_chunks <= 4 && places <= 1 << 16).then_some(Self {
            hidden: config.hidden_size,
            width,
            n_heads: config.n_heads,
            head,
            head_chunks,
            inner: config.intermediate_size.next_multiple_of(32),
        })
    }

    /// Of a head, without padding.
    pub(super) fn head(&self) -> usize {
        self.head
    }

    /// Of the heads' values of a token.
    pub(super) fn attended(&self) -> usize {
        self.n_heads * self.head_chunks * 32
    }

    /// Where a value of the heads lies.
    fn of_head(&self, i: usize) -> usize {
        i / self.head * self.head_chunks * 32 + i % self.head
    }
}

/// A linear layer.
#[derive(Debug)]
pub(super) struct Linear {
    _weight: DeviceBuffer<u16>,
    _bias: DeviceBuffer<f32>,
    at: LinearParams,
}

impl Linear {
    /// What `linear` is told of it; rows are to be named.
    pub(super) fn params(&self) -> LinearParams {
        self.at
    }
}

#[derive(Debug)]
pub(super) struct Norm {
    _weight: DeviceBuffer<f32>,
    _bias: DeviceBuffer<f32>,
    pub(super) at: NormWeights,
}

#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values in one product.
    pub(super) qkv: Linear,
    pub(super) attention_out: Linear,
    pub(super) attention_norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) out_norm: Norm,
}

/// A cross-encoder's pooler and classifier.
#[derive(Debug)]
pub(super) struct DeviceHead {
    pub(super) pooler: Linear,
    _classifier: DeviceBuffer<f32>,
    pub(super) classifier: CUdeviceptr,
    pub(super) classifier_bias: f32,
}

/// All weights of a model.
#[derive(Debug)]
pub(super) struct Model {
    _buffers: (DeviceBuffer<u16>, DeviceBuffer<f32>, DeviceBuffer<f32>),
    pub(super) words: CUdeviceptr,
    pub(super) positions: CUdeviceptr,
    pub(super) types: CUdeviceptr,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    pub(super) head: Option<DeviceHead>,
}

/// Puts weights on the device.
struct Upload<'a> {
    gpu: &'a Gpu,
    weights: &'a Weights,
    config: &'a BertConfig,
    shape: Shape,
}

/// One side of a matrix: how long it is with its padding, and where each of its entries lies.
#[derive(Clone, Copy)]
struct Axis<'a> {
    len: usize,
    padded: usize,
    place: &'a (dyn Fn(usize) -> usize + Sync),
}

impl Model {
    pub(super) fn new(
        gpu: &Gpu,
        weights: &Weights,
        config: &BertConfig,
        shape: Shape,
        head: Option<&ClassifierHead>,
    ) -> Result<Self> {
        let upload = Upload { gpu, weights, config, shape };
        let (hidden, width) = (shape.hidden, shape.width);
        let same = |i| i;
        let states = Axis { len: hidden, padded: width, place: &same };
        let rows = |n| Axis { len: n, padded: n, place: &same };
        let values = upload
            .get("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])
            .map(|values| halves(&padded(&values, rows(config.vocab_size), states)))?;
        let (word_values, words) = upload.put(&values).map_err(device_failed)?;
        let table = |name: &str, n: usize| -> Result<(DeviceBuffer<f32>, CUdeviceptr)> {
            let values =
                upload.get(&format!("embeddings.{name}_embeddings.weight"), &[n, hidden])?;
            upload.put(&padded(&values, rows(n), states)).map_err(device_failed)
        };
        let (position_values, positions) = table("position", config.max_positions)?;
        let (type_values, types) = table("token_type", config.n_token_types)?;
        let head = head.map(|head| -> Result<DeviceHead> {
            let (values, classifier) = upload.put(&head.classifier).map_err(device_failed)?;
            let pooler = upload.linear(&head.pooler, &head.pooler_bias, states, states);
            let mut pooler = pooler.map_err(device_failed)?;
            pooler.at.activation = TANH;
            let classifier_bias = head.classifier_bias;
            Ok(DeviceHead { pooler, _classifier: values, classifier, classifier_bias })
        });
        let model = Self {
            _buffers: (word_values, position_values, type_values),
            words,
            positions,
            types,
            norm: upload.norm("embeddings.LayerNorm")?,
            layers: (0..config.n_layers).map(|i| upload.layer(i)).collect::<Result<_>>()?,
            head: head.transpose()?,
        };
        Ok(model)
    }
}

impl Upload<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.get(&format!("{}{name}", self.weights.prefix()), shape)
    }

    /// Copies values, which are not needed here any more.
    fn put<T: DeviceRepr>(&self, values: &[T]) -> CudaResult<(DeviceBuffer<T>, CUdeviceptr)> {
        let mut buffer = DeviceBuffer::default();
        let at = buffer.fill(self.gpu, values)?;
        self.gpu.stream.synchronize()?;
        Ok((buffer, at))
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let values = |part: &str| {
            let values = self.get(&format!("{name}.{part}"), &[self.shape.hidden])?;
            self.put(&values).map_err(device_failed)
        };
        let ((_weight, weight), (_bias, bias)) = (values("weight")?, values("bias")?);
        let (width, stride) = (self.shape.hidden as u32, self.shape.width as u32);
        let epsilon = self.config.layer_norm_eps;
        Ok(Norm { _weight, _bias, at: NormWeights { weight, bias, width, stride, epsilon } })
    }

    fn layer(&self, i: usize) -> Result<Layer> {
        let shape = self.shape;
        let (hidden, inner) = (shape.hidden, self.config.intermediate_size);
        let at = format!("encoder.layer.{i}");
        let same = |i| i;
        let of_head = |i| shape.of_head(i);
        // Queries, keys and values follow each other, each in heads.
        let of_part = |i: usize| i / hidden * shape.attended() + shape.of_head(i % hidden);
        let states = Axis { len: hidden, padded: shape.width, place: &same };
        let heads = Axis { len: hidden, padded: shape.attended(), place: &of_head };
        let parts = Axis { len: 3 * hidden, padded: 3 * shape.attended(), place: &of_part };
        let wide = Axis { len: inner, padded: shape.inner, place: &same };
        let linear = |name: &str, out: Axis<'_>, of: Axis<'_>| -> Result<Linear> {
            let weight = self.get(&format!("{at}.{name}.weight"), &[out.len, of.len])?;
            let bias = self.get(&format!("{at}.{name}.bias"), &[out.len])?;
            self.linear(&weight, &bias, out, of).map_err(device_failed)
        };
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in ["query", "key", "value"] {
            let name = format!("{at}.attention.self.{part}");
            weight.extend(self.get(&format!("{name}.weight"), &[hidden, hidden])?);
            bias.extend(self.get(&format!("{name}.bias"), &[hidden])?);
        }
        Ok(Layer {
            qkv: self.linear(&weight, &bias, parts, states).map_err(device_failed)?,
            attention_out: linear("attention.output.dense", states, heads)?,
            attention_norm: self.norm(&format!("{at}.attention.output.LayerNorm"))?,
            up: linear("intermediate.dense", wide, states)?,
            down: linear("output.dense", states, wide)?,
            out_norm: self.norm(&format!("{at}.output.LayerNorm"))?,
        })
    }

    /// A layer with `weight` of `[out, of]`.
    fn linear(
        &self,
        weight: &[f32],
        bias: &[f32],
        out: Axis<'_>,
        of: Axis<'_>,
    ) -> CudaResult<Linear> {
        let one = Axis { len: 1, padded: 1, place: &|i| i };
        let (_weight, weight) = self.put(&halves(&padded(weight, out, of)))?;
        let (_bias, bias) = self.put(&padded(bias, one, out))?;
        let at = LinearParams {
            x: 0,
            weight,
            bias,
            residual: 0,
            y: 0,
            n_rows: 0,
            n_in: of.padded as u32,
            n_out: out.padded as u32,
            activation: NO_ACTIVATION,
        };
        Ok(Linear { _weight, _bias, at })
    }
}

/// A matrix with zeros where there is nothing.
fn padded(values: &[f32], rows: Axis<'_>, columns: Axis<'_>) -> Vec<f32> {
    let mut out = vec![0.0; rows.padded * columns.padded];
    for (i, row) in values.chunks_exact(columns.len).enumerate() {
        let to = &mut out[(rows.place)(i) * columns.padded..][..columns.padded];
        row.iter().enumerate().for_each(|(j, &v)| to[(columns.place)(j)] = v);
    }
    out
}

/// The nearest halves; what these do not reach becomes the largest one.
fn halves(values: &[f32]) -> Vec<u16> {
    const PART: usize = 1 << 16;
    let mut halves = vec![0u16; values.len()];
    halves.par_chunks_mut(PART).zip(values.par_chunks(PART)).for_each(|(to, from)| {
        let most = f16::MAX.to_f32();
        let clamped: Vec<f32> = from.iter().map(|v| v.clamp(-most, most)).collect();
        let mut part = vec![f16::ZERO; to.len()];
        part.convert_from_f32_slice(&clamped);
        to.iter_mut().zip(part).for_each(|(to, half)| *to = half.to_bits());
    });
    halves
}
