//! Products of float32 numbers for few rows. Many are left to the `gemm` crate, which takes the columns apart first.

/// `out <- out + x W^T`, the weights read once and as they lie: `x` is `[rows, n_in]`, `weight` `[n_out, n_in]`, and
/// `out` `[rows, n_out]`. Returns false, and does nothing, on a CPU without AVX2 and FMA.
pub(crate) fn few_rows(x: &[f32], weight: &[f32], n_in: usize, out: &mut [f32]) -> bool {
    assert!(
        n_in > 0
            && x.len().is_multiple_of(n_in)
            && weight.len().is_multiple_of(n_in)
            && out.len() == x.len() / n_in * (weight.len() / n_in),
        "rows, weights and products must fit together"
    );
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the features are there, and the lengths fit together.
        unsafe { super::x86::floats::few_rows(x, weight, n_in, out) };
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_are_added_products_at_every_shape() {
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
            // All terms are multiples of 1/256 and small: the sums are exact in any order.
            let expected = if few_rows(&x, &weight, n_in, &mut out) { expected } else { before };
            assert_eq!(out, expected, "{rows} x {n_out} x {n_in}");
        }
    }
}
