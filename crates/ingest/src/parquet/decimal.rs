//! Decimals as JSON.
//!
//! A decimal is a number if that number prints the same value again: an integer of 64 bits, or a
//! float for at most 15 significant digits, which a float64 keeps. Any other is a string of all its
//! digits, without an exponent.

use serde_json::{Number, Value};

use super::substitute::Substitute;

/// Maximum number of digits that parquet's readers agree on: those of 128 bits.
pub(super) const MAX_PRECISION: usize = 38;
/// Significant digits that every float64 keeps.
const FLOAT_DIGITS: usize = 15;
/// Limit on the bytes of an unscaled value: those of 256 bits.
const MAX_BYTES: usize = 32;

/// The decimal `unscaled` / 10^`scale`, whose type has `precision` digits.
pub(super) fn of_integer(
    unscaled: i64,
    precision: usize,
    scale: usize,
) -> Result<Value, Substitute> {
    of_bytes(&unscaled.to_be_bytes(), precision, scale)
}

/// The same of an integer in two's complement, the highest byte first.
pub(super) fn of_bytes(bytes: &[u8], precision: usize, scale: usize) -> Result<Value, Substitute> {
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if is_negative { 0xff } else { 0 };
    let first = bytes.iter().position(|byte| *byte != fill).unwrap_or(bytes.len());
    let mut magnitude: Vec<u8> = bytes[first..].iter().map(|byte| byte ^ fill).collect();
    if magnitude.len() > MAX_BYTES {
        return Err(Substitute::null("decimals of more than 256 bits"));
    }
    if is_negative {
        // The complement is one less than the magnitude.
        magnitude.insert(0, 0);
        for byte in magnitude.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }
    let digits = decimal_digits(magnitude);
    let text = plain_text(is_negative, &digits, scale);
    if precision > MAX_PRECISION || digits.len() > MAX_PRECISION {
        return Err(Substitute::text(text, "decimals of more than 38 digits"));
    }
    Ok(number(&digits, &text).map_or(Value::String(text), Value::Number))
}

/// The number that stands for the decimal `text` with these unscaled digits, if there is one.
fn number(digits: &str, text: &str) -> Option<Number> {
    let integer = |text: &str| {
        text.parse::<i64>()
            .map(Number::from)
            .or_else(|_| text.parse::<u64>().map(Number::from))
            .ok()
    };
    let float = || {
        let is_short = digits.trim_end_matches('0').len() <= FLOAT_DIGITS;
        text.parse().ok().filter(|_| is_short).and_then(Number::from_f64)
    };
    match text.split_once('.') {
        None => integer(text).or_else(float),
        Some((whole, fraction)) => float()
            .or_else(|| fraction.bytes().all(|digit| digit == b'0').then(|| integer(whole))?),
    }
}

/// All digits, with a point before the last `scale`.
fn plain_text(is_negative: bool, digits: &str, scale: usize) -> String {
    let sign = if is_negative { "-" } else { "" };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// The decimal digits of a whole number, the highest byte first: `0`, or without a leading zero.
fn decimal_digits(mut bytes: Vec<u8>) -> String {
    let mut digits = Vec::new();
    while bytes.iter().any(|byte| *byte != 0) {
        let mut rest = 0u32;
        for byte in &mut bytes {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        digits.push(b'0' + rest as u8);
    }
    match digits.is_empty() {
        true => "0".into(),
        false => digits.iter().rev().map(|digit| char::from(*digit)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that a decimal becomes although its type promises fewer digits.
    fn long(bytes: &[u8], scale: usize) -> Value {
        of_bytes(bytes, MAX_PRECISION, scale).expect_err("more than 38 digits").value
    }

    #[test]
    fn decimals_of_256_bits_keep_all_digits() {
        let max = [&[0][..], &[0xff; 16]].concat();
        assert_eq!(long(&max, 0), "340282366920938463463374607431768211455");
        assert_eq!(long(&max, 39), "0.340282366920938463463374607431768211455");
        let min = [&[0x80][..], &[0; 31]].concat();
        let digits =
            "57896044618658097711785492504343953926634992332820282019728792003956564819968";
        assert_eq!(long(&min, 0), format!("-{digits}"));
        assert_eq!(long(&min, 76), format!("-{}.{}", &digits[..1], &digits[1..]));
        assert_eq!(long(&[&[1][..], &[0; 32]].concat(), 0), Value::Null);
        // Leading bytes that only repeat the sign say nothing.
        let wide = [&[0xff; 40][..], &[0x85]].concat();
        assert_eq!(of_bytes(&wide, 38, 1).expect("a number"), Value::from(-12.3));
    }

    #[test]
    fn decimals_are_numbers_if_the_number_keeps_them() {
        for (unscaled, scale, expected) in [
            (950, 2, "9.5"),
            (1000, 2, "10.0"),
            (0, 2, "0.0"),
            (7, 0, "7"),
            (i64::MIN, 0, "-9223372036854775808"),
            (999_999_999_999_999, 3, "999999999999.999"),
            (1_234_567_890_123_456, 3, "\"1234567890123.456\""),
            (1_234_567_890_123_456_000, 3, "1234567890123456"),
            (-5, 18, "-5e-18"),
        ] {
            let value = of_integer(unscaled, 18, scale).expect("a value");
            assert_eq!(value.to_string(), expected);
        }
    }
}
