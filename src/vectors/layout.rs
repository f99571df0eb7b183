//! Positions of the components in a vector file, and the layouts of fvecs and fbin.

/// The metric by which the vectors of a file are to be compared, if the file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Inner product.
    InnerProduct,
    /// Euclidean distance.
    L2,
}

/// The type of the components. The discriminant is its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Component {
    F16 = 2,
    F32 = 4,
    F64 = 8,
}

/// Positions of the components in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct VectorLayout {
    pub(super) n_rows: usize,
    pub(super) dim: usize,
    pub(super) component: Component,
    /// Offset of the first row.
    pub(super) start: usize,
    /// Bytes from one row to the next.
    pub(super) row_step: usize,
    /// Bytes from one column to the next.
    pub(super) column_step: usize,
    pub(super) metric: Option<Metric>,
    /// Offset of the rows' ids, an int64 each, if the file has ids.
    pub(super) ids: Option<usize>,
    /// True if the four bytes before each row hold its dimension.
    pub(super) has_row_dims: bool,
}

impl Component {
    pub(super) fn len(self) -> usize {
        self as usize
    }
}

impl VectorLayout {
    /// Contiguous rows from the start of the file.
    pub(super) fn rows(n_rows: usize, dim: usize, component: Component) -> Self {
        Self {
            n_rows,
            dim,
            component,
            start: 0,
            row_step: dim.saturating_mul(component.len()),
            column_step: component.len(),
            metric: None,
            ids: None,
            has_row_dims: false,
        }
    }
}

/// Reads the first dimension of an fvecs file.
pub(super) fn fvecs(bytes: &[u8]) -> Result<VectorLayout, String> {
    let dim = u32_at(bytes, 0).ok_or("the file is too short for a vector")? as usize;
    if dim == 0 || dim > 1 << 20 {
        return Err(format!("{dim} dimensions: this is not an fvecs file"));
    }
    let row_step = 4 + dim * 4;
    if !bytes.len().is_multiple_of(row_step) {
        return Err(format!(
            "{} bytes are not a whole number of vectors of {dim} dimensions",
            bytes.len()
        ));
    }
    let rows = VectorLayout::rows(bytes.len() / row_step, dim, Component::F32);
    Ok(VectorLayout { start: 4, row_step, has_row_dims: true, ..rows })
}

/// Reads the header of an fbin file.
pub(super) fn fbin(bytes: &[u8]) -> Result<VectorLayout, String> {
    let header = u32_at(bytes, 0).zip(u32_at(bytes, 4));
    let (n_rows, dim) = header.ok_or("the file is too short for a header")?;
    let (n_rows, dim) = (n_rows as usize, dim as usize);
    let expected = n_rows.checked_mul(dim * 4).and_then(|n| n.checked_add(8));
    if expected.is_some_and(|n| n < bytes.len()) {
        return Err(format!(
            "{n_rows} vectors of {dim} dimensions take fewer than the file's {} bytes: this is not \
             an fbin file",
            bytes.len()
        ));
    }
    Ok(VectorLayout { start: 8, ..VectorLayout::rows(n_rows, dim, Component::F32) })
}

/// The little-endian integer at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The little-endian integer at an offset.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
