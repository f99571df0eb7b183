//! In which order tiles are scanned, and how many between one threshold and the next.

use super::params::{Reads, TILE};
use std::ops::Range;

/// As many candidates a round, where few hits are wanted: by estimate more of them take longer than another round.
const ROUND_CANDIDATES: f64 = 1024.0;

/// The rounds' tiles, in visiting order. In the first all rows become candidates. Of the rows of a later one about
/// k (rows of the round / rows before) reach the threshold, as long as the visiting order has nothing to do with the scores; of 8 bits
/// [`Reads::candidates_a_hit`] times as many.
///
/// No round is to have more candidates than [`ROUND_CANDIDATES`], or eight times as many as stay where that is more, nor than a quarter of the room;
/// only that what was seen at least doubles. There are as few rounds as that allows, and from one to the next what was seen grows by the same factor.
pub(super) fn rounds(n_tiles: u32, capacity: u32, k: u32, reads: Reads) -> Vec<Range<u32>> {
    let wanted = reads.candidates_a_hit() as f64 * f64::from(k);
    let room = f64::from(capacity);
    let most = ROUND_CANDIDATES.max(8.0 * wanted).min(room / 4.0);
    // How many rows are above the best one so far, say, is far from its mean often enough.
    let growth = (most / wanted).min(room / 24.0).max(2.0);
    let first = (wanted * growth).min(room) / f64::from(TILE);
    let first = (first as u32).clamp(1, n_tiles);
    let times = f64::from(n_tiles) / f64::from(first);
    let n_more = (times.ln() / growth.ln()).ceil();
    let growth = times.powf(1.0 / n_more.max(1.0));
    let last = n_more as i32;
    let end_of = |i| match i {
        // What rounding leaves over is the last one's.
        _ if i == last => n_tiles,
        _ => (f64::from(first) * growth.powi(i)).round() as u32,
    };
    let mut seen = 0;
    let rounds = (0..=last).map(|i| {
        let round = seen..end_of(i).clamp(seen, n_tiles);
        seen = round.end;
        round
    });
    rounds.filter(|round| !round.is_empty()).collect()
}

/// Far apart tiles follow each other, so that any round sees a sample of the whole: the golden section of the
/// tiles, and without a common divisor, so that each is visited once.
pub(super) fn visiting_step(n_tiles: u32) -> u32 {
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
        fn every_tile_is_visited_once(n_tiles in 1u32..5000, k in 1u32..=2048, reads in 0usize..3) {
            let reads = [Reads::Halves, Reads::OnePlane, Reads::TwoPlanes][reads];
            let capacity = (8 * k + 1024).next_multiple_of(TILE);
            let rounds = rounds(n_tiles, capacity, k, reads);
            prop_assert!(rounds[0].len() as u32 * TILE <= capacity);
            // Rows without an order leave room.
            for round in &rounds[1..] {
                prop_assert!(round.len() as u32 * k <= capacity / 2 * round.start);
            }
            let step = visiting_step(n_tiles);
            let mut seen = vec![false; n_tiles as usize];
            for visit in rounds.iter().cloned().flatten() {
                let tile = (u64::from(visit) * u64::from(step) % u64::from(n_tiles)) as usize;
                prop_assert!(!std::mem::replace(&mut seen[tile], true));
            }
            prop_assert!(seen.into_iter().all(|s| s));
            prop_assert!(rounds.len() <= 24);
        }
    }
}
