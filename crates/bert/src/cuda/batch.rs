//! The launches of one micro-batch, in the order of `kernels/encoder.cu`.

use super::CudaBert;
use super::params::*;
use super::plan::MicroBatch;
use super::weights::DeviceLayer;
use crate::pooling::{NeededStates, Output};
use cudarc::driver::sys::{CUdeviceptr, CUevent_flags};
use cudarc::driver::{CudaEvent, CudaFunction, DeviceRepr};
use std::cell::RefCell;
use warpseek_compute::gpu::{CudaResult, TILE_SIDE, TILE_THREADS, launch};

/// The target of vectors that stay on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ScatterTarget {
    /// Address of the first sequence's vector; the others follow.
    pub(super) at: CUdeviceptr,
    /// Values from the start of one vector to the next.
    pub(super) stride: u32,
    /// True if they are scaled to unit length.
    pub(super) unit: bool,
}

/// Device addresses of the data of a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Addresses {
    pub(super) indices: CUdeviceptr,
    pub(super) x: CUdeviceptr,
    pub(super) qkv: CUdeviceptr,
    pub(super) context: CUdeviceptr,
    pub(super) wide: CUdeviceptr,
    pub(super) gated: CUdeviceptr,
    pub(super) normed: CUdeviceptr,
    pub(super) cls: CUdeviceptr,
    pub(super) out: CUdeviceptr,
}

/// Everything that the launches of a micro-batch depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct BatchLaunch {
    pub(super) at: Addresses,
    pub(super) batch: MicroBatch,
    pub(super) output: Output,
    pub(super) scatter: Option<ScatterTarget>,
}

/// Steps that ended, with the event after each, for a profile.
pub(super) type Timeline = RefCell<Vec<(&'static str, CudaEvent)>>;

impl CudaBert {
    /// Launches the kernels of a micro-batch.
    pub(super) fn encode(&self, run: &BatchLaunch, timeline: Option<&Timeline>) -> CudaResult<()> {
        let (kernels, weights, shape) = (&self.kernels, &self.weights, self.shape);
        let BatchLaunch { at, batch, output, scatter } = *run;
        let mark = |step| self.mark(timeline, step);
        let index = |offset: usize| at.indices + (offset * size_of::<u32>()) as CUdeviceptr;
        let (mut x, mut n_rows) = (at.x, batch.n_tokens as u32);
        // Narrow embeddings are projected to x.
        let embeddings = if weights.projection.is_some() { at.normed } else { x };
        let embed = EmbedParams {
            norm: weights.norm,
            ids: index(batch.ids),
            position_ids: index(batch.position_ids),
            words: weights.words,
            positions: weights.positions,
            types: weights.types,
            x: embeddings,
            n_rows,
        };
        mark("between micro-batches")?;
        self.by_rows(&kernels.embed, n_rows, &embed)?;
        if let Some(projection) = weights.projection {
            self.linear(LinearParams { x: embeddings, y: x, n_rows, ..projection })?;
        }
        mark("embedding")?;
        for (i, layer) in weights.layers.iter().enumerate() {
            let input = self.normed(layer.before_attention, x, at, n_rows)?;
            self.linear(LinearParams { x: input, y: at.qkv, n_rows, ..layer.qkv })?;
            mark("queries, keys, values")?;
            if let Some((cosines, sines)) = layer.angles {
                let params = RotateParams {
                    qkv: at.qkv,
                    position_ids: index(batch.position_ids),
                    cosines,
                    sines,
                    n_rows,
                    n_heads: shape.n_heads as u32,
                    half: shape.head as u32 / 2,
                    head: shape.head_chunks as u32 * 32,
                };
                self.by_rows(&kernels.rotate, n_rows, &params)?;
                mark("rotation")?;
            }
            let (mut tiles, mut n_tiles) = (index(batch.tiles), batch.n_tiles);
            if i + 1 == weights.layers.len() && output.needs() == NeededStates::First {
                (tiles, n_tiles) = (index(batch.cls_tiles), batch.n_sequences);
                n_rows = batch.n_sequences as u32;
                let (rows, stride) = (index(batch.cu_seqlens), shape.width as u32);
                let params = GatherParams { x, rows, y: at.cls, n_rows, stride };
                self.by_rows(&kernels.gather_rows, n_rows, &params)?;
                x = at.cls;
            }
            self.attend(at, layer.window, tiles, n_tiles)?;
            mark("attention")?;
            let (residual, y) = (x, x);
            let out = layer.attention_out;
            self.linear(LinearParams { x: at.context, residual, y, n_rows, ..out })?;
            mark("attention's output")?;
            self.normalize(layer.after_attention, x, n_rows)?;
            let input = self.normed(layer.before_feed_forward, x, at, n_rows)?;
            mark("norms")?;
            let wide = self.feed_forward_up(layer, input, at, n_rows)?;
            mark("feed-forward, up")?;
            self.linear(LinearParams { x: wide, residual, y, n_rows, ..layer.down })?;
            mark("feed-forward, down")?;
            self.normalize(layer.after_feed_forward, x, n_rows)?;
            mark("norms")?;
        }
        self.normalize(weights.final_norm, x, n_rows)?;
        let params = OutParams {
            x,
            cu_seqlens: index(batch.cu_seqlens),
            weight: 0,
            out: at.out,
            n: n_rows,
            width: shape.hidden as u32,
            stride: shape.width as u32,
            bias: 0.0,
        };
        match (output, &weights.head) {
            (Output::Mean, _) => {
                let grid = (batch.n_sequences as u32, 1);
                launch(&self.gpu, &kernels.mean_pool, grid, ROW_THREADS, 0, &params)?;
                mark("mean")?;
            }
            (Output::Logit, Some(head)) => {
                self.linear(LinearParams { x, y: at.context, n_rows, ..head.dense })?;
                self.normalize(head.norm, at.context, n_rows)?;
                let (weight, bias) = (head.out, head.out_bias);
                let params = OutParams { x: at.context, weight, bias, ..params };
                self.by_rows(&kernels.classify, n_rows, &params)?;
            }
            _ => self.by_rows(&kernels.to_f32, n_rows, &params)?,
        }
        let Some(target) = scatter else { return Ok(()) };
        let params = NormalizeScatterParams {
            from: at.out,
            order: index(batch.order),
            to: target.at,
            n: batch.n_sequences as u32,
            width: shape.hidden as u32,
            stride: target.stride,
            unit: u32::from(target.unit),
        };
        let grid = (params.n.div_ceil(2 * ROWS_PER_BLOCK), 1);
        launch(&self.gpu, &kernels.normalize_scatter, grid, ROW_THREADS, 0, &params)
    }

    fn linear(&self, params: LinearParams) -> CudaResult<()> {
        let blocks = params.n_rows.div_ceil(TILE_SIDE) * params.n_out.div_ceil(TILE_SIDE);
        let (kernel, shared) = (&self.kernels.linear, self.kernels.linear_bytes);
        launch(&self.gpu, kernel, (blocks, 1), TILE_THREADS, shared, &params)
    }

    fn attend(
        &self,
        at: Addresses,
        window: u32,
        tiles: CUdeviceptr,
        n_tiles: usize,
    ) -> CudaResult<()> {
        let (shape, n_heads) = (self.shape, self.shape.n_heads as u32);
        let params = AttentionParams {
            qkv: at.qkv,
            context: at.context,
            tiles,
            bias: self.weights.relative,
            n_bias: self.config.max_tokens as u32,
            window,
            n_heads,
            scale: std::f32::consts::LOG2_E / (shape.head as f32).sqrt(),
        };
        let shared = ATTENTION_CHUNK_BYTES * shape.head_chunks as u32;
        let (kernel, grid) = (&self.kernels.attention, (n_tiles as u32, n_heads));
        launch(&self.gpu, kernel, grid, ATTENTION_THREADS, shared, &params)
    }

    /// Launches the first half of a feed-forward block; returns the address of its output.
    fn feed_forward_up(
        &self,
        layer: &DeviceLayer,
        input: CUdeviceptr,
        at: Addresses,
        n_rows: u32,
    ) -> CudaResult<CUdeviceptr> {
        let activation = self.activation;
        let up = LinearParams { x: input, y: at.wide, n_rows, ..layer.up };
        if !self.config.is_gated {
            self.linear(LinearParams { activation, ..up })?;
            return Ok(at.wide);
        }
        self.linear(up)?;
        let width = self.shape.inner as u32;
        let params = GateParams { x: at.wide, y: at.gated, n_rows, width, activation };
        self.by_rows(&self.kernels.gate, n_rows, &params)?;
        Ok(at.gated)
    }

    /// Launches the norm in front of a block; returns the address of the block's input.
    fn normed(
        &self,
        norm: Option<NormWeights>,
        x: CUdeviceptr,
        at: Addresses,
        n_rows: u32,
    ) -> CudaResult<CUdeviceptr> {
        let Some(norm) = norm else { return Ok(x) };
        let params = LayerNormParams { norm, x, y: at.normed, n_rows };
        self.by_rows(&self.kernels.layer_norm, n_rows, &params)?;
        Ok(at.normed)
    }

    /// Launches a norm in place.
    fn normalize(&self, norm: Option<NormWeights>, x: CUdeviceptr, n_rows: u32) -> CudaResult<()> {
        let Some(norm) = norm else { return Ok(()) };
        let params = LayerNormParams { norm, x, y: x, n_rows };
        self.by_rows(&self.kernels.layer_norm, n_rows, &params)
    }

    /// Launches a kernel in which a warp takes a row.
    fn by_rows<P: DeviceRepr>(
        &self,
        kernel: &CudaFunction,
        n_rows: u32,
        params: &P,
    ) -> CudaResult<()> {
        launch(&self.gpu, kernel, (n_rows.div_ceil(ROWS_PER_BLOCK), 1), ROW_THREADS, 0, params)
    }

    /// Records the end of a step, if a profile is wanted.
    fn mark(&self, timeline: Option<&Timeline>, step: &'static str) -> CudaResult<()> {
        if let Some(timeline) = timeline {
            let with_time = Some(CUevent_flags::CU_EVENT_DEFAULT);
            timeline.borrow_mut().push((step, self.gpu.stream.record_event(with_time)?));
        }
        Ok(())
    }
}
