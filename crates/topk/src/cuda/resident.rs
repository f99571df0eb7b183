//! Device-resident matrices, and the copies of rows to the device.

use crate::matrix::{MatrixView, RowsDigest};
use crate::sq8::Sq8View;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaSlice, PinnedHostSlice, result};
use half::f16;
use std::sync::{Arc, Weak};
use warpseek_compute::gpu::{
    CudaResult, Gpu, Pod, address, allocate, copy_values, is_out_of_memory,
};

/// Bytes of a pinned buffer for uploads.
const PINNED_BYTES: usize = 32 << 20;

/// The most rows of a segment: positions have 32 bits, and tiles reach past the end.
pub(super) const MAX_SEGMENT_ROWS: usize = 1 << 31;

/// Rows on the device, or on their way to it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) values: CudaSlice<f16>,
    pub(super) sq8: Option<DeviceSq8>,
    pub(super) first_row: usize,
    pub(super) n_rows: usize,
}

/// The int8 copy of a segment's rows.
#[derive(Debug)]
pub(super) struct DeviceSq8 {
    pub(super) values: CudaSlice<i8>,
    pub(super) scales: CudaSlice<f32>,
    /// Values from the start of one row to the next.
    pub(super) stride: usize,
    pub(super) max_residual: f32,
    /// True once the high parts of queries left too many candidates.
    pub(super) is_too_coarse: bool,
}

impl DeviceSq8 {
    fn allocate(gpu: &Gpu, sq8: &Sq8View<'_>, capacity: usize) -> CudaResult<Self> {
        let stride = sq8.stride();
        let values = allocate(gpu, capacity * stride)?;
        let scales = allocate(gpu, capacity)?;
        Ok(Self { values, scales, stride, max_residual: 0.0, is_too_coarse: false })
    }
}

impl Segment {
    /// Returns the bytes of device memory.
    fn size(&self) -> usize {
        let sq8 = self.sq8.as_ref();
        self.values.num_bytes() + sq8.map_or(0, |s| s.values.num_bytes() + s.scales.num_bytes())
    }
}

/// A matrix that stays on the device as long as its owner lives.
#[derive(Debug)]
struct ResidentMatrix {
    owner: Weak<()>,
    /// Identity of its first rows.
    history: Vec<RowsDigest>,
    segment: Segment,
    /// Rows that fit into its memory.
    capacity: usize,
    /// Time of the last use, counted in uses.
    last_use: u64,
}

impl ResidentMatrix {
    /// True if one of the two matrices is a prefix of the other.
    fn is_prefix_of(&self, matrix: &MatrixView<'_>) -> bool {
        let owner = matrix.owner().map_or_else(Weak::new, Arc::downgrade);
        let is_same = matrix.owner().is_some()
            && self.owner.ptr_eq(&owner)
            && self.segment.n_rows == matrix.n_rows();
        let (ours, theirs) = (&self.history, matrix.history());
        is_same
            || ours.last().is_some_and(|last| theirs.contains(last))
            || theirs.last().is_some_and(|last| ours.contains(last))
    }
}

/// The matrices on the device, and the pinned buffers by which rows get there.
#[derive(Debug)]
pub(super) struct ResidentMatrices {
    matrices: Vec<ResidentMatrix>,
    uses: u64,
    /// The most bytes of device memory for rows.
    pub(super) budget: usize,
    /// Bytes copied so far.
    pub(super) uploaded: u64,
    pinned: Vec<(PinnedHostSlice<u8>, Option<CudaEvent>)>,
}

impl ResidentMatrices {
    pub(super) fn new(budget: usize) -> Self {
        Self { matrices: Vec::new(), uses: 0, budget, uploaded: 0, pinned: Vec::new() }
    }

    /// Returns the whole matrix on the device, after copying the rows that are not there yet; none
    /// if it does not fit. The segment may hold more rows than the matrix. A matrix without an
    /// owner is not kept for the next call.
    pub(super) fn get(
        &mut self,
        gpu: &Gpu,
        matrix: &MatrixView<'_>,
    ) -> CudaResult<Option<&mut Segment>> {
        self.matrices.retain(|r| r.owner.strong_count() > 0);
        self.uses += 1;
        if size_of_val(matrix.values()) > self.budget || matrix.n_rows() > MAX_SEGMENT_ROWS {
            return Ok(None);
        }
        let known = self.matrices.iter().position(|r| r.is_prefix_of(matrix));
        // One that is too small is freed before the new one is allocated.
        let known = known.map(|at| self.matrices.swap_remove(at));
        let known = known.filter(|r| r.capacity >= matrix.n_rows());
        let resident = match known {
            None => self.allocate(gpu, matrix)?,
            known => known,
        };
        let Some(mut resident) = resident else { return Ok(None) };
        if resident.segment.n_rows < matrix.n_rows()
            && let Err(e) = self.extend(gpu, &mut resident.segment, matrix)
        {
            // The memory is freed below; copies to it must be complete by then.
            let _ = gpu.copies.synchronize();
            return Err(e);
        }
        if resident.segment.n_rows == matrix.n_rows() {
            resident.history = matrix.history().to_vec();
            resident.owner = matrix.owner().map_or_else(Weak::new, Arc::downgrade);
        }
        resident.last_use = self.uses;
        self.matrices.push(resident);
        Ok(self.matrices.last_mut().map(|r| &mut r.segment))
    }

    /// Allocates memory for a matrix and, if possible, for rows that are added to it later. Evicts
    /// other matrices for it.
    fn allocate(
        &mut self,
        gpu: &Gpu,
        matrix: &MatrixView<'_>,
    ) -> CudaResult<Option<ResidentMatrix>> {
        let used = |this: &Self| -> usize { this.matrices.iter().map(|r| r.segment.size()).sum() };
        let row_bytes = matrix.stride() * size_of::<f16>();
        while used(self) + matrix.n_rows() * row_bytes > self.budget && self.evict() {}
        let left = self.budget.saturating_sub(used(self));
        let grows = matrix.owner().is_some() && !matrix.history().is_empty();
        let wanted = matrix.n_rows() + if grows { matrix.n_rows() / 8 + 4096 } else { 0 };
        let mut capacity = wanted.min(left / row_bytes).min(MAX_SEGMENT_ROWS);
        let values = loop {
            match allocate(gpu, capacity * matrix.stride()) {
                Ok(values) => break values,
                Err(e) if !is_out_of_memory(&e) => return Err(e),
                Err(_) if capacity > matrix.n_rows() => capacity = matrix.n_rows(),
                Err(_) if self.evict() => {}
                Err(_) => return Ok(None),
            }
        };
        let fits = |sq8: &Sq8View<'_>| capacity * (row_bytes + sq8.stride() + 4) <= left;
        let sq8 = match matrix.sq8().filter(fits) {
            Some(sq8) => match DeviceSq8::allocate(gpu, &sq8, capacity) {
                Err(e) if is_out_of_memory(&e) => None,
                sq8 => Some(sq8?),
            },
            None => None,
        };
        let segment = Segment { values, sq8, first_row: 0, n_rows: 0 };
        let (owner, history) = (Weak::new(), Vec::new());
        Ok(Some(ResidentMatrix { owner, history, segment, capacity, last_use: self.uses }))
    }

    /// Copies the rows that the segment lacks.
    fn extend(
        &mut self,
        gpu: &Gpu,
        segment: &mut Segment,
        matrix: &MatrixView<'_>,
    ) -> CudaResult<()> {
        let (from, stride) = (segment.n_rows, matrix.stride());
        let mut arrived = self.upload(
            gpu,
            &matrix.values()[from * stride..],
            &mut segment.values,
            from * stride,
        )?;
        match (&mut segment.sq8, matrix.sq8()) {
            (Some(to), Some(sq8)) => {
                let scales = &sq8.scales()[from..];
                to.max_residual = scales.iter().map(|s| s.residual).fold(to.max_residual, f32::max);
                let scales: Vec<f32> = scales.iter().map(|s| s.scale).collect();
                let at = from * to.stride;
                self.upload(gpu, &sq8.values()[at..], &mut to.values, at)?;
                // The driver has read `scales` when this returns.
                arrived = self.upload(gpu, &scales, &mut to.scales, from)?;
            }
            (sq8, _) => *sq8 = None,
        }
        gpu.stream.wait(&arrived)?;
        segment.n_rows = matrix.n_rows();
        Ok(())
    }

    /// Frees the least recently used matrix. Returns false if there is none.
    fn evict(&mut self) -> bool {
        let oldest = (0..self.matrices.len()).min_by_key(|&i| self.matrices[i].last_use);
        oldest.map(|i| self.matrices.swap_remove(i)).is_some()
    }

    /// Frees all matrices.
    pub(super) fn clear(&mut self) {
        self.matrices.clear();
    }

    /// Copies values to the device, to index `at` of `to`, while kernels run. Returns the event
    /// after the copy.
    pub(super) fn upload<T: Pod>(
        &mut self,
        gpu: &Gpu,
        from: &[T],
        to: &mut CudaSlice<T>,
        at: usize,
    ) -> CudaResult<CudaEvent> {
        let start = address(gpu, to) + (at * size_of::<T>()) as CUdeviceptr;
        let from = T::bytes(from);
        self.uploaded += from.len() as u64;
        let is_small = from.len() <= PINNED_BYTES / 16;
        while self.pinned.len() < 2 && !is_small {
            // SAFETY: it is written before it is read.
            match unsafe { gpu.context.alloc_pinned::<u8>(PINNED_BYTES) } {
                Ok(pinned) => self.pinned.push((pinned, None)),
                Err(e) if is_out_of_memory(&e) => break,
                Err(e) => return Err(e),
            }
        }
        for (i, part) in from.chunks(PINNED_BYTES).enumerate() {
            let at = start + (i * PINNED_BYTES) as CUdeviceptr;
            let n = self.pinned.len();
            if n == 0 || is_small {
                // SAFETY: `at` has room for the part. The driver has read pageable memory when it
                // returns.
                unsafe { result::memcpy_htod_async(at, part, gpu.copies.cu_stream()) }?;
                continue;
            }
            let (pinned, copied) = &mut self.pinned[i % n];
            if let Some(event) = copied.take() {
                event.synchronize()?;
            }
            let buffer = &mut pinned.as_mut_slice()?[..part.len()];
            copy_values(buffer, part);
            // SAFETY: `at` has room for the part; the buffer is not touched before the event.
            unsafe { result::memcpy_htod_async(at, buffer, gpu.copies.cu_stream()) }?;
            *copied = Some(gpu.copies.record_event(None)?);
        }
        gpu.copies.record_event(None)
    }
}
