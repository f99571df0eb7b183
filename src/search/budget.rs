//! The rerank budget: the number of rows to rerank next within a given time.
//!
//! The depth that is reached depends on the speed of the computer and its load. The result at a
//! given depth does not.

use std::time::Duration;

/// Rows that are reranked even if the budget is shorter: enough to measure the time per row.
const FIRST_ROWS: usize = 4;

/// Maximum number of rows between two readings of the clock.
const MAX_ROWS: usize = 32;

/// The number of rows to rerank next, after `done` rows took `elapsed` of `budget`; 0 to stop. At
/// most doubles `done`, since the first rows may be shorter than the next ones.
pub(super) fn rows_that_fit(budget: Duration, elapsed: Duration, done: usize) -> usize {
    if done == 0 {
        return FIRST_ROWS;
    }
    let per_row = elapsed.as_secs_f64() / done as f64;
    let left = budget.saturating_sub(elapsed).as_secs_f64();
    let fitting = if per_row > 0.0 { (left / per_row) as usize } else { MAX_ROWS };
    fitting.min(done).min(MAX_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows read within a budget if each takes `row` milliseconds.
    fn depth(budget: u64, row: u64) -> usize {
        let mut done = 0;
        loop {
            let elapsed = Duration::from_millis(done as u64 * row);
            match rows_that_fit(Duration::from_millis(budget), elapsed, done) {
                0 => return done,
                next => done += next,
            }
            if done > 1000 {
                return done;
            }
        }
    }

    #[test]
    fn rows_fill_the_budget_and_do_not_exceed_it() {
        assert_eq!([depth(300, 10), depth(300, 20), depth(100, 10)], [30, 15, 10]);
        assert_eq!([depth(0, 10), depth(1, 10), depth(41, 10)], [FIRST_ROWS; 3]);
        assert!(depth(300, 0) > 1000);
    }

    #[test]
    fn steps_stay_short_however_large_the_budget_is() {
        let hour = Duration::from_secs(3600);
        assert_eq!(rows_that_fit(hour, Duration::ZERO, 0), FIRST_ROWS);
        assert_eq!(rows_that_fit(hour, Duration::from_millis(40), 4), 4);
        assert_eq!(rows_that_fit(hour, Duration::from_secs(5), 500), MAX_ROWS);
        assert_eq!(rows_that_fit(Duration::from_secs(1), Duration::from_secs(2), 50), 0);
    }
}
