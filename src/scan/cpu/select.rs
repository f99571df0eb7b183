//! Candidate lists and the thresholds that threads share.

use crate::scan::order::{Key, ScoredRow, from_ordered_bits};
use std::sync::atomic::{AtomicU32, Ordering};

/// The best `k` keys offered so far, kept in a buffer that is cut back when it is full.
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

    /// The number of keys that a list for `k` may hold.
    pub(super) fn capacity(k: usize) -> usize {
        k + k.max(32)
    }

    /// Takes a key in if it can matter; returns whether the threshold rose.
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

    /// The k-th best key so far; [`Key::LOWEST`] before there are `k`.
    pub(super) fn threshold(&self) -> Key {
        self.threshold
    }

    /// Takes in what another list found.
    pub(super) fn absorb(&mut self, other: Self) {
        self.keys.extend(other.keys);
    }

    /// The best `k`, best first.
    pub(super) fn into_sorted(mut self, k: usize) -> Vec<ScoredRow> {
        if self.keys.len() > k {
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

/// The highest k-th best score that any thread has for a query, as ordered bits; only rises.
#[derive(Debug, Default)]
pub(super) struct SharedThreshold(AtomicU32);

impl SharedThreshold {
    /// Raises the threshold to a list's k-th best.
    pub(super) fn raise(&self, key: Key) {
        if key > Key::LOWEST {
            let bits = super::super::order::ordered_bits(key.scored_row().score);
            self.0.fetch_max(bits, Ordering::Relaxed);
        }
    }

    /// The lowest approximate score with which a row can still reach the threshold, when the
    /// approximation is off by at most `margin`: never above `threshold - margin`.
    pub(super) fn gate(&self, margin: f64) -> f32 {
        let bits = self.0.load(Ordering::Relaxed);
        if bits == 0 {
            return f32::NEG_INFINITY;
        }
        // A canonical score is the exact one rounded to float32, so the exact score can lie half a
        // unit in the last place below a threshold that it ties with: hence the two steps down.
        let exact = f64::from(from_ordered_bits(bits).next_down()) - margin;
        (exact as f32).next_down()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            all.sort_unstable_by(|a, b| b.cmp(a));
            all.truncate(k);
            let expected: Vec<_> = all.into_iter().map(Key::scored_row).collect();
            prop_assert_eq!(top.into_sorted(k), expected);
        }

        #[test]
        fn gate_is_at_least_the_margin_below_the_threshold(score in -2f32..2.0, margin in 0f64..0.1) {
            let shared = SharedThreshold::default();
            prop_assert_eq!(shared.gate(margin), f32::NEG_INFINITY);
            shared.raise(Key::new(score, 3));
            prop_assert!(f64::from(shared.gate(margin)) <= f64::from(score) - margin);
        }
    }
}
