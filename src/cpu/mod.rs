//! What this CPU computes fastest with: instruction sets, and products of bytes, which the scan and
//! the encoder share.
//!
//! Products take signed bytes in rows (vectors of an index, tokens of a text) and unsigned bytes in
//! groups of 16 columns (queries, outputs of a layer) that lie interleaved, so that a register takes four values of
//! each. All tiers give the same integers.

pub(crate) mod bf16;
pub(crate) mod floats;
mod generic;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::error::{Error, Result};
#[cfg(target_arch = "x86_64")]
use x86::{amx, avx2, avx512vnni, avxvnni};

/// Columns of a group: `[length / 4][GROUP][4]` bytes.
pub(crate) const GROUP: usize = 16;

/// The most groups that one call takes.
pub(crate) const PANEL_GROUPS: usize = 4;

/// Rows and groups are padded with values that stand for zero to a multiple of this many bytes: one cache line,
/// one row of a matrix tile.
pub(crate) const LINE: usize = 64;

/// An instruction set for products of many numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Portable code that the compiler vectorises for the build target.
    Generic,
    /// AVX2 with F16C and FMA; bytes are multiplied in 16 bits.
    Avx2,
    /// AVX2 and AVX-VNNI: products of bytes summed in 32 bits by one instruction.
    AvxVnni,
    /// AVX-512F for half-precision rows, AVX2 for the prefilter.
    Avx512,
    /// AVX-512F with AVX-512 VNNI.
    Avx512Vnni,
    /// AMX tiles of bytes for batches, AVX-512 VNNI for the rest.
    Amx,
}

impl Tier {
    /// All tiers, slowest first.
    pub const ALL: [Self; 6] =
        [Self::Generic, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Vnni, Self::Amx];

    /// The fastest tier this CPU has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|t| t.is_available()).unwrap_or(Self::Generic)
    }

    /// The fastest tier, or the one that the environment variable `WARPSEEK_TIER` names.
    ///
    /// # Errors
    ///
    /// As [`Tier::named`].
    pub fn chosen() -> Result<Self> {
        match std::env::var("WARPSEEK_TIER") {
            Ok(name) if !name.is_empty() && name != "auto" => Self::named(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The tier of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name, [`Error::DeviceUnavailable`] for a tier this CPU lacks.
    pub fn named(name: &str) -> Result<Self> {
        let tier = Self::ALL.into_iter().find(|t| t.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            Error::usage(format!(
                "WARPSEEK_TIER: no tier is called '{name}': use auto, {}",
                names.join(", ")
            ))
        })?;
        if tier.is_available() {
            return Ok(tier);
        }
        Err(Error::DeviceUnavailable {
            device: name.to_owned(),
            reason: format!("this CPU lacks {}; unset WARPSEEK_TIER", tier.needs()),
        })
    }

    /// The name by which `WARPSEEK_TIER` asks for the tier.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
        }
    }

    /// The CPU features it needs, for messages.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Generic => "nothing special",
            Self::Avx2 => "AVX2, F16C and FMA",
            Self::AvxVnni => "AVX2, F16C, FMA and AVX-VNNI",
            Self::Avx512 => "AVX-512F and AVX2",
            Self::Avx512Vnni => "AVX-512F, AVX-512 VNNI and AVX2",
            Self::Amx => "AVX-512 VNNI and AMX-INT8, or the system does not let programs use it",
        }
    }

    /// Whether this CPU has what the tier needs.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("fma")
            };
            let avx512 = || avx2() && is_x86_feature_detected!("avx512f");
            let vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
            match self {
                Self::Generic => true,
                Self::Avx2 => avx2(),
                Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
                Self::Avx512 => avx512(),
                Self::Avx512Vnni => vnni(),
                Self::Amx => vnni() && amx::is_available(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Generic
        }
    }

    /// The tier's kernels, or the generic ones where this CPU lacks it.
    pub(crate) fn kernels(self) -> Kernels {
        Kernels { tier: if self.is_available() { self } else { Self::Generic } }
    }
}

/// The features that warpseek can use and this CPU has, for messages.
pub fn features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! look_for {
            ($($feature:tt),*) => {
                $(if is_x86_feature_detected!($feature) {
                    found.push($feature);
                })*
            };
        }
        look_for!(
            "avx2",
            "fma",
            "f16c",
            "avxvnni",
            "avx512f",
            "avx512bw",
            "avx512vl",
            "avx512vnni",
            "avx512bf16",
            "avx512fp16"
        );
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

/// The kernels of a tier that this CPU has: only [`Tier::kernels`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    tier: Tier,
}

/// Calls the kernel of the tier; the tiers that share one are named together.
macro_rules! by_tier {
    ($self:ident, $($tier:pat => $module:ident),+; $kernel:ident $arguments:tt) => {
        match $self.tier() {
            $(#[cfg(target_arch = "x86_64")]
            $tier => {
                // SAFETY: `Tier::kernels` found the instruction set; the caller checked the lengths.
                unsafe { $module::$kernel $arguments }
            })+
            _ => generic::$kernel $arguments,
        }
    };
}

pub(crate) use by_tier;

impl Kernels {
    /// The tier.
    pub(crate) fn tier(self) -> Tier {
        self.tier
    }

    /// The largest magnitude of the integers in columns, which are stored with one more added, unsigned;
    /// those in rows reach 127. Products that are added in pairs in 16 bits leave room for half of it.
    pub(crate) fn column_levels(self) -> i32 {
        match self.tier {
            Tier::Avx2 | Tier::Avx512 => 63,
            Tier::Generic | Tier::AvxVnni | Tier::Avx512Vnni | Tier::Amx => 127,
        }
    }

    /// Inner products of rows with the columns of up to four groups (`[length / 4][GROUP][4]` each) into
    /// `products`, `[rows.len(), columns]`.
    pub(crate) fn panel_products(self, rows: &[&[i8]], groups: &[u8], products: &mut [i32]) {
        let Some(length) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == length)
                && length.is_multiple_of(LINE)
                && groups.len().is_multiple_of(length * GROUP)
                && groups.len() <= length * GROUP * PANEL_GROUPS
                && groups.len() / length * rows.len() == products.len(),
            "rows, groups and products must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni => avx512vnni, Tier::Amx => amx;
            panel_products(rows, groups, products))
    }

    /// Inner products of rows with one column, which lies by itself, into `products`, `[rows.len()]`.
    pub(crate) fn row_products(self, rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
        assert!(
            rows.iter().all(|row| row.len() == column.len())
                && column.len().is_multiple_of(LINE)
                && rows.len() == products.len(),
            "rows, column and products must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            row_products(rows, column, products))
    }

    /// The inner product of one row and one column.
    pub(crate) fn dot(self, row: &[i8], column: &[u8]) -> i32 {
        assert!(row.len() == column.len() && column.len().is_multiple_of(LINE));
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            dot(row, column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_every_tier_equal_those_of_plain_sums() {
        for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
            let kernels = tier.kernels();
            let levels = kernels.column_levels();
            // Magnitudes of every size, the largest ones in runs: sums of neighbours must not saturate.
            let row_value = |i: usize| match i / 64 % 3 {
                0 => (i * 89 % 255) as i32 - 127,
                1 => 127,
                _ => -127,
            };
            let column_value = |i: usize| match i / 192 % 3 {
                0 => (i * 57) as i32 % (2 * levels + 1) - levels,
                1 => levels,
                _ => -levels,
            };
            for (n_rows, n_groups, length) in
                [(1, 1, 64), (5, 2, 128), (13, 3, 384), (33, 4, 192), (96, 4, 384)]
            {
                let values: Vec<i8> = (0..n_rows * length).map(|i| row_value(i) as i8).collect();
                let groups: Vec<u8> = (0..n_groups * GROUP * length)
                    .map(|i| (column_value(i) + levels + 1) as u8)
                    .collect();
                let rows: Vec<&[i8]> = values.chunks_exact(length).collect();
                let width = n_groups * GROUP;
                let column = |c: usize| -> Vec<u8> {
                    let at = c / GROUP * GROUP * length + c % GROUP * 4;
                    (0..length).map(|i| groups[at + i / 4 * GROUP * 4 + i % 4]).collect()
                };
                let sum = |row: &[i8], column: &[u8]| -> i32 {
                    row.iter().zip(column).map(|(&r, &c)| i32::from(r) * i32::from(c)).sum()
                };
                let mut panel = vec![0; n_rows * width];
                kernels.panel_products(&rows, &groups, &mut panel);
                for c in 0..width {
                    let column = column(c);
                    let mut alone = vec![0; n_rows];
                    kernels.row_products(&rows, &column, &mut alone);
                    for (r, row) in rows.iter().enumerate() {
                        let expected = sum(row, &column);
                        let got = [panel[r * width + c], alone[r], kernels.dot(row, &column)];
                        assert_eq!(got, [expected; 3], "{}: row {r}, column {c}", tier.name());
                    }
                }
            }
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
                    // Whoever asks for its kernels all the same gets ones that run.
                    assert_eq!(tier.kernels().tier(), Tier::Generic);
                }
            }
        }
        assert!(Tier::named("sse9").is_err());
    }
}
