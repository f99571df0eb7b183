//! What stands for the GPU in builds without the feature `cuda`: nothing that could be opened.

use super::Output;
use super::config::BertConfig;
use super::head::Head;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::gpu::DeviceVectors;
use crate::model::tokenize::Sequence;

/// An encoder on a GPU; there is none in this build.
#[derive(Debug)]
pub(super) enum CudaBert {}

/// Whether the kernels can compute a model of this shape.
pub(super) fn supports(_config: &BertConfig) -> bool {
    true
}

impl CudaBert {
    pub(super) fn open(
        ordinal: u32,
        _weights: &Weights,
        _config: &BertConfig,
        _head: Option<&Head>,
    ) -> Result<Self> {
        Err(Error::DeviceUnavailable {
            device: format!("cuda:{ordinal}"),
            reason: "this warpseek was built without CUDA; use --device cpu".to_owned(),
        })
    }

    pub(super) fn forward(
        &self,
        _sequences: &[Sequence],
        _output: Output,
        _n_out: usize,
    ) -> Result<Vec<f32>> {
        match *self {}
    }

    pub(super) fn room(&self, _n: usize, _stride: usize) -> Result<DeviceVectors> {
        match *self {}
    }

    pub(super) fn forward_there(
        &self,
        _sequences: &[Sequence],
        _output: Output,
        _unit: bool,
        _to: &mut DeviceVectors,
        _first: usize,
    ) -> Result<()> {
        match *self {}
    }

    pub(super) fn profile(&self, _sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        match *self {}
    }
}
