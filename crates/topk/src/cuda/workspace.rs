//! Memory of a batch beside the rows, kept between batches, and its query vectors.

use super::params::PrepareParams;
use crate::error::Result;
use crate::queries::{QueryBatch, QueryValues};
use cudarc::driver::sys::CUdeviceptr;
use std::ops::Range;
use warpseek_compute::gpu::{
    CudaResult, DeviceBuffer, Gpu, GraphCache, StagedBuffer, device_failed,
};

/// Buffers of a batch. Shapes: `kernels/params.cuh`.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The most candidates per query.
    pub(super) max_candidates: usize,
    pub(super) vectors: StagedBuffer<f32>,
    pub(super) f16: DeviceBuffer<u16>,
    pub(super) int8: DeviceBuffer<i8>,
    pub(super) scales: DeviceBuffer<f32>,
    pub(super) exponents: DeviceBuffer<i32>,
    pub(super) errors: DeviceBuffer<f32>,
    pub(super) thresholds: DeviceBuffer<f32>,
    pub(super) counts: DeviceBuffer<u32>,
    pub(super) candidates: DeviceBuffer<u64>,
    /// See [`BatchResults`](super::batch::BatchResults).
    pub(super) results: StagedBuffer<u64>,
    pub(super) masks: DeviceBuffer<u32>,
    pub(super) mask_of: DeviceBuffer<u32>,
    pub(super) list: DeviceBuffer<u32>,
    pub(super) n_listed: DeviceBuffer<u32>,
    pub(super) keys: DeviceBuffer<u64>,
    pub(super) graphs: GraphCache<GraphKey>,
}

/// Everything that the launches of a batch depend on: [`PrepareParams`], which has no padding.
pub(super) type GraphKey = [u64; size_of::<PrepareParams>() / 8];

impl Workspace {
    pub(super) fn new(max_candidates: usize) -> Self {
        Self { max_candidates, ..Self::default() }
    }

    /// Frees all memory.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max_candidates);
    }
}

/// The vectors of a query batch, `[n, stride]`: on the host, or left on this device by an encoder.
pub(super) struct QueryVectors<'a> {
    host: &'a [f32],
    device: Option<CUdeviceptr>,
    stride: usize,
}

impl<'a> QueryVectors<'a> {
    /// Resolves the vectors for the device of `gpu`.
    pub(super) fn of(gpu: &Gpu, queries: &'a QueryBatch, stride: usize) -> Result<Self> {
        let device = match &queries.values {
            QueryValues::Device(vectors) => vectors.address_on(gpu).map_err(device_failed)?,
            QueryValues::Host(_) => None,
        };
        let host = if device.is_none() { queries.padded()? } else { &[] };
        Ok(Self { host, device, stride })
    }

    /// Returns the device address of the vectors of `range`, copied there if they are on the host.
    pub(super) fn address(
        &self,
        gpu: &Gpu,
        space: &mut Workspace,
        range: &Range<usize>,
    ) -> CudaResult<CUdeviceptr> {
        let values = range.start * self.stride..range.end * self.stride;
        match self.device {
            Some(at) => Ok(at + (values.start * size_of::<f32>()) as CUdeviceptr),
            None => space.vectors.upload(gpu, &self.host[values]),
        }
    }
}
