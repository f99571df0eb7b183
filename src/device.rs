//! Where computation runs: `auto`, `cpu` or `cuda:N`, and why.

use crate::error::{Error, Result};

/// A chosen compute device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
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

fn no_cuda(name: &str) -> Error {
    Error::DeviceUnavailable {
        device: name.to_owned(),
        reason: "this warpseek was built without CUDA; use --device cpu".to_owned(),
    }
}
