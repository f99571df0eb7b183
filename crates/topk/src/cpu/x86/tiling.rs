//! Register tiling: covers a block of rows and queries with tiles of a kernel.

/// Covers a block of rows and queries with register tiles of `$rt` rows x `$qt` queries, then `$ra`
/// rows at a time for each remaining query. An incomplete last tile repeats its last row and drops
/// the surplus.
macro_rules! for_each_tile {
    (
        $rows:ident, $queries:ident, $scores:ident,
        $rt:literal, $qt:literal, $ra:literal, $tile:ident
    ) => {{
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
                // SAFETY: the caller guarantees the CPU features; `stride` values follow every
                // pointer.
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
pub(super) use for_each_tile;
