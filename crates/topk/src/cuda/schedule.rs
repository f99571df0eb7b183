//! The passes of a scan: the order in which tiles are visited, and how many between two thresholds.

use super::format::ScanFormat;
use super::params::TILE;
use std::ops::Range;

/// Candidates per pass if few hits are wanted: by estimate, more of them take longer than another
/// pass.
const PASS_CANDIDATES: f64 = 1024.0;

/// Returns the passes as ranges of visits.
///
/// In the first pass all rows become candidates. Of the rows of a later one about
/// k x (rows of the pass / rows before) reach the threshold, times
/// [`ScanFormat::candidates_per_hit`], as long as the visiting order is independent of the scores.
///
/// A pass has at most [`PASS_CANDIDATES`], or eight times the candidates that survive it if that is
/// more, and at most a quarter of the capacity; but the rows seen at least double. There are as few
/// passes as that allows, and the rows seen grow by the same factor from each to the next.
pub(super) fn passes(n_tiles: u32, capacity: u32, k: u32, format: ScanFormat) -> Vec<Range<u32>> {
    let surviving = format.candidates_per_hit() as f64 * f64::from(k);
    let capacity = f64::from(capacity);
    let most = PASS_CANDIDATES.max(8.0 * surviving).min(capacity / 4.0);
    // With few hits the number of rows above the threshold varies widely: hence the second bound.
    let growth = (most / surviving).min(capacity / 24.0).max(2.0);
    let first = (surviving * growth).min(capacity) / f64::from(TILE);
    let first = (first as u32).clamp(1, n_tiles);
    let times = f64::from(n_tiles) / f64::from(first);
    let n_more = (times.ln() / growth.ln()).ceil();
    let growth = times.powf(1.0 / n_more.max(1.0));
    let last = n_more as i32;
    let end_of = |i| match i {
        // The last pass takes what rounding leaves.
        _ if i == last => n_tiles,
        _ => (f64::from(first) * growth.powi(i)).round() as u32,
    };
    let mut seen = 0;
    let passes = (0..=last).map(|i| {
        let pass = seen..end_of(i).clamp(seen, n_tiles);
        seen = pass.end;
        pass
    });
    passes.filter(|pass| !pass.is_empty()).collect()
}

/// Returns the distance between tiles visited one after the other: the golden section of all tiles,
/// so that every pass sees a sample of the whole, and without a common divisor with their number,
/// so that each is visited once.
pub(super) fn tile_step(n_tiles: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let start = (f64::from(n_tiles) * 0.618_033_988_75) as u32;
    (start.max(1)..).find(|&step| gcd(step, n_tiles) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_tile_is_visited_once(n_tiles in 1u32..5000, k in 1u32..=2048, i in 0usize..3) {
            use ScanFormat::{F16, Int8High, Int8HighLow};
            let capacity = (8 * k + 1024).next_multiple_of(TILE);
            let passes = passes(n_tiles, capacity, k, [F16, Int8High, Int8HighLow][i]);
            prop_assert!(passes[0].len() as u32 * TILE <= capacity);
            // Rows in random order leave room.
            for pass in &passes[1..] {
                prop_assert!(pass.len() as u32 * k <= capacity / 2 * pass.start);
            }
            let step = tile_step(n_tiles);
            let mut seen = vec![false; n_tiles as usize];
            for visit in passes.iter().cloned().flatten() {
                let tile = (u64::from(visit) * u64::from(step) % u64::from(n_tiles)) as usize;
                prop_assert!(!std::mem::replace(&mut seen[tile], true));
            }
            prop_assert!(seen.into_iter().all(|s| s));
            prop_assert!(passes.len() <= 24);
        }
    }
}
