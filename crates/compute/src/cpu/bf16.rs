//! Products of bfloat16 numbers: the upper half of a float32, with 8 significant bits.

#[cfg(target_arch = "aarch64")]
use super::aarch64::pairs;
#[cfg(target_arch = "x86_64")]
use super::x86::{amx, amx_rows, avx512bf16, pack_bf16};
use super::{CACHE_LINE, OperandRows, PANEL, Tier};

/// Bfloat16 GEMM of this CPU. Only [`super::Kernels::bf16`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bf16(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "aarch64")]
    Arm,
}

impl Bf16 {
    /// The fastest instructions among those that `tier` may use; none if the CPU has no such.
    pub(super) fn of(tier: Tier) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if tier >= Tier::Avx512 && is_x86_feature_detected!("avx512bf16") {
            let is_amx = tier == Tier::Amx && amx::has_bf16();
            return Some(Self(if is_amx { Instructions::Amx } else { Instructions::Avx512 }));
        }
        #[cfg(target_arch = "aarch64")]
        if tier == Tier::I8mm && std::arch::is_aarch64_feature_detected!("bf16") {
            return Some(Self(Instructions::Arm));
        }
        let _ = tier;
        None
    }

    /// Returns the instruction set's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX-512 BF16",
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "AMX-BF16",
            #[cfg(target_arch = "aarch64")]
            Instructions::Arm => "Arm BF16",
        }
    }

    /// True if products are computed on AMX tiles, 32 x 32 at a time.
    pub fn is_tiled(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Instructions::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// As [`super::Kernels::multiply_registers`], of bfloat16 numbers.
    pub fn multiply_registers(self, steps: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.is_tiled() {
            // SAFETY: `Bf16::of` detected the tiles.
            unsafe { amx_rows::bfloat16::multiply_registers(steps) };
            return steps * 32 * 32 * (CACHE_LINE / 2);
        }
        let _ = steps;
        0
    }

    /// Bfloat16 GEMM: inner products of rows with the columns of panels (`[length / 2][PANEL][2]`
    /// each) into `products`, `[rows.n, columns]`, rows `stride` values apart. Products and sums
    /// are float32, in an order that depends on the instructions.
    ///
    /// Rows and lines of products must be there up to the next multiple of [`super::ROW_STEP`];
    /// surplus lines get any value.
    pub fn gemm(
        self,
        rows: OperandRows<'_, u16>,
        panels: &[u16],
        products: &mut [f32],
        stride: usize,
    ) {
        if rows.n == 0 || panels.is_empty() {
            return;
        }
        rows.check(panels.len(), products.len(), stride);
        match self.0 {
            // SAFETY: `Bf16::of` detected the instructions; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe {
                avx512bf16::gemm_bf16(rows, panels, products, stride)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unsafe {
                amx_rows::bfloat16::gemm(rows, panels, products, stride)
            },
            // SAFETY: as above; two bytes are a number.
            #[cfg(target_arch = "aarch64")]
            Instructions::Arm => unsafe {
                let row = |r: usize| rows.row(r).as_ptr().cast();
                let bytes = std::slice::from_raw_parts(panels.as_ptr().cast(), 2 * panels.len());
                let lines = products.as_mut_ptr().cast();
                pairs::bfloat16::gemm(row, rows.n, 2 * rows.length, bytes, lines, stride)
            },
        }
    }

    /// Packs rows as the columns of panels, `[length / 2][PANEL][2]` each, for products with rows
    /// of the same length. Columns beyond the last row are zeros. `panels` are `length * columns`
    /// numbers, columns being a multiple of [`PANEL`] and at least the number of rows.
    pub fn pack_columns(self, rows: OperandRows<'_, u16>, panels: &mut [u16]) {
        let panel_len = rows.length * PANEL;
        assert!(
            rows.length > 0
                && rows.length.is_multiple_of(CACHE_LINE / 2)
                && panels.len().is_multiple_of(panel_len)
                && rows.n <= panels.len() / rows.length,
            "rows and panels must fit together"
        );
        // SAFETY: every x86-64 CPU with a bfloat16 product has AVX-512; the lengths were checked.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            pack_bf16::pack_columns(rows, panels)
        };
        #[cfg(not(target_arch = "x86_64"))]
        for (p, panel) in panels.chunks_exact_mut(panel_len).enumerate() {
            for c in 0..PANEL {
                let r = p * PANEL + c;
                let row = (r < rows.n).then(|| rows.row(r));
                for (i, out) in panel.chunks_exact_mut(2 * PANEL).enumerate() {
                    let pair = row.map_or([0; 2], |row| [row[2 * i], row[2 * i + 1]]);
                    out[2 * c..2 * c + 2].copy_from_slice(&pair);
                }
            }
        }
    }

    /// Packs rows as lines of panels, `[padded / 2][PANEL][2]` each, for products whose rows have
    /// one number per packed row. Lines beyond the last row are zeros. `padded` is even and at
    /// least the number of rows, `panels` are `padded * length` numbers.
    pub fn pack_rows(self, rows: OperandRows<'_, u16>, padded: usize, panels: &mut [u16]) {
        assert!(
            rows.length.is_multiple_of(CACHE_LINE / 2)
                && padded.is_multiple_of(2)
                && rows.n <= padded
                && panels.len() == padded * rows.length,
            "rows and panels must fit together"
        );
        // SAFETY: as in `pack_columns`.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            pack_bf16::pack_rows(rows, padded, panels)
        };
        #[cfg(not(target_arch = "x86_64"))]
        for (p, panel) in panels.chunks_exact_mut((padded * PANEL).max(1)).enumerate() {
            for (i, out) in panel.chunks_exact_mut(2 * PANEL).enumerate() {
                let row = |r: usize| (r < rows.n).then(|| &rows.row(r)[p * PANEL..]);
                let pair = [row(2 * i), row(2 * i + 1)];
                for (c, out) in out.chunks_exact_mut(2).enumerate() {
                    out.copy_from_slice(&pair.map(|row| row.map_or(0, |row| row[c])));
                }
            }
        }
    }
}

/// Returns a float32 as bfloat16, rounded to nearest, ties to even. Not for NaN.
#[inline(always)]
pub fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::ROW_STEP;

    #[test]
    fn bf16_products_of_every_tier_match_float64_at_every_shape() {
        let tiers = Tier::ALL.into_iter().filter(|t| t.is_available());
        let found: Vec<Bf16> = tiers.filter_map(Bf16::of).collect();
        if found.is_empty() {
            eprintln!("this CPU has no bfloat16 products");
        }
        found.into_iter().for_each(check_products);
    }

    fn check_products(bf16: Bf16) {
        let from = |v: u16| f64::from(f32::from_bits(u32::from(v) << 16));
        for (n_rows, n_panels, length) in
            [(1usize, 1, 32), (7, 2, 64), (13, 3, 96), (17, 5, 32), (33, 4, 384), (64, 4, 32)]
        {
            let number = |i: usize, m: usize| to_bf16((i * 37 % m) as f32 / m as f32 - 0.4);
            let padded = n_rows.next_multiple_of(ROW_STEP);
            let row_stride = length + 3;
            let values: Vec<u16> = (0..padded * row_stride).map(|i| number(i, 101)).collect();
            let panels: Vec<u16> = (0..n_panels * PANEL * length).map(|i| number(i, 89)).collect();
            let rows = OperandRows { values: &values, stride: row_stride, n: n_rows, length };
            let width = n_panels * PANEL;
            let stride = width + 5;
            let mut got = vec![-1f32; padded * stride];
            bf16.gemm(rows, &panels, &mut got, stride);
            for (r, got) in got.chunks_exact(stride).enumerate().take(n_rows) {
                assert_eq!(got[width..], [-1.0; 5]);
                for (c, got) in got[..width].iter().enumerate() {
                    let at = c / PANEL * PANEL * length + c % PANEL * 2;
                    let exact: f64 = (0..length)
                        .map(|i| {
                            from(rows.row(r)[i]) * from(panels[at + i / 2 * PANEL * 2 + i % 2])
                        })
                        .sum();
                    let error = (f64::from(*got) - exact).abs();
                    let name = bf16.name();
                    assert!(error < 2e-6 * length as f64, "{name} {n_rows} {c}: {got} {exact}");
                }
            }
        }
    }

    #[test]
    fn packed_rows_stand_in_their_lanes() {
        let Some(bf16) = Tier::ALL.into_iter().filter(|t| t.is_available()).find_map(Bf16::of)
        else {
            eprintln!("this CPU has no bfloat16 products");
            return;
        };
        for (n, length) in [(1, 32), (16, 32), (17, 64), (33, 32), (40, 96)] {
            let stride = length + 7;
            let values: Vec<u16> = (0..n * stride).map(|i| (i * 31 + 1) as u16).collect();
            let rows = OperandRows { values: &values, stride, n, length };
            let value = |r: usize, i: usize| if r < n { rows.row(r)[i] } else { 0 };
            let columns = n.next_multiple_of(2 * PANEL);
            let mut panels = vec![9; columns * length];
            bf16.pack_columns(rows, &mut panels);
            for (c, i) in (0..columns).flat_map(|c| (0..length).map(move |i| (c, i))) {
                let at = c / PANEL * PANEL * length + i / 2 * 2 * PANEL + c % PANEL * 2 + i % 2;
                assert_eq!(panels[at], value(c, i), "{n} x {length}: column {c}, {i}");
            }
            panels.fill(9);
            bf16.pack_rows(rows, columns, &mut panels);
            for (r, i) in (0..columns).flat_map(|r| (0..length).map(move |i| (r, i))) {
                let at = i / PANEL * PANEL * columns + r / 2 * 2 * PANEL + i % PANEL * 2 + r % 2;
                assert_eq!(panels[at], value(r, i), "{n} x {length}: row {r}, {i}");
            }
        }
    }

    #[test]
    fn to_bf16_rounds_to_nearest_even() {
        let cases = [
            (1.0, 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (-2.5, 0xc020),
            (0.0, 0),
        ];
        for (value, expected) in cases {
            assert_eq!(to_bf16(value), expected, "{value}");
        }
    }
}
