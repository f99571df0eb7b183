//! Device memory and page-locked (pinned) host memory: buffers that grow and are reused.

use super::context::{CudaResult, Gpu};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr, PinnedHostSlice, ValidAsZeroBits};
use half::f16;

/// A device buffer that grows to the requested length.
#[derive(Debug, Default)]
pub struct DeviceBuffer<T>(Option<CudaSlice<T>>);

impl<T: DeviceRepr> DeviceBuffer<T> {
    /// Allocates at least `len` values and returns the address. The content is undefined.
    pub fn reserve(&mut self, gpu: &Gpu, len: usize) -> CudaResult<CUdeviceptr> {
        if self.0.as_ref().is_none_or(|slice| slice.len() < len) {
            // Freed first: both may not fit.
            self.0 = None;
            // SAFETY: it is written before it is read.
            self.0 = Some(unsafe { gpu.stream.alloc::<T>(len.max(1)) }?);
        }
        Ok(self.0.as_ref().map_or(0, |slice| address(gpu, slice)))
    }

    /// Copies `values` into the buffer and returns the address.
    pub fn fill(&mut self, gpu: &Gpu, values: &[T]) -> CudaResult<CUdeviceptr> {
        let at = self.reserve(gpu, values.len())?;
        if let Some(slice) = &mut self.0 {
            gpu.stream.memcpy_htod(values, &mut slice.slice_mut(..values.len()))?;
        }
        Ok(at)
    }

    /// Copies the first `to.len()` values to the host; complete after the next synchronization.
    pub fn read(&self, gpu: &Gpu, to: &mut [T]) -> CudaResult<()> {
        match &self.0 {
            Some(slice) => gpu.stream.memcpy_dtoh(&slice.slice(..to.len()), to),
            None => Ok(()),
        }
    }
}

/// A device buffer with a pinned buffer on the host, for copies that overlap with other work.
///
/// The caller uses it again only after the copies and kernels that it was used for: after a
/// synchronization, or after an event.
#[derive(Debug, Default)]
pub struct StagedBuffer<T> {
    device: DeviceBuffer<T>,
    host: Option<PinnedHostSlice<T>>,
}

impl<T: DeviceRepr + ValidAsZeroBits + Copy + Send + Sync> StagedBuffer<T> {
    /// Allocates at least `len` values on the device and returns the address.
    pub fn reserve(&mut self, gpu: &Gpu, len: usize) -> CudaResult<CUdeviceptr> {
        self.device.reserve(gpu, len)
    }

    /// Starts a copy of `values` to the device and returns the address.
    pub fn upload(&mut self, gpu: &Gpu, values: &[T]) -> CudaResult<CUdeviceptr> {
        let staged = pinned(gpu, &mut self.host, values.len())?;
        copy_values(staged, values);
        self.device.fill(gpu, staged)
    }

    /// Starts a copy of the first `len` values to the host.
    pub fn download(&mut self, gpu: &Gpu, len: usize) -> CudaResult<()> {
        self.device.read(gpu, pinned(gpu, &mut self.host, len)?)
    }

    /// Returns the first `len` downloaded values.
    pub fn downloaded(&self, len: usize) -> CudaResult<&[T]> {
        match &self.host {
            Some(values) => Ok(&values.as_slice()?[..len]),
            None => Ok(&[]),
        }
    }
}

/// Returns `len` values of a pinned buffer, which grows to that length.
fn pinned<'a, T: DeviceRepr + ValidAsZeroBits>(
    gpu: &Gpu,
    buffer: &'a mut Option<PinnedHostSlice<T>>,
    len: usize,
) -> CudaResult<&'a mut [T]> {
    let new = match buffer.take() {
        Some(old) if old.len() >= len => old,
        old => {
            drop(old);
            // No flags: the CPU reads it as well as writes it.
            // SAFETY: any bits are valid numbers; it is written before it is read.
            unsafe { gpu.context.alloc_pinned_with_flags::<T>(len.max(1), 0) }?
        }
    };
    Ok(&mut buffer.insert(new).as_mut_slice()?[..len])
}

/// Allocates `len` values and waits: allocation is ordered with the main stream, but copies run on
/// another one.
pub fn allocate<T: DeviceRepr>(gpu: &Gpu, len: usize) -> CudaResult<CudaSlice<T>> {
    // SAFETY: rows are copied there before any kernel reads them.
    let values = unsafe { gpu.stream.alloc::<T>(len.max(1)) }?;
    gpu.stream.synchronize()?;
    Ok(values)
}

/// Plain values that are copied byte by byte.
pub trait Pod: DeviceRepr {
    /// Returns the bytes of `values`.
    fn bytes(values: &[Self]) -> &[u8]
    where
        Self: Sized,
    {
        // SAFETY: the implementing types have no padding.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }
}
impl Pod for f16 {}
impl Pod for f32 {}
impl Pod for i8 {}

/// Returns the device address of a slice.
pub fn address<T>(gpu: &Gpu, slice: &CudaSlice<T>) -> CUdeviceptr {
    slice.device_ptr(&gpu.stream).0
}

/// The fewest values that are worth a thread: 1 MiB of float32.
const VALUES_PER_THREAD: usize = 1 << 18;

/// Copies values, many of them by several threads. These are not of the rayon pool: a caller that
/// holds the device and waits in the pool could be given work that waits for the device, a
/// deadlock.
pub fn copy_values<T: Copy + Send + Sync>(to: &mut [T], from: &[T]) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let part = from.len().div_ceil(threads).max(VALUES_PER_THREAD);
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
