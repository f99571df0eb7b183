//! Claims in the encoded numbers of a page, found without decoding them.
//!
//! Source: <https://parquet.apache.org/docs/file-format/data-pages/encodings/>.

/// Lengths of the rows of a repeated column, watched over its pages.
pub(super) struct RowLengths {
    bits: usize,
    max_values: u64,
    /// Values so far of the row that the last page left open.
    length: u64,
}

impl RowLengths {
    /// `max_level` is the column's largest repetition level. No row may have more than `max_values`
    /// values.
    pub(super) fn new(max_level: i16, max_values: u64) -> Self {
        let bits = u16::BITS - max_level.unsigned_abs().leading_zeros();
        Self { bits: bits as usize, max_values, length: 0 }
    }

    /// Goes through the repetition levels of a page with `count` values. Level zero starts a row.
    ///
    /// The levels are a sequence of runs of one level and of groups of eight bit-packed levels.
    /// Levels that are cut off are left to the decoder.
    pub(super) fn add(&mut self, mut levels: &[u8], count: u32) -> Result<(), String> {
        let mut left = u64::from(count);
        while left > 0 {
            let Some(header) = varint(&mut levels) else { break };
            let run = header >> 1;
            let is_run = header & 1 == 0;
            let bytes = match is_run {
                true => self.bits.div_ceil(8),
                false => usize::try_from(run).unwrap_or(usize::MAX).saturating_mul(self.bits),
            };
            let (encoded, rest) = levels.split_at(bytes.min(levels.len()));
            levels = rest;
            if is_run {
                let run = run.min(left);
                left -= run;
                match encoded.iter().all(|byte| *byte == 0) {
                    true => self.length = run.min(1),
                    false => self.grow(run)?,
                }
                continue;
            }
            let packed = (encoded.len() * 8 / self.bits) as u64;
            for number in 0..packed.min(left) as usize {
                let mut bits = number * self.bits..(number + 1) * self.bits;
                match bits.all(|bit| encoded[bit / 8] >> (bit % 8) & 1 == 0) {
                    true => self.length = 1,
                    false => self.grow(1)?,
                }
            }
            left -= run.saturating_mul(8).min(left);
        }
        Ok(())
    }

    fn grow(&mut self, values: u64) -> Result<(), String> {
        self.length += values;
        if self.length > self.max_values {
            return Err(format!("a row has more than {} values in a list", self.max_values));
        }
        Ok(())
    }
}

/// Number of values that a sequence of `DELTA_BINARY_PACKED` numbers claims, and the bytes behind
/// the sequence, `None` if it is cut off.
///
/// Returns `None` if its header is invalid.
pub(super) fn deltas(bytes: &[u8]) -> Option<(u64, Option<&[u8]>)> {
    let mut rest = bytes;
    let block = varint(&mut rest)?;
    let mini_blocks = varint(&mut rest)?;
    let count = varint(&mut rest)?;
    // The first number, then blocks of differences.
    varint(&mut rest)?;
    let mini_block = block.checked_div(mini_blocks).filter(|n| *n > 0 && n.is_multiple_of(32))?;
    let mut behind = || {
        let mut left = count.saturating_sub(1);
        while left > 0 {
            varint(&mut rest)?;
            for width in rest.split_off(..usize::try_from(mini_blocks).ok()?)? {
                if left == 0 {
                    break;
                }
                let bytes = (mini_block / 8).checked_mul(u64::from(*width))?;
                rest.split_off(..usize::try_from(bytes).ok()?)?;
                left = left.saturating_sub(mini_block);
            }
        }
        Some(rest)
    };
    Some((count, behind()))
}

/// Reads a number in groups of seven bits, lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
