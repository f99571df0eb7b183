//! Int8 products in portable code, which the compiler vectorises.

use super::PANEL;

/// See [`super::Kernels::gemm_i8`].
pub(super) fn gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let Some(stride) = rows.first().map(|row| row.len()) else { return };
    let n_panels = panels.len() / (stride * PANEL);
    for (row, products) in rows.iter().zip(products.chunks_exact_mut(n_panels * PANEL)) {
        for (panel, products) in
            panels.chunks_exact(stride * PANEL).zip(products.chunks_exact_mut(PANEL))
        {
            let mut sums = [0i32; PANEL];
            for (r, q) in row.chunks_exact(4).zip(panel.chunks_exact(4 * PANEL)) {
                for (sum, q) in sums.iter_mut().zip(q.chunks_exact(4)) {
                    for (r, q) in r.iter().zip(q) {
                        *sum += i32::from(*r) * i32::from(*q);
                    }
                }
            }
            products.copy_from_slice(&sums);
        }
    }
}

/// See [`super::Kernels::gemv_i8`].
pub(super) fn gemv_i8(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (row, score) in rows.iter().zip(products) {
        *score = dot_i8(row, column);
    }
}

/// See [`super::Kernels::dot_i8`].
pub(super) fn dot_i8(row: &[i8], column: &[u8]) -> i32 {
    row.iter().zip(column).map(|(&r, &q)| i32::from(r) * i32::from(q)).sum()
}
