//! An audit of exactness on the data of an index: fast searches against exhaustive ones.

use super::order::{ScoredRow, naive_top_k};
use super::{MAX_COMPONENT, QueryBatch, Scanner};
use crate::cpu::Tier;
use crate::error::Result;
use crate::store::matrix::{MatrixView, RowMask};

/// The outcome of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How many searches were compared.
    pub searches: usize,
    /// The tiers and devices that were held against the oracle.
    pub ways: Vec<String>,
    /// The first difference, if there was one.
    pub difference: Option<String>,
}

/// Runs `searches` searches by every tier this CPU has and by `gpu`, over the prefilter where the matrix has one and
/// over the half-precision rows, and compares rows and scores, bit for bit, with an exhaustive search in
/// float64. Queries lie near rows of the index (so that many scores are
/// close), every fourth is random; batches of 1, 5 and 33 and k of 1, 10 and 100 take turns. Stops early where `progress` answers no.
///
/// # Errors
///
/// As [`Scanner::top_k`].
pub fn audit(
    matrix: &MatrixView<'_>,
    live: &RowMask,
    gpu: Option<&Scanner>,
    searches: usize,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Audit> {
    let tiers = Tier::ALL.into_iter().filter(|t| t.is_available());
    let mut ways: Vec<(String, Scanner)> =
        tiers.map(|tier| (tier.name().to_owned(), Scanner::Cpu(tier))).collect();
    ways.extend(gpu.map(|gpu| (gpu.device(), gpu.clone())));
    let names = ways.iter().map(|(name, _)| name.clone()).collect();
    let mut audit = Audit { searches: 0, ways: names, difference: None };
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
            queries.iter().map(|q| naive_top_k(matrix, q, k, Some(live))).collect();
        let batch = QueryBatch::new(&queries.concat(), matrix.dim())?;
        let matrices = [*matrix, matrix.with_prefilter(None)];
        for ((name, scanner), matrix) in
            ways.iter().flat_map(|way| matrices.iter().map(move |matrix| (way, matrix)))
        {
            let got = scanner.top_k(matrix, &batch, k, Some(live))?;
            for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                if bits(got) != bits(expected) {
                    audit.difference = Some(format!(
                        "search {} with k = {k} in a batch of {n} differs by {name}: this is a bug of \
                         warpseek, please report it with this line",
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

fn query(matrix: &MatrixView<'_>, number: usize, state: &mut u64) -> Vec<f32> {
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

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in -1..1.
fn unit(state: &mut u64) -> f32 {
    (next(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
