//! The choice of a scan kernel and the shape of its launch: see `kernels/scan_small.cuh` and
//! `kernels/scan_large.cuh`.

use super::format::{SMALL_BATCH, ScanFormat};
use super::kernels::{LargeScans, ScanGpu};
use super::params::{Hit, QUERY_TILE, SMALL_THREADS, ScanParams, ScanRows};
use cudarc::driver::CudaFunction;
use warpseek_compute::gpu::{
    CudaResult, HOPPER_SHARED_BYTES, HOPPER_STAGES, MAX_SHARED_BYTES, TILE_SHARED_BYTES,
    TILE_THREADS, launch, resident_bytes, streamed_bytes,
};

/// The most hits per warp of a small scan, on devices with much shared memory and with 100 KiB.
const SMALL_HITS: [u32; 2] = [64, 16];

/// The most hits per warp of a large scan.
const LARGE_HITS: u32 = 256;

/// A scan kernel with the shape of its launch.
pub(super) struct ScanLaunch<'a> {
    kernel: &'a CudaFunction,
    grid: ScanGrid,
    /// Dynamic shared memory of a block, with its hit buffers.
    shared: u32,
    hits_per_warp: u32,
}

/// The work of a block.
enum ScanGrid {
    /// `queries` queries and a stream of tiles of rows; `blocks` blocks run at a time.
    Small { queries: u32, blocks: u32 },
    /// A tile of queries and a tile of rows.
    Tiles,
    /// A tile of queries and a stream of tiles of rows.
    Streams,
}

impl<'a> ScanLaunch<'a> {
    /// Chooses the kernel for `n_queries`.
    pub(super) fn choose(
        gpu: &'a ScanGpu,
        n_queries: u32,
        rows: &ScanRows,
        format: ScanFormat,
    ) -> CudaResult<Self> {
        let kernels = &gpu.kernels;
        let large_f16 = || Self::large(gpu, &kernels.large_f16, rows.stride * 2);
        let (small, query_bytes) = match format {
            ScanFormat::Int8High => {
                return Ok(Self::large(gpu, &kernels.large_int8, rows.int8_stride));
            }
            ScanFormat::F16 if n_queries as usize > SMALL_BATCH => return Ok(large_f16()),
            ScanFormat::F16 => (&kernels.small_f16, rows.stride * 2),
            ScanFormat::Int8HighLow => (&kernels.small_int8, rows.int8_stride * 2),
        };
        // Kernel i has 8 << i queries per block: as many as there are and shared memory holds.
        let bytes_of = |i: usize| (8 << i) * query_bytes;
        let wanted = n_queries.div_ceil(8).next_power_of_two();
        let fits = |&i: &usize| 1 << i <= wanted && bytes_of(i) <= MAX_SHARED_BYTES;
        let Some(i) = (0..small.len()).rev().find(fits) else { return Ok(large_f16()) };
        let most = SMALL_HITS[usize::from(!gpu.has_much_shared_memory())];
        let (hits_per_warp, hit_bytes) =
            hit_buffers(MAX_SHARED_BYTES - bytes_of(i), SMALL_THREADS, most);
        let (kernel, shared) = (&small[i], bytes_of(i) + hit_bytes);
        let occupancy = kernel.occupancy_max_active_blocks_per_multiprocessor(
            SMALL_THREADS,
            shared as usize,
            None,
        )?;
        let blocks = occupancy.max(1) * gpu.multiprocessors;
        let grid = ScanGrid::Small { queries: 8 << i, blocks };
        Ok(Self { kernel, grid, shared, hits_per_warp })
    }

    fn large(gpu: &ScanGpu, kernels: &'a LargeScans, row_bytes: u32) -> Self {
        let Some([resident, streamed]) = kernels.hopper.as_ref().filter(|_| gpu.uses_wgmma) else {
            // The hit buffers reuse the memory of the tiles.
            let (shared, hits_per_warp) = (TILE_SHARED_BYTES, LARGE_HITS);
            let (kernel, grid) = (&kernels.portable, ScanGrid::Tiles);
            return Self { kernel, grid, shared, hits_per_warp };
        };
        let (kernel, bytes) = match resident_bytes(row_bytes) {
            Some(bytes) => (resident, bytes),
            None => (streamed, streamed_bytes(HOPPER_STAGES)),
        };
        let (hits_per_warp, hit_bytes) =
            hit_buffers(HOPPER_SHARED_BYTES - bytes, TILE_THREADS, LARGE_HITS);
        Self { kernel, grid: ScanGrid::Streams, shared: bytes + hit_bytes, hits_per_warp }
    }

    /// Launches one pass.
    pub(super) fn launch(&self, gpu: &ScanGpu, params: ScanParams) -> CudaResult<()> {
        let params = ScanParams { hits_per_warp: self.hits_per_warp, ..params };
        let (n, tiles) = (params.queries.n, params.end - params.begin);
        let query_tiles = n.div_ceil(QUERY_TILE);
        let (grid, threads) = match self.grid {
            ScanGrid::Small { queries, blocks } => {
                let y = n.div_ceil(queries);
                ((tiles.min((blocks / y).max(1)), y), SMALL_THREADS)
            }
            ScanGrid::Tiles => ((tiles * query_tiles, 1), TILE_THREADS),
            ScanGrid::Streams => {
                let streams = (gpu.multiprocessors / query_tiles).clamp(1, tiles);
                ((streams * query_tiles, 1), TILE_THREADS)
            }
        };
        launch(gpu, self.kernel, grid, threads, self.shared, &params)
    }
}

/// Divides `bytes` of shared memory into a hit buffer per warp. Returns the hits per warp, at most
/// `most`, and the bytes of all buffers.
fn hit_buffers(bytes: u32, threads: u32, most: u32) -> (u32, u32) {
    let (warps, hit_bytes) = (threads / 32, size_of::<Hit>() as u32);
    let hits = (bytes / hit_bytes / warps).min(most);
    (hits, hits * warps * hit_bytes)
}
