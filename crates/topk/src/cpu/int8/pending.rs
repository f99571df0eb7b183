//! Pending rows: pairs of a row and a query that passed the gate, kept until there are enough of a
//! query to sift them in one go.

use crate::cpu::gate::PendingRow;

/// One buffer of pending rows per query. A full one must be emptied by at least a row before the
/// next is pushed.
#[derive(Debug)]
pub(super) struct PendingBuffers {
    /// `[n_queries, capacity]`.
    rows: Vec<PendingRow>,
    lens: Vec<u32>,
    capacity: usize,
}

impl PendingBuffers {
    pub(super) fn new(n_queries: usize, k: usize) -> Self {
        let capacity = Self::capacity_for(k);
        let rows = vec![PendingRow::default(); n_queries * capacity];
        Self { rows, lens: vec![0; n_queries], capacity }
    }

    /// Returns the rows of a buffer. The first full buffer of a query is the sample that gives it a
    /// threshold: a larger one gives a better threshold, later.
    fn capacity_for(k: usize) -> usize {
        k.saturating_mul(8).clamp(256, 4096)
    }

    /// Returns the bytes of a buffer for `k`.
    pub(super) fn bytes(k: usize) -> usize {
        Self::capacity_for(k) * size_of::<PendingRow>()
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a row to the buffer of `query`. Returns true if it is full now.
    #[inline]
    pub(super) fn push(&mut self, query: usize, row: PendingRow) -> bool {
        let len = &mut self.lens[query];
        self.rows[query * self.capacity + *len as usize] = row;
        *len += 1;
        *len as usize == self.capacity
    }

    /// Returns the pending rows of `query`.
    pub(super) fn rows(&self, query: usize) -> &[PendingRow] {
        let start = query * self.capacity;
        &self.rows[start..start + self.lens[query] as usize]
    }

    /// Keeps the rows of `query` for which `keep`, called with their indices, is true. Returns
    /// their number.
    pub(super) fn retain(&mut self, query: usize, keep: impl Fn(usize) -> bool) -> usize {
        let start = query * self.capacity;
        let rows = &mut self.rows[start..start + self.lens[query] as usize];
        let mut kept = 0;
        for i in 0..rows.len() {
            rows[kept] = rows[i];
            kept += usize::from(keep(i));
        }
        self.lens[query] = kept as u32;
        kept
    }

    pub(super) fn clear(&mut self, query: usize) {
        self.lens[query] = 0;
    }
}
