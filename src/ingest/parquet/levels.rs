//! Looking through packed numbers of a page without decoding them.

/// How many values the rows of one column have, watched over its pages.
///
/// The levels are in the hybrid of runs and packed bits of the parquet format
/// (<https://parquet.apache.org/docs/file-format/data-pages/encodings/>).
pub(super) struct RowLengths {
    bits: u32,
    most: u64,
    /// Values of the row that the last page left open.
    length: u64,
}

impl RowLengths {
    pub(super) fn new(max_level: i16, most: u64) -> Self {
        let bits = u16::BITS - max_level.unsigned_abs().leading_zeros();
        Self { bits, most, length: 0 }
    }

    /// Goes through the repetition levels of a page with `count` values. A level of zero starts a
    /// row.
    pub(super) fn add(&mut self, levels: &[u8], count: u32) -> Result<(), String> {
        let mut left = u64::from(count);
        let mut at = 0;
        while left > 0 {
            // What is cut off is for the decoder to tell.
            let Some(header) = varint(levels, &mut at) else { return Ok(()) };
            if header & 1 == 0 {
                let width = self.bits.div_ceil(8) as usize;
                let Some(value) = levels.get(at..at + width) else { return Ok(()) };
                at += width;
                let run = (header >> 1).min(left);
                left -= run;
                match value.iter().all(|byte| *byte == 0) {
                    true => self.length = run.min(1),
                    false => self.grow(run)?,
                }
            } else {
                let bytes = (header >> 1).saturating_mul(u64::from(self.bits));
                let end = at.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
                let packed = &levels[at..end.min(levels.len())];
                at = end.min(levels.len());
                let values = (header >> 1).saturating_mul(8).min(left);
                left -= values;
                for number in 0..values {
                    match self.unpack(packed, number) {
                        Some(0) => self.length = 1,
                        Some(_) => self.grow(1)?,
                        None => return Ok(()),
                    }
                }
            }
        }
        Ok(())
    }

    fn grow(&mut self, by: u64) -> Result<(), String> {
        self.length += by;
        if self.length > self.most {
            return Err(format!("a row has more than {} values in a list", self.most));
        }
        Ok(())
    }

    /// Value `number` of values of [`RowLengths::bits`] bits, lowest bit first.
    fn unpack(&self, packed: &[u8], number: u64) -> Option<u32> {
        let bit = number * u64::from(self.bits);
        let mut window = [0; 4];
        let at = usize::try_from(bit / 8).ok()?;
        let there = packed.get(at..)?;
        if (there.len() as u64) * 8 < bit % 8 + u64::from(self.bits) {
            return None;
        }
        let length = there.len().min(4);
        window[..length].copy_from_slice(&there[..length]);
        Some((u32::from_le_bytes(window) >> (bit % 8)) & ((1 << self.bits) - 1))
    }
}

/// Numbers in the format's `DELTA_BINARY_PACKED` encoding.
pub(super) struct Deltas<'a> {
    bytes: &'a [u8],
    /// How many numbers there are.
    pub(super) count: u64,
    mini_blocks: u64,
    values_per_mini_block: u64,
    /// Behind the header.
    at: usize,
}

impl<'a> Deltas<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        let block = varint(bytes, &mut at)?;
        let mini_blocks = varint(bytes, &mut at)?;
        let count = varint(bytes, &mut at)?;
        varint(bytes, &mut at)?;
        let values_per_mini_block = block.checked_div(mini_blocks)?;
        if values_per_mini_block == 0
            || values_per_mini_block % 32 != 0
            || mini_blocks > bytes.len() as u64
        {
            return None;
        }
        Some(Self { bytes, count, mini_blocks, values_per_mini_block, at })
    }

    /// The byte behind the last number.
    pub(super) fn end(&self) -> Option<usize> {
        let mut at = self.at;
        // The first number stands in the header.
        let mut left = self.count.saturating_sub(1);
        while left > 0 {
            varint(self.bytes, &mut at)?;
            let widths = self.bytes.get(at..at + self.mini_blocks as usize)?;
            at += widths.len();
            for width in widths {
                if left == 0 {
                    break;
                }
                let bytes = (self.values_per_mini_block / 8).checked_mul(u64::from(*width))?;
                at = at.checked_add(usize::try_from(bytes).ok()?)?;
                left = left.saturating_sub(self.values_per_mini_block);
            }
        }
        (at <= self.bytes.len()).then_some(at)
    }
}

/// A number in groups of seven bits, lowest first, from byte `at` on.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_lengths_long_run_is_refused() {
        let mut rows = RowLengths::new(1, 1000);
        // A run of one 0, then a run of 999 ones: exactly the most.
        assert_eq!(rows.add(&[2, 0, 0xce, 0x0f, 1], 1000), Ok(()));
        // One more in the next page, which goes on with the row.
        assert!(rows.add(&[2, 1], 1).unwrap_err().contains("more than 1000"));
    }

    #[test]
    fn row_lengths_packed_levels_count_like_runs() {
        // Levels 0 1 1 0 1 1 1 1, one bit each; then one group of two-bit levels.
        let mut rows = RowLengths::new(1, 4);
        assert!(rows.add(&[3, 0b1111_0110], 8).is_err());
        let mut rows = RowLengths::new(1, 5);
        assert_eq!(rows.add(&[3, 0b1111_0110], 8), Ok(()));
        assert_eq!(rows.length, 5);
        let mut rows = RowLengths::new(2, 3);
        assert_eq!(rows.add(&[3, 0b10_01_00_00, 0b00_10_01_00], 8), Ok(()));
        assert_eq!(rows.length, 1);
    }

    #[test]
    fn row_lengths_huge_run_ends_at_once() {
        let mut rows = RowLengths::new(1, 1 << 20);
        assert!(rows.add(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 1], u32::MAX).is_err());
        assert_eq!(rows.add(&[], u32::MAX), Ok(()));
    }

    #[test]
    fn deltas_end_lies_behind_the_blocks_in_use() {
        // Blocks of 128 in 4 mini blocks; 33 numbers use one mini block of 32 at 2 bits.
        let mut bytes = vec![0x80, 1, 4, 33, 0, 0, 2, 9, 9, 9];
        bytes.extend([0; 8]);
        let deltas = Deltas::new(&bytes).expect("a header");
        assert_eq!((deltas.count, deltas.end()), (33, Some(bytes.len())));
        assert_eq!(Deltas::new(&bytes[..12]).and_then(|d| d.end()), None);
        assert!(Deltas::new(&[0x80, 1, 0, 1, 0]).is_none());
    }
}
