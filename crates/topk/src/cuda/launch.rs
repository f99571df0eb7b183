//! Which kernel scans, and in which shape.

use super::kernels::ScanGpu;
use super::params::{QUERY_TILE, Reads, Rows, SMALL_THREADS, ScanParams};
use warpseek_compute::gpu::{
    HOPPER_SHARED_BYTES, HOPPER_STAGES, MAX_SHARED_BYTES, Outcome, TILE_SHARED_BYTES, TILE_THREADS,
    launch, resident_bytes, streamed_bytes,
};
use cudarc::driver::CudaFunction;

/// Batches of up to this many queries are bound by reading the rows.
pub(super) const SMALL_BATCH: usize = 64;

/// The most hits for which a warp has room before they become candidates: of a block that reads rows, where multiprocessors
/// have much shared memory and where they have 100 KiB, and of one that multiplies tiles.
const SMALL_OUTBOX: [u32; 2] = [64, 16];
const LARGE_OUTBOX: u32 = 256;

/// Bytes of a hit in shared memory.
const HIT_BYTES: u32 = 12;

/// Hits for which each of a block's warps has room in so many bytes, and the bytes that takes.
fn room_for_hits(bytes: u32, threads: u32, most: u32) -> (u32, u32) {
    let warps = threads / 32;
    let hits = (bytes / HIT_BYTES / warps).min(most);
    (hits, hits * warps * HIT_BYTES)
}

/// A kernel that scans.
pub(super) struct Scanning<'a> {
    kernel: &'a CudaFunction,
    blocks: Blocks,
    /// Bytes of shared memory of a block, with what its warps have room for hits in.
    shared: u32,
    outbox: u32,
}

/// What a block takes.
enum Blocks {
    /// So many queries, of which so many blocks run at a time, and one tile of rows after the other.
    Small { queries: u32, at_a_time: u32 },
    /// A tile of queries and a tile of rows.
    Tiles,
    /// A tile of queries, and one tile of rows after the other.
    Streams,
}

impl<'a> Scanning<'a> {
    pub(super) fn of(gpu: &'a ScanGpu, n_queries: u32, rows: &Rows, reads: Reads) -> Outcome<Self> {
        let is_large = n_queries as usize > SMALL_BATCH;
        // Groups of eight queries: as many as there are and shared memory holds.
        let (kernels, query_bytes) = match reads {
            Reads::OnePlane => return Ok(Self::large(gpu, 1, rows.byte_stride)),
            Reads::Halves if is_large => return Ok(Self::large(gpu, 0, rows.stride * 2)),
            Reads::Halves => (&gpu.kernels.small[..], rows.stride * 2),
            Reads::TwoPlanes => (&gpu.kernels.bytes[..], rows.byte_stride * 2),
        };
        let bytes_of = |i: usize| (8 << i) * query_bytes;
        let wanted = n_queries.div_ceil(8).next_power_of_two();
        let fits = |&i: &usize| 1 << i <= wanted && bytes_of(i) <= MAX_SHARED_BYTES;
        let Some(i) = (0..kernels.len()).rev().find(fits) else {
            return Ok(Self::large(gpu, 0, rows.stride * 2));
        };
        let most = SMALL_OUTBOX[usize::from(!gpu.has_much_shared_memory())];
        let (outbox, outbox_bytes) =
            room_for_hits(MAX_SHARED_BYTES - bytes_of(i), SMALL_THREADS, most);
        let (kernel, shared) = (&kernels[i], bytes_of(i) + outbox_bytes);
        let resident = kernel.occupancy_max_active_blocks_per_multiprocessor(
            SMALL_THREADS,
            shared as usize,
            None,
        )?;
        let at_a_time = resident.max(1) * gpu.multiprocessors;
        Ok(Self { kernel, blocks: Blocks::Small { queries: 8 << i, at_a_time }, shared, outbox })
    }

    /// For rows of `row_bytes` in the first or the second of the kinds that [`Kernels::large`](super::kernels::Kernels) has.
    fn large(gpu: &'a ScanGpu, kind: usize, row_bytes: u32) -> Self {
        let Some(of_hopper) = &gpu.kernels.hopper else {
            let kernel = &gpu.kernels.large[kind];
            // Hits wait where tiles were.
            let (shared, outbox) = (TILE_SHARED_BYTES, LARGE_OUTBOX);
            return Self { kernel, blocks: Blocks::Tiles, shared, outbox };
        };
        let [resident, wide] = &of_hopper[kind];
        let (kernel, bytes) = match resident_bytes(row_bytes) {
            Some(bytes) => (resident, bytes),
            None => (wide, streamed_bytes(HOPPER_STAGES)),
        };
        let (outbox, outbox_bytes) =
            room_for_hits(HOPPER_SHARED_BYTES - bytes, TILE_THREADS, LARGE_OUTBOX);
        let shared = bytes + outbox_bytes;
        Self { kernel, blocks: Blocks::Streams, shared, outbox }
    }

    pub(super) fn launch(&self, gpu: &ScanGpu, mut params: ScanParams) -> Outcome<()> {
        params.outbox = self.outbox;
        let tiles = params.end - params.begin;
        let n = params.queries.n;
        let query_tiles = n.div_ceil(QUERY_TILE as u32);
        let (grid, threads) = match self.blocks {
            Blocks::Small { queries, at_a_time } => {
                let y = n.div_ceil(queries);
                ((tiles.min((at_a_time / y).max(1)), y), SMALL_THREADS)
            }
            Blocks::Tiles => ((tiles * query_tiles, 1), TILE_THREADS),
            Blocks::Streams => {
                let streams = (gpu.multiprocessors / query_tiles).clamp(1, tiles);
                ((streams * query_tiles, 1), TILE_THREADS)
            }
        };
        launch(gpu, self.kernel, grid, threads, self.shared, &params)
    }
}
