//! The instruction sets a scan can use, chosen once a process.

use super::generic;
use super::int8::{RowColumns, RowTerms};
use super::query::{GROUP, PANEL_GROUPS};
#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx2, avx512, avx512vnni, avxvnni};
use crate::error::{Error, Result};
use crate::store::matrix::STRIDE_MULTIPLE;
use crate::store::prefilter::PREFILTER_MULTIPLE;
use half::f16;

/// An instruction set for the dot products of the scan.
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

/// Calls the kernel of the tier; the tiers that share one are named together.
macro_rules! by_tier {
    ($self:ident, $($tier:pat => $module:ident),+; $kernel:ident $arguments:tt) => {
        match $self.tier {
            // SAFETY: `Tier::kernels` found the instruction set; the caller checked the lengths.
            $(#[cfg(target_arch = "x86_64")]
            $tier => unsafe { $module::$kernel $arguments },)+
            _ => generic::$kernel $arguments,
        }
    };
}

impl Kernels {
    /// Approximate scores of `rows` (each as long as a query) and `queries` (`[n_queries, stride]`)
    /// into `scores`, `[n_queries, rows.len()]`, each within the error bound of the scan.
    pub(super) fn scores(self, rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
        let Some(stride) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == stride)
                && stride.is_multiple_of(STRIDE_MULTIPLE)
                && queries.len() / stride * rows.len() == scores.len()
                && queries.len().is_multiple_of(stride),
            "block of rows, queries and scores must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            scores(rows, queries, scores))
    }

    /// The canonical score of a padded query and row.
    pub(super) fn canonical(self, query: &[f32], row: &[f16]) -> f32 {
        assert!(query.len() == row.len() && row.len().is_multiple_of(16));
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            canonical(query, row))
    }

    /// The largest magnitude of a query's integers. Products of bytes that are added in pairs in 16 bits
    /// leave room for half of it.
    pub(super) fn query_levels(self) -> i32 {
        match self.tier {
            Tier::Avx2 | Tier::Avx512 => 63,
            Tier::Generic | Tier::AvxVnni | Tier::Avx512Vnni | Tier::Amx => 127,
        }
    }

    /// Integer scores of prefilter rows and up to four groups of queries (`[stride / 4][GROUP][4]` each)
    /// into `scores`, `[rows.len(), queries]`.
    pub(super) fn panel_scores(self, rows: &[&[i8]], groups: &[u8], scores: &mut [i32]) {
        let Some(stride) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == stride)
                && stride.is_multiple_of(PREFILTER_MULTIPLE)
                && groups.len().is_multiple_of(stride * GROUP)
                && groups.len() <= stride * GROUP * PANEL_GROUPS
                && groups.len() / stride * rows.len() == scores.len(),
            "block of rows, queries and scores must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni => avx512vnni, Tier::Amx => amx;
            panel_scores(rows, groups, scores))
    }

    /// Integer scores of prefilter rows and one query into `scores`, `[rows.len()]`.
    pub(super) fn row_scores(self, rows: &[&[i8]], query: &[u8], scores: &mut [i32]) {
        assert!(
            rows.iter().all(|row| row.len() == query.len())
                && query.len().is_multiple_of(PREFILTER_MULTIPLE)
                && rows.len() == scores.len(),
            "block of rows, query and scores must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            row_scores(rows, query, scores))
    }

    /// The integer score of one prefilter row and one query.
    pub(super) fn dot(self, row: &[i8], query: &[u8]) -> i32 {
        assert!(row.len() == query.len() && query.len().is_multiple_of(PREFILTER_MULTIPLE));
        by_tier!(self,
            Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
            Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            int8_dot(row, query))
    }

    /// Of one row's integer scores with up to 64 queries, those that pass the gates: a bit a query.
    pub(super) fn passing_lanes(
        self,
        scores: &[i32],
        row: RowTerms,
        factors: &[f32],
        gates: &[f32],
    ) -> u64 {
        let n = scores.len();
        assert!(n <= 64 && n.is_multiple_of(GROUP) && factors.len() == n && gates.len() == n);
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            passing_lanes(scores, row, factors, gates))
    }

    /// Of one query's integer scores with up to 64 rows, those that pass the gate: a bit a row.
    pub(super) fn passing_rows(
        self,
        scores: &[i32],
        rows: RowColumns<'_>,
        factor: f32,
        gate: f32,
    ) -> u64 {
        let n = scores.len();
        assert!(
            n <= 64 && [rows.bases.len(), rows.scales.len(), rows.residuals.len()] == [n; 3],
            "scores and rows must fit together"
        );
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            passing_rows(scores, rows, factor, gate))
    }

    /// Asks the memory for a row that will be needed soon.
    pub(super) fn prefetch(self, row: &[f16]) {
        #[cfg(target_arch = "x86_64")]
        for line in row.chunks(32) {
            // SAFETY: part of every x86-64 CPU; nothing is read as far as the program can tell.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }
}
