//! FAISS IndexFlat files.
//!
//! Little-endian: four letters (`IxFI` inner product, `IxF2` L2, `IxFl` another metric), int32 d,
//! int64 ntotal, two unused int64, a byte "is trained", int32 metric (and a float32 argument if the
//! metric is above 1), uint64 count of floats, then the rows. The header has 45 bytes, so the rows
//! are unaligned.

use super::layout::{Component, Metric, VectorLayout, u32_at, u64_at};

const METRIC_INNER_PRODUCT: u32 = 0;
const METRIC_L2: u32 = 1;
const HEADER_LEN: usize = 45;

/// Reads the header of an IndexFlat.
pub(super) fn layout(bytes: &[u8]) -> Result<VectorLayout, String> {
    let letters = bytes.get(..4).ok_or("the file is too short for a FAISS index")?;
    if !matches!(letters, b"IxFI" | b"IxF2" | b"IxFl") {
        let name: String =
            letters.iter().map(|b| char::from(*b).escape_default().to_string()).collect();
        return Err(format!(
            "a FAISS index of type '{name}' cannot be imported, only IndexFlat can: write one with \
             faiss.write_index(faiss.IndexFlatIP(...))"
        ));
    }
    let short = || "the header is cut off".to_owned();
    let dim = u32_at(bytes, 4).ok_or_else(short)? as usize;
    let n_rows = u64_at(bytes, 8).ok_or_else(short)? as usize;
    let metric = match u32_at(bytes, 33).ok_or_else(short)? {
        METRIC_INNER_PRODUCT => Metric::InnerProduct,
        METRIC_L2 => Metric::L2,
        other => {
            return Err(format!(
                "the FAISS metric {other} is not supported; inner product and L2 are"
            ));
        }
    };
    let count = u64_at(bytes, 37).ok_or_else(short)?;
    if Some(count) != (n_rows as u64).checked_mul(dim as u64) {
        return Err(format!("{count} numbers are not {n_rows} vectors of {dim} dimensions"));
    }
    let rows = VectorLayout::rows(n_rows, dim, Component::F32);
    Ok(VectorLayout { start: HEADER_LEN, metric: Some(metric), ..rows })
}

/// The header of an IndexFlatIP.
pub(super) fn header(n_rows: usize, dim: usize) -> Vec<u8> {
    let mut bytes = b"IxFI".to_vec();
    bytes.extend((dim as i32).to_le_bytes());
    bytes.extend((n_rows as i64).to_le_bytes());
    for _ in 0..2 {
        bytes.extend((1i64 << 20).to_le_bytes());
    }
    bytes.push(1);
    bytes.extend(METRIC_INNER_PRODUCT.to_le_bytes());
    bytes.extend((n_rows as u64 * dim as u64).to_le_bytes());
    bytes
}
