//! Vectors that begin at a cache line.

use super::CACHE_LINE;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Numbers of any bit pattern.
pub trait PlainNumber: Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($number:ty),+) => { $(
        impl sealed::Sealed for $number {}
        impl PlainNumber for $number {}
    )+ };
}
numbers!(i8, u8, u16, i32, f32);

/// A vector of numbers that begins at a cache line, as rows and panels of products should: loads of
/// AMX tiles and of 64-byte registers that cross cache lines take two to three times as long.
pub struct AlignedVec<T> {
    lines: Vec<Line>,
    /// Numbers in use.
    len: usize,
    number: PhantomData<T>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; CACHE_LINE]);

impl<T: PlainNumber> AlignedVec<T> {
    /// Makes a vector of `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut this = Self::default();
        this.resize(len);
        this
    }

    /// Makes a vector of these numbers.
    pub fn of(numbers: &[T]) -> Self {
        let mut this = Self::zeros(numbers.len());
        this.copy_from_slice(numbers);
        this
    }

    /// Changes the length. Numbers beyond the greatest length so far are zeros; others keep their
    /// values.
    pub fn resize(&mut self, len: usize) {
        // Too many for the address space are too many for `Vec` too.
        let lines = len.saturating_mul(size_of::<T>()).div_ceil(CACHE_LINE);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([0; CACHE_LINE]));
        }
        self.len = len;
    }

    /// Sets all numbers to zero, those beyond the length too.
    pub fn fill_zero(&mut self) {
        self.lines.fill(Line([0; CACHE_LINE]));
    }
}

impl<T> Default for AlignedVec<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, number: PhantomData }
    }
}

impl<T: PlainNumber> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `resize` made room for `len` numbers, all of them initialised; any bytes are such
        // numbers, and a line is aligned for each.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: PlainNumber> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the lines are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedVec").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_begin_at_a_cache_line_and_grow_with_zeros() {
        for len in [0, 1, 31, 32, 33, 1000] {
            let mut vector = AlignedVec::<u16>::zeros(len);
            assert_eq!((vector.len(), vector.as_ptr() as usize % CACHE_LINE), (len, 0));
            vector.fill(7);
            vector.resize(len + 100);
            assert!(vector[..len].iter().all(|v| *v == 7));
            assert!(vector[len..].iter().all(|v| *v == 0));
            vector.fill_zero();
            assert!(vector.iter().all(|v| *v == 0));
        }
        assert_eq!(AlignedVec::of(&[1.5f32, -2.0])[..], [1.5, -2.0]);
    }
}
