//! Vectors that an encoder leaves on the device for a scan.

use super::driver::{Gpu, failure};
use super::memory::{Buffer, Outcome};
use crate::error::Result;
use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUdeviceptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Buffers that are kept for the next vectors.
const MOST_SPARE: usize = 2;

/// Where buffers wait for the next vectors: a new one would cost more than what is done with it.
pub(crate) type Spare = Arc<Mutex<Vec<Buffer<f32>>>>;

/// Vectors as a scan takes them, `[n, stride]`, each with zeros behind it.
#[derive(Debug)]
pub(crate) struct DeviceVectors {
    gpu: Arc<Gpu>,
    buffer: Buffer<f32>,
    at: CUdeviceptr,
    stride: usize,
    len: usize,
    /// When they are there.
    ready: Option<CudaEvent>,
    /// The same, once somebody has asked.
    here: OnceLock<Vec<f32>>,
    spare: Spare,
}

impl DeviceVectors {
    /// Room for `n` vectors, which are still to be computed on the device's main stream.
    pub(crate) fn new(gpu: &Arc<Gpu>, spare: &Spare, n: usize, stride: usize) -> Outcome<Self> {
        let spare = Arc::clone(spare);
        let waiting = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = waiting.unwrap_or_default();
        let at = buffer.reserve(gpu, n * stride)?;
        let here = OnceLock::new();
        Ok(Self {
            gpu: Arc::clone(gpu),
            buffer,
            at,
            stride,
            len: n * stride,
            ready: None,
            here,
            spare,
        })
    }

    /// Values between the starts of two.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where vector `i` is.
    pub(crate) fn place(&self, i: usize) -> CUdeviceptr {
        self.at + (i * self.stride * size_of::<f32>()) as CUdeviceptr
    }

    /// Says that all of them have been handed to the device.
    pub(crate) fn are_coming(&mut self) -> Outcome<()> {
        self.ready = Some(self.gpu.stream.record_event(None)?);
        Ok(())
    }

    /// Lets the main stream of `gpu`, another one of the same device, wait for them.
    pub(crate) fn wait(&self, gpu: &Gpu) -> Outcome<()> {
        self.ready.as_ref().map_or(Ok(()), |ready| gpu.stream.wait(ready))
    }

    /// Whether they are on the device of `gpu`.
    pub(crate) fn are_on(&self, gpu: &Gpu) -> bool {
        self.gpu.context.ordinal() == gpu.context.ordinal()
    }

    /// The same in the host's memory.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`](crate::error::Error::DeviceFailed).
    pub(crate) fn here(&self) -> Result<&[f32]> {
        if let Some(values) = self.here.get() {
            return Ok(values);
        }
        let mut values = vec![0.0; self.len];
        self.read(&mut values).map_err(failure)?;
        Ok(self.here.get_or_init(|| values))
    }

    fn read(&self, to: &mut [f32]) -> Outcome<()> {
        self.gpu.context.bind_to_thread()?;
        self.buffer.read(&self.gpu, to)?;
        self.gpu.stream.synchronize()
    }
}

impl Drop for DeviceVectors {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MOST_SPARE {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}
