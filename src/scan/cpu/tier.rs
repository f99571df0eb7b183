//! The instruction sets a scan can use, chosen once a process.

use super::generic;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::error::{Error, Result};
use half::f16;

/// An instruction set for the dot products of the scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Portable code that the compiler vectorises for the build target.
    Generic,
    /// AVX2 with F16C and FMA, 8 values at a time.
    Avx2,
    /// AVX-512F, 16 values at a time.
    Avx512,
}

impl Tier {
    /// All tiers, slowest first.
    pub const ALL: [Self; 3] = [Self::Generic, Self::Avx2, Self::Avx512];

    /// The fastest tier this CPU has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|t| t.is_available()).unwrap_or(Self::Generic)
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
                "WARPSEEK_TIER: no scan tier is called '{name}': use auto, {}",
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
            Self::Avx512 => "avx512",
        }
    }

    /// The CPU features it needs, for messages.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Generic => "nothing special",
            Self::Avx2 => "AVX2, F16C and FMA",
            Self::Avx512 => "AVX-512F",
        }
    }

    /// Whether this CPU has what the tier needs.
    pub fn is_available(self) -> bool {
        match self {
            Self::Generic => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// The tier's kernels, or the generic ones where this CPU lacks it.
    pub(super) fn kernels(self) -> Kernels {
        Kernels { tier: if self.is_available() { self } else { Self::Generic } }
    }
}

/// Covers a block of rows and queries with register tiles: `$rows_per_tile x $queries_per_tile`, then
/// `$rows_alone` rows at a time for the queries left over. A last tile short of rows repeats a row
/// and drops the surplus.
#[cfg(target_arch = "x86_64")]
macro_rules! for_each_tile {
    ($rows:ident, $queries:ident, $scores:ident, $rt:literal, $qt:literal, $ra:literal, $tile:ident) => {{
        let stride = $rows[0].len();
        let n_rows = $rows.len();
        let n_queries = $queries.len() / stride;
        let grouped = n_queries / $qt * $qt;
        let row_at = |r: usize| $rows[r.min(n_rows - 1)].as_ptr();
        let query_at = |q: usize| $queries[q * stride..(q + 1) * stride].as_ptr();
        for q in (0..grouped).step_by($qt) {
            let query = std::array::from_fn::<_, $qt, _>(|i| query_at(q + i));
            for r in (0..n_rows).step_by($rt) {
                let row = std::array::from_fn::<_, $rt, _>(|i| row_at(r + i));
                // SAFETY: the caller vouches for the CPU; every slice behind a pointer is `stride`
                // values long.
                let tile = unsafe { $tile(row, query, stride) };
                let n = $rt.min(n_rows - r);
                for (i, values) in tile.iter().enumerate() {
                    let start = (q + i) * n_rows + r;
                    $scores[start..start + n].copy_from_slice(&values[..n]);
                }
            }
        }
        for q in grouped..n_queries {
            for r in (0..n_rows).step_by($ra) {
                let row = std::array::from_fn::<_, $ra, _>(|i| row_at(r + i));
                // SAFETY: as above.
                let [values] = unsafe { $tile(row, [query_at(q)], stride) };
                let n = $ra.min(n_rows - r);
                let start = q * n_rows + r;
                $scores[start..start + n].copy_from_slice(&values[..n]);
            }
        }
    }};
}
#[cfg(target_arch = "x86_64")]
pub(super) use for_each_tile;

/// The kernels of a tier that this CPU has: only [`Tier::kernels`] makes one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernels {
    tier: Tier,
}

impl Kernels {
    /// Approximate scores of `rows` (each as long as a query) and `queries` (`[n_queries, stride]`)
    /// into `scores`, `[n_queries, rows.len()]`, each within the error bound of the scan.
    pub(super) fn scores(self, rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
        let Some(stride) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == stride)
                && stride.is_multiple_of(crate::store::matrix::STRIDE_MULTIPLE)
                && queries.len() / stride * rows.len() == scores.len()
                && queries.len().is_multiple_of(stride),
            "block of rows, queries and scores must fit together"
        );
        match self.tier {
            Tier::Generic => generic::scores(rows, queries, scores),
            // SAFETY: `Tier::kernels` found the instruction set; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => unsafe { avx2::scores(rows, queries, scores) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => unsafe { avx512::scores(rows, queries, scores) },
            #[cfg(not(target_arch = "x86_64"))]
            Tier::Avx2 | Tier::Avx512 => generic::scores(rows, queries, scores),
        }
    }

    /// The canonical score of a padded query and row.
    pub(super) fn canonical(self, query: &[f32], row: &[f16]) -> f32 {
        assert!(query.len() == row.len() && row.len().is_multiple_of(16));
        match self.tier {
            Tier::Generic => generic::canonical(query, row),
            // SAFETY: `Tier::kernels` found the instruction set; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => unsafe { avx2::canonical(query, row) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => unsafe { avx512::canonical(query, row) },
            #[cfg(not(target_arch = "x86_64"))]
            Tier::Avx2 | Tier::Avx512 => generic::canonical(query, row),
        }
    }
}
