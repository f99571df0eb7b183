//! The driver, a device with the kernels loaded, and what their errors mean.

use crate::error::{Error, Result};
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaModule, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;

/// The kernels, compiled for every architecture that build.rs names.
static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/topk.fatbin"));

/// The oldest driver whose functions are bound: that of CUDA 12.0.
const OLDEST_DRIVER: i32 = 12_000;

/// What kernels may ask for of shared memory. A block of any device that there are kernels for has 99 KiB, of which
/// these take little without being asked.
pub(super) const MAX_SHARED_BYTES: u32 = 98 << 10;

/// A device with its streams and kernels.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) context: Arc<CudaContext>,
    /// Kernels, and copies that they wait for.
    pub(super) stream: Arc<CudaStream>,
    /// Copies beside kernels.
    pub(super) copies: Arc<CudaStream>,
    pub(super) multiprocessors: u32,
    pub(super) name: String,
    pub(super) capability: (i32, i32),
    pub(super) driver: i32,
    pub(super) total_memory: usize,
    pub(super) kernels: Kernels,
    /// Before the first kernel of a batch and behind the last.
    pub(super) marks: [CudaEvent; 2],
}

#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) prepare: CudaFunction,
    pub(super) prepare_bytes: CudaFunction,
    pub(super) list_rows: CudaFunction,
    /// For 8, 16, 32 and 64 queries a block.
    pub(super) small: [CudaFunction; 4],
    /// The same over rows in 8 bits, for 8, 16 and 32 queries.
    pub(super) bytes: [CudaFunction; 3],
    pub(super) large: CudaFunction,
    pub(super) tighten: CudaFunction,
    pub(super) rescore: CudaFunction,
    pub(super) finish: CudaFunction,
    pub(super) score_all: CudaFunction,
    pub(super) merge: CudaFunction,
    pub(super) multiply_only: CudaFunction,
}

impl Gpu {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] with the reason: no driver, one that is too old, no such device, or one that
    /// the kernels were not compiled for.
    pub(super) fn open(ordinal: u32) -> Result<Self> {
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
        // SAFETY: one stream at a time works on any buffer: `stream`, or `copies` with an event between them.
        unsafe { context.disable_event_tracking() };
        let open = || -> std::result::Result<Self, DriverError> {
            let module = context.load_module(Ptx::from_binary(FATBIN.to_vec()))?;
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
                kernels: Kernels::load(&module)?,
                marks: [mark()?, mark()?],
                context: Arc::clone(&context),
            })
        };
        open().map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_INVALID_IMAGE => unavailable(format!(
                "the driver (CUDA {}) cannot load the kernels for this GPU ({}): compute capability 8.0 or newer and \
                 a driver of CUDA 13.0 will do",
                version_text(driver),
                describe(e)
            )),
            _ => failed("loading the kernels", e),
        })
    }
}

impl Kernels {
    fn load(module: &Arc<CudaModule>) -> std::result::Result<Self, DriverError> {
        let load = |name: &str| -> std::result::Result<CudaFunction, DriverError> {
            let function = module.load_function(name)?;
            // Beyond 48 KiB a kernel has to be told. Selection needs less, and has more of its own.
            if name.starts_with("scan_") || matches!(name, "rescore" | "score_all") {
                let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, MAX_SHARED_BYTES as i32)?;
            }
            Ok(function)
        };
        Ok(Self {
            prepare: load("prepare")?,
            prepare_bytes: load("prepare_bytes")?,
            list_rows: load("list_rows")?,
            small: [
                load("scan_small_1")?,
                load("scan_small_2")?,
                load("scan_small_4")?,
                load("scan_small_8")?,
            ],
            bytes: [load("scan_bytes_1")?, load("scan_bytes_2")?, load("scan_bytes_4")?],
            large: load("scan_large")?,
            tighten: load("tighten")?,
            rescore: load("rescore")?,
            finish: load("finish")?,
            score_all: load("score_all")?,
            merge: load("merge")?,
            multiply_only: load("multiply_only")?,
        })
    }
}

/// Whether memory ran out, so that the same may be tried with less of it.
pub(super) fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// What a call's failure means while a scan is under way.
pub(super) fn failure(error: DriverError) -> Error {
    Error::DeviceFailed { reason: describe(error) }
}

/// `13.0` for 13000.
pub(super) fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn describe(error: DriverError) -> String {
    let name = error.error_name().map(|n| n.to_string_lossy().into_owned());
    let text = error.error_string().map(|n| n.to_string_lossy().into_owned());
    match (name, text) {
        (Ok(name), Ok(text)) => format!("{text} ({name})"),
        _ => format!("error {}", error.0 as u32),
    }
}
