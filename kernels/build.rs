//! The common part of the packages' build scripts, for the feature `cuda`: compiles kernels by nvcc
//! and generates the Rust side of a header of kernel parameters.
//!
//! The header is the only source of structs and constants that host and kernels share. It may hold:
//!
//! ```text
//! // Documentation of the next item.
//! constexpr int NAME = EXPRESSION;               becomes a u32; also uint32_t
//! enum NAME : uint32_t { FIRST, SECOND };        becomes u32 constants
//! struct NAME {
//!     // Documentation of the next field.
//!     TYPE field;  // or here
//! };
//! static_assert(sizeof(NAME) == BYTES && .., "..");
//! ```
//!
//! Fields are numbers, earlier structs, or pointers, which become `CUdeviceptr`. A struct without a
//! size assertion, an item without documentation, and any other line is an error.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Architectures with a cubin. PTX of the first one serves GPUs newer than all of these.
const ARCHITECTURES: [&str; 6] = ["80", "86", "89", "90a", "100", "120"];

/// Generates `OUT_DIR/params.rs` from `kernels/HEADER`, with items of this `visibility`, and
/// compiles `kernels/NAME.cu` to `OUT_DIR/NAME.fatbin`, if the package has the feature `cuda` on.
pub(crate) fn build(header: &str, visibility: &str, name: Option<&str>) {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    // The working directory is the package's; the workspace is an ancestor of it.
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = package.ancestors().find(|folder| folder.join("kernels/build.rs").is_file());
    let root = root.unwrap_or_else(|| fail("no folder above this package has kernels/build.rs"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());

    let path = root.join("kernels").join(header);
    println!("cargo::rerun-if-changed={}", path.display());
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|e| fail(&format!("{} cannot be read: {e}", path.display())));
    let code =
        generate(&text, visibility).unwrap_or_else(|e| fail(&format!("kernels/{header}:{e}")));
    if let Err(e) = std::fs::write(out.join("params.rs"), code) {
        fail(&format!("params.rs cannot be written: {e}"));
    }
    if let Some(name) = name {
        compile(root, name, &out.join(format!("{name}.fatbin")));
    }
}

fn compile(root: &Path, name: &str, to: &Path) {
    println!("cargo::rerun-if-changed={}", root.join("kernels").display());
    for name in ["CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let nvcc = nvcc(root);
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "-fatbin", "-o"]).arg(to);
    for (i, architecture) in ARCHITECTURES.iter().enumerate() {
        let code = match i {
            0 => format!("[sm_{architecture},compute_{architecture}]"),
            _ => format!("sm_{architecture}"),
        };
        command.arg(format!("-gencode=arch=compute_{architecture},code={code}"));
    }
    let output = match command.arg(format!("kernels/{name}.cu")).current_dir(root).output() {
        Ok(output) => output,
        Err(error) => fail(&format!(
            "the feature `cuda` needs nvcc, and {} cannot be started ({error}). Set CUDA_HOME to a \
             CUDA toolkit of version 12.8 or newer, or run kernels/toolkit.sh, which fetches one \
             from the Python package index.",
            nvcc.display()
        )),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        fail(&format!("{} cannot compile kernels/{name}.cu:\n{stderr}", nvcc.display()));
    }
    // For example that warpgroup products are serialized.
    stderr.lines().for_each(|line| println!("cargo::warning={line}"));
}

/// Returns nvcc of CUDA_HOME or CUDA_PATH, of kernels/toolkit.sh, or the first one on the PATH.
fn nvcc(root: &Path) -> PathBuf {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
    let fetched = root.join("target/cuda-toolkit");
    let all = homes.map(PathBuf::from).chain([fetched]).map(|home| home.join("bin/nvcc"));
    all.into_iter().find(|nvcc| nvcc.is_file()).unwrap_or_else(|| "nvcc".into())
}

fn fail(message: &str) -> ! {
    message.lines().for_each(|line| println!("cargo::error={line}"));
    std::process::exit(1)
}

/// Translates a header; see the head of this file. The error starts with the line number.
fn generate(header: &str, visibility: &str) -> Result<String, String> {
    let mut code = String::new();
    let mut docs: Vec<&str> = Vec::new();
    // Names of structs, and whether a size assertion was found.
    let mut structs: Vec<(&str, bool)> = Vec::new();
    let mut in_struct = false;
    for (i, line) in header.lines().enumerate() {
        let error = |what: &str| format!("{}: {what}: `{line}`", i + 1);
        let (item, comment) = line.split_once("//").map_or((line, None), |(a, b)| (a, Some(b)));
        let item = item.trim();
        docs.extend(comment.map(str::trim));
        if item.is_empty() {
            // A blank line ends a comment that documents nothing.
            if comment.is_none() {
                docs.clear();
            }
            continue;
        }
        if item.starts_with('#') {
            docs.clear();
            continue;
        }
        if let Some(condition) = item.strip_prefix("static_assert(") {
            let condition = condition.split(',').next().unwrap_or_default();
            for part in condition.split("&&").map(str::trim) {
                let size = part.strip_prefix("sizeof(").and_then(|part| part.split_once(") == "));
                let (name, bytes) = size.ok_or_else(|| error("not a size assertion"))?;
                let known = structs.iter_mut().find(|known| known.0 == name);
                known.ok_or_else(|| error("an unknown struct"))?.1 = true;
                let _ = writeln!(code, "const _: () = assert!(size_of::<{name}>() == {bytes});");
            }
            continue;
        }
        if item == "};" && in_struct {
            in_struct = false;
            code.push_str("}\n");
            continue;
        }
        if docs.is_empty() && !in_struct {
            return Err(error("no comment above it that documents it"));
        }
        let indent = if in_struct { "    " } else { "" };
        let doc: String = docs.drain(..).map(|doc| format!("{indent}/// {doc}\n")).collect();
        if in_struct {
            let field = item.strip_suffix(';').and_then(|field| field.rsplit_once(' '));
            let (kind, name) = field.ok_or_else(|| error("not a field"))?;
            let kind = match kind.trim() {
                pointer if pointer.ends_with('*') => "cudarc::driver::sys::CUdeviceptr",
                "uint32_t" => "u32",
                "int32_t" => "i32",
                "float" => "f32",
                kind if structs.iter().any(|known| known.0 == kind) => kind,
                _ => return Err(error("not a number, a pointer or an earlier struct")),
            };
            let _ = writeln!(code, "{doc}    {visibility} {name}: {kind},");
        } else if let Some(name) = item.strip_prefix("struct ").and_then(|s| s.strip_suffix(" {")) {
            in_struct = true;
            structs.push((name, false));
            let _ = write!(
                code,
                "// SAFETY: plain numbers in the layout of the kernels' struct, by repr(C) and the \
                 asserted size.\nunsafe impl cudarc::driver::DeviceRepr for {name} {{}}\n\
                 {doc}#[repr(C)]\n#[derive(Debug, Clone, Copy, Default)]\n\
                 {visibility} struct {name} {{\n"
            );
        } else if let Some(list) = item.strip_prefix("enum ").and_then(|s| s.strip_suffix(" };")) {
            let list = list.split_once(" : uint32_t { ").ok_or_else(|| error("not a list"))?.1;
            for (value, name) in list.split(", ").enumerate() {
                let _ = writeln!(code, "{doc}{visibility} const {name}: u32 = {value};");
            }
        } else if let Some(constant) = item.strip_prefix("constexpr ") {
            let constant = constant.strip_prefix("int ").or(constant.strip_prefix("uint32_t "));
            let constant = constant.and_then(|c| c.strip_suffix(';')?.split_once(" = "));
            let (name, value) = constant.ok_or_else(|| error("not a constant of 32 bits"))?;
            let value = value.strip_suffix('u').unwrap_or(value);
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_ +-*/()".contains(c);
            if !value.chars().all(allowed) {
                return Err(error("an expression other than + - * / of numbers and constants"));
            }
            let _ = writeln!(code, "{doc}{visibility} const {name}: u32 = {value};");
        } else {
            return Err(error("not a constant, enum, struct or size assertion"));
        }
    }
    match structs.iter().find(|known| !known.1) {
        Some((name, _)) => Err(format!(" no static_assert of the size of {name}")),
        None => Ok(code),
    }
}
