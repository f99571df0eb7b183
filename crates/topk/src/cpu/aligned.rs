//! Bytes on cache lines.

use warpseek_compute::cpu::CACHE_LINE;

/// Bytes that start on a cache line, so that no load of 64 of them crosses one.
#[derive(Debug)]
pub(super) struct AlignedBytes {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBytes {
    /// Returns `len` times `value`.
    pub(super) fn new(value: u8, len: usize) -> Self {
        let bytes = vec![value; len + CACHE_LINE];
        let start = bytes.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE);
        Self { bytes, start }
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.bytes.len() - CACHE_LINE + self.start]
    }

    pub(super) fn get_mut(&mut self) -> &mut [u8] {
        let end = self.bytes.len() - CACHE_LINE + self.start;
        &mut self.bytes[self.start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_bytes_start_on_a_cache_line() {
        for len in [0, 1, 64, 1000] {
            let mut bytes = AlignedBytes::new(7, len);
            assert_eq!(bytes.get(), vec![7; len]);
            bytes.get_mut().fill(9);
            assert_eq!(bytes.get(), vec![9; len]);
            assert!(bytes.get().as_ptr().addr().is_multiple_of(CACHE_LINE));
        }
    }
}
