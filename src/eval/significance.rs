//! Paired significance tests of two systems over the same queries.

use crate::error::{Error, Result};
use fastrand::Rng;
use statrs::function::beta::checked_beta_reg;

/// Options of the sampling tests. The same seed gives the same result on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignificanceOptions {
    /// Seed of the random numbers.
    pub seed: u64,
    /// The number of sign patterns that the randomisation test draws if it does not enumerate all;
    /// at least 1.
    pub permutations: u32,
    /// The number of samples of the queries that the bootstrap draws; at least 1.
    pub resamples: u32,
}

impl Default for SignificanceOptions {
    fn default() -> Self {
        Self { seed: 0, permutations: 100_000, resamples: 10_000 }
    }
}

/// Comparison of two systems over the same queries. Differences are `system - baseline`.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedComparison {
    /// The number of queries.
    pub queries: usize,
    /// The baseline's mean.
    pub mean_baseline: f64,
    /// The system's mean.
    pub mean_system: f64,
    /// The mean difference; the system is better if it is above 0.
    pub difference: f64,
    /// Queries on which the system is better.
    pub wins: usize,
    /// Queries on which both are equal (within [`TIE`]).
    pub ties: usize,
    /// Queries on which the system is worse.
    pub losses: usize,
    /// The 95% confidence interval of the mean difference by the bootstrap: the 2.5th and 97.5th
    /// percentile of the mean differences of samples of the queries drawn with replacement (Efron
    /// and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    pub interval: (f64, f64),
    /// The paired randomisation test.
    pub randomisation: Randomisation,
    /// The paired t-test; `None` with fewer than two queries, or if all differences are equal and t
    /// is not defined.
    pub t_test: Option<TTest>,
}

/// Fisher's paired randomisation test, two-sided (Smucker, Allan and Carterette, CIKM 2007). If the
/// systems are equally good, each difference may have either sign. The p-value is the share of sign
/// patterns whose mean is at least as far from 0 as the observed one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Randomisation {
    /// The exact share of sign patterns, or if they are sampled (hits + 1) / (permutations + 1),
    /// which is never 0 (Phipson and Smyth, Statistical Applications in Genetics and Molecular
    /// Biology 9(1), 2010).
    pub p_value: f64,
    /// True if every sign pattern was enumerated: at most [`EXACT_LIMIT`] queries differ.
    pub exact: bool,
    /// The number of sign patterns that were evaluated.
    pub permutations: u64,
}

/// Student's paired t-test, two-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TTest {
    /// The mean difference, in standard errors.
    pub t: f64,
    /// The number of queries less one.
    pub degrees_of_freedom: usize,
    /// The probability of a t at least this far from 0 if the true mean difference is 0.
    pub p_value: f64,
}

/// Differences up to this size are rounding errors and count as 0.
pub const TIE: f64 = 1e-9;

/// The largest number of differing queries for which all sign patterns are enumerated.
pub const EXACT_LIMIT: usize = 16;

/// Compares two systems by one measure, query by query: `baseline[i]` and `system[i]` belong to
/// the same query.
///
/// # Errors
///
/// [`Error::Usage`] if the lengths differ, there is no query, a value is not finite, or
/// `permutations` or `resamples` is 0.
pub fn compare_paired(
    baseline: &[f64],
    system: &[f64],
    options: &SignificanceOptions,
) -> Result<PairedComparison> {
    check(baseline, system, options)?;
    let pairs = baseline.iter().zip(system);
    let differences: Vec<f64> = pairs
        .map(|(before, after)| after - before)
        .map(|difference| if difference.abs() <= TIE { 0.0 } else { difference })
        .collect();
    let wins = differences.iter().filter(|&&d| d > 0.0).count();
    let losses = differences.iter().filter(|&&d| d < 0.0).count();
    Ok(PairedComparison {
        queries: differences.len(),
        mean_baseline: mean(baseline),
        mean_system: mean(system),
        difference: mean(&differences),
        wins,
        ties: differences.len() - wins - losses,
        losses,
        interval: bootstrap(&differences, options),
        randomisation: randomise(&differences, options),
        t_test: t_test(&differences),
    })
}

/// The probability that a Student t variable with `degrees_of_freedom` (above 0) is at least as far
/// from 0 as `t`: `I_x(df/2, 1/2)` at `x = df / (df + t^2)`, with the regularised incomplete beta
/// function I (Abramowitz and Stegun, 26.5.27 and 26.7.1).
pub fn student_t_two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    let (half, square) = (degrees_of_freedom / 2.0, t * t);
    let sum = degrees_of_freedom + square;
    let (x, rest) = (degrees_of_freedom / sum, square / sum);
    // Near 1, x has lost the digits of a small t. `I_x(a, b) = 1 - I_(1-x)(b, a)` keeps them.
    let p = if x < (half + 1.0) / (half + 2.5) {
        checked_beta_reg(half, 0.5, x)
    } else {
        checked_beta_reg(0.5, half, rest).map(|q| 1.0 - q)
    };
    p.unwrap_or(f64::NAN)
}

fn check(baseline: &[f64], system: &[f64], options: &SignificanceOptions) -> Result<()> {
    if baseline.len() != system.len() {
        return Err(Error::usage(format!(
            "a paired test needs the same queries for both systems: got {} and {} values",
            baseline.len(),
            system.len()
        )));
    }
    if baseline.is_empty() {
        return Err(Error::usage("a paired test needs at least one query"));
    }
    if baseline.iter().chain(system).any(|value| !value.is_finite()) {
        return Err(Error::usage("a paired test needs finite values"));
    }
    if options.permutations == 0 || options.resamples == 0 {
        return Err(Error::usage("permutations and resamples must be at least 1"));
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The randomisation test. Queries without a difference change no sum, so only the others get
/// signs.
fn randomise(differences: &[f64], options: &SignificanceOptions) -> Randomisation {
    let sizes: Vec<f64> = differences.iter().filter(|&&d| d != 0.0).map(|d| d.abs()).collect();
    let observed = differences.iter().sum::<f64>().abs();
    // Patterns with an equal sum in exact arithmetic count as hits despite rounding.
    let threshold = observed - 1e-10 * sizes.iter().sum::<f64>();
    if sizes.len() <= EXACT_LIMIT {
        let patterns = 1u64 << sizes.len();
        let hits = (0..patterns).filter(|&p| signed_sum(&sizes, || p).abs() >= threshold).count();
        let p_value = hits as f64 / patterns as f64;
        return Randomisation { p_value, exact: true, permutations: patterns };
    }
    let mut random = Rng::with_seed(options.seed);
    let hits = (0..options.permutations)
        .filter(|_| signed_sum(&sizes, || random.u64(..)).abs() >= threshold)
        .count();
    let permutations = u64::from(options.permutations);
    let p_value = (hits as f64 + 1.0) / (permutations as f64 + 1.0);
    Randomisation { p_value, exact: false, permutations }
}

/// The sum of `sizes` with signs from random bits, 64 at a time. A set bit is a minus.
fn signed_sum(sizes: &[f64], mut bits: impl FnMut() -> u64) -> f64 {
    let mut sum = 0.0;
    for group in sizes.chunks(64) {
        let mut signs = bits();
        for &size in group {
            sum += f64::from_bits(size.to_bits() | (signs & 1) << 63);
            signs >>= 1;
        }
    }
    sum
}

fn bootstrap(differences: &[f64], options: &SignificanceOptions) -> (f64, f64) {
    // A separate generator: neither test depends on how many numbers the other draws.
    let mut random = Rng::with_seed(!options.seed);
    let mut means: Vec<f64> = (0..options.resamples)
        .map(|_| {
            let n = differences.len();
            (0..n).map(|_| differences[random.usize(..n)]).sum::<f64>() / n as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (percentile(&means, 0.025), percentile(&means, 0.975))
}

/// The percentile `share` (0 to 1) of sorted values, interpolated linearly.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    low + (high - low) * position.fract()
}

fn t_test(differences: &[f64]) -> Option<TTest> {
    let n = differences.len();
    let mean = mean(differences);
    let squares: f64 = differences.iter().map(|d| (d - mean) * (d - mean)).sum();
    let deviation = (squares / n.checked_sub(1).filter(|&df| df > 0)? as f64).sqrt();
    // If all differences are equal, their deviation is pure rounding error.
    if deviation <= TIE * mean.abs() || deviation == 0.0 {
        return None;
    }
    let t = mean / (deviation / (n as f64).sqrt());
    Some(TTest { t, degrees_of_freedom: n - 1, p_value: student_t_two_sided(t, (n - 1) as f64) })
}
