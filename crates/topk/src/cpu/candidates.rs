//! Lists of candidates, and the thresholds that all threads share.

use super::selection::kth_largest;
use crate::oracle::{Key, ScoredRow, from_ordered_bits, ordered_bits};
use std::sync::atomic::{AtomicU32, Ordering};

/// The best `k` keys so far, in a buffer that is cut back to `k` when it is full.
#[derive(Debug)]
pub(super) struct TopK {
    keys: Vec<Key>,
    k: usize,
    /// Keys at or below this can no longer be among the best `k`.
    threshold: Key,
}

impl TopK {
    pub(super) fn new(k: usize) -> Self {
        Self { keys: Vec::new(), k, threshold: Key::LOWEST }
    }

    /// Returns the capacity of a list for `k`, in keys.
    fn capacity(k: usize) -> usize {
        k + k.max(32)
    }

    /// Returns the bytes of a list for `k`.
    pub(super) fn bytes(k: usize) -> usize {
        Self::capacity(k) * size_of::<Key>()
    }

    /// Adds a key if it can be among the best `k`. Returns true if the threshold rose.
    pub(super) fn offer(&mut self, key: Key) -> bool {
        if key <= self.threshold {
            return false;
        }
        self.keys.push(key);
        if self.keys.len() == self.k && self.threshold == Key::LOWEST {
            self.threshold = self.keys.iter().copied().min().unwrap_or(Key::LOWEST);
            return true;
        }
        if self.keys.len() < Self::capacity(self.k) {
            return false;
        }
        self.cut();
        true
    }

    /// Returns the score of the k-th best key so far, once there are `k`.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold.scored_row().score
    }

    /// Merges another list into this one.
    pub(super) fn absorb(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// Returns the best `k`, best first.
    pub(super) fn into_sorted(mut self) -> Vec<ScoredRow> {
        if self.keys.len() > self.k {
            self.cut();
        }
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
        self.keys.into_iter().map(Key::scored_row).collect()
    }

    fn cut(&mut self) {
        let (_, kth, _) = self.keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
        self.threshold = *kth;
        self.keys.truncate(self.k);
    }
}

/// A row that may be among the best `k`. Its canonical score is strictly between the two bounds, or
/// equal to both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BoundedRow {
    pub(super) lower: f32,
    pub(super) upper: f32,
    pub(super) row: u32,
}

/// The candidates of one query among the rows offered so far.
#[derive(Debug)]
pub(super) struct Candidates {
    list: Vec<BoundedRow>,
    k: usize,
    /// A lower bound that at least `k` rows reach. A row with a smaller upper bound cannot be among
    /// the best.
    threshold: f32,
    /// The length at which the threshold is raised and the list is cut next.
    due: usize,
}

impl Candidates {
    /// The most rows that are offered at once.
    pub(super) const BATCH: usize = 64;

    pub(super) fn new(k: usize) -> Self {
        Self { list: Vec::new(), k, threshold: f32::NEG_INFINITY, due: k }
    }

    /// Returns the capacity of a list for `k`, in rows.
    fn capacity(k: usize) -> usize {
        Self::most_kept(k).saturating_add(Self::growth(k) + Self::BATCH)
    }

    /// Returns the bytes of a list for `k`, with the `3 k + 8` rows that the end of a scan can add.
    pub(super) fn bytes(k: usize) -> usize {
        let rows = Self::capacity(k).saturating_add(k.saturating_mul(3)).saturating_add(8);
        rows.saturating_mul(size_of::<BoundedRow>() + size_of::<f32>())
    }

    fn most_kept(k: usize) -> usize {
        k.saturating_mul(4).saturating_add(256)
    }

    /// Returns by how much a list grows before it is cut.
    fn growth(k: usize) -> usize {
        (k / 2).max(128)
    }

    /// Adds those of at most [`Candidates::BATCH`] rows that can be among the best `k`. `rescore`
    /// computes the canonical scores of rows; it is used when bounds alone would let the list grow
    /// without limit.
    pub(super) fn offer(
        &mut self,
        rows: impl Iterator<Item = BoundedRow>,
        rescore: impl Fn(&[u32], &mut [f32]),
    ) {
        let threshold = self.threshold;
        self.list.extend(rows.filter(|row| row.upper >= threshold));
        if self.list.len() < self.due {
            return;
        }
        self.prune();
        if self.list.len() > Self::most_kept(self.k) {
            self.rescore_all(rescore);
        }
        self.due = self.list.len() + Self::growth(self.k);
    }

    /// Returns a score that at least `k` rows reach; minus infinity before there is one.
    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Merges another list into this one.
    pub(super) fn absorb(&mut self, other: Self) {
        self.threshold = self.threshold.max(other.threshold);
        self.list.extend(other.list);
    }

    /// Raises the threshold and drops the rows that can no longer be among the best.
    fn prune(&mut self) {
        let lower: Vec<f32> = self.list.iter().map(|c| c.lower).collect();
        if let Some(kth) = kth_largest(&lower, self.k) {
            self.threshold = self.threshold.max(kth);
        }
        let threshold = self.threshold;
        self.list.retain(|c| c.upper >= threshold);
    }

    /// Adds the last rows.
    pub(super) fn extend(&mut self, rows: impl Iterator<Item = BoundedRow>) {
        self.list.extend(rows);
    }

    /// Rescores rows canonically: first those with the largest lower bounds, then those that can
    /// reach the least of their scores. Returns the keys of the best `k`, in no order, but for the
    /// last of them, which is at the end.
    fn best(&mut self, rescore: impl Fn(&[u32], &mut [f32])) -> Vec<Key> {
        let mut keys = Vec::with_capacity(self.list.len());
        // Returns the least canonical score of some rows.
        let mut add = |list: &[BoundedRow]| {
            let (exact, open): (Vec<_>, Vec<_>) = list.iter().partition(|c| c.lower == c.upper);
            let rows: Vec<u32> = open.iter().map(|c: &&BoundedRow| c.row).collect();
            let mut scores = vec![0.0; rows.len()];
            rescore(&rows, &mut scores);
            keys.extend(scores.iter().zip(rows).map(|(score, row)| Key::new(*score, row)));
            keys.extend(exact.iter().map(|c: &&BoundedRow| Key::new(c.lower, c.row)));
            let exact = exact.into_iter().map(|c| c.lower);
            scores.into_iter().chain(exact).fold(f32::INFINITY, f32::min)
        };
        if self.list.len() > self.k {
            let by_lower = |a: &BoundedRow, b: &BoundedRow| b.lower.total_cmp(&a.lower);
            self.list.select_nth_unstable_by(self.k - 1, by_lower);
            let mut rest = self.list.split_off(self.k);
            let least = add(&self.list);
            rest.retain(|c| c.upper >= least);
            add(&rest);
        } else {
            add(&self.list);
        }
        if keys.len() >= self.k {
            keys.select_nth_unstable_by(self.k - 1, |a, b| b.cmp(a));
            keys.truncate(self.k);
        }
        keys
    }

    /// Keeps the best `k` rows with their canonical scores.
    fn rescore_all(&mut self, rescore: impl Fn(&[u32], &mut [f32])) {
        let best = self.best(rescore).into_iter().map(Key::scored_row);
        self.list = best
            .map(|ScoredRow { row, score }| BoundedRow { lower: score, upper: score, row })
            .collect();
        if let Some(kth) = self.list.get(self.k - 1) {
            self.threshold = self.threshold.max(kth.lower);
        }
    }

    /// Returns the best `k`, best first.
    pub(super) fn into_sorted(mut self, rescore: impl Fn(&[u32], &mut [f32])) -> Vec<ScoredRow> {
        let mut keys = self.best(rescore);
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.into_iter().map(Key::scored_row).collect()
    }
}

/// The highest k-th best score of a query among all threads, as ordered bits. It only rises.
#[derive(Debug, Default)]
pub(super) struct SharedThreshold(AtomicU32);

impl SharedThreshold {
    /// The thresholds of `n` queries, at first `floors` if there are any.
    pub(super) fn of(n: usize, floors: Option<&[f32]>) -> Vec<Self> {
        let thresholds: Vec<Self> = (0..n).map(|_| Self::default()).collect();
        for (threshold, &floor) in thresholds.iter().zip(floors.unwrap_or_default()) {
            if floor > f32::NEG_INFINITY {
                threshold.raise(floor);
            }
        }
        thresholds
    }

    /// Raises the threshold to a score that at least `k` rows reach.
    pub(super) fn raise(&self, score: f32) {
        self.0.fetch_max(ordered_bits(score), Ordering::Relaxed);
    }

    /// Returns the threshold; minus infinity before there is one.
    pub(super) fn get(&self) -> f32 {
        match self.0.load(Ordering::Relaxed) {
            0 => f32::NEG_INFINITY,
            bits => from_ordered_bits(bits),
        }
    }

    /// Returns the lowest approximate score with which a row can still reach the threshold if the
    /// error is at most `margin`: never above `threshold - margin`.
    pub(super) fn gate(&self, margin: f64) -> f32 {
        let bits = self.0.load(Ordering::Relaxed);
        if bits == 0 {
            return f32::NEG_INFINITY;
        }
        // A canonical score is the exact one rounded to float32, so the exact score can be half a
        // unit in the last place below a threshold that it ties with: hence two steps down.
        let exact = f64::from(from_ordered_bits(bits).next_down()) - margin;
        (exact as f32).next_down()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the best `k` by definition.
    fn best(mut keys: Vec<Key>, k: usize) -> Vec<ScoredRow> {
        keys.sort_unstable_by(|a, b| b.cmp(a));
        keys.into_iter().take(k).map(Key::scored_row).collect()
    }

    proptest! {
        #[test]
        fn list_keeps_the_best_k_in_any_order(
            scores in proptest::collection::vec(-3i8..3, 0..200),
            k in 1usize..40,
        ) {
            let mut top = TopK::new(k);
            let mut all = Vec::new();
            for (row, &score) in scores.iter().enumerate() {
                let key = Key::new(f32::from(score), row as u32);
                top.offer(key);
                all.push(key);
                prop_assert!(top.keys.len() < TopK::capacity(k));
            }
            prop_assert_eq!(top.into_sorted(), best(all, k));
        }

        #[test]
        fn candidates_keep_the_best_k_whatever_their_bounds(
            scores in proptest::collection::vec((-40i16..40, 0u8..20, 0u8..20), 0..600),
            k in 1usize..40,
            batch in 1usize..=Candidates::BATCH,
        ) {
            let score = |row: u32| f32::from(scores[row as usize].0) / 4.0;
            let rows: Vec<BoundedRow> = (scores.iter().enumerate())
                .map(|(row, &(_, below, above))| {
                    let row = row as u32;
                    let lower = score(row) - 0.01 - f32::from(below);
                    let upper = score(row) + 0.01 + f32::from(above);
                    BoundedRow { lower, upper, row }
                })
                .collect();
            let rescore = |rows: &[u32], scores: &mut [f32]| {
                rows.iter().zip(scores).for_each(|(&row, out)| *out = score(row));
            };
            let mut list = Candidates::new(k);
            for batch in rows.chunks(batch) {
                list.offer(batch.iter().copied(), rescore);
                prop_assert!(list.list.len() <= Candidates::capacity(k));
            }
            let expected = rows.iter().map(|c| Key::new(score(c.row), c.row)).collect();
            prop_assert_eq!(list.into_sorted(rescore), best(expected, k));
        }

        #[test]
        fn gate_is_at_least_the_margin_below_the_threshold(
            score in -2f32..2.0, margin in 0f64..0.1
        ) {
            let shared = SharedThreshold::default();
            prop_assert_eq!(shared.gate(margin), f32::NEG_INFINITY);
            shared.raise(score);
            prop_assert!(f64::from(shared.gate(margin)) <= f64::from(score) - margin);
        }
    }
}
