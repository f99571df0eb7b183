//! The driver, a device, and what their errors mean.

use super::memory::Outcome;
use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig,
    PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// The oldest driver whose functions are bound: that of CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// What kernels may ask for of shared memory. A block of any device that there are kernels for has 99 KiB, of which
/// these take little without being asked.
pub(crate) const MAX_SHARED_BYTES: u32 = 98 << 10;

/// A device with its streams.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) context: Arc<CudaContext>,
    /// Kernels, and copies that they wait for.
    pub(crate) stream: Arc<CudaStream>,
    /// Copies beside kernels.
    pub(crate) copies: Arc<CudaStream>,
    pub(crate) multiprocessors: u32,
    pub(crate) name: String,
    pub(crate) capability: (i32, i32),
    pub(crate) driver: i32,
    pub(crate) total_memory: usize,
    /// Before the first kernel of some work and behind the last.
    pub(crate) marks: [CudaEvent; 2],
}

impl Gpu {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] with the reason: no driver, one that is too old, no such device, or one that
    /// the kernels were not compiled for.
    pub(crate) fn open(ordinal: u32) -> Result<Self> {
        let unavailable =
            |reason: String| Error::DeviceUnavailable { device: format!("cuda:{ordinal}"), reason };
        // SAFETY: loads the library, whose initialisers are NVIDIA's own, and takes it for what its name says.
        if !unsafe { sys::is_culib_present() } {
            return Err(unavailable(
                "there is no NVIDIA driver: its library libcuda.so.1 (nvcuda.dll) is not found"
                    .to_owned(),
            ));
        }
        let mut driver = 0;
        // SAFETY: writes one int; allowed before cuInit.
        let version = unsafe { sys::cuDriverGetVersion(&raw mut driver) };
        if version != CUresult::CUDA_SUCCESS || driver < OLDEST_DRIVER {
            return Err(unavailable(format!(
                "the NVIDIA driver speaks CUDA {}, and 12.0 is the oldest that will do: install a newer driver",
                version_text(driver)
            )));
        }
        let failed = |what: &str, e: DriverError| {
            let reason = match e.0 {
                CUresult::CUDA_ERROR_NO_DEVICE => {
                    "the NVIDIA driver finds no GPU that may be used".to_owned()
                }
                CUresult::CUDA_ERROR_INVALID_DEVICE => {
                    let n = CudaContext::device_count().unwrap_or(0);
                    format!("there are {n} GPUs, numbered from 0")
                }
                _ => format!("{what}: {}", describe(e)),
            };
            unavailable(reason)
        };
        let context = CudaContext::new(ordinal as usize).map_err(|e| failed("opening it", e))?;
        // SAFETY: one stream at a time works on any buffer, with an event or a wait in between.
        unsafe { context.disable_event_tracking() };
        let open = || -> Outcome<Self> {
            use sys::CUdevice_attribute as Attribute;
            let mark = || context.new_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT));
            let multiprocessors =
                context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            Ok(Self {
                stream: context.new_stream()?,
                copies: context.new_stream()?,
                multiprocessors: multiprocessors.max(1) as u32,
                name: context.name()?,
                capability: context.compute_capability()?,
                driver,
                total_memory: context.total_mem()?,
                marks: [mark()?, mark()?],
                context: Arc::clone(&context),
            })
        };
        open().map_err(|e| failed("opening it", e))
    }

    /// Whether a multiprocessor has 164 KiB of shared memory or more, and not 100.
    pub(crate) fn has_much_shared_memory(&self) -> bool {
        matches!(self.capability, (8, 0 | 7) | (9 | 10, _))
    }

    /// Whether it multiplies by warpgroups.
    pub(crate) fn is_hopper(&self) -> bool {
        self.capability == (9, 0)
    }

    /// Loads kernels, compiled for every architecture that build.rs names, and hands them to `take` by name.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] where there are none for this device.
    pub(crate) fn load<T>(
        &self,
        fatbin: &[u8],
        take: impl FnOnce(&dyn Fn(&str) -> Outcome<CudaFunction>) -> Outcome<T>,
    ) -> Result<T> {
        let load = || {
            let module = self.context.load_module(Ptx::from_binary(fatbin.to_vec()))?;
            take(&|name| module.load_function(name))
        };
        load().map_err(|e| {
            let reason = match e.0 {
                CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | CUresult::CUDA_ERROR_INVALID_PTX
                | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | CUresult::CUDA_ERROR_INVALID_IMAGE => format!(
                    "the driver (CUDA {}) cannot load the kernels for this GPU ({}): compute capability 8.0 or newer and \
                     a driver of CUDA 13.0 will do",
                    version_text(self.driver),
                    describe(e)
                ),
                _ => format!("loading the kernels: {}", describe(e)),
            };
            Error::DeviceUnavailable { device: format!("cuda:{}", self.context.ordinal()), reason }
        })
    }
}

/// Lets a kernel have up to `bytes` of shared memory; beyond 48 KiB it has to be told.
///
/// # Errors
///
/// The driver's.
pub(crate) fn allow_shared(kernel: CudaFunction, bytes: u32) -> Outcome<CudaFunction> {
    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    kernel.set_attribute(most, bytes as i32)?;
    Ok(kernel)
}

/// Whether memory ran out, so that the same may be tried with less of it.
pub(crate) fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// What a call's failure means while a scan is under way.
pub(crate) fn failure(error: DriverError) -> Error {
    Error::DeviceFailed { reason: describe(error) }
}

/// `13.0` for 13000.
pub(crate) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

pub(super) fn describe(error: DriverError) -> String {
    let name = error.error_name().map(|n| n.to_string_lossy().into_owned());
    let text = error.error_string().map(|n| n.to_string_lossy().into_owned());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{text} ({name})"),
        _ => format!("error {}", error.0 as u32),
    }
}

/// Launches a kernel whose one argument is `params`.
pub(crate) fn launch<P: DeviceRepr>(
    gpu: &Gpu,
    kernel: &CudaFunction,
    (x, y): (u32, u32),
    threads: u32,
    shared_mem_bytes: u32,
    params: &P,
) -> Outcome<()> {
    let shape = LaunchConfig { grid_dim: (x, y, 1), block_dim: (threads, 1, 1), shared_mem_bytes };
    // SAFETY: every kernel takes one struct, and callers pass the one that params.cuh gives it. The buffers it
    // points to are the caller's, and outlive the stream's next synchronisation.
    unsafe { gpu.stream.launch_builder(kernel).arg(params).launch(shape) }.map(drop)
}
