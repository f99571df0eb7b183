//! The element type of matrix products on the CPU.

use crate::error::{Error, Result};
use warpseek_compute::cpu::{Bf16, Kernels, Tier};
use warpseek_compute::device::Precision;

/// The element type of the CPU's matrix products, with its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComputeType {
    F32(Kernels),
    Bf16(Kernels, Bf16),
    /// Int8 linear layers; attention in bfloat16 if the CPU has it, else in float32.
    Int8(Kernels),
}

impl ComputeType {
    /// Chooses the element type for `precision` on `tier`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] for bfloat16 on a CPU without it, and for half precision.
    pub(crate) fn of(precision: Precision, tier: Tier) -> Result<Self> {
        let kernels = tier.kernels();
        match precision {
            Precision::F32 => Ok(Self::F32(kernels)),
            Precision::F16 => Err(Error::unavailable(
                "f16",
                "half precision is computed on a GPU; use --device cuda, or --precision auto",
            )),
            Precision::Bf16 => match kernels.bf16() {
                Some(bf16) => Ok(Self::Bf16(kernels, bf16)),
                None => Err(Error::unavailable(
                    "bf16",
                    "this CPU has no instruction for bfloat16 numbers; use --precision auto",
                )),
            },
            // Portable code multiplies float32 faster than int8.
            Precision::Auto if tier == Tier::Generic => Ok(Self::F32(kernels)),
            Precision::Auto | Precision::Int8 => Ok(Self::Int8(kernels)),
        }
    }

    pub(crate) fn kernels(self) -> Kernels {
        match self {
            Self::F32(kernels) | Self::Bf16(kernels, _) | Self::Int8(kernels) => kernels,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::F32(_) => "float32".to_owned(),
            Self::Bf16(_, bf16) => format!("bfloat16 ({})", bf16.name()),
            Self::Int8(kernels) => {
                let attention = kernels.bf16().map(|bf16| bf16.name());
                let attention = attention.map(|name| format!(", attention in bfloat16 ({name})"));
                format!("int8 ({}){}", kernels.tier().name(), attention.unwrap_or_default())
            }
        }
    }
}
