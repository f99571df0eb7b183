//! Row masks: the rows that a scan may return, one bit each.

/// A set of rows of a matrix, one bit each: the result of a metadata filter, or all rows that are
/// not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowMask {
    words: Vec<u64>,
    n_rows: usize,
}

impl RowMask {
    /// Returns the empty set over `n_rows` rows.
    pub fn empty(n_rows: usize) -> Self {
        Self { words: vec![0; n_rows.div_ceil(64)], n_rows }
    }

    /// Returns the set of all `n_rows` rows.
    pub fn full(n_rows: usize) -> Self {
        let mut mask = Self { words: vec![u64::MAX; n_rows.div_ceil(64)], n_rows };
        if !n_rows.is_multiple_of(64)
            && let Some(last) = mask.words.last_mut()
        {
            *last = (1u64 << (n_rows % 64)) - 1;
        }
        mask
    }

    /// Returns the number of rows of the matrix, in the set or not.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Adds a row; rows past the end are ignored.
    pub fn insert(&mut self, row: usize) {
        if row < self.n_rows {
            self.words[row / 64] |= 1 << (row % 64);
        }
    }

    /// Removes a row; rows past the end are ignored.
    pub fn remove(&mut self, row: usize) {
        if row < self.n_rows {
            self.words[row / 64] &= !(1 << (row % 64));
        }
    }

    /// True if the row is in the set.
    pub fn contains(&self, row: usize) -> bool {
        row < self.n_rows && self.words[row / 64] & (1 << (row % 64)) != 0
    }

    /// Returns the number of rows in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Returns the bits of `range`, which starts at a multiple of 64: bit `i` of word `w` is row
    /// `32 w + i` of the range. Bits past its end are zero.
    pub fn words_of(&self, range: std::ops::Range<usize>) -> Vec<u32> {
        let n = range.len();
        let words = &self.words[range.start / 64..range.end.div_ceil(64)];
        let halves = words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]);
        let mut words: Vec<u32> = halves.take(n.div_ceil(32)).collect();
        if !n.is_multiple_of(32)
            && let Some(last) = words.last_mut()
        {
            *last &= (1 << (n % 32)) - 1;
        }
        words
    }

    /// Returns the bits of rows `64 w` to `64 w + 63`.
    pub(crate) fn word(&self, w: usize) -> u64 {
        self.words[w]
    }

    /// Returns `n` rows of the set, ascending, at equal distances in it; all rows if it has fewer.
    pub(crate) fn sample(&self, n: usize) -> Vec<u32> {
        let count = self.count();
        let n = n.min(count);
        let mut rows = Vec::with_capacity(n);
        let mut before = 0;
        for (w, &word) in self.words.iter().enumerate() {
            let here = word.count_ones() as usize;
            while rows.len() < n && rows.len() * count / n < before + here {
                let mut word = word;
                (before..rows.len() * count / n).for_each(|_| word &= word - 1);
                rows.push(64 * w as u32 + word.trailing_zeros());
            }
            before += here;
        }
        rows
    }

    /// Returns the rows of `range` as a set of their own, numbered from its start.
    pub fn part(&self, range: std::ops::Range<usize>) -> Self {
        let range = range.start.min(self.n_rows)..range.end.min(self.n_rows);
        let (first, shift) = (range.start / 64, range.start % 64);
        let mut part = Self::full(range.len());
        for (w, word) in part.words.iter_mut().enumerate() {
            let at = |w: usize| self.words.get(w).copied().unwrap_or(0);
            let high = if shift == 0 { 0 } else { at(first + w + 1) << (64 - shift) };
            *word &= at(first + w) >> shift | high;
        }
        part
    }

    /// Appends the rows of a set over further rows, which are numbered from the end of this one.
    pub fn append(&mut self, other: &Self) {
        let shift = self.n_rows % 64;
        self.n_rows += other.n_rows;
        for &word in &other.words {
            if shift == 0 {
                self.words.push(word);
            } else {
                if let Some(last) = self.words.last_mut() {
                    *last |= word << shift;
                }
                self.words.push(word >> (64 - shift));
            }
        }
        self.words.truncate(self.n_rows.div_ceil(64));
    }

    /// Keeps only the rows that are in `other` too; rows past the end of `other` are removed.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// Appends the rows of `range` that are in the set to `rows`, ascending.
    pub fn collect_range(&self, range: std::ops::Range<usize>, rows: &mut Vec<u32>) {
        let end = range.end.min(self.n_rows);
        let mut at = range.start;
        while at < end {
            let mut word = self.words[at / 64] & (u64::MAX << (at % 64));
            let base = at / 64 * 64;
            if base + 64 > end {
                word &= u64::MAX >> (base + 64 - end);
            }
            while word != 0 {
                rows.push((base + word.trailing_zeros() as usize) as u32);
                word &= word - 1;
            }
            at = base + 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mask_matches_a_plain_set(
            n in 0usize..300,
            rows in proptest::collection::btree_set(0usize..300, 0..80),
            start in 0usize..320,
            len in 0usize..320,
        ) {
            let mut mask = RowMask::empty(n);
            rows.iter().for_each(|&r| mask.insert(r));
            let expected: Vec<u32> = rows
                .iter()
                .filter(|&&r| r < n && r >= start && r < start + len)
                .map(|&r| r as u32)
                .collect();
            let mut got = Vec::new();
            mask.collect_range(start..start + len, &mut got);
            prop_assert_eq!(got, expected);
            prop_assert_eq!(mask.count(), rows.iter().filter(|&&r| r < n).count());
            // Cut anywhere and joined again.
            let cut = start.min(n);
            let (mut joined, rest) = (mask.part(0..cut), mask.part(cut..n + 1));
            let moved = (0..n - cut).filter(|row| mask.contains(cut + row));
            prop_assert!(moved.eq((0..400).filter(|&row| rest.contains(row))));
            joined.append(&rest);
            prop_assert_eq!(&joined, &mask);
            let start = start.min(n) / 64 * 64;
            let range = start..(start + len).min(n);
            let words = mask.words_of(range.clone());
            let found: Vec<u32> = (0..words.len() as u32 * 32)
                .filter(|i| words[*i as usize / 32] >> (i % 32) & 1 != 0)
                .map(|i| start as u32 + i)
                .collect();
            let mut wanted = Vec::new();
            mask.collect_range(range, &mut wanted);
            prop_assert_eq!(found, wanted);
            let mut all = Vec::new();
            mask.collect_range(0..n, &mut all);
            let sample = mask.sample(len);
            prop_assert_eq!(sample.len(), len.min(all.len()));
            let at = |i: usize| all[i * all.len() / sample.len()];
            prop_assert!(sample.iter().enumerate().all(|(i, row)| *row == at(i)));
            let mut full = RowMask::full(n);
            prop_assert_eq!(full.count(), n);
            full.intersect(&mask);
            prop_assert_eq!(full, mask);
        }
    }
}
