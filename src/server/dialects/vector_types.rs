//! Vectors as integers and bits, for clients that store them in fewer bytes.
//!
//! The integers depend on a value and the dimension alone, so that vectors of different requests
//! can be compared with each other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The largest value of a unit vector that an integer expresses, in multiples of `1 / sqrt(dim)`,
/// the root mean square of its values.
const INT8_RANGE: f32 = 8.0;

/// Little-endian float32 in base64.
pub(super) fn base64(vector: &[f32]) -> String {
    base64_bytes(vector.iter().flat_map(|value| value.to_le_bytes()))
}

/// Bytes in base64.
pub(super) fn base64_bytes(bytes: impl Iterator<Item = u8>) -> String {
    STANDARD.encode(bytes.collect::<Vec<u8>>())
}

/// A unit vector as integers in -127 to 127, in units of a fixed step: a 127th of
/// `8 / sqrt(dim)`. Larger values become -127 and 127.
pub(super) fn int8(vector: &[f32]) -> Vec<i8> {
    let scale = 127.0 * (vector.len() as f32).sqrt() / INT8_RANGE;
    vector.iter().map(|value| (value * scale).round().clamp(-127.0, 127.0) as i8).collect()
}

/// The same as integers in 1 to 255; 128 stands for zero.
pub(super) fn uint8(vector: &[f32]) -> Vec<u8> {
    int8(vector).into_iter().map(|value| (i16::from(value) + 128) as u8).collect()
}

/// The signs, eight to a byte, the first in the highest bit: 1 for positive values.
pub(super) fn bits(vector: &[f32]) -> Vec<u8> {
    let byte = |values: &[f32]| {
        let bits = values.iter().enumerate().map(|(i, &v)| u8::from(v > 0.0) << (7 - i));
        bits.fold(0, |byte, bit| byte | bit)
    };
    vector.chunks(8).map(byte).collect()
}

/// The same bytes, each less 128 (offset binary).
pub(super) fn offset_bits(vector: &[f32]) -> Vec<i8> {
    bits(vector).into_iter().map(|byte| (i16::from(byte) - 128) as i8).collect()
}

/// The same bytes read as signed integers (two's complement).
pub(super) fn signed_bits(vector: &[f32]) -> Vec<i8> {
    bits(vector).into_iter().map(|byte| byte as i8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_multiples_of_one_step_and_saturate() {
        let vector = [1.0, 0.5, -0.25, 0.0];
        assert_eq!(int8(&vector), [32, 16, -8, 0]);
        assert_eq!(uint8(&vector), [160, 144, 120, 128]);
        let peak: Vec<f32> = (0..100).map(|i| f32::from(u8::from(i == 7))).collect();
        assert_eq!(int8(&peak)[7], 127);
        assert_eq!(uint8(&peak.iter().map(|v| -v).collect::<Vec<_>>())[7], 1);
    }

    #[test]
    fn bits_are_signs_from_the_highest_on() {
        let vector = [0.1, -0.1, 0.0, 0.2, -1.0, -1.0, -1.0, 1.0, -1.0, 0.3];
        assert_eq!(bits(&vector), [0b1001_0001, 0b0100_0000]);
        assert_eq!(signed_bits(&vector), [-111, 64]);
        assert_eq!(offset_bits(&vector), [17, -64]);
    }
}
