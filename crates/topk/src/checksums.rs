//! Checksums of rows, compared with the rows before a process first uses them.
//!
//! Rows are mapped from files, and nothing else would show that a byte of them has changed: a
//! damaged row has a wrong score, a damaged int8 row hides a hit. Each row has two checksums, the
//! low 32 bits of XXH3-64: of its half-precision values, and of its int8 values with their scale.
//! A scan compares those of all rows that it reads, and of every row that it rescores; rows that
//! were compared once are known to be right from then on.
//!
//! | damage | effect |
//! | --- | --- |
//! | int8 copy | a warning; scans read the half-precision rows from then on, and find the same |
//! | half-precision row | [`Corrupt`](crate::error::Error::Corrupt) naming the row |
//! | checksum | a warning: the row is right by the checksum of its block |

use crate::layout::{Stored, as_bytes};
use crate::mask::RowMask;
use crate::sq8::Sq8View;
use half::f16;
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The fewest words of 64 rows that are worth a thread.
const WORDS_PER_TASK: usize = 16;

/// Checksums of one row, in the layout of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct RowChecksum {
    /// The low half of XXH3-64 of the half-precision values, padding included.
    pub f16: u32,
    /// The low half of XXH3-64 of the scale record, with that of the int8 values, padding included,
    /// as the seed. 0 without an int8 copy.
    pub int8: u32,
}

// SAFETY: two numbers of four bytes, one after the other.
unsafe impl Stored for RowChecksum {}

impl RowChecksum {
    /// Returns the checksums of half-precision rows, `[n, stride]`, and of their int8 copy, if
    /// there is one.
    pub fn of_rows(rows: &[f16], stride: usize, sq8: Option<&Sq8View<'_>>) -> Vec<Self> {
        let int8 = |row| sq8.map_or(0, |sq8| Self::of_int8(sq8, row));
        let row = |(i, row)| Self { f16: Self::of_f16(row), int8: int8(i) };
        rows.chunks_exact(stride).enumerate().map(row).collect()
    }

    pub(crate) fn of_f16(row: &[f16]) -> u32 {
        xxh3_64(as_bytes(row)) as u32
    }

    pub(crate) fn of_int8(sq8: &Sq8View<'_>, row: usize) -> u32 {
        let values = xxh3_64(as_bytes(sq8.row(row)));
        xxh3_64_with_seed(as_bytes(&sq8.scales()[row..=row]), values) as u32
    }
}

/// The checksum of consecutive half-precision rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockChecksum {
    /// The first row.
    pub first_row: usize,
    /// The number of rows.
    pub n_rows: usize,
    /// XXH3-64 of the rows, padding included.
    pub checksum: u64,
}

/// A file, and the remedy if it is damaged.
#[derive(Debug, Clone)]
pub struct CheckedFile {
    /// The path.
    pub path: PathBuf,
    /// The remedy, as the end of a sentence.
    pub remedy: &'static str,
}

/// The rows of a matrix that were compared with their checksums.
#[derive(Debug)]
pub struct CheckedRows {
    pub(crate) f16: RowBits,
    pub(crate) int8: RowBits,
    pub(crate) int8_is_damaged: AtomicBool,
    pub(crate) checksums_are_damaged: AtomicBool,
    /// The files of the half-precision rows, the int8 copy and the checksums.
    pub(crate) files: [CheckedFile; 3],
}

impl CheckedRows {
    /// Starts without any row of the `n_rows`. `files` hold the half-precision rows, the int8 copy
    /// and the checksums.
    pub fn new(n_rows: usize, files: [CheckedFile; 3]) -> Self {
        let bits = || RowBits::new(n_rows);
        let (int8_is_damaged, checksums_are_damaged) = Default::default();
        Self { f16: bits(), int8: bits(), int8_is_damaged, checksums_are_damaged, files }
    }

    /// Takes over what is known of the first rows of the same files.
    pub fn take_over(&self, earlier: &Self) {
        self.f16.take_over(&earlier.f16);
        self.int8.take_over(&earlier.int8);
        for (to, from) in [
            (&self.int8_is_damaged, &earlier.int8_is_damaged),
            (&self.checksums_are_damaged, &earlier.checksums_are_damaged),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// The checksums of a matrix with all that is needed to use them.
#[derive(Debug, Clone, Copy)]
pub struct Checksums<'a> {
    /// One per row.
    pub rows: &'a [RowChecksum],
    /// Blocks that cover all rows, ascending.
    pub blocks: &'a [BlockChecksum],
    /// The rows that were compared already.
    pub checked: &'a CheckedRows,
}

/// A set of rows to which threads add.
#[derive(Debug)]
pub(crate) struct RowBits {
    words: Vec<AtomicU64>,
    n_rows: usize,
    /// True once all rows are in it.
    pub(crate) is_full: AtomicBool,
}

impl RowBits {
    pub(crate) fn new(n_rows: usize) -> Self {
        let words = std::iter::repeat_with(AtomicU64::default).take(n_rows.div_ceil(64)).collect();
        Self { words, n_rows, is_full: AtomicBool::default() }
    }

    pub(crate) fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|w| w.load(Ordering::Relaxed) >> (row % 64) & 1 == 1)
    }

    pub(crate) fn insert(&self, row: usize) {
        if row < self.n_rows {
            self.words[row / 64].fetch_or(1 << (row % 64), Ordering::Relaxed);
        }
    }

    pub(crate) fn take_over(&self, earlier: &Self) {
        let rows = self.n_rows.min(earlier.n_rows);
        for (i, (word, known)) in self.words.iter().zip(&earlier.words).enumerate() {
            let last = rows.saturating_sub(64 * i);
            let kept = if last >= 64 { u64::MAX } else { (1 << last) - 1 };
            word.store(known.load(Ordering::Relaxed) & kept, Ordering::Relaxed);
        }
    }

    /// Adds the rows of `mask`, by default all, for which `is_right` returns true.
    ///
    /// # Errors
    ///
    /// A row for which it returns false: the first that was found.
    pub(crate) fn check(
        &self,
        mask: Option<&RowMask>,
        is_right: impl Fn(usize) -> bool + Sync,
    ) -> std::result::Result<(), usize> {
        if self.is_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let missing = |w: usize| {
            let wanted = match mask {
                Some(mask) => mask.word(w),
                None if 64 * (w + 1) <= self.n_rows => u64::MAX,
                None => (1 << (self.n_rows % 64)) - 1,
            };
            wanted & !self.words[w].load(Ordering::Relaxed)
        };
        let first = (0..self.words.len()).find(|&w| missing(w) != 0);
        let first = first.unwrap_or(self.words.len());
        (first..self.words.len()).into_par_iter().with_min_len(WORDS_PER_TASK).try_for_each(
            |w| {
                let all = missing(w);
                let mut left = all;
                while left != 0 {
                    let row = 64 * w + left.trailing_zeros() as usize;
                    left &= left - 1;
                    if !is_right(row) {
                        return Err(row);
                    }
                }
                self.words[w].fetch_or(all, Ordering::Relaxed);
                Ok(())
            },
        )?;
        if mask.is_none() {
            self.is_full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
