//! The delimiter of a csv file: the comma, or a semicolon, tab or vertical bar in its place.

use csv_core::ReadRecordResult;

/// Delimiters of csv files, in the order in which they are preferred.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// The number of first lines by which the delimiter is decided.
pub(crate) const SAMPLE_LINES: usize = 20;

/// The delimiter of the table that begins with these lines.
///
/// A delimiter fits if the header and every other whole record have the same number of cells, which
/// is at least two. Of those that fit, the one with the most cells is chosen, of equals the first
/// in [`DELIMITERS`]; if none fits, the comma. A semicolon in a sentence therefore decides nothing:
/// the header has none.
pub(crate) fn detect(sample: &[u8]) -> u8 {
    let mut best = (1, b',');
    for delimiter in DELIMITERS {
        let cells = columns(sample, delimiter).unwrap_or(0);
        if cells > best.0 {
            best = (cells, delimiter);
        }
    }
    best.1
}

/// The name of a delimiter for messages.
pub(crate) fn name(delimiter: u8) -> String {
    match delimiter {
        b'\t' => "tabs".to_owned(),
        other => format!("'{}'", char::from(other)),
    }
}

/// The number of cells that all whole records have; `None` if they differ.
fn columns(sample: &[u8], delimiter: u8) -> Option<usize> {
    let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut bytes, mut ends) = (vec![0; sample.len() + 1], vec![0; sample.len() + 2]);
    let (mut read, mut count, mut known) = (0, 0, None);
    loop {
        let (result, r, _, e) = parser.read_record(&sample[read..], &mut bytes, &mut ends);
        (read, count) = (read + r, count + e);
        match result {
            ReadRecordResult::Record => {
                if *known.get_or_insert(count) != count {
                    return None;
                }
                count = 0;
            }
            // A record that the sample cuts does not count, unless it is the only one.
            ReadRecordResult::InputEmpty => return Some(known.unwrap_or(count + 1)),
            _ => return known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::detect;

    #[test]
    fn delimiter_is_the_one_that_makes_a_table() {
        for (sample, expected) in [
            ("id,text\n1,a; b\n", b','),
            ("id;text\n1;a, b\n2;c\n", b';'),
            ("preis;name\n1,5;a\n2,5;b\n", b';'),
            ("id|text\n1|a\n", b'|'),
            ("id\ttext\r\n1\ta, b; c\r\n", b'\t'),
            ("text\na; b\nc, d\n", b','),
            ("id;text\n1;\"a\n;b\"\n", b';'),
            ("id;text", b';'),
            ("id,text\n1,2,3\n", b','),
            ("a;b,c\n1;2,3\n", b','),
            ("", b','),
        ] {
            assert_eq!(char::from(detect(sample.as_bytes())), char::from(expected), "{sample}");
        }
    }
}
