//! Vectors that an encoder leaves on the device for a scan.

use super::driver::{Gpu, failure};
use super::memory::{Outcome, address};
use crate::error::Result;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaSlice};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Buffers that are kept for the next vectors.
const MOST_SPARE: usize = 2;

/// Where buffers wait for the next vectors: a new one would cost more than what is done with it.
pub(crate) type Spare = Arc<Mutex<Vec<CudaSlice<f32>>>>;

/// Vectors as a scan takes them, `[n, stride]`, each with zeros behind it.
///
/// The main stream belongs to whoever has the encoder, and may be recording; what others do with vectors is done on the
/// stream of copies.
#[derive(Debug)]
pub(crate) struct DeviceVectors {
    gpu: Arc<Gpu>,
    /// None once it was given back.
    buffer: Option<CudaSlice<f32>>,
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
    /// Room for `n` vectors, which are still to be computed.
    pub(crate) fn new(gpu: &Arc<Gpu>, spare: &Spare, n: usize, stride: usize) -> Outcome<Self> {
        let (len, spare) = ((n * stride).max(1), Arc::clone(spare));
        let waiting = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let buffer = match waiting.filter(|buffer| buffer.len() >= len) {
            Some(buffer) => buffer,
            None => {
                // SAFETY: it is written before it is read.
                let buffer = unsafe { gpu.copies.alloc::<f32>(len) }?;
                // Other streams may use it from then on.
                gpu.copies.synchronize()?;
                buffer
            }
        };
        let at = address(gpu, &buffer);
        let (gpu, buffer, here) = (Arc::clone(gpu), Some(buffer), OnceLock::new());
        Ok(Self { gpu, buffer, at, stride, len: n * stride, ready: None, here, spare })
    }

    /// Values between the starts of two.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where vector `i` is.
    pub(crate) fn place(&self, i: usize) -> CUdeviceptr {
        self.at + (i * self.stride * size_of::<f32>()) as CUdeviceptr
    }

    /// Says that those so far have been handed to the main stream, by who has it.
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
        let (Some(buffer), Some(ready)) = (&self.buffer, &self.ready) else { return Ok(()) };
        let copies = &self.gpu.copies;
        copies.wait(ready)?;
        copies.memcpy_dtoh(&buffer.slice(..to.len()), to)?;
        copies.synchronize()
    }
}

impl Drop for DeviceVectors {
    fn drop(&mut self) {
        // Kernels that nobody waited for may still write to it. What fails here fails at the next call.
        let _ = self.ready.as_ref().map(|ready| self.gpu.copies.wait(ready));
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < MOST_SPARE {
            spare.extend(self.buffer.take());
        }
    }
}
