//! Products of bytes in portable code that the compiler turns into vectors.

use super::GROUP;

/// See [`super::Kernels::panel_products`].
pub(super) fn panel_products(rows: &[&[i8]], groups: &[u8], products: &mut [i32]) {
    let Some(stride) = rows.first().map(|row| row.len()) else { return };
    let n_groups = groups.len() / (stride * GROUP);
    for (row, products) in rows.iter().zip(products.chunks_exact_mut(n_groups * GROUP)) {
        for (group, products) in
            groups.chunks_exact(stride * GROUP).zip(products.chunks_exact_mut(GROUP))
        {
            let mut sums = [0i32; GROUP];
            for (r, q) in row.chunks_exact(4).zip(group.chunks_exact(4 * GROUP)) {
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

/// See [`super::Kernels::row_products`].
pub(super) fn row_products(rows: &[&[i8]], column: &[u8], products: &mut [i32]) {
    for (row, score) in rows.iter().zip(products) {
        *score = dot(row, column);
    }
}

/// See [`super::Kernels::dot`].
pub(super) fn dot(row: &[i8], column: &[u8]) -> i32 {
    row.iter().zip(column).map(|(&r, &q)| i32::from(r) * i32::from(q)).sum()
}
