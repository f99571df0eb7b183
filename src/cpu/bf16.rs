//! Products of bfloat16 numbers: the upper half of a float32, with 8 significant bits.

#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx512bf16};
use super::{GROUP, LINE, PANEL_GROUPS};

/// What multiplies bfloat16 numbers on this CPU; only [`Bf16::best`] makes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bf16 {
    way: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Bf16 {
    /// The fastest way this CPU has; none where it has no instruction for it.
    pub(crate) fn best() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
            if avx512 && amx::has_bf16() {
                return Some(Self { way: Way::Amx });
            }
            if avx512 {
                return Some(Self { way: Way::Avx512 });
            }
        }
        None
    }

    /// The instruction set's name.
    pub(crate) fn name(self) -> &'static str {
        match self.way {
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => "AVX-512 BF16",
            #[cfg(target_arch = "x86_64")]
            Way::Amx => "AMX-BF16",
        }
    }

    /// Inner products of rows with the columns of up to four groups (`[length / 2][GROUP][2]` each) into
    /// `products`, `[rows.len(), columns]`, whose rows start `stride` values apart. Products and sums are
    /// float32, in an order that the instruction set chooses.
    pub(crate) fn panel_products(
        self,
        rows: &[&[u16]],
        groups: &[u16],
        products: &mut [f32],
        stride: usize,
    ) {
        let Some(length) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == length)
                && length.is_multiple_of(LINE / 2)
                && groups.len().is_multiple_of(length * GROUP)
                && groups.len() <= length * GROUP * PANEL_GROUPS
                && groups.len() / length <= stride
                && (rows.len() - 1) * stride + groups.len() / length <= products.len(),
            "rows, groups and products must fit together"
        );
        match self.way {
            // SAFETY: (both) `Bf16::best` found the instruction set; the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => unsafe { avx512bf16::panel_products(rows, groups, products, stride) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: see above.
            Way::Amx => unsafe { amx::panel_products_bf16(rows, groups, products, stride) },
        }
    }
}

/// A float32 as bfloat16, rounded to the nearest, ties to even. Not for NaN.
#[inline(always)]
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_products_match_float64_at_every_shape() {
        let Some(bf16) = Bf16::best() else {
            eprintln!("this CPU multiplies no bfloat16 numbers");
            return;
        };
        let from = |v: u16| f64::from(f32::from_bits(u32::from(v) << 16));
        for (n_rows, n_groups, length) in
            [(1, 1, 32), (7, 2, 64), (13, 3, 96), (33, 4, 384), (32, 4, 32)]
        {
            let number = |i: usize, m: usize| to_bf16((i * 37 % m) as f32 / m as f32 - 0.4);
            let values: Vec<u16> = (0..n_rows * length).map(|i| number(i, 101)).collect();
            let groups: Vec<u16> = (0..n_groups * GROUP * length).map(|i| number(i, 89)).collect();
            let rows: Vec<&[u16]> = values.chunks_exact(length).collect();
            let width = n_groups * GROUP;
            let stride = width + 5;
            let mut got = vec![-1f32; n_rows * stride];
            bf16.panel_products(&rows, &groups, &mut got, stride);
            for (r, got) in got.chunks_exact(stride).enumerate() {
                assert_eq!(got[width..], [-1.0; 5]);
                for (c, got) in got[..width].iter().enumerate() {
                    let at = c / GROUP * GROUP * length + c % GROUP * 2;
                    let exact: f64 = (0..length)
                        .map(|i| from(rows[r][i]) * from(groups[at + i / 2 * GROUP * 2 + i % 2]))
                        .sum();
                    let error = (f64::from(*got) - exact).abs();
                    assert!(
                        error < 1e-4 * length as f64,
                        "{} {n_rows} {c}: {got} {exact}",
                        bf16.name()
                    );
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
