//! Matrices that are kept on the device, and copying rows to it.

use warpseek_compute::gpu::{Gpu, Outcome, Pod, address, allocate, copy_values, is_out_of_memory};
use crate::matrix::{MatrixView, RowsDigest};
use crate::sq8::Sq8View;
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaEvent, CudaSlice, PinnedHostSlice, result};
use half::f16;
use std::sync::{Arc, Weak};

/// Bytes of a page-locked buffer.
const PINNED_BYTES: usize = 32 << 20;

/// The most rows of a shard: positions are 32 bits wide, and tiles reach past the end.
pub(super) const MOST_SHARD_ROWS: usize = 1 << 31;

/// Rows on the device, or on their way to it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) values: CudaSlice<f16>,
    pub(super) bytes: Option<Bytes>,
    pub(super) first_row: usize,
    pub(super) n_rows: usize,
}

/// Rows in 8 bits.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) values: CudaSlice<i8>,
    pub(super) scales: CudaSlice<f32>,
    /// Bytes between the starts of two rows.
    pub(super) stride: usize,
    pub(super) max_residual: f32,
    /// Whether they proved too coarse for queries in one plane.
    pub(super) is_coarse: bool,
}

impl Bytes {
    fn place(gpu: &Gpu, sq8: &Sq8View<'_>, room: usize) -> Outcome<Self> {
        let stride = sq8.stride();
        let values = allocate(gpu, room * stride)?;
        let scales = allocate(gpu, room)?;
        Ok(Self { values, scales, stride, max_residual: 0.0, is_coarse: false })
    }
}

impl Shard {
    /// Bytes of the device that it takes.
    fn size(&self) -> usize {
        let bytes = self.bytes.as_ref();
        self.values.num_bytes() + bytes.map_or(0, |b| b.values.num_bytes() + b.scales.num_bytes())
    }
}

/// A matrix that stays on the device as long as its index is open.
#[derive(Debug)]
struct Resident {
    owner: Weak<()>,
    /// What its first rows are.
    history: Vec<RowsDigest>,
    shard: Shard,
    /// Rows that it has room for.
    room: usize,
    /// When it was last used, on a clock of uses.
    used: u64,
}

impl Resident {
    /// Whether its first rows are those of the matrix, as far as either goes.
    fn is_akin(&self, matrix: &MatrixView<'_>) -> bool {
        let owner = matrix.owner().map_or_else(Weak::new, Arc::downgrade);
        let is_same = matrix.owner().is_some()
            && self.owner.ptr_eq(&owner)
            && self.shard.n_rows == matrix.n_rows();
        let (ours, theirs) = (&self.history, matrix.history());
        is_same
            || ours.last().is_some_and(|last| theirs.contains(last))
            || theirs.last().is_some_and(|last| ours.contains(last))
    }
}

/// The matrices on the device, and how rows get there.
#[derive(Debug)]
pub(super) struct Rows {
    residents: Vec<Resident>,
    clock: u64,
    /// Bytes of the device that matrices may take.
    budget: usize,
    /// Bytes copied so far.
    uploaded: u64,
    pinned: Vec<(PinnedHostSlice<u8>, Option<CudaEvent>)>,
}

impl Rows {
    pub(super) fn new(budget: usize) -> Self {
        Self { residents: Vec::new(), clock: 0, budget, uploaded: 0, pinned: Vec::new() }
    }

    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    pub(super) fn uploaded(&self) -> u64 {
        self.uploaded
    }

    /// The whole matrix on the device, put there as far as it is not; `None` where it does not fit. A shard may hold
    /// more rows than the matrix. A matrix that has no owner is never kept for the next call.
    pub(super) fn resident(
        &mut self,
        gpu: &Gpu,
        matrix: &MatrixView<'_>,
    ) -> Outcome<Option<&Shard>> {
        self.residents.retain(|r| r.owner.strong_count() > 0);
        self.clock += 1;
        if size_of_val(matrix.values()) > self.budget || matrix.n_rows() > MOST_SHARD_ROWS {
            return Ok(None);
        }
        let known = self.residents.iter().position(|r| r.is_akin(matrix));
        // One that has too little room goes, before the new one takes its place.
        let known = known.map(|at| self.residents.swap_remove(at));
        let known = known.filter(|r| r.room >= matrix.n_rows());
        let mut resident = match known {
            Some(known) => known,
            None => match self.place(gpu, matrix)? {
                Some(new) => new,
                None => return Ok(None),
            },
        };
        if resident.shard.n_rows < matrix.n_rows() {
            let extended = self.extend(gpu, &mut resident.shard, matrix);
            if extended.is_err() {
                // It is given back, and nothing may be copied to it then.
                let _ = gpu.copies.synchronize();
            }
            extended?;
        }
        if resident.shard.n_rows == matrix.n_rows() {
            resident.history = matrix.history().to_vec();
            resident.owner = matrix.owner().map_or_else(Weak::new, Arc::downgrade);
        }
        resident.used = self.clock;
        self.residents.push(resident);
        Ok(self.residents.last().map(|r| &r.shard))
    }

    /// Room for a matrix and, where that is to be had, for rows that are added to it.
    fn place(&mut self, gpu: &Gpu, matrix: &MatrixView<'_>) -> Outcome<Option<Resident>> {
        let taken = |rows: &Self| -> usize { rows.residents.iter().map(|r| r.shard.size()).sum() };
        let row_bytes = matrix.stride() * size_of::<f16>();
        while taken(self) + matrix.n_rows() * row_bytes > self.budget && self.evict() {}
        let left = self.budget.saturating_sub(taken(self));
        let grows = matrix.owner().is_some() && !matrix.history().is_empty();
        let wanted = matrix.n_rows() + if grows { matrix.n_rows() / 8 + 4096 } else { 0 };
        let mut room = wanted.min(left / row_bytes).min(MOST_SHARD_ROWS);
        let values = loop {
            match allocate(gpu, room * matrix.stride()) {
                Ok(values) => break values,
                Err(e) if !is_out_of_memory(&e) => return Err(e),
                Err(_) if room > matrix.n_rows() => room = matrix.n_rows(),
                Err(_) if self.evict() => {}
                Err(_) => return Ok(None),
            }
        };
        let sq8 = matrix.sq8();
        let fits = |p: &Sq8View<'_>| room * (row_bytes + p.stride() + 4) <= left;
        let bytes = match sq8.filter(fits) {
            Some(sq8) => match Bytes::place(gpu, &sq8, room) {
                Err(e) if is_out_of_memory(&e) => None,
                bytes => Some(bytes?),
            },
            None => None,
        };
        let shard = Shard { values, bytes, first_row: 0, n_rows: 0 };
        let history = Vec::new();
        Ok(Some(Resident { owner: Weak::new(), history, shard, room, used: self.clock }))
    }

    /// Copies the rows of the matrix that the shard does not have yet.
    fn extend(&mut self, gpu: &Gpu, shard: &mut Shard, matrix: &MatrixView<'_>) -> Outcome<()> {
        let (from, stride) = (shard.n_rows, matrix.stride());
        let mut arrived =
            self.upload(gpu, &matrix.values()[from * stride..], &mut shard.values, from * stride)?;
        if let Some(bytes) = &mut shard.bytes {
            match matrix.sq8() {
                Some(sq8) => {
                    let scales = &sq8.scales()[from..];
                    let most = scales.iter().map(|s| s.residual).fold(0.0, f32::max);
                    bytes.max_residual = bytes.max_residual.max(most);
                    let scales: Vec<f32> = scales.iter().map(|s| s.scale).collect();
                    let at = from * bytes.stride;
                    self.upload(gpu, &sq8.values()[at..], &mut bytes.values, at)?;
                    // Read when this returns; it may end here.
                    arrived = self.upload(gpu, &scales, &mut bytes.scales, from)?;
                }
                None => shard.bytes = None,
            }
        }
        gpu.stream.wait(&arrived)?;
        shard.n_rows = matrix.n_rows();
        Ok(())
    }

    /// Lets go of the matrix that was not used for longest.
    fn evict(&mut self) -> bool {
        let oldest = (0..self.residents.len()).min_by_key(|&i| self.residents[i].used);
        oldest.map(|i| self.residents.swap_remove(i)).is_some()
    }

    /// Notes that the bytes of the matrix that was used last are too coarse for queries in one plane.
    pub(super) fn found_coarse(&mut self) {
        if let Some(bytes) = self.residents.last_mut().and_then(|r| r.shard.bytes.as_mut()) {
            bytes.is_coarse = true;
        }
    }

    /// Has less memory from now on.
    pub(super) fn halve_budget(&mut self) {
        self.budget /= 2;
    }

    /// Lets go of all matrices.
    pub(super) fn clear(&mut self) {
        self.residents.clear();
    }

    /// Copies values to the device, to the place `at` and behind it, beside what its kernels do; they are there
    /// when the event has come.
    pub(super) fn upload<T: Pod>(
        &mut self,
        gpu: &Gpu,
        from: &[T],
        to: &mut CudaSlice<T>,
        at: usize,
    ) -> Outcome<CudaEvent> {
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
                // SAFETY: `at` has room for the part. The driver has read pageable memory when it returns.
                unsafe { result::memcpy_htod_async(at, part, gpu.copies.cu_stream()) }?;
                continue;
            }
            let (pinned, copied) = &mut self.pinned[i % n];
            if let Some(event) = copied.take() {
                event.synchronize()?;
            }
            let buffer = &mut pinned.as_mut_slice()?[..part.len()];
            copy_values(buffer, part);
            // SAFETY: `at` has room for the part, and the buffer is not touched before the event has come.
            unsafe { result::memcpy_htod_async(at, buffer, gpu.copies.cu_stream()) }?;
            *copied = Some(gpu.copies.record_event(None)?);
        }
        gpu.copies.record_event(None)
    }
}
