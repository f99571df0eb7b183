//! Names and sizes for messages.

pub(crate) use warpseek_error::escaped;

/// A name from the input, shortened and without control characters.
pub fn shown(name: &str) -> String {
    shortened(name, 80)
}

/// At most `length` characters of a text, without control characters.
pub(crate) fn shortened(text: &str, length: usize) -> String {
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shortened: String = text.chars().take(length).map(printable).collect();
    if text.chars().nth(length).is_some() {
        shortened.push('…');
    }
    shortened
}

/// A number of bytes: `16 MiB`, `300 bytes`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// The error for text of the field, line or file `of` that is not UTF-8. Bytes count from 1.
pub(crate) fn utf8_error(error: std::str::Utf8Error, of: &str) -> String {
    format!(
        "not valid UTF-8 at byte {} of the {of}: convert the file (iconv -f LATIN1 -t UTF-8, say)",
        error.valid_up_to() + 1
    )
}
