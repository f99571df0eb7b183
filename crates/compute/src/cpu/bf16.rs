//! Products of bfloat16 numbers: the upper half of a float32, with 8 significant bits.

#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx512bf16};
use super::{CACHE_LINE, MAX_PANELS, PANEL, Tier};

/// Bfloat16 GEMM of this CPU. Only [`super::Kernels::bf16`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bf16(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Bf16 {
    /// The fastest instructions among those that `tier` may use; none if the CPU has no such.
    pub(super) fn of(tier: Tier) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if tier >= Tier::Avx512 && is_x86_feature_detected!("avx512bf16") {
            let is_amx = tier == Tier::Amx && amx::has_bf16();
            return Some(Self(if is_amx { Instructions::Amx } else { Instructions::Avx512 }));
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
        }
    }

    /// Bfloat16 GEMM: inner products of rows with the columns of up to [`MAX_PANELS`] panels
    /// (`[length / 2][PANEL][2]` each) into `products`, `[rows.len(), columns]`, rows `stride`
    /// values apart. Products and sums are float32, in an order that depends on the instructions.
    pub fn gemm(self, rows: &[&[u16]], panels: &[u16], products: &mut [f32], stride: usize) {
        let Some(length) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == length)
                && length.is_multiple_of(CACHE_LINE / 2)
                && panels.len().is_multiple_of(length * PANEL)
                && panels.len() <= length * PANEL * MAX_PANELS
                && panels.len() / length <= stride
                && (rows.len() - 1) * stride + panels.len() / length <= products.len(),
            "rows, panels and products must fit together"
        );
        match self.0 {
            // SAFETY: `Bf16::of` detected the instructions; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe {
                avx512bf16::gemm_bf16(rows, panels, products, stride)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unsafe { amx::gemm_bf16(rows, panels, products, stride) },
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
            [(1, 1, 32), (7, 2, 64), (13, 3, 96), (33, 4, 384), (32, 4, 32)]
        {
            let number = |i: usize, m: usize| to_bf16((i * 37 % m) as f32 / m as f32 - 0.4);
            let values: Vec<u16> = (0..n_rows * length).map(|i| number(i, 101)).collect();
            let panels: Vec<u16> = (0..n_panels * PANEL * length).map(|i| number(i, 89)).collect();
            let rows: Vec<&[u16]> = values.chunks_exact(length).collect();
            let width = n_panels * PANEL;
            let stride = width + 5;
            let mut got = vec![-1f32; n_rows * stride];
            bf16.gemm(&rows, &panels, &mut got, stride);
            for (r, got) in got.chunks_exact(stride).enumerate() {
                assert_eq!(got[width..], [-1.0; 5]);
                for (c, got) in got[..width].iter().enumerate() {
                    let at = c / PANEL * PANEL * length + c % PANEL * 2;
                    let exact: f64 = (0..length)
                        .map(|i| from(rows[r][i]) * from(panels[at + i / 2 * PANEL * 2 + i % 2]))
                        .sum();
                    let error = (f64::from(*got) - exact).abs();
                    let name = bf16.name();
                    assert!(error < 1e-4 * length as f64, "{name} {n_rows} {c}: {got} {exact}");
                }
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
