//! Where computation runs, `auto`, `cpu` or `cuda:N`, and in which precision models compute.

use crate::error::{Error, Result};

/// A chosen compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
}

impl Device {
    /// The device that `name` asks for: `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] for a device this build or machine lacks, [`Error::Usage`] for a
    /// name that is none.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" | "cpu" => Ok(Self::Cpu),
            "cuda" => Err(no_cuda(name)),
            _ if name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u32>().is_ok()) => {
                Err(no_cuda(name))
            }
            _ => {
                Err(Error::usage(format!("no device is called '{name}': use auto, cpu or cuda:N")))
            }
        }
    }

    /// The device's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
        }
    }
}

/// The precision of a model's matrix products; sums are always 32 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Bytes where the CPU has vector instructions for them, else float32.
    #[default]
    Auto,
    /// Float32.
    F32,
    /// Bfloat16, on CPUs that have it.
    Bf16,
    /// Bytes, with a scale for each output of the weights and for each token.
    Int8,
}

impl Precision {
    /// The names under which precisions are asked for.
    pub const NAMES: [&str; 4] = ["auto", "f32", "bf16", "int8"];

    /// The precision of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a name that is none.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
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

fn no_cuda(name: &str) -> Error {
    Error::DeviceUnavailable {
        device: name.to_owned(),
        reason: "this warpseek was built without CUDA; use --device cpu".to_owned(),
    }
}
