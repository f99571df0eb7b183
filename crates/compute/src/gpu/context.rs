//! GPU context: the driver, a device with its streams, kernel launches, and their errors.

use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig,
    PushKernelArg,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// Result with the driver's error.
pub type CudaResult<T> = std::result::Result<T, DriverError>;

/// The oldest driver whose functions are bound: CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// Dynamic shared memory that a kernel may request, in bytes. A block has 99 KiB on every supported
/// device; kernels use little static shared memory beside that.
pub const MAX_SHARED_BYTES: u32 = 98 << 10;

/// A GPU with its streams.
#[derive(Debug)]
pub struct Gpu {
    /// The primary context.
    pub context: Arc<CudaContext>,
    /// Stream of the kernels, and of copies that they wait for.
    pub stream: Arc<CudaStream>,
    /// Stream of copies that overlap with kernels.
    pub copies: Arc<CudaStream>,
    /// The number of multiprocessors.
    pub multiprocessors: u32,
    /// The device name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// CUDA version of the driver: 13000 for 13.0.
    pub driver: i32,
    /// Memory in bytes.
    pub total_memory: usize,
    /// Events before the first kernel of a batch and after the last one.
    pub marks: [CudaEvent; 2],
}

impl Gpu {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] with the reason: no driver, a driver that is too old, no such
    /// device, or a device that the kernels were not compiled for.
    pub fn open(ordinal: u32) -> Result<Self> {
        let unavailable = |reason: String| Error::unavailable(format!("cuda:{ordinal}"), reason);
        // SAFETY: loads the driver library, whose initialisers are NVIDIA's own.
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
                "the NVIDIA driver supports CUDA {}, and 12.0 is required: install a newer driver",
                version_text(driver)
            )));
        }
        let open = || -> CudaResult<Self> {
            use sys::CUdevice_attribute as Attribute;
            let context = CudaContext::new(ordinal as usize)?;
            // SAFETY: only one stream at a time uses a buffer, with an event or a wait in between.
            unsafe { context.disable_event_tracking() };
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
                context,
            })
        };
        open().map_err(|e| {
            unavailable(match e.0 {
                CUresult::CUDA_ERROR_NO_DEVICE => {
                    "the NVIDIA driver finds no GPU that may be used".to_owned()
                }
                CUresult::CUDA_ERROR_INVALID_DEVICE => {
                    let n = CudaContext::device_count().unwrap_or(0);
                    format!("there are {n} GPUs, numbered from 0")
                }
                _ => format!("opening it: {}", describe(e)),
            })
        })
    }

    /// Returns the seconds between the two marks, which must have passed. Fails if there are none.
    pub fn seconds_between_marks(&self) -> CudaResult<f64> {
        Ok(f64::from(self.marks[0].elapsed_ms(&self.marks[1])?) / 1e3)
    }

    /// True if a multiprocessor has at least 164 KiB of shared memory, not 100 KiB.
    pub fn has_much_shared_memory(&self) -> bool {
        matches!(self.capability, (8, 0 | 7) | (9 | 10, _))
    }

    /// True if it has warpgroup products (`wgmma`).
    pub fn is_hopper(&self) -> bool {
        self.capability == (9, 0)
    }

    /// Loads a binary of kernels and passes a loader to `take`. It loads a kernel by its name and
    /// the most bytes of dynamic shared memory of its launches, 0 for the default of 48 KiB.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] if the binary has no kernels for this device.
    pub fn load<T>(
        &self,
        fatbin: &[u8],
        take: impl FnOnce(&dyn Fn(&str, u32) -> CudaResult<CudaFunction>) -> CudaResult<T>,
    ) -> Result<T> {
        let load = || {
            let module = self.context.load_module(Ptx::from_binary(fatbin.to_vec()))?;
            take(&|name, shared| {
                let kernel = module.load_function(name)?;
                if shared > 0 {
                    let most =
                        CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    kernel.set_attribute(most, shared as i32)?;
                }
                Ok(kernel)
            })
        };
        load().map_err(|e| {
            self.unavailable(match e.0 {
                CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | CUresult::CUDA_ERROR_INVALID_PTX
                | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | CUresult::CUDA_ERROR_INVALID_IMAGE => format!(
                    "the driver (CUDA {}) cannot load the kernels for this GPU ({}): compute \
                     capability 8.0 or newer and a driver for CUDA 13.0 are required",
                    version_text(self.driver),
                    describe(e)
                ),
                _ => format!("loading the kernels: {}", describe(e)),
            })
        })
    }

    pub(super) fn unavailable(&self, reason: String) -> Error {
        Error::unavailable(format!("cuda:{}", self.context.ordinal()), reason)
    }
}

/// True if memory ran out, so that a smaller request may succeed.
pub fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// Converts a driver error during a computation.
pub fn device_failed(error: DriverError) -> Error {
    Error::DeviceFailed { reason: describe(error) }
}

/// Returns `13.0` for 13000.
pub fn version_text(version: i32) -> String {
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
pub fn launch<P: DeviceRepr>(
    gpu: &Gpu,
    kernel: &CudaFunction,
    (x, y): (u32, u32),
    threads: u32,
    shared_mem_bytes: u32,
    params: &P,
) -> CudaResult<()> {
    let shape = LaunchConfig { grid_dim: (x, y, 1), block_dim: (threads, 1, 1), shared_mem_bytes };
    // SAFETY: every kernel takes one struct, and callers pass the one that its header declares. The
    // caller owns the buffers it points to, which outlive the stream's next synchronization.
    unsafe { gpu.stream.launch_builder(kernel).arg(params).launch(shape) }.map(drop)
}
