//! The AMX tier: int8 products on tiles, compared with the gates where they are.
//!
//! A tile product of 32 rows and 32 queries takes four accumulators, whose 4 KiB are stored to a
//! buffer in the L1 cache. While the next product is computed, AVX-512 compares the one before, and
//! the next 32 rows are copied to an aligned buffer:
//!
//! ```text
//! for each tile product t:
//!     for each step of 64 values:
//!         4 tile loads, 4 products of t                   the tile unit
//!         compare some rows of t - 1 with the gates       the vector units
//!         copy some lines of the next rows                loads and stores
//!     store t; collect the pairs of t - 1 that pass
//! ```
//!
//! A step keeps the tile unit busy for 64 cycles, and the rest fits beside it. The copy serves rows
//! that are not consecutive or not on cache lines, and the copied rows stay in the L1 cache for all
//! panels. A tile load of 16 lines that cross cache lines takes twice as long.

use super::amx_tiles::{TILE_BYTES, multiply_add, store, zero};
use super::avx512::{LaneTerms, MASK_ROWS, collect, raise_maxima};
use crate::cpu::gate::{PassingPairs, QueryLanes, RowColumns};
use std::arch::x86_64::*;
use std::ops::Range;
use warpseek_compute::cpu::{AlignedVec, Kernels, PANEL, Tier, TileScope};

/// Rows of a tile product.
const GROUP_ROWS: usize = crate::cpu::kernels::GROUP_ROWS;
const _: () = assert!(GROUP_ROWS == MASK_ROWS && GROUP_ROWS == 32);

/// Rows between a prefetch and the copy.
const AHEAD: usize = GROUP_ROWS;

/// The products of 32 rows and up to two panels, `[GROUP_ROWS, P, PANEL]`.
#[derive(Debug)]
#[repr(C, align(64))]
struct Products([i32; GROUP_ROWS * 2 * PANEL]);

/// The tiles and buffers of one thread.
#[derive(Debug)]
pub(in crate::cpu) struct TileBuffers {
    _scope: TileScope,
    /// The rows of a tile product and those of the next one, `[GROUP_ROWS, stride]` each.
    rows: [AlignedVec<u8>; 2],
    products: Box<[Products; 2]>,
}

impl TileBuffers {
    /// Configures the tiles of this thread, for rows of `stride` bytes. The kernels have tiles.
    pub(in crate::cpu) fn new(kernels: Kernels, stride: usize) -> Self {
        assert!(kernels.tier() == Tier::Amx && stride.is_multiple_of(TILE_BYTES));
        Self {
            _scope: kernels.tile_scope(),
            rows: [(); 2].map(|()| AlignedVec::zeros(GROUP_ROWS * stride)),
            products: Box::new([const { Products([0; _]) }; 2]),
        }
    }
}

/// See [`crate::cpu::kernels::ScanKernels::passing_pairs`].
///
/// # Safety
///
/// The CPU has AVX-512 F and BW and int8 tiles; the lengths are those that `ScanKernels` checks,
/// for the stride of the buffers.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::cpu) unsafe fn passing_pairs(
    rows: &[&[i8]],
    columns: RowColumns<'_>,
    panels: &[u8],
    lanes: QueryLanes<'_>,
    buffers: &mut TileBuffers,
    passing: &mut PassingPairs,
) {
    let n_panels = lanes.gates.len() / PANEL;
    let even = n_panels / 2 * 2;
    // SAFETY: passed on from the caller; each call covers panels that exist.
    unsafe {
        if even > 0 {
            scan::<2>(rows, columns, panels, lanes, 0..even, buffers, passing);
        }
        if even < n_panels {
            scan::<1>(rows, columns, panels, lanes, even..n_panels, buffers, passing);
        }
    }
}

/// See [`crate::cpu::kernels::ScanKernels::lower_maxima`], for one group of rows.
///
/// # Safety
///
/// As [`passing_pairs`], for at most [`GROUP_ROWS`] rows.
#[target_feature(enable = "avx512f")]
pub(in crate::cpu) unsafe fn lower_maxima(
    rows: &[&[i8]],
    columns: RowColumns<'_>,
    panels: &[u8],
    lanes: QueryLanes<'_>,
    buffers: &mut TileBuffers,
    maxima: &mut [f32],
) {
    let left = &mut *buffers.rows[0];
    let stride = left.len() / GROUP_ROWS;
    rows.iter().zip(left.chunks_exact_mut(stride)).for_each(|(row, copy)| copy_row(row, copy));
    for start in (0..maxima.len()).step_by(2 * PANEL) {
        let range = start..(start + 2 * PANEL).min(maxima.len());
        let panels = &panels[range.start * stride..range.end * stride];
        // SAFETY: passed on from the caller; the number of panels is that of the arm.
        unsafe {
            match range.len() / PANEL {
                1 => multiply::<1>(left, panels, &mut buffers.products[0]),
                _ => multiply::<2>(left, panels, &mut buffers.products[0]),
            }
        }
        let scores = &buffers.products[0].0[..rows.len() * range.len()];
        let lanes = lanes.range(range.clone());
        // SAFETY: whole panels of scores of all rows.
        unsafe { raise_maxima(scores, columns, lanes, &mut maxima[range]) };
    }
}

/// Multiplies a group of rows with `P` panels.
///
/// # Safety
///
/// Tiles are configured at full size; `rows` is `[GROUP_ROWS, stride]`, and `panels` `P` panels of
/// rows of that stride, a multiple of 64.
#[inline(always)]
unsafe fn multiply<const P: usize>(rows: &[u8], panels: &[u8], products: &mut Products) {
    let stride = rows.len() / GROUP_ROWS;
    // SAFETY: step i reads 64 bytes of each of the 32 rows from byte 64 i on, and 16 rows of 64
    // bytes of each panel from byte 1,024 i on.
    unsafe {
        zero::<P>();
        for step in (0..stride).step_by(TILE_BYTES) {
            let panel = |p| panels.as_ptr().add((p * stride + step) * PANEL);
            multiply_add::<P>(rows.as_ptr().add(step), stride, std::array::from_fn(panel));
        }
        store::<P>(products.0.as_mut_ptr());
    }
}

/// [`passing_pairs`] for the panels in `range`, a multiple of `P`, `P` at a time.
///
/// # Safety
///
/// As [`passing_pairs`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn scan<const P: usize>(
    rows: &[&[i8]],
    columns: RowColumns<'_>,
    panels: &[u8],
    lanes: QueryLanes<'_>,
    range: Range<usize>,
    buffers: &mut TileBuffers,
    passing: &mut PassingPairs,
) {
    let TileBuffers { rows: copies, products, .. } = buffers;
    let [mut left, mut next] = copies.each_mut().map(|rows| &mut **rows);
    let stride = left.len() / GROUP_ROWS;
    let steps = stride / TILE_BYTES;
    // Lines of the next group that each step copies.
    let lines_per_step = (GROUP_ROWS * P).div_ceil(range.len());
    let [mut current, mut previous] = products.each_mut().map(|buffer| buffer.0.as_mut_ptr());
    let is_consecutive = rows.windows(2).all(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr());
    let is_aligned = rows[0].as_ptr().addr().is_multiple_of(TILE_BYTES);
    // Of a few products, as many tiles are loaded as would be copied.
    let may_skip = is_consecutive && (is_aligned || range.len() <= 2 * P);
    let needs_copy = |first_row: usize| !may_skip || rows.len() < first_row + GROUP_ROWS;
    if needs_copy(0) {
        for (row, copy) in rows.iter().zip(next.chunks_exact_mut(stride)) {
            copy_row(row, copy);
        }
    }
    let mut compared = Compared::<P>::none();
    for first_row in (0..rows.len()).step_by(GROUP_ROWS) {
        std::mem::swap(&mut left, &mut next);
        let left = match needs_copy(first_row) {
            true => left.as_ptr(),
            false => rows[first_row].as_ptr().cast::<u8>(),
        };
        let next_row = first_row + GROUP_ROWS;
        let copies = next_row < rows.len() && needs_copy(next_row);
        let copy = copies.then_some(&mut *next);
        let mut following = FollowingRows::new(rows, next_row, is_consecutive, copy);
        let terms = GroupTerms::of(columns, first_row);
        for panel in range.clone().step_by(P) {
            let right: [*const u8; P] =
                std::array::from_fn(|p| panels[(panel + p) * PANEL * stride..].as_ptr());
            let mut masks = [[0; P]; GROUP_ROWS];
            // SAFETY: tiles are configured at full size; step i reads 64 bytes of each of the 32
            // rows from byte 64 i on, and 16 rows of 64 bytes of each panel from byte 1,024 i on;
            // the buffers hold the accumulators; the lanes of the panel exist.
            unsafe {
                zero::<P>();
                for step in 0..steps {
                    let left = left.add(step * TILE_BYTES);
                    let at = step * TILE_BYTES * PANEL;
                    multiply_add::<P>(left, stride, right.map(|panel| panel.add(at)));
                    if step < CHUNKS {
                        compared.compare(previous, step, &mut masks);
                    }
                    following.advance(lines_per_step);
                }
                for chunk in steps..CHUNKS {
                    compared.compare(previous, chunk, &mut masks);
                }
                store::<P>(current);
                compared.collect(previous, &masks, passing);
                compared = Compared {
                    lanes: LaneTerms::load(lanes, panel * PANEL),
                    rows: terms,
                    first_row,
                    first_lane: panel * PANEL,
                };
            }
            std::mem::swap(&mut current, &mut previous);
        }
    }
    let mut masks = [[0; P]; GROUP_ROWS];
    // SAFETY: the buffer holds the last accumulators.
    unsafe {
        (0..CHUNKS).for_each(|chunk| compared.compare(previous, chunk, &mut masks));
        compared.collect(previous, &masks, passing);
    }
}

/// The rows behind a group, which are copied and prefetched line by line.
struct FollowingRows<'a> {
    rows: &'a [&'a [i8]],
    /// True if each row starts in memory where the one before ends.
    is_consecutive: bool,
    copy: Option<std::slice::IterMut<'a, [u8; TILE_BYTES]>>,
    /// The next line: its row, its number in the row, and its address.
    row: usize,
    line: usize,
    address: *const i8,
}

impl<'a> FollowingRows<'a> {
    /// Starts at row `first`. `copy` has room for a group.
    fn new(
        rows: &'a [&'a [i8]],
        first: usize,
        is_consecutive: bool,
        copy: Option<&'a mut [u8]>,
    ) -> Self {
        let address = rows[0].as_ptr().wrapping_add(first * rows[0].len());
        let copy = copy.map(|copy| copy.as_chunks_mut().0.iter_mut());
        Self { rows, is_consecutive, copy, row: first, line: 0, address }
    }

    /// Handles the next `n` lines, as far as there are. Behind consecutive rows come those of the
    /// next call.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn advance(&mut self, n: usize) {
        let stride = self.rows[0].len();
        if self.is_consecutive && self.copy.is_none() {
            for _ in 0..n {
                prefetch(self.address.wrapping_add(AHEAD * stride));
                self.address = self.address.wrapping_add(TILE_BYTES);
            }
            return;
        }
        let Some(copy) = &mut self.copy else { return };
        let left = (self.rows.len().saturating_sub(self.row) * stride / TILE_BYTES)
            .saturating_sub(self.line);
        for copy in copy.by_ref().take(n.min(left)) {
            if self.is_consecutive {
                // SAFETY: one of the lines that are left, since rows follow each other.
                unsafe { copy_line(self.address, copy) };
                prefetch(self.address.wrapping_add(AHEAD * stride));
                self.address = self.address.wrapping_add(TILE_BYTES);
                self.line += 1;
                continue;
            }
            let line = &self.rows[self.row][self.line * TILE_BYTES..][..TILE_BYTES];
            // SAFETY: the line has 64 bytes.
            unsafe { copy_line(line.as_ptr(), copy) };
            if let Some(row) = self.rows.get(self.row + AHEAD) {
                prefetch(row.as_ptr().wrapping_add(self.line * TILE_BYTES));
            }
            self.line += 1;
            if self.line * TILE_BYTES == stride {
                (self.row, self.line) = (self.row + 1, 0);
            }
        }
    }
}

/// Chunks in which a tile product is compared, one per step of the next one.
const CHUNKS: usize = 4;

/// The terms of the rows of a group, which the gate compares.
#[derive(Clone, Copy)]
struct GroupTerms {
    bases: [i32; GROUP_ROWS],
    scales: [f32; GROUP_ROWS],
    residuals: [f32; GROUP_ROWS],
}

impl GroupTerms {
    /// Returns the terms of the rows from `first` on. Those behind the last one never pass.
    fn of(columns: RowColumns<'_>, first: usize) -> Self {
        let columns = columns.range(first..(first + GROUP_ROWS).min(columns.scales.len()));
        let mut terms = Self::none();
        terms.bases[..columns.bases.len()].copy_from_slice(columns.bases);
        terms.scales[..columns.scales.len()].copy_from_slice(columns.scales);
        terms.residuals[..columns.residuals.len()].copy_from_slice(columns.residuals);
        terms
    }

    /// Returns terms with which no row passes.
    const fn none() -> Self {
        Self {
            bases: [0; GROUP_ROWS],
            scales: [f32::NAN; GROUP_ROWS],
            residuals: [0.0; GROUP_ROWS],
        }
    }
}

/// A tile product that is being compared with gates.
struct Compared<const P: usize> {
    lanes: LaneTerms<P>,
    rows: GroupTerms,
    first_row: usize,
    first_lane: usize,
}

impl<const P: usize> Compared<P> {
    /// Returns the terms of a product of which nothing passes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn none() -> Self {
        let lanes = LaneTerms::none();
        Self { lanes, rows: GroupTerms::none(), first_row: 0, first_lane: 0 }
    }

    /// Compares the rows of a chunk.
    ///
    /// # Safety
    ///
    /// `products` is `[GROUP_ROWS, P, PANEL]`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn compare(
        &self,
        products: *const i32,
        chunk: usize,
        masks: &mut [[u16; P]; GROUP_ROWS],
    ) {
        const ROWS: usize = GROUP_ROWS / CHUNKS;
        let rows = chunk * ROWS..(chunk + 1) * ROWS;
        let masks = masks.as_chunks_mut::<ROWS>().0[chunk].iter_mut();
        let (scales, residuals) =
            (&self.rows.scales[rows.clone()], &self.rows.residuals[rows.clone()]);
        for ((r, mask), (&scale, &residual)) in rows.zip(masks).zip(scales.iter().zip(residuals)) {
            // SAFETY: guaranteed by the caller.
            let scores: [__m512i; P] = std::array::from_fn(|p| unsafe {
                _mm512_load_si512(products.add((r * P + p) * PANEL).cast())
            });
            *mask = self.lanes.compare(scores, scale, residual);
        }
    }

    /// Appends the pairs that pass.
    ///
    /// # Safety
    ///
    /// As [`Compared::compare`]. The CPU has AVX-512BW.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn collect(
        &self,
        products: *const i32,
        masks: &[[u16; P]; GROUP_ROWS],
        passing: &mut PassingPairs,
    ) {
        let Self { rows, first_row, first_lane, .. } = self;
        // SAFETY: guaranteed by the caller.
        unsafe { collect(products, masks, &rows.bases, *first_row, *first_lane, passing) };
    }
}

/// Copies a row to an aligned place.
#[inline]
#[target_feature(enable = "avx512f")]
fn copy_row(row: &[i8], copy: &mut [u8]) {
    let lines = row.as_chunks::<TILE_BYTES>().0.iter().zip(copy.as_chunks_mut().0);
    // SAFETY: a line has 64 bytes.
    lines.for_each(|(line, copy)| unsafe { copy_line(line.as_ptr(), copy) });
}

/// Copies 64 bytes to an aligned place.
///
/// # Safety
///
/// 64 bytes are readable at `line`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn copy_line(line: *const i8, copy: &mut [u8; TILE_BYTES]) {
    // SAFETY: guaranteed by the caller; the copy has 64 bytes.
    unsafe { _mm512_storeu_si512(copy.as_mut_ptr().cast(), _mm512_loadu_si512(line.cast())) };
}

/// Prefetches a line to the L2 cache.
#[inline(always)]
fn prefetch(line: *const i8) {
    // SAFETY: part of every x86-64 CPU; a hint that reads nothing, at any address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(line) };
}
