//! In which order tiles are scanned, and how many between one threshold and the next.

use super::params::{Reads, TILE};
use std::ops::Range;

/// The rounds' tiles, in visiting order. In the first all rows become candidates. Of the rows of a later one about k
/// times (rows of the round / rows before) reach the threshold, as long as the visiting order has nothing to do with the
/// scores; the room is four times that, beside what is left of the round before. Of random rows the error bound of 8 bits lets
/// through some six times as many, that of a query in one plane some twenty times.
pub(super) fn rounds(n_tiles: u32, capacity: u32, k: u32, reads: Reads) -> Vec<Range<u32>> {
    let share = match reads {
        Reads::Halves => 4,
        Reads::TwoPlanes => 24,
        Reads::OnePlane => 80,
    };
    let growth = 1 + u64::from(capacity).div_ceil(share * u64::from(k));
    let mut rounds = Vec::new();
    let mut seen = 0;
    while seen < n_tiles {
        let wanted = if seen == 0 { u64::from(capacity / TILE) } else { u64::from(seen) * growth };
        let end = wanted.min(u64::from(n_tiles)) as u32;
        rounds.push(seen..end);
        seen = end;
    }
    rounds
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
