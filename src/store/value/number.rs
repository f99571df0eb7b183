//! Decimal numbers of any length, compared by value.

use std::cmp::Ordering;

/// The longest text that is read as a number, in bytes.
pub(in crate::store) const MAX_LEN: usize = 128;

/// A decimal number in JSON's notation, compared digit by digit: exact for 64-bit integers,
/// decimals of 38 digits and floats alike.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Number<'a> {
    is_negative: bool,
    /// The digits from the first that is not 0, perhaps with a point among them; empty for zero.
    digits: &'a [u8],
    /// Power of ten of the first digit.
    exponent: i64,
}

impl<'a> Number<'a> {
    /// Reads `-?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)?`. A leading zero or plus sign makes a
    /// text no number: such are postal codes and names of versions.
    pub(in crate::store) fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() > MAX_LEN {
            return None;
        }
        let unsigned = bytes.strip_prefix(b"-").unwrap_or(bytes);
        let n_digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let n_whole = n_digits(unsigned);
        if n_whole == 0 || (n_whole > 1 && unsigned[0] == b'0') {
            return None;
        }
        let (mut end, mut rest) = (n_whole, &unsigned[n_whole..]);
        if let Some(fraction) = rest.strip_prefix(b".") {
            let n = n_digits(fraction);
            if n == 0 {
                return None;
            }
            (end, rest) = (end + 1 + n, &fraction[n..]);
        }
        let mut power = 0;
        if let [b'e' | b'E', exponent @ ..] = rest {
            let (is_small, digits) = match exponent {
                [b'-', digits @ ..] => (true, digits),
                [b'+', digits @ ..] | digits => (false, digits),
            };
            if digits.is_empty() || n_digits(digits) != digits.len() {
                return None;
            }
            let fold = |sum: i64, digit: &u8| (sum * 10 + i64::from(digit - b'0')).min(1 << 40);
            power = digits.iter().fold(0, fold);
            power = if is_small { -power } else { power };
        } else if !rest.is_empty() {
            return None;
        }
        let mantissa = &unsigned[..end];
        let first = mantissa.iter().position(|b| (b'1'..=b'9').contains(b));
        let digits = first.map_or(&[][..], |first| &mantissa[first..]);
        let exponent = match first {
            // The digits behind the point have the powers -1, -2, ...; the point counts as one.
            Some(first) if first > n_whole => n_whole as i64 - first as i64,
            Some(first) => (n_whole - 1 - first) as i64,
            None => 0,
        };
        let is_negative = bytes.len() > unsigned.len() && !digits.is_empty();
        Some(Self { is_negative, digits, exponent: exponent + power })
    }

    /// Compares by value.
    pub(in crate::store) fn compare(self, other: Self) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
        }
    }

    fn compare_magnitude(self, other: Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        self.exponent.cmp(&other.exponent).then_with(|| {
            let digits = |number: Self| number.digits.iter().copied().filter(|b| *b != b'.');
            let (mut ours, mut others) = (digits(self), digits(other));
            loop {
                // A digit that is not written is 0.
                match (ours.next(), others.next()) {
                    (None, None) => return Ordering::Equal,
                    (a, b) => match a.unwrap_or(b'0').cmp(&b.unwrap_or(b'0')) {
                        Ordering::Equal => {}
                        unequal => return unequal,
                    },
                }
            }
        })
    }

    /// A text that equal numbers have in common.
    pub(in crate::store) fn key(self) -> String {
        let digits = self.digits.iter().copied().filter(|b| *b != b'.').map(char::from);
        let digits: String = digits.collect();
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            return "0".to_owned();
        }
        format!("{}{digits}e{}", if self.is_negative { "-" } else { "" }, self.exponent)
    }

    /// True if a float of 64 bits tells this number from all others of as many digits.
    pub(in crate::store) fn fits_float(self) -> bool {
        let is_short = self.digits.iter().filter(|b| **b != b'.').count() <= 15;
        is_short && (-290..290).contains(&self.exponent)
    }
}

/// True for infinity and NaN as writers of floats spell them.
pub(in crate::store) fn is_special(text: &str) -> bool {
    text.eq_ignore_ascii_case("nan") || infinity(text).is_some()
}

/// The sign of an infinity: 1 or -1.
pub(in crate::store) fn infinity(text: &str) -> Option<i64> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (-1, unsigned),
        None => (1, text),
    };
    let is = |word: &str| unsigned.eq_ignore_ascii_case(word);
    (is("inf") || is("infinity")).then_some(sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Number<'_> {
        Number::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn numbers_in_order_compare_so_and_have_keys_of_their_own() {
        let ordered = [
            "-1e300",
            "-17843725896483928171",
            "-10",
            "-9.50",
            "-0.001",
            "0",
            "1e-400",
            "1e-05",
            "0.0001",
            "0.1",
            "0.1000000000000000000000000000000000001",
            "9.5",
            "10",
            "17843725896483928170",
            "17843725896483928171",
            "99999999999999999999999999999999999998.5",
            "99999999999999999999999999999999999999",
            "1e38",
            "1e400",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(number(a).compare(number(b)), i.cmp(&j), "{a} {b}");
                assert_eq!(number(a).key() == number(b).key(), i == j, "{a} {b}");
            }
        }
    }

    #[test]
    fn numbers_of_equal_value_are_equal() {
        for group in [
            &["0", "-0", "0.000", "0e7", "-0.0e-3"][..],
            &["1", "1.0", "1e0", "0.1e1", "10e-1", "1.000E+00"],
            &["-2050", "-2050.0", "-2.05e3", "-20500e-1"],
            &["0.00001", "1e-05", "0.010e-3"],
        ] {
            for (a, b) in group.iter().flat_map(|a| group.iter().map(move |b| (a, b))) {
                assert_eq!(number(a).compare(number(b)), Ordering::Equal, "{a} {b}");
                assert_eq!(number(a).key(), number(b).key(), "{a} {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn integers_and_floats_compare_as_their_own_types_do(a: i64, b: i64, x: f64, y: f64) {
            let texts = [a.to_string(), b.to_string()];
            prop_assert_eq!(number(&texts[0]).compare(number(&texts[1])), a.cmp(&b));
            let texts = [format!("{x:e}"), format!("{y}")];
            if x.is_finite() && y.is_finite() && texts[1].len() <= MAX_LEN {
                let expected = x.partial_cmp(&y).unwrap();
                prop_assert_eq!(number(&texts[0]).compare(number(&texts[1])), expected);
            }
        }
    }
}
