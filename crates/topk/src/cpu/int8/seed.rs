//! First thresholds of the quantized scan, from a sample of the rows.

use super::{BLOCK_ROWS, Block, QuantizedScan};
use crate::cpu::ScanJob;
use crate::cpu::gate::QueryLanes;
use crate::cpu::kernels::GROUP_ROWS;
use rayon::prelude::*;
use warpseek_compute::cpu::PANEL;

/// The fewest queries for which reading a sample, whose rows are far apart in memory, pays.
const MIN_QUERIES: usize = 64;

/// The most rows of a sample: they are read in no order that a disk likes.
const MAX_ROWS: usize = 1 << 16;

impl QuantizedScan<'_> {
    /// Seeds the thresholds by a sample of rows, spread over the matrix: without one, as many rows
    /// would pass the gate at first, and each costs more than its product.
    ///
    /// The sample is split into groups. The lower bound of a group is that of its best row, so that
    /// at least `k` rows reach the k-th largest of these.
    pub(super) fn seed_thresholds(&self) {
        let ScanJob { kernels, k, .. } = self.job;
        let wanted = k.saturating_mul(kernels.sample_rate()).min(MAX_ROWS);
        let n_rows = wanted.min(self.job.n_passing() / 4);
        let n_groups = n_rows / GROUP_ROWS;
        if n_groups < 2 * k || self.quantized.len() < MIN_QUERIES {
            return;
        }
        // Neighbours may be alike, and only one of a group counts: rows of a group are far apart.
        let sample = self.job.sample(n_groups * GROUP_ROWS);
        let row = |i: usize| sample[i % GROUP_ROWS * n_groups + i / GROUP_ROWS];
        let rows: Vec<u32> = (0..sample.len()).map(row).collect();
        let share = self.quantized.len().div_ceil(rayon::current_num_threads());
        let step = self.lanes().min(share.next_multiple_of(2 * PANEL));
        let panels: Vec<&[u8]> = self.quantized.panels(step).collect();
        let seed = |(p, panels)| self.seed(p * step, panels, &rows);
        panels.into_par_iter().enumerate().for_each(seed);
    }

    /// Seeds the thresholds of the queries from `first` on by `rows`, whole groups.
    fn seed(&self, first: usize, panels: &[u8], rows: &[u32]) {
        let ScanJob { kernels, k, .. } = self.job;
        let width = panels.len() / self.sq8.stride();
        let queries = first..(first + width).min(self.quantized.len());
        let mut factors = vec![0.0; width];
        for (factor, query) in factors.iter_mut().zip(queries.clone()) {
            *factor = self.quantized.bounds(query).residual_factor();
        }
        let lanes = QueryLanes { factors: &factors, gates: &vec![0.0; width] };
        let mut maxima = vec![0.0; rows.len() / GROUP_ROWS * width];
        let mut buffers = kernels.score_buffers(self.sq8.stride());
        let mut block = Block::new();
        let lines = maxima.chunks_mut(BLOCK_ROWS / GROUP_ROWS * width);
        let mut ahead = rows.chunks(BLOCK_ROWS).skip(1);
        for (numbers, maxima) in rows.chunks(BLOCK_ROWS).zip(lines) {
            for &row in ahead.next().unwrap_or_default() {
                kernels.prefetch(self.int8_row(row));
            }
            block.fill(self, numbers);
            let columns = block.columns(0..numbers.len());
            let rows = &block.rows[..numbers.len()];
            kernels.lower_maxima(rows, columns, panels, lanes, &mut buffers, maxima);
        }
        // The maxima of 16 queries, a cache line of each group, at a time.
        let n_groups = rows.len() / GROUP_ROWS;
        let mut columns = vec![0.0; PANEL * n_groups];
        for start in (0..width).step_by(PANEL) {
            for (g, line) in maxima.chunks_exact(width).enumerate() {
                let line = line[start..start + PANEL].iter().enumerate();
                line.for_each(|(lane, maximum)| columns[lane * n_groups + g] = *maximum);
            }
            for (column, query) in columns.chunks_exact(n_groups).zip(queries.clone().skip(start)) {
                if let Some(kth) = kernels.kth_largest(column, k) {
                    let lower = self.quantized.bounds(query).lower_bound(kth);
                    self.thresholds[query].raise(lower);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::ScanKernels;
    use crate::layout::{row_norm_upper, stride_of};
    use crate::matrix::MatrixView;
    use crate::oracle::naive_top_k;
    use crate::sq8::Sq8Matrix;
    use half::f16;
    use std::sync::OnceLock;
    use warpseek_compute::cpu::Tier;

    #[test]
    fn seeded_thresholds_are_at_most_the_kth_score() {
        const DIM: usize = 64;
        const K: usize = 3;
        let mut state = 7u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let rows: Vec<f16> = (0..12_000 * DIM).map(|_| f16::from_f32(number())).collect();
        let queries: Vec<f32> = (0..MIN_QUERIES * DIM).map(|_| number()).collect();
        assert_eq!(stride_of(DIM), DIM);
        let norm = rows.chunks_exact(DIM).map(row_norm_upper).fold(0.0, f32::max);
        let sq8 = Sq8Matrix::of(&rows, DIM);
        let view = sq8.view(DIM).unwrap();
        let matrix = MatrixView::new(&rows, DIM, norm).unwrap().with_sq8(Some(view));
        let view = matrix.sq8().unwrap();
        for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
            let kernels = ScanKernels::of(tier);
            let (queries, damaged) = (&queries, &OnceLock::new());
            let job = ScanJob {
                kernels,
                matrix: &matrix,
                queries,
                k: K,
                mask: None,
                floors: None,
                damaged,
            };
            let scan = QuantizedScan::new(job, &view);
            scan.seed_thresholds();
            if kernels.sample_rate() == 0 {
                continue;
            }
            for (query, threshold) in queries.chunks_exact(DIM).zip(&scan.thresholds) {
                let kth = naive_top_k(&matrix, query, K, None)[K - 1].score;
                let seeded = threshold.get();
                let name = tier.name();
                assert!(f32::NEG_INFINITY < seeded && seeded <= kth, "{name}: {seeded} {kth}");
            }
        }
    }
}
