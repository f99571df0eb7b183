//! Matrix products on the CPU, dispatched at run time by instruction set ([`Tier`]).
//!
//! Int8 products multiply signed bytes in rows (vectors of an index, activations of a token) with
//! unsigned bytes in packed panels of [`PANEL`] columns (queries, outputs of a layer). A panel is
//! interleaved so that a 64-byte register holds four values of each of its columns. All tiers give
//! the same integers.
//!
//! Two more element types serve the encoder: bfloat16 panels ([`Bf16`]) and float32 rows
//! ([`Kernels::gemv_f32`]). Crates that add kernels of their own dispatch them with
//! `by_tier!`, so that one table decides for all.

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod aligned;
mod bf16;
mod generic;
mod rows;
mod tier;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use aligned::{AlignedVec, PlainNumber};
pub use bf16::{Bf16, to_bf16};
pub use rows::{OperandRows, ROW_STEP};
pub use tier::{Tier, features};

#[cfg(target_arch = "aarch64")]
use aarch64::{dotprod, i8mm};
use std::marker::PhantomData;
#[cfg(target_arch = "x86_64")]
use x86::{amx_tiles, avx2, avx512vnni, avxvnni};

/// Columns of a packed panel: `[length / 4][PANEL][4]` bytes.
pub const PANEL: usize = 16;

/// The most panels that one call of [`Kernels::gemm_i8`] takes.
pub const MAX_PANELS: usize = 4;

/// Rows and panels are padded with zeros to a multiple of this many bytes: a cache line, and a row
/// of an AMX tile.
pub const CACHE_LINE: usize = 64;

/// The kernels of a tier that this CPU has. Only [`Tier::kernels`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    tier: Tier,
}

/// A scope in which this thread's AMX tiles stay configured, so that the products within it need
/// not configure them each time. Scopes nest. Without AMX it does nothing.
#[derive(Debug)]
pub struct TileScope {
    #[cfg(target_arch = "x86_64")]
    is_amx: bool,
    /// Tiles belong to a thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for TileScope {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.is_amx {
            // SAFETY: `Kernels::tile_scope` opened it on this thread, which it cannot leave.
            unsafe { amx_tiles::close_scope() };
        }
    }
}

/// Calls the kernel of `$self.tier()`: one of the tiers of x86-64 or of AArch64, by the module that
/// has it. Tiers that share a kernel are named together; all others take the module `generic` of
/// the calling scope. Hidden, because it is for the kernels of this workspace only: the arguments
/// stand inside an unsafe block.
#[doc(hidden)]
#[macro_export]
macro_rules! by_tier {
    ($self:ident, $kernel:ident $arguments:tt; x86: $($tier:pat => $module:ident),+
        $(; arm: $($arm_tier:pat => $arm_module:ident),+)?) => {
        match $self.tier() {
            $(#[cfg(target_arch = "x86_64")]
            $tier => {
                // SAFETY: `Tier::kernels` detected the instruction set; the caller checked lengths.
                unsafe { $module::$kernel $arguments }
            })+
            $($(#[cfg(target_arch = "aarch64")]
            $arm_tier => {
                // SAFETY: as above.
                unsafe { $arm_module::$kernel $arguments }
            })+)?
            _ => generic::$kernel $arguments,
        }
    };
}

impl Kernels {
    /// Returns the tier.
    pub fn tier(self) -> Tier {
        self.tier
    }

    /// True if int8 GEMM is computed on AMX tiles, 32 x 32 products at a time.
    pub fn is_tiled(self) -> bool {
        self.tier == Tier::Amx
    }

    /// Multiplies int8 numbers in AMX tile registers alone, without loads, to measure the limit of
    /// the CPU. Returns the number of products: `steps` times that of a block; 0 without tiles.
    pub fn multiply_registers(self, steps: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.is_tiled() {
            // SAFETY: `Tier::kernels` detected the tiles.
            unsafe { x86::amx_rows::int8::multiply_registers(steps) };
            return steps * 32 * 32 * CACHE_LINE;
        }
        let _ = steps;
        0
    }

    /// Opens a tile scope on this thread.
    pub fn tile_scope(self) -> TileScope {
        #[cfg(target_arch = "x86_64")]
        {
            let is_amx = self.tier == Tier::Amx;
            if is_amx {
                // SAFETY: `Tier::kernels` detected the tiles, which the system granted.
                unsafe { amx_tiles::open_scope() };
            }
            TileScope { is_amx, not_send: PhantomData }
        }
        #[cfg(not(target_arch = "x86_64"))]
        TileScope { not_send: PhantomData }
    }

    /// Largest magnitude (qmax) of the integers in panels, which are stored as unsigned bytes with
    /// `qmax + 1` added. Integers in rows reach 127. AVX2 adds products in pairs in 16 bits, which
    /// leaves room for half of that.
    pub fn column_qmax(self) -> i32 {
        match self.tier {
            Tier::Avx2 | Tier::Avx512 => 63,
            _ => 127,
        }
    }

    /// Int8 GEMM of rows anywhere in memory: inner products of rows, `[length]` each, with the
    /// columns of up to [`MAX_PANELS`] panels into `products`, `[rows.len(), columns]`. `length` is
    /// a multiple of [`CACHE_LINE`].
    pub fn gemm_i8(self, rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
        let Some(length) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == length)
                && length.is_multiple_of(CACHE_LINE)
                && panels.len().is_multiple_of(length * PANEL)
                && panels.len() <= length * PANEL * MAX_PANELS
                && panels.len() / length * rows.len() == products.len(),
            "rows, panels and products must fit together"
        );
        by_tier!(self, gemm_i8(rows, panels, products);
            x86: Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
                Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            arm: Tier::Dotprod => dotprod, Tier::I8mm => i8mm)
    }

    /// Int8 GEMM of rows at equal distances: as [`Kernels::gemm_i8`], with any number of panels,
    /// into lines of products that are `stride` values apart.
    ///
    /// Rows and lines of products must be there up to the next multiple of [`ROW_STEP`]; surplus
    /// lines get any value.
    pub fn gemm_rows_i8(
        self,
        rows: OperandRows<'_, i8>,
        panels: &[u8],
        products: &mut [i32],
        stride: usize,
    ) {
        if rows.n == 0 || panels.is_empty() {
            return;
        }
        rows.check(panels.len(), products.len(), stride);
        #[cfg(target_arch = "x86_64")]
        if self.tier == Tier::Amx {
            // SAFETY: `Tier::kernels` detected the instruction set; the lengths were checked.
            unsafe { x86::amx_rows::int8::gemm(rows, panels, products, stride) };
            return;
        }
        /// A whole number of the kernels' register tiles of 4 to 12 rows.
        const BLOCK: usize = 48;
        for start in (0..rows.n).step_by(BLOCK) {
            let n = BLOCK.min(rows.n - start);
            let slices: [&[i8]; BLOCK] = std::array::from_fn(|i| rows.row(start + i.min(n - 1)));
            for (c, panels) in panels.chunks(MAX_PANELS * PANEL * rows.length).enumerate() {
                let width = panels.len() / rows.length;
                let products = &mut products[start * stride + c * MAX_PANELS * PANEL..];
                if stride == width {
                    self.gemm_i8(&slices[..n], panels, &mut products[..n * width]);
                } else {
                    self.gemm_apart_i8(&slices[..n], panels, products, stride);
                }
            }
        }
    }

    /// Int8 GEMM into lines of products that are `stride` values apart, by way of a buffer.
    #[cold]
    fn gemm_apart_i8(self, rows: &[&[i8]], panels: &[u8], products: &mut [i32], stride: usize) {
        let width = panels.len() / rows[0].len();
        let mut lines = vec![0; rows.len() * width];
        self.gemm_i8(rows, panels, &mut lines);
        for (to, from) in products.chunks_mut(stride).zip(lines.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
    }

    /// Int8 GEMV: inner products of rows with one contiguous column into `products`,
    /// `[rows.len()]`.
    pub fn gemv_i8(self, rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
        assert!(
            rows.iter().all(|row| row.len() == column.len())
                && column.len().is_multiple_of(CACHE_LINE)
                && rows.len() == products.len(),
            "rows, column and products must fit together"
        );
        by_tier!(self, gemv_i8(rows, column, products);
            x86: Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
                Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            arm: Tier::Dotprod => dotprod, Tier::I8mm => i8mm)
    }

    /// Inner product of one row and one contiguous column.
    pub fn dot_i8(self, row: &[i8], column: &[u8]) -> i32 {
        assert!(row.len() == column.len() && column.len().is_multiple_of(CACHE_LINE));
        by_tier!(self, dot_i8(row, column);
            x86: Tier::Avx2 | Tier::Avx512 => avx2, Tier::AvxVnni => avxvnni,
                Tier::Avx512Vnni | Tier::Amx => avx512vnni;
            arm: Tier::Dotprod => dotprod, Tier::I8mm => i8mm)
    }

    /// Float32 product for few rows: `out <- out + x W^T`, reading the weights once and in memory
    /// order. `x` is `[rows, n_in]`, `weight` `[n_out, n_in]`, `out` `[rows, n_out]`. Returns false
    /// and leaves `out` alone in the generic tier and on AArch64, where the crate `gemm` is faster;
    /// it also serves many rows, since it packs the columns first.
    pub fn gemv_f32(self, x: &[f32], weight: &[f32], n_in: usize, out: &mut [f32]) -> bool {
        assert!(
            n_in > 0
                && x.len().is_multiple_of(n_in)
                && weight.len().is_multiple_of(n_in)
                && out.len() == x.len() / n_in * (weight.len() / n_in),
            "rows, weights and products must fit together"
        );
        #[cfg(target_arch = "x86_64")]
        if self.tier != Tier::Generic {
            // SAFETY: every other tier of this architecture has AVX2 and FMA; the lengths fit.
            unsafe { x86::f32_avx2::gemv_f32(x, weight, n_in, out) };
            return true;
        }
        false
    }

    /// The bfloat16 product that this tier may use, if the CPU has one.
    pub fn bf16(self) -> Option<Bf16> {
        Bf16::of(self.tier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available() -> impl Iterator<Item = Kernels> {
        Tier::ALL.into_iter().filter(|t| t.is_available()).map(Tier::kernels)
    }

    #[test]
    fn int8_products_of_every_tier_equal_plain_sums() {
        for kernels in available() {
            let qmax = kernels.column_qmax();
            // Magnitudes of every size, the largest in runs: sums of neighbours must not saturate.
            let row_value = |i: usize| match i / 64 % 3 {
                0 => (i * 89 % 255) as i32 - 127,
                1 => 127,
                _ => -127,
            };
            let column_value = |i: usize| match i / 192 % 3 {
                0 => (i * 57) as i32 % (2 * qmax + 1) - qmax,
                1 => qmax,
                _ => -qmax,
            };
            for (n_rows, n_panels, length) in
                [(1, 1, 64), (5, 2, 128), (13, 3, 384), (33, 4, 192), (96, 4, 384)]
            {
                let values: Vec<i8> = (0..n_rows * length).map(|i| row_value(i) as i8).collect();
                let panels: Vec<u8> = (0..n_panels * PANEL * length)
                    .map(|i| (column_value(i) + qmax + 1) as u8)
                    .collect();
                let rows: Vec<&[i8]> = values.chunks_exact(length).collect();
                let width = n_panels * PANEL;
                let column = |c: usize| -> Vec<u8> {
                    let at = c / PANEL * PANEL * length + c % PANEL * 4;
                    (0..length).map(|i| panels[at + i / 4 * PANEL * 4 + i % 4]).collect()
                };
                let sum = |row: &[i8], column: &[u8]| -> i32 {
                    row.iter().zip(column).map(|(&r, &c)| i32::from(r) * i32::from(c)).sum()
                };
                let mut all = vec![0; n_rows * width];
                kernels.gemm_i8(&rows, &panels, &mut all);
                let padded = n_rows.next_multiple_of(ROW_STEP);
                let mut spaced = values.clone();
                spaced.resize(padded * length, 5);
                for stride in [width, width + 3] {
                    let mut lines = vec![-1; padded * stride];
                    let rows = OperandRows { values: &spaced, stride: length, n: n_rows, length };
                    kernels.gemm_rows_i8(rows, &panels, &mut lines, stride);
                    let lines = lines.chunks_exact(stride).take(n_rows);
                    assert!(lines.flat_map(|line| &line[..width]).eq(&all));
                }
                for c in 0..width {
                    let column = column(c);
                    let mut alone = vec![0; n_rows];
                    kernels.gemv_i8(&rows, &column, &mut alone);
                    for (r, row) in rows.iter().enumerate() {
                        let expected = sum(row, &column);
                        let got = [all[r * width + c], alone[r], kernels.dot_i8(row, &column)];
                        let tier = kernels.tier().name();
                        assert_eq!(got, [expected; 3], "{tier}: row {r}, column {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn gemv_f32_adds_exact_sums_at_every_shape() {
        for kernels in available() {
            for (rows, n_out, n_in) in [(1, 1, 1), (2, 5, 7), (3, 4, 8), (4, 9, 40), (7, 6, 33)] {
                let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 16.0;
                let x: Vec<f32> = (0..rows * n_in).map(value).collect();
                let weight: Vec<f32> = (0..n_out * n_in).map(|i| value(i + 3)).collect();
                let mut out: Vec<f32> = (0..rows * n_out).map(value).collect();
                let before = out.clone();
                let expected: Vec<f32> = (0..rows * n_out)
                    .map(|at| {
                        let (r, c) = (at / n_out, at % n_out);
                        let terms = (0..n_in).map(|i| x[r * n_in + i] * weight[c * n_in + i]);
                        before[at] + terms.sum::<f32>()
                    })
                    .collect();
                // All terms are multiples of 1/256 and small: sums are exact in any order.
                let done = kernels.gemv_f32(&x, &weight, n_in, &mut out);
                let is_generic = kernels.tier() == Tier::Generic;
                assert_eq!(done, cfg!(target_arch = "x86_64") && !is_generic);
                assert_eq!(out, if done { expected } else { before }, "{rows} x {n_out} x {n_in}");
            }
        }
    }
}
