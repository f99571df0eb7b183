//! Tiers: the sets of CPU instructions that kernels are written for, and their detection.

use super::Kernels;
#[cfg(target_arch = "x86_64")]
use super::x86::amx;
use crate::error::{Error, Result};
#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;

/// A set of CPU instructions with kernels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Portable code, vectorised by the compiler for the build target.
    Generic,
    /// Armv8.2 dot products: four int8 products summed by one instruction.
    Dotprod,
    /// Armv8.6 int8 matrix products, two rows times two columns; bfloat16 ones where the CPU has
    /// them.
    I8mm,
    /// AVX2 with F16C and FMA; int8 products in 16 bits.
    Avx2,
    /// AVX2 and AVX-VNNI: int8 products summed in 32 bits by one instruction.
    AvxVnni,
    /// AVX-512 for float rows, AVX2 for int8 products.
    Avx512,
    /// AVX-512 with AVX-512 VNNI.
    Avx512Vnni,
    /// AMX int8 tiles for batches, AVX-512 VNNI for the rest.
    Amx,
}

impl Tier {
    /// All tiers, slowest first within an architecture.
    pub const ALL: [Self; 8] = [
        Self::Generic,
        Self::Dotprod,
        Self::I8mm,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::Amx,
    ];

    /// Returns the fastest tier of this CPU.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|t| t.is_available()).unwrap_or(Self::Generic)
    }

    /// Returns the tier of this name, or the fastest one for `auto`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name, [`Error::DeviceUnavailable`] for a tier that this CPU
    /// lacks.
    pub fn named(name: &str) -> Result<Self> {
        if name == "auto" {
            return Ok(Self::best());
        }
        let tier = Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            Error::usage(format!("unknown tier '{name}': use auto, {}", names.join(", ")))
        })?;
        if tier.is_available() {
            return Ok(tier);
        }
        Err(Error::unavailable(
            name,
            format!("this CPU lacks {}; unset WARPSEEK_TIER", tier.needs()),
        ))
    }

    /// Returns the name, as the setting `WARPSEEK_TIER` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
        }
    }

    /// Returns the required CPU features, for messages.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Generic => "nothing special",
            Self::Dotprod => "the Arm feature dotprod",
            Self::I8mm => "the Arm features dotprod and i8mm",
            Self::Avx2 => "AVX2, F16C and FMA",
            Self::AvxVnni => "AVX2, F16C, FMA and AVX-VNNI",
            Self::Avx512 => "AVX-512 F, BW, DQ and VL",
            Self::Avx512Vnni => "AVX-512 F, BW, DQ, VL and VNNI",
            Self::Amx => {
                "AVX-512 VNNI and AMX-INT8, or the operating system does not let programs use it"
            }
        }
    }

    /// True if this CPU has the required features.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! has {
                ($($feature:tt),+) => { $(is_x86_feature_detected!($feature))&&+ };
            }
            let avx2 = || has!("avx2", "f16c", "fma");
            let avx512 = || avx2() && has!("avx512f", "avx512bw", "avx512dq", "avx512vl");
            let vnni = || avx512() && has!("avx512vnni");
            match self {
                Self::Generic => true,
                Self::Dotprod | Self::I8mm => false,
                Self::Avx2 => avx2(),
                Self::AvxVnni => avx2() && has!("avxvnni"),
                Self::Avx512 => avx512(),
                Self::Avx512Vnni => vnni(),
                Self::Amx => vnni() && amx::is_available(),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            let dotprod = || is_aarch64_feature_detected!("dotprod");
            match self {
                Self::Generic => true,
                Self::Dotprod => dotprod(),
                Self::I8mm => dotprod() && is_aarch64_feature_detected!("i8mm"),
                _ => false,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            self == Self::Generic
        }
    }

    /// Returns the tier's kernels, or the generic ones if this CPU lacks the tier.
    pub fn kernels(self) -> Kernels {
        Kernels { tier: if self.is_available() { self } else { Self::Generic } }
    }
}

impl Default for Tier {
    fn default() -> Self {
        Self::best()
    }
}

/// Returns the features that kernels can use and this CPU has, for messages.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    macro_rules! detect {
        ($detected:ident: $($feature:tt),*) => {
            $(if $detected!($feature) {
                found.push($feature);
            })*
        };
    }
    #[cfg(target_arch = "aarch64")]
    detect! { is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm", "bf16" }
    #[cfg(target_arch = "x86_64")]
    {
        detect! { is_x86_feature_detected:
            "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni",
            "avx512bf16", "avx512fp16"
        }
        if amx::is_available() {
            found.push("amx-int8");
        }
        if amx::has_bf16() {
            found.push("amx-bf16");
        }
    }
    if found.is_empty() {
        found.push("no vector extension that is used");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_the_environment_names_are_here() {
        let wanted = std::env::var("WARPSEEK_TEST_FEATURES").unwrap_or_default();
        for name in wanted.split_whitespace() {
            assert!(features().contains(&name), "{name} is missing: {:?}", features());
        }
    }

    #[test]
    fn tier_that_this_cpu_lacks_is_refused() {
        for tier in Tier::ALL {
            match (tier.is_available(), Tier::named(tier.name())) {
                (true, got) => assert_eq!(got.ok(), Some(tier)),
                (false, got) => {
                    let message = got.map(Tier::name).unwrap_err().to_string();
                    assert!(message.contains("this CPU lacks"), "{message}");
                    // Its kernels are replaced by ones that run.
                    assert_eq!(tier.kernels().tier(), Tier::Generic);
                }
            }
        }
        assert!(Tier::named("sse9").is_err());
        assert_eq!(Tier::named("auto").ok(), Some(Tier::best()));
    }
}
