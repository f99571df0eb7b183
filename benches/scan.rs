//! The exact scan: batches of queries against 41,584 rows of 384 dimensions, k = 25, by every tier
//! that this CPU has, over half-precision rows and over the int8 copy, with and without filters.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use warpseek::compute::cpu::Tier;
use warpseek::topk::{MatrixView, QueryBatch, RowMask, Scanner, Sq8Matrix};

const ROWS: usize = 41_584;
const DIM: usize = 384;

/// SplitMix64, uniform in -1..1.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn unit_vectors(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut values: Vec<f32> = (0..n * DIM).map(|_| random(&mut state)).collect();
    values.chunks_exact_mut(DIM).for_each(warpseek::bert::embedder::normalize);
    values
}

fn scan(c: &mut Criterion) {
    let rows: Vec<f16> = unit_vectors(ROWS, 1).into_iter().map(f16::from_f32).collect();
    let Some(matrix) = MatrixView::new(&rows, DIM, 1.001) else { return };
    let sq8 = Sq8Matrix::of(&rows, DIM);
    let ways = [("half", matrix), ("int8", matrix.with_sq8(sq8.view(DIM)))];
    let filters = [1, 10, 50].map(|percent| {
        let mut mask = RowMask::empty(ROWS);
        (0..ROWS).filter(|row| row * 61 % 100 < percent).for_each(|row| mask.insert(row));
        (percent, mask)
    });
    for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
        for (way, matrix) in &ways {
            let mut group = c.benchmark_group(format!("scan/{}/{way}", tier.name()));
            group.sample_size(10);
            for n_queries in [1, 32, 256, 1024] {
                let Ok(queries) = QueryBatch::new(&unit_vectors(n_queries, 2), DIM) else { return };
                group.throughput(Throughput::Elements(n_queries as u64));
                let run = |mask| Scanner::Cpu(tier).top_k(matrix, &queries, 25, mask);
                group.bench_function(format!("B={n_queries}"), |b| b.iter(|| run(None)));
                for (percent, mask) in filters.iter().filter(|_| n_queries == 32) {
                    let name = format!("B=32, {percent} % of the rows");
                    group.bench_function(name, |b| b.iter(|| run(Some(mask))));
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, scan);
criterion_main!(benches);
