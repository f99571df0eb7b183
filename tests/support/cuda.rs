//! GPUs for tests: a real one, or the stand-in driver of `tests/cuda`, which runs the very kernels
//! on the CPU. WARPSEEK_GPU_KERNELS chooses the kernels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use warpseek::compute::device::GpuKernels;
use warpseek::topk::{GpuOptions, Scanner};

/// The folder of the stand-in, compiled once.
pub(crate) fn stand_in() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-stand-in");
        std::fs::create_dir_all(&folder).unwrap();
        let made = folder.join(format!("libcuda.so.{}", std::process::id()));
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
            .args(["-fPIC", "-shared", "-Wl,-soname,libcuda.so", "-I"])
            .arg(root.join("tests/cuda"))
            .arg("-o")
            .arg(&made)
            .arg(root.join("tests/cuda/driver.cpp"))
            .output()
            .unwrap_or_else(|e| panic!("{compiler}: {e}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&made, folder.join("libcuda.so")).unwrap();
        folder
    })
}

/// Scanners on the GPU: one whose memory holds every matrix, and one through which rows pass in
/// shards, with as few candidates as possible. A real GPU with WARPSEEK_TEST_GPU=1, else the
/// stand-in.
pub(crate) fn scanners() -> &'static [(&'static str, Scanner); 2] {
    static SCANNERS: OnceLock<[(&'static str, Scanner); 2]> = OnceLock::new();
    SCANNERS.get_or_init(|| {
        let default = GpuOptions::default();
        let tight = GpuOptions { row_bytes: Some(0), candidates: Some(0), ..default };
        let int8 = GpuOptions { int8_from: Some(0), ..default };
        [("cuda", open(int8)), ("cuda in shards", open(tight))]
    })
}

/// A scanner on the GPU.
pub(crate) fn open(options: GpuOptions) -> Scanner {
    load();
    let options = GpuOptions { kernels: gpu_kernels(), ..options };
    Scanner::cuda(0, options).unwrap_or_else(|e| panic!("{e}"))
}

/// The kernels to test.
pub(crate) fn gpu_kernels() -> GpuKernels {
    let name = std::env::var("WARPSEEK_GPU_KERNELS");
    GpuKernels::named(&name.unwrap_or_else(|_| "auto".to_owned())).unwrap()
}

/// The number of CUDA graphs that were replayed; none on a real GPU, which does not tell.
pub(crate) fn replays() -> Option<i32> {
    if std::env::var_os("WARPSEEK_TEST_GPU").is_some() {
        return None;
    }
    load();
    // SAFETY: the stand-in, which is loaded; its function takes nothing and returns an int.
    unsafe {
        let library = libloading::Library::new(stand_in().join("libcuda.so")).unwrap();
        let replays: libloading::Symbol<'_, unsafe extern "C" fn() -> i32> =
            library.get(b"shim_replays").unwrap();
        Some(replays())
    }
}

/// Loads the stand-in, unless a real GPU is tested.
pub(crate) fn load() {
    static LOADED: OnceLock<()> = OnceLock::new();
    LOADED.get_or_init(|| {
        if std::env::var_os("WARPSEEK_TEST_GPU").is_none() {
            // The driver is looked up by its name, which is that of a loaded library.
            // SAFETY: tests/cuda/driver.cpp, whose initialisers only fill a table.
            let library = unsafe { libloading::Library::new(stand_in().join("libcuda.so")) };
            std::mem::forget(library.unwrap());
        }
    });
}
