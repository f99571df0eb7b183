//! Memory of the device, and buffers in it that grow and stay.

use super::driver::Gpu;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{
    CudaSlice, DevicePtr, DeviceRepr, DriverError, PinnedHostSlice, ValidAsZeroBits,
};
use half::f16;

/// What the driver says no to.
pub(crate) type Outcome<T> = Result<T, DriverError>;

/// A buffer that grows to what is asked for.
#[derive(Debug)]
pub(crate) struct Buffer<T>(Option<CudaSlice<T>>);

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: DeviceRepr> Buffer<T> {
    /// Room for `len` values, of no particular content.
    pub(crate) fn reserve(&mut self, gpu: &Gpu, len: usize) -> Outcome<CUdeviceptr> {
        if self.0.as_ref().is_none_or(|slice| slice.len() < len) {
            // Let go of the old one first: both may not fit.
            self.0 = None;
            // SAFETY: it is written before it is read.
            self.0 = Some(unsafe { gpu.stream.alloc::<T>(len.max(1)) }?);
        }
        Ok(self.0.as_ref().map_or(0, |slice| address(gpu, slice)))
    }

    /// Room for `values`, and the values in it.
    pub(crate) fn fill(&mut self, gpu: &Gpu, values: &[T]) -> Outcome<CUdeviceptr> {
        let at = self.reserve(gpu, values.len())?;
        if let Some(slice) = &mut self.0 {
            gpu.stream.memcpy_htod(values, &mut slice.slice_mut(..values.len()))?;
        }
        Ok(at)
    }

    /// Sets the bits of the first `len` values to zero.
    pub(crate) fn clear(&mut self, gpu: &Gpu, len: usize) -> Outcome<CUdeviceptr>
    where
        T: ValidAsZeroBits,
    {
        let at = self.reserve(gpu, len)?;
        if let Some(slice) = &mut self.0 {
            gpu.stream.memset_zeros(&mut slice.slice_mut(..len))?;
        }
        Ok(at)
    }

    /// The first values, as many as `to` has; they are there once the stream has been waited for.
    pub(crate) fn read(&self, gpu: &Gpu, to: &mut [T]) -> Outcome<()> {
        match &self.0 {
            Some(slice) => gpu.stream.memcpy_dtoh(&slice.slice(..to.len()), to),
            None => Ok(()),
        }
    }
}

/// Room for `len` values of rows, once the device has it: allocation is ordered with the main stream, and
/// copies with another.
pub(crate) fn allocate<T: DeviceRepr>(gpu: &Gpu, len: usize) -> Outcome<CudaSlice<T>> {
    // SAFETY: rows are copied there before any kernel reads them.
    let values = unsafe { gpu.stream.alloc::<T>(len.max(1)) }?;
    gpu.stream.synchronize()?;
    Ok(values)
}

/// Values whose bytes are copied as they lie.
pub(crate) trait Pod: DeviceRepr {
    fn bytes(values: &[Self]) -> &[u8]
    where
        Self: Sized,
    {
        // SAFETY: numbers of the types below have no padding, and a byte may have any value.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }
}
impl Pod for f16 {}
impl Pod for f32 {}
impl Pod for i8 {}

pub(crate) fn address<T>(gpu: &Gpu, slice: &CudaSlice<T>) -> CUdeviceptr {
    slice.device_ptr(&gpu.stream).0
}

/// Page-locked memory of the host that grows to what is asked for; the device copies from and to it beside other work.
#[derive(Debug)]
pub(crate) struct Pinned<T>(Option<PinnedHostSlice<T>>);

impl<T> Default for Pinned<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: DeviceRepr + ValidAsZeroBits> Pinned<T> {
    /// Room for `len` values, of no particular content. No copy may be under way.
    pub(crate) fn reserve(&mut self, gpu: &Gpu, len: usize) -> Outcome<&mut [T]> {
        let new = match self.0.take() {
            Some(old) if old.len() >= len => old,
            old => {
                drop(old);
                // Flags: the CPU reads it as well as writes it.
                // SAFETY: numbers may have any bits; it is written before it is read.
                unsafe { gpu.context.alloc_pinned_with_flags::<T>(len.max(1), 0) }?
            }
        };
        Ok(&mut self.0.insert(new).as_mut_slice()?[..len])
    }
    /// The first `len` values, for which there must be room. No copy to them may be under way.
    pub(crate) fn get(&self, len: usize) -> Outcome<&[T]> {
        match &self.0 {
            Some(values) => Ok(&values.as_slice()?[..len]),
            None => Ok(&[]),
        }
    }
}

/// Values that are worth a thread of their own: 1 MiB of float32.
const COPIED_BY_A_THREAD: usize = 1 << 18;

/// Copies values by a few threads, where they are many. By none of a pool: who has a device and waits in a pool may be handed work
/// that waits for the device.
pub(crate) fn copy_values<T: Copy + Send + Sync>(to: &mut [T], from: &[T]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let part = from.len().div_ceil(threads).max(COPIED_BY_A_THREAD);
    std::thread::scope(|scope| {
        let mut parts = to.chunks_mut(part).zip(from.chunks(part));
        let first = parts.next();
        for (to, from) in parts {
            scope.spawn(|| to.copy_from_slice(from));
        }
        if let Some((to, from)) = first {
            to.copy_from_slice(from);
        }
    });
}
