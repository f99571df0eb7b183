//! FAISS IndexFlat files, and IndexIDMap around them.
//!
//! Little-endian. A header has four letters, int32 d, int64 ntotal, two unused int64, a byte "is
//! trained", int32 metric (and a float32 argument if the metric is above 1).
//!
//! - IndexFlat (`IxFI` inner product, `IxF2` L2, `IxFl` another metric): the header, uint64 count
//!   of floats, the rows. The header has 45 bytes with the count, so the rows are unaligned.
//! - IndexIDMap and IndexIDMap2 (`IxMp`, `IxM2`): the header, the index inside, uint64 count of
//!   ids, an int64 id for each row.

use super::layout::{Component, Metric, VectorLayout, u32_at, u64_at};

const METRIC_INNER_PRODUCT: u32 = 0;
const METRIC_L2: u32 = 1;
/// Length of a header without a metric's argument.
const HEADER_LEN: usize = 37;

/// A header, and the offset behind it.
struct FaissHeader<'a> {
    letters: &'a [u8],
    dim: usize,
    n_rows: usize,
    metric: u32,
    end: usize,
}

/// Reads the header of an IndexFlat, or of an IndexIDMap around one.
pub(super) fn layout(bytes: &[u8]) -> Result<VectorLayout, String> {
    let outer = header_at(bytes, 0)?;
    if !matches!(outer.letters, b"IxMp" | b"IxM2") {
        return flat(bytes, &outer, "");
    }
    let layout = flat(bytes, &header_at(bytes, outer.end)?, " inside an IndexIDMap")?;
    let n_rows = layout.n_rows;
    let ids = layout.start.saturating_add(n_rows.saturating_mul(layout.row_step));
    let cut_off = || format!("the file is cut off: there are no ids for {n_rows} vectors");
    let count = Some(ids).filter(|ids| *ids < bytes.len()).and_then(|ids| u64_at(bytes, ids));
    let count = count.ok_or_else(cut_off)?;
    if count != n_rows as u64 || outer.n_rows != n_rows {
        return Err(format!("{count} ids do not belong to {n_rows} vectors"));
    }
    if (ids + 8).saturating_add(n_rows.saturating_mul(8)) > bytes.len() {
        return Err(cut_off());
    }
    Ok(VectorLayout { ids: Some(ids + 8), ..layout })
}

/// The layout of an IndexFlat whose header this is; `place` tells where it stands.
fn flat(bytes: &[u8], header: &FaissHeader, place: &str) -> Result<VectorLayout, String> {
    let FaissHeader { letters, dim, n_rows, metric, end } = *header;
    if !matches!(letters, b"IxFI" | b"IxF2" | b"IxFl") {
        let name: String =
            letters.iter().map(|b| char::from(*b).escape_default().to_string()).collect();
        return Err(format!(
            "a FAISS index of type '{name}'{place} cannot be imported, only IndexFlat can, also \
             inside an IndexIDMap: write one with faiss.write_index(faiss.IndexFlatIP(...))"
        ));
    }
    let metric = match metric {
        METRIC_INNER_PRODUCT => Metric::InnerProduct,
        METRIC_L2 => Metric::L2,
        other => {
            return Err(format!(
                "the FAISS metric {other} is not supported; inner product and L2 are"
            ));
        }
    };
    let count = u64_at(bytes, end).ok_or("the header is cut off")?;
    if Some(count) != (n_rows as u64).checked_mul(dim as u64) {
        return Err(format!("{count} numbers are not {n_rows} vectors of {dim} dimensions"));
    }
    let rows = VectorLayout::rows(n_rows, dim, Component::F32);
    Ok(VectorLayout { start: end + 8, metric: Some(metric), ..rows })
}

fn header_at(bytes: &[u8], at: usize) -> Result<FaissHeader<'_>, String> {
    let letters = bytes.get(at..at + 4).ok_or("the file is too short for a FAISS index")?;
    let short = || "the header is cut off".to_owned();
    let dim = u32_at(bytes, at + 4).ok_or_else(short)? as usize;
    let n_rows = u64_at(bytes, at + 8).ok_or_else(short)? as usize;
    let metric = u32_at(bytes, at + 33).ok_or_else(short)?;
    let end = at + HEADER_LEN + if metric > METRIC_L2 { 4 } else { 0 };
    Ok(FaissHeader { letters, dim, n_rows, metric, end })
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
