//! The operands of the gate: the comparison of integer scores with the thresholds of queries.

/// The terms of one row in the comparison of its integer scores with gates.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowTerms {
    pub(super) base: i32,
    pub(super) scale: f32,
    pub(super) residual: f32,
}

/// The terms of several rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowColumns<'a> {
    pub(super) bases: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) residuals: &'a [f32],
}
