//! Audit of exactness on the user's own matrix: fast searches against the oracle.

use crate::error::Result;
use crate::mask::RowMask;
use crate::oracle::ScoredRow;
use crate::scanner::{MAX_COMPONENT, QueryBatch, Scanner};
use crate::shards::ShardedMatrix;
use warpseek_compute::cpu::Tier;

/// The outcome of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The number of searches that were compared.
    pub searches: usize,
    /// The tiers and devices that were compared with the oracle.
    pub backends: Vec<String>,
    /// The first difference, if any.
    pub difference: Option<String>,
}

/// Runs `searches` searches on every tier of this CPU and on `gpu`, with the int8 copy (if the
/// matrix has one) and without, and compares rows and scores bit for bit with the oracle.
///
/// Queries are near rows of the matrix, so that many scores are close; every fourth is random.
/// Batches of 1, 5 and 33 and k of 1, 10 and 100 take turns. Stops early if `progress` returns
/// false.
///
/// # Errors
///
/// As [`Scanner::top_k_sharded`].
pub fn audit(
    matrix: &ShardedMatrix<'_>,
    live: &RowMask,
    gpu: Option<&Scanner>,
    searches: usize,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Audit> {
    let tiers = Tier::ALL.into_iter().filter(|t| t.is_available());
    let mut backends: Vec<(String, Scanner)> =
        tiers.map(|tier| (tier.name().to_owned(), Scanner::Cpu(tier))).collect();
    backends.extend(gpu.map(|gpu| (gpu.device(), gpu.clone())));
    let names = backends.iter().map(|(name, _)| name.clone()).collect();
    let mut audit = Audit { searches: 0, backends: names, difference: None };
    let mut state = 0x5eed_u64;
    for (round, k) in [1, 10, 100].into_iter().cycle().enumerate() {
        // Single queries, part of a register tile, and several tiles in turn.
        let n = [1, 5, 33][round % 3].min(searches - audit.searches);
        if n == 0 {
            break;
        }
        let queries: Vec<Vec<f32>> =
            (0..n).map(|i| query(matrix, audit.searches + i, &mut state)).collect();
        let expected: Vec<Vec<ScoredRow>> =
            queries.iter().map(|q| matrix.naive_top_k(q, k, Some(live))).collect();
        let batch = QueryBatch::new(&queries.concat(), matrix.dim())?;
        let matrices = [matrix.clone(), matrix.without_sq8()];
        let masks = vec![Some(live); n];
        for ((name, scanner), matrix) in
            backends.iter().flat_map(|backend| matrices.iter().map(move |matrix| (backend, matrix)))
        {
            let got = scanner.top_k_sharded(matrix, &batch, k, &masks)?;
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                if bits(got) != bits(expected) {
                    audit.difference = Some(format!(
                        "search {} with k = {k} in a batch of {n} differs on {name}: internal \
                         error, please report it with this line",
                        audit.searches + i,
                    ));
                    return Ok(audit);
                }
            }
        }
        audit.searches += n;
        if !progress(audit.searches) {
            break;
        }
    }
    Ok(audit)
}

fn bits(hits: &[ScoredRow]) -> Vec<(u32, u32)> {
    hits.iter().map(|h| (h.row, h.score.to_bits())).collect()
}

fn query(matrix: &ShardedMatrix<'_>, number: usize, state: &mut u64) -> Vec<f32> {
    let mut noise: Vec<f32> = (0..matrix.dim()).map(|_| unit(state)).collect();
    if number % 4 == 3 || matrix.n_rows() == 0 {
        return noise;
    }
    let row = (next(state) % matrix.n_rows() as u64) as usize;
    for (value, stored) in noise.iter_mut().zip(matrix.row(row).unwrap_or_default()) {
        *value = (stored.to_f32() + 0.02 * *value).clamp(-MAX_COMPONENT, MAX_COMPONENT);
    }
    noise
}

/// Next number of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Next number, uniform in -1..1.
fn unit(state: &mut u64) -> f32 {
    (next(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
