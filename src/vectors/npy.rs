//! NumPy's npy format, versions 1 to 3:
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use super::layout::{Component, VectorLayout, u32_at};

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads the header of a two-dimensional array of floats. A one-dimensional array is one vector.
pub(super) fn layout(bytes: &[u8]) -> Result<VectorLayout, String> {
    if bytes.get(..6) != Some(MAGIC) {
        return Err("this is not a npy file (no magic number)".to_owned());
    }
    let short = "the header is cut off";
    let (length, start): (_, usize) = match bytes.get(6).ok_or(short)? {
        1 => (bytes.get(8..10).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8), 10),
        2 | 3 => (u32_at(bytes, 8).map(|length| length as usize), 12),
        other => return Err(format!("npy version {other} is not supported")),
    };
    let length = length.ok_or(short)?;
    let header = bytes.get(start..start.saturating_add(length)).ok_or(short)?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is not text".to_owned())?;
    let component = match quoted(header, "descr")? {
        "<f2" | "=f2" | "f2" => Component::F16,
        "<f4" | "=f4" | "f4" => Component::F32,
        "<f8" | "=f8" | "f8" => Component::F64,
        other => return Err(wrong_type(other)),
    };
    let fortran = value(header, "fortran_order")?.trim_start().starts_with("True");
    let shape = value(header, "shape")?;
    let inner = shape
        .trim_start()
        .strip_prefix('(')
        .and_then(|s| s.split_once(')'))
        .ok_or("the header has no shape")?
        .0;
    let sizes: Vec<usize> = inner
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| format!("invalid array size '{s}'")))
        .collect::<Result<_, _>>()?;
    let (n_rows, dim) = match sizes[..] {
        [dim] => (1, dim),
        [n_rows, dim] => (n_rows, dim),
        _ => return Err(format!("the array has {} axes; vectors need 2", sizes.len())),
    };
    let rows = VectorLayout::rows(n_rows, dim, component);
    let mut layout = VectorLayout { start: start + length, ..rows };
    if fortran && sizes.len() == 2 {
        layout.row_step = component.len();
        layout.column_step = n_rows.saturating_mul(component.len());
    }
    Ok(layout)
}

/// The message for an array of another type than floats, by its `descr`.
fn wrong_type(descr: &str) -> String {
    let kind = descr.trim_start_matches(['<', '>', '=', '|']);
    let cure = match kind.chars().next() {
        // NumPy keeps the bytes of types that it does not know, and forgets the type.
        Some('V') if kind == "V2" => {
            "NumPy saves bfloat16 in this way. If it is that, convert the file in Python: \
             `import numpy as np; a = np.load('FILE.npy').view('<u2').astype('<u4') << 16; \
             np.save('NEW.npy', a.view('<f4'))`"
        }
        Some('V' | 'f') if kind.ends_with('1') => {
            "NumPy saves 8-bit floats in this way. Convert them before they are saved: \
             `np.save('NEW.npy', array.astype('float32'))`"
        }
        Some('O') => {
            "the rows are separate objects. Stack them: `import numpy as np; np.save('NEW.npy', \
             np.stack(np.load('FILE.npy', allow_pickle=True)).astype('float32'))`"
        }
        Some('V') => "save an array of floats instead of bytes",
        _ => {
            "convert it in Python: `import numpy as np; np.save('NEW.npy', \
             np.load('FILE.npy').astype('float32'))`"
        }
    };
    format!(
        "the array's type is '{descr}'; supported are float16, float32 and float64 \
         (little-endian): {cure}"
    )
}

/// The length of written headers: enough for any shape, and a multiple of 64.
const WRITTEN_LEN: usize = 128;

/// The header of version 1 for a C-ordered float32 array, always [`WRITTEN_LEN`] bytes long.
pub(super) fn header(n_rows: usize, dim: usize) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {dim}), }}");
    text.push_str(&" ".repeat(WRITTEN_LEN - 10 - text.len() - 1));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes
}

/// The text after a key of the header's dictionary.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    quoted
        .iter()
        .find_map(|k| header.split_once(k.as_str()))
        .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
        .ok_or_else(|| format!("the header lacks '{key}'"))
}

/// The quoted text of a key of the header's dictionary.
fn quoted<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let rest = value(header, key)?.trim_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
    quote
        .and_then(|q| rest[1..].split_once(q))
        .map(|(text, _)| text)
        .ok_or_else(|| "the array has fields; only plain arrays of floats are supported".to_owned())
}
