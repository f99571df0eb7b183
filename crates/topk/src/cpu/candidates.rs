//! Lists of candidates, and the thresholds that all threads share.

use crate::oracle::{Key, ScoredRow, from_ordered_bits, ordered_bits};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
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
    /// Min-heap of the `k` largest lower bounds, as ordered bits.
    lower: BinaryHeap<Reverse<u32>>,
    /// The k-th largest lower bound. A row with a smaller upper bound cannot be among the best.
    threshold: f32,
    /// The length at which the list is cut back next.
    full: usize,
}

impl Candidates {
    pub(super) fn new(k: usize) -> Self {
        let (list, lower) = (Vec::new(), BinaryHeap::new());
        Self { list, k, lower, threshold: f32::NEG_INFINITY, full: Self::capacity(k) }
    }

    /// Returns the capacity of a list for `k`, in rows.
    fn capacity(k: usize) -> usize {
        Self::most_kept(k).saturating_add(k.max(32))
    }

    /// Returns the bytes of a list for `k`.
    pub(super) fn bytes(k: usize) -> usize {
        Self::capacity(k) * size_of::<BoundedRow>() + k * size_of::<u32>()
    }

    fn most_kept(k: usize) -> usize {
        k.saturating_mul(4).saturating_add(256)
    }

    /// Adds a row if it can be among the best `k`. `rescore` returns a row's canonical score; it is
    /// used when bounds alone would let the list grow without limit. Returns true if the threshold
    /// rose.
    pub(super) fn offer(&mut self, candidate: BoundedRow, rescore: impl Fn(u32) -> f32) -> bool {
        if candidate.upper < self.threshold {
            return false;
        }
        self.list.push(candidate);
        let before = self.threshold;
        if candidate.lower > before {
            self.raise(candidate.lower);
        }
        if self.list.len() >= self.full {
            self.prune();
            if self.list.len() > Self::most_kept(self.k) {
                self.rescore_all(rescore);
                self.list.truncate(self.k);
                self.lower = self.list.iter().map(|c| Reverse(ordered_bits(c.lower))).collect();
            }
            self.full = Self::capacity(self.k).max(self.list.len() + self.k.max(32));
        }
        self.threshold > before
    }

    /// Adds a lower bound above the threshold.
    fn raise(&mut self, lower: f32) {
        let lower = Reverse(ordered_bits(lower));
        if self.lower.len() < self.k {
            self.lower.push(lower);
        } else if let Some(mut least) = self.lower.peek_mut() {
            *least = lower;
        }
        if self.lower.len() == self.k
            && let Some(Reverse(least)) = self.lower.peek()
        {
            self.threshold = from_ordered_bits(*least);
        }
    }

    pub(super) fn threshold(&self) -> f32 {
        self.threshold
    }

    /// Merges another list into this one.
    pub(super) fn absorb(&mut self, other: Self) {
        for Reverse(lower) in other.lower {
            let lower = from_ordered_bits(lower);
            if lower > self.threshold {
                self.raise(lower);
            }
        }
        self.threshold = self.threshold.max(other.threshold);
        self.list.extend(other.list);
    }

    /// Drops the rows that can no longer be among the best.
    pub(super) fn prune(&mut self) {
        let threshold = self.threshold;
        self.list.retain(|c| c.upper >= threshold);
    }

    /// Yields the remaining rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = u32> {
        self.list.iter().map(|c| c.row)
    }

    /// Rescores all rows canonically and sorts them, best first.
    fn rescore_all(&mut self, rescore: impl Fn(u32) -> f32) {
        for candidate in &mut self.list {
            if candidate.lower != candidate.upper {
                candidate.lower = rescore(candidate.row);
                candidate.upper = candidate.lower;
            }
        }
        self.list.sort_unstable_by(|a, b| Key::new(b.lower, b.row).cmp(&Key::new(a.lower, a.row)));
        if let Some(kth) = self.list.get(self.k - 1) {
            self.threshold = self.threshold.max(kth.lower);
        }
    }

    /// Returns the best `k`, best first.
    pub(super) fn into_sorted(mut self, rescore: impl Fn(u32) -> f32) -> Vec<ScoredRow> {
        self.prune();
        self.rescore_all(rescore);
        self.list.truncate(self.k);
        self.list.into_iter().map(|c| ScoredRow { row: c.row, score: c.lower }).collect()
    }
}

/// The highest k-th best score of a query among all threads, as ordered bits. It only rises.
#[derive(Debug, Default)]
pub(super) struct SharedThreshold(AtomicU32);

impl SharedThreshold {
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
        ) {
            let score = |row: u32| f32::from(scores[row as usize].0) / 4.0;
            let mut list = Candidates::new(k);
            let mut expected = Vec::new();
            for (row, &(_, below, above)) in scores.iter().enumerate() {
                let row = row as u32;
                let lower = score(row) - 0.01 - f32::from(below);
                let upper = score(row) + 0.01 + f32::from(above);
                list.offer(BoundedRow { lower, upper, row }, score);
                expected.push(Key::new(score(row), row));
                prop_assert!(list.list.len() <= Candidates::capacity(k));
                prop_assert!(list.lower.len() <= k);
            }
            prop_assert_eq!(list.into_sorted(score), best(expected, k));
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
