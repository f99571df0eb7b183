//! Where computation runs, `auto`, `cpu` or `cuda:N`, and in which precision models compute.

use crate::error::{Error, Result};

/// A chosen compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// A GPU where there is one and it is worth while, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(u32),
}

impl Device {
    /// The device that `name` asks for: `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a name that is none. Whether there is such a device shows when it is opened.
    pub fn named(name: &str) -> Result<Self> {
        let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
        match (name, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            _ => {
                Err(Error::usage(format!("no device is called '{name}': use auto, cpu or cuda:N")))
            }
        }
    }
}

/// The precision of a model's matrix products; sums are always 32 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// On a CPU bytes where it has vector instructions for them, else float32; on a GPU half precision.
    #[default]
    Auto,
    /// Float32.
    F32,
    /// Half precision, on GPUs; every other precision but the automatic one is computed on the CPU.
    F16,
    /// Bfloat16, on CPUs that have it.
    Bf16,
    /// Bytes, with a scale for each output of the weights and for each token.
    Int8,
}

impl Precision {
    /// The names under which precisions are asked for.
    pub const NAMES: [&str; 5] = ["auto", "f32", "f16", "bf16", "int8"];

    /// The precision of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a name that is none.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::usage(format!(
                "no precision is called '{name}': use {}",
                Self::NAMES.join(", ")
            ))),
        }
    }
}

/// Where and how a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// Where.
    pub device: Device,
    /// How.
    pub precision: Precision,
}
