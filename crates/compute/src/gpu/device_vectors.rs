//! Query vectors that an encoder leaves on the device for the scan: they need no copy to the host
//! and back, and the scan starts without waiting for the encoder.

use super::buffer::address;
use super::context::{CudaResult, Gpu, device_failed};
use crate::error::Result;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaSlice};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The most buffers that are kept for reuse.
const MAX_SPARE: usize = 2;

/// Pool of buffers for reuse: an allocation would cost more than the work on the vectors.
pub type BufferPool = Arc<Mutex<Vec<CudaSlice<f32>>>>;

/// Vectors on the device, `[n, stride]`, padded with zeros, as the scan reads them.
///
/// The main stream belongs to the encoder, which may be capturing a graph; everyone else uses the
/// stream of copies.
#[derive(Debug)]
pub struct DeviceVectors {
    gpu: Arc<Gpu>,
    /// None once it was returned to the pool.
    buffer: Option<CudaSlice<f32>>,
    at: CUdeviceptr,
    stride: usize,
    len: usize,
    /// Event after the last write.
    ready: Option<CudaEvent>,
    /// Copy on the host, made at the first request.
    host: OnceLock<Vec<f32>>,
    pool: BufferPool,
}

impl DeviceVectors {
    /// Allocates `n` vectors, still to be computed.
    pub fn new(gpu: &Arc<Gpu>, pool: &BufferPool, n: usize, stride: usize) -> CudaResult<Self> {
        let (len, pool) = ((n * stride).max(1), Arc::clone(pool));
        let spare = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = match spare.filter(|buffer| buffer.len() >= len) {
            Some(buffer) => buffer,
            None => {
                // SAFETY: it is written before it is read.
                let buffer = unsafe { gpu.copies.alloc::<f32>(len) }?;
                // From here on other streams may use it.
                gpu.copies.synchronize()?;
                buffer
            }
        };
        let at = address(gpu, &buffer);
        let (gpu, buffer, host) = (Arc::clone(gpu), Some(buffer), OnceLock::new());
        Ok(Self { gpu, buffer, at, stride, len: n * stride, ready: None, host, pool })
    }

    /// Returns the address of vector `i` and the stride in values, for the encoder that writes it.
    pub fn slot(&self, i: usize) -> (CUdeviceptr, u32) {
        (self.at + (i * self.stride * size_of::<f32>()) as CUdeviceptr, self.stride as u32)
    }

    /// Records that the vectors so far were submitted to the main stream, for the encoder.
    pub fn mark_ready(&mut self) -> CudaResult<()> {
        self.ready = Some(self.gpu.stream.record_event(None)?);
        Ok(())
    }

    /// Returns the address of the first vector if they are on the device of `gpu`, whose main
    /// stream then waits until they are computed.
    pub fn address_on(&self, gpu: &Gpu) -> CudaResult<Option<CUdeviceptr>> {
        if self.gpu.context.ordinal() != gpu.context.ordinal() {
            return Ok(None);
        }
        self.ready.as_ref().map_or(Ok(()), |ready| gpu.stream.wait(ready))?;
        Ok(Some(self.at))
    }

    /// Returns the vectors in host memory, copied once.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`](crate::error::Error::DeviceFailed).
    pub fn to_host(&self) -> Result<&[f32]> {
        if let Some(values) = self.host.get() {
            return Ok(values);
        }
        let mut values = vec![0.0; self.len];
        self.read(&mut values).map_err(device_failed)?;
        Ok(self.host.get_or_init(|| values))
    }

    fn read(&self, to: &mut [f32]) -> CudaResult<()> {
        let (Some(buffer), Some(ready)) = (&self.buffer, &self.ready) else { return Ok(()) };
        let copies = &self.gpu.copies;
        copies.wait(ready)?;
        copies.memcpy_dtoh(&buffer.slice(..to.len()), to)?;
        copies.synchronize()
    }
}

impl Drop for DeviceVectors {
    fn drop(&mut self) {
        // Kernels that nobody waited for may still write to it. A failure here recurs at the next
        // call.
        let _ = self.ready.as_ref().map(|ready| self.gpu.copies.wait(ready));
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < MAX_SPARE {
            pool.extend(self.buffer.take());
        }
    }
}
