//! Devices (`auto`, `cpu`, `cuda:N`), precisions, and the other choices of how to compute.

use crate::cpu::Tier;
use crate::error::{Error, Result};

/// A compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A GPU if there is one and the work is worth it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this ordinal.
    Cuda(u32),
}

impl Device {
    /// Parses `auto`, `cpu`, `cuda` or `cuda:N`. Opening the device tells whether it exists.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (name, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => Err(Error::usage(format!("unknown device '{name}': use auto, cpu or cuda:N"))),
        }
    }
}

/// The precision of a model's matrix products. Sums always have 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// CPU: int8 for passages if the CPU has vector instructions for it, else float32; queries in
    /// bfloat16 or float32. GPU: half precision.
    #[default]
    Auto,
    /// Float32, on the CPU.
    F32,
    /// Half precision, on GPUs only.
    F16,
    /// Bfloat16, on CPUs with instructions for it.
    Bf16,
    /// Int8 with one scale per output of the weights and one per token, on the CPU.
    Int8,
}

impl Precision {
    /// Parses `auto`, `f32`, `f16`, `bf16` or `int8`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for any other name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::usage(format!(
                "unknown precision '{name}': use auto, f32, f16, bf16, int8"
            ))),
        }
    }
}

/// The implementation of the encoder on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncoderKind {
    /// Packed sequences, our own kernels.
    #[default]
    Packed,
    /// Candle's BERT in float32: the reference of the tests.
    Reference,
}

impl EncoderKind {
    /// Parses the setting `WARPSEEK_ENCODER`: `auto`, `packed` or `reference`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for any other value.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" | "packed" => Ok(Self::Packed),
            "reference" => Ok(Self::Reference),
            _ => Err(Error::usage(format!(
                "unknown encoder '{name}': use auto, packed or reference"
            ))),
        }
    }
}

/// The kernels that a GPU may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuKernels {
    /// The fastest ones: on Hopper those with warpgroup products, if a test product is right.
    #[default]
    Auto,
    /// Only kernels that every supported GPU runs.
    Portable,
}

impl GpuKernels {
    /// Parses the setting `WARPSEEK_GPU_KERNELS`: `auto` or `portable`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for any other value.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "portable" => Ok(Self::Portable),
            _ => Err(Error::usage(format!("unknown kernels '{name}': use auto or portable"))),
        }
    }
}

/// The choices of how a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ComputeOptions {
    /// The device.
    pub device: Device,
    /// The precision of matrix products.
    pub precision: Precision,
    /// The CPU instruction set, by default the fastest one.
    pub tier: Tier,
    /// The implementation of the encoder.
    pub encoder: EncoderKind,
    /// The kernels that a GPU may use.
    pub gpu_kernels: GpuKernels,
}
