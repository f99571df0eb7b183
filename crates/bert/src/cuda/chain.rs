//! The kernels of one group, in order: see `kernels/encoder.cu`.

use super::params::*;
use super::plan::Group;
use super::weights::{Linear, Norm};
use super::{CudaBert, Kernels};
use crate::model::encoder::{Output, States};
use cudarc::driver::sys::{CUdeviceptr, CUevent_flags};
use cudarc::driver::{CudaEvent, CudaFunction, DeviceRepr};
use std::cell::RefCell;
use warpseek_compute::gpu::{CudaResult, TILE_SIDE, TILE_THREADS, launch};

/// A place for vectors on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct There {
    /// Where that of the first sequence goes; the others follow.
    pub(super) at: CUdeviceptr,
    /// Values between the starts of two.
    pub(super) stride: u32,
    /// Whether they are scaled to unit length.
    pub(super) unit: bool,
}

/// Where the parts of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct At {
    pub(super) numbers: CUdeviceptr,
    pub(super) x: CUdeviceptr,
    pub(super) qkv: CUdeviceptr,
    pub(super) context: CUdeviceptr,
    pub(super) wide: CUdeviceptr,
    pub(super) first: CUdeviceptr,
    pub(super) out: CUdeviceptr,
}

/// All that the launches of a group depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Call {
    pub(super) at: At,
    pub(super) group: Group,
    pub(super) output: Output,
    pub(super) there: Option<There>,
}

/// Where the time goes: what has just ended, and when.
pub(super) type Marks = RefCell<Vec<(&'static str, CudaEvent)>>;

impl CudaBert {
    /// Starts the kernels of a group.
    pub(super) fn encode(&self, call: &Call, marks: Option<&Marks>) -> CudaResult<()> {
        let (kernels, model, shape) = (&self.kernels, &self.model, self.shape);
        let Call { at, group, output, there } = call;
        let output = *output;
        let mark = |what| self.mark(marks, what);
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
        mark("between groups")?;
        self.by_rows(&kernels.embed, n_rows, &embed)?;
        mark("embedding")?;
        for (i, layer) in model.layers.iter().enumerate() {
            self.linear(&layer.qkv, x, at.qkv, n_rows, |_| {})?;
            mark("queries, keys, values")?;
            let is_last = i + 1 == model.layers.len();
            let mut spans = (number(group.spans), group.n_spans);
            if is_last && output.states() == NeededStates::Cls {
                spans = (number(group.first_spans), group.n_sequences);
                n_rows = group.n_sequences as u32;
                let (rows, stride) = (number(group.starts), shape.width as u32);
                let params = GatherParams { x, rows, y: at.first, n_rows, stride };
                self.by_rows(&kernels.gather, n_rows, &params)?;
                x = at.first;
            }
            self.attend(at, spans)?;
            mark("attention")?;
            let add = |params: &mut LinearParams| params.residual = params.y;
            self.linear(&layer.attention_out, at.context, x, n_rows, add)?;
            mark("attention's output")?;
            self.normalize(&layer.attention_norm, x, n_rows)?;
            mark("norms")?;
            let activate = |params: &mut LinearParams| params.activation = self.activation;
            self.linear(&layer.up, x, at.wide, n_rows, activate)?;
            mark("feed-forward, up")?;
            self.linear(&layer.down, at.wide, x, n_rows, add)?;
            mark("feed-forward, down")?;
            self.normalize(&layer.out_norm, x, n_rows)?;
            mark("norms")?;
        }
        let params = OutParams {
            x,
            starts: number(group.starts),
            weight: 0,
            out: at.out,
            n: n_rows,
            width: shape.hidden as u32,
            stride: shape.width as u32,
            bias: 0.0,
        };
        match (output, &model.head) {
            (Output::Mean, _) => {
                let blocks = group.n_sequences as u32;
                launch(&self.gpu, &kernels.pool_mean, (blocks, 1), ROW_THREADS, 0, &params)?;
                mark("mean")?;
            }
            (Output::Logit, Some(head)) => {
                self.linear(&head.pooler, x, at.context, n_rows, |_| {})?;
                let (weight, bias) = (head.classifier, head.classifier_bias);
                let params = OutParams { x: at.context, weight, bias, ..params };
                self.by_rows(&kernels.classify, n_rows, &params)?;
            }
            _ => self.by_rows(&kernels.widen, n_rows, &params)?,
        }
        let Some(there) = there else { return Ok(()) };
        let params = HandOverParams {
            from: at.out,
            order: number(group.order),
            to: there.at,
            n: group.n_sequences as u32,
            width: shape.hidden as u32,
            stride: there.stride,
            unit: u32::from(there.unit),
        };
        let blocks = params.n.div_ceil(2 * ROWS_AT_ONCE);
        launch(&self.gpu, &kernels.hand_over, (blocks, 1), ROW_THREADS, 0, &params)
    }

    fn linear(
        &self,
        layer: &Linear,
        x: CUdeviceptr,
        y: CUdeviceptr,
        n_rows: u32,
        and: impl FnOnce(&mut LinearParams),
    ) -> CudaResult<()> {
        let mut params = LinearParams { x, y, n_rows, ..layer.params() };
        and(&mut params);
        let tile = TILE_SIDE as u32;
        let blocks = n_rows.div_ceil(tile) * params.n_out.div_ceil(tile);
        let Kernels { linear, linear_bytes, .. } = &self.kernels;
        launch(&self.gpu, linear, (blocks, 1), TILE_THREADS, *linear_bytes, &params)
    }

    fn attend(&self, at: &At, (spans, n_spans): (CUdeviceptr, usize)) -> CudaResult<()> {
        let shape = self.shape;
        let scale = std::f32::consts::LOG2_E / (shape.head() as f32).sqrt();
        let n_heads = shape.n_heads as u32;
        let params = AttentionParams { qkv: at.qkv, context: at.context, spans, n_heads, scale };
        let bytes = attention_shared_bytes(shape.head_chunks);
        let grid = (n_spans as u32, n_heads);
        launch(&self.gpu, &self.kernels.attend, grid, ATTENTION_THREADS, bytes, &params)
    }

    fn normalize(&self, norm: &Norm, x: CUdeviceptr, n_rows: u32) -> CudaResult<()> {
        self.by_rows(&self.kernels.normalize, n_rows, &NormParams { norm: norm.at, x, n_rows })
    }

    /// Notes that `what` has ended, where that is wanted.
    fn mark(&self, marks: Option<&Marks>, what: &'static str) -> CudaResult<()> {
        if let Some(marks) = marks {
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
    ) -> CudaResult<()> {
        launch(&self.gpu, kernel, (n_rows.div_ceil(ROWS_AT_ONCE), 1), ROW_THREADS, 0, params)
    }
}
