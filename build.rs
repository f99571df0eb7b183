//! Compiles the kernels, where the feature `cuda` is on.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What cubins are made for. PTX of the first serves GPUs that are newer than all of these.
const ARCHITECTURES: [&str; 6] = ["80", "86", "89", "90a", "100", "120"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=kernels");
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for kernels in ["topk", "encoder"] {
        compile(kernels);
    }
}

/// Makes `kernels/NAME.cu` a binary for all architectures, `NAME.fatbin`.
fn compile(name: &str) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let nvcc = nvcc();
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-o"]).arg(out.join(format!("{name}.fatbin")));
    for (i, architecture) in ARCHITECTURES.iter().enumerate() {
        let code = match i {
            0 => format!("[sm_{architecture},compute_{architecture}]"),
            _ => format!("sm_{architecture}"),
        };
        command.arg(format!("-gencode=arch=compute_{architecture},code={code}"));
    }
    let source = format!("kernels/{name}.cu");
    let output = match command.arg(&source).output() {
        Ok(output) => output,
        Err(error) => fail(&format!(
            "the feature `cuda` needs nvcc, and {} cannot be started ({error}). Set CUDA_HOME to a CUDA toolkit \
             of version 12.8 or newer, or run kernels/toolkit.sh, which fetches what is needed from the Python package index.",
            nvcc.display()
        )),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        fail(&format!("{} refuses {source}:\n{said}", nvcc.display()));
    }
    // That products of warpgroups wait for each other, say.
    said.lines().for_each(|line| println!("cargo::warning={line}"));
}

/// Of CUDA_HOME or CUDA_PATH, of what kernels/toolkit.sh fetched, or the first on the path.
fn nvcc() -> PathBuf {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let fetched = Path::new("target/cuda-toolkit").to_path_buf();
    let places = homes.map(PathBuf::from).chain([fetched]).map(|home| home.join("bin/nvcc"));
    places.into_iter().find(|nvcc| nvcc.is_file()).unwrap_or_else(|| "nvcc".into())
}

fn fail(message: &str) -> ! {
    message.lines().for_each(|line| println!("cargo::error={line}"));
    std::process::exit(1)
}
