//! Whether one system is better than another, or the queries just happened to fall that way.

use crate::error::{Error, Result};

/// How the sampling tests sample. The same seed gives the same result on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignificanceOptions {
    /// Where the random numbers start.
    pub seed: u64,
    /// How many sign patterns the randomisation test draws when it does not take all; at least 1.
    pub permutations: u32,
    /// How many samples of the queries the bootstrap draws; at least 1.
    pub resamples: u32,
}

impl Default for SignificanceOptions {
    fn default() -> Self {
        Self { seed: 0, permutations: 100_000, resamples: 10_000 }
    }
}

/// Two systems over the same queries. Differences are `system - baseline`.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedComparison {
    /// How many queries both were measured on.
    pub queries: usize,
    /// The baseline's mean.
    pub mean_baseline: f64,
    /// The system's mean.
    pub mean_system: f64,
    /// The mean difference; above 0 the system is better.
    pub difference: f64,
    /// Queries on which the system is better.
    pub wins: usize,
    /// Queries on which both are equal (within [`TIE`]).
    pub ties: usize,
    /// Queries on which the system is worse.
    pub losses: usize,
    /// The 95% confidence interval of the mean difference, from the bootstrap: the 2.5th and the
    /// 97.5th percentile of the mean differences of samples of the queries drawn with replacement
    /// (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    pub interval: (f64, f64),
    /// The paired randomisation test.
    pub randomisation: Randomisation,
    /// The paired t-test; `None` with fewer than two queries, or where all differences are equal
    /// and t is not defined.
    pub t_test: Option<TTest>,
}

/// Fisher's paired randomisation test, two-sided: if the systems were alike, each difference could
/// as well have had the other sign; how often is the mean then at least as far from 0?
/// (Smucker, Allan and Carterette, CIKM 2007.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Randomisation {
    /// Exact: the share of sign patterns. Sampled: (hits + 1) / (permutations + 1), which is
    /// never 0 (Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology
    /// 9(1), 2010).
    pub p_value: f64,
    /// Whether every sign pattern was looked at, as is done when at most [`EXACT_LIMIT`] queries
    /// differ.
    pub exact: bool,
    /// How many sign patterns were looked at.
    pub permutations: u64,
}

/// Student's paired t-test, two-sided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TTest {
    /// The mean difference in units of its standard error.
    pub t: f64,
    /// Queries less one.
    pub degrees_of_freedom: usize,
    /// The chance of a t at least this far from 0 if the true mean difference is 0.
    pub p_value: f64,
}

/// Differences up to this size are rounding, and count as none.
pub const TIE: f64 = 1e-9;

/// Up to so many queries that differ, the randomisation test takes all sign patterns.
pub const EXACT_LIMIT: usize = 16;

/// Compares two systems by one measure, query by query: `baseline[i]` and `system[i]` belong to
/// the same query.
///
/// # Errors
///
/// [`Error::Usage`] if the lengths differ, there is no query, a value is not finite, or the options
/// ask for no permutation or no resample.
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

/// The chance that a Student t variable with `degrees_of_freedom` (above 0) is at least as far
/// from 0 as `t`: `I_x(df/2, 1/2)` at `x = df / (df + t^2)`, with the regularised incomplete beta
/// function I (Abramowitz and Stegun, 26.5.27 and 26.7.1).
pub fn student_t_two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    let square = t * t;
    let whole = degrees_of_freedom + square;
    incomplete_beta(degrees_of_freedom / 2.0, 0.5, degrees_of_freedom / whole, square / whole)
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

/// Queries without a difference change no sum, so only the others get signs.
fn randomise(differences: &[f64], options: &SignificanceOptions) -> Randomisation {
    let sizes: Vec<f64> = differences.iter().filter(|&&d| d != 0.0).map(|d| d.abs()).collect();
    let observed = differences.iter().sum::<f64>().abs();
    // Patterns with an equal sum in exact arithmetic count as hits, whatever the rounding.
    let threshold = observed - 1e-10 * sizes.iter().sum::<f64>();
    if sizes.len() <= EXACT_LIMIT {
        let patterns = 1u64 << sizes.len();
        let hits = (0..patterns).filter(|&p| signed_sum(&sizes, || p).abs() >= threshold).count();
        let p_value = hits as f64 / patterns as f64;
        return Randomisation { p_value, exact: true, permutations: patterns };
    }
    let mut random = SplitMix64::new(options.seed);
    let hits = (0..options.permutations)
        .filter(|_| signed_sum(&sizes, || random.next()).abs() >= threshold)
        .count();
    let permutations = u64::from(options.permutations);
    let p_value = (hits as f64 + 1.0) / (permutations as f64 + 1.0);
    Randomisation { p_value, exact: false, permutations }
}

/// The sum of `sizes` with signs from random bits, 64 at a time: a set bit is a minus.
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
    // A stream of its own, so that neither test depends on how much the other draws.
    let mut random = SplitMix64::new(!options.seed);
    let mut means: Vec<f64> = (0..options.resamples)
        .map(|_| {
            let picks =
                (0..differences.len()).map(|_| differences[random.below(differences.len())]);
            picks.sum::<f64>() / differences.len() as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    (percentile(&means, 0.025), percentile(&means, 0.975))
}

/// The value at `share` of the way through sorted values, between neighbours in proportion.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

fn t_test(differences: &[f64]) -> Option<TTest> {
    let n = differences.len();
    let mean = mean(differences);
    let squares: f64 = differences.iter().map(|d| (d - mean) * (d - mean)).sum();
    let deviation = (squares / n.checked_sub(1).filter(|&df| df > 0)? as f64).sqrt();
    // Equal differences leave a deviation of pure rounding, far below any that was measured.
    if deviation <= TIE * mean.abs() || deviation == 0.0 {
        return None;
    }
    let t = mean / (deviation / (n as f64).sqrt());
    Some(TTest { t, degrees_of_freedom: n - 1, p_value: student_t_two_sided(t, (n - 1) as f64) })
}

/// The regularised incomplete beta function `I_x(a, b)`; `rest` is `1 - x`, given apart because
/// near 1 it would lose its digits. By the continued fraction where that converges fast, else by
/// the symmetry `I_x(a, b) = 1 - I_(1-x)(b, a)` (NIST Digital Library of Mathematical Functions,
/// 8.17.22 and 8.17.4).
fn incomplete_beta(a: f64, b: f64, x: f64, rest: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if rest <= 0.0 {
        return 1.0;
    }
    let ln_beta = ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b);
    let front = (a * x.ln() + b * rest.ln() - ln_beta).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, rest) / b
    }
}

/// The continued fraction `1 / (1 + d1 / (1 + d2 / (1 + ...)))` of DLMF 8.17.22, by the modified
/// Lentz method (DLMF 3.10(iii)).
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const MOST_TERMS: u32 = 100_000;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let (mut value, mut c, mut d) = (1.0, 1.0, 0.0);
    for term in 1..=MOST_TERMS {
        let m = f64::from(term / 2);
        let coefficient = if term % 2 == 0 {
            m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        };
        d = 1.0 / away_from_zero(1.0 + coefficient * d);
        c = away_from_zero(1.0 + coefficient / c);
        value *= c * d;
        if (c * d - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    1.0 / value
}

/// The logarithm of the gamma function of `x > 0`: Stirling's series (DLMF 5.11.1), after
/// `gamma(x) = gamma(x + 1) / x` has lifted `x` to where six terms are exact to 64-bit rounding.
fn ln_gamma(x: f64) -> f64 {
    /// `B(2k) / (2k (2k - 1))` for k from 1, with the Bernoulli numbers B.
    const TERMS: [f64; 6] =
        [1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0, -691.0 / 360_360.0];
    let (mut lifted, mut product) = (x, 1.0);
    while lifted < 16.0 {
        product *= lifted;
        lifted += 1.0;
    }
    let inverse_square = 1.0 / (lifted * lifted);
    let series = TERMS.iter().rev().fold(0.0, |sum, term| sum * inverse_square + term) / lifted;
    (lifted - 0.5) * lifted.ln() - lifted + 0.5 * std::f64::consts::TAU.ln() + series - product.ln()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a counter in steps of the golden ratio,
/// scrambled. One word of state, any seed, period 2^64.
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `n - 1`: the high half of a 128-bit product. Its bias, at most n / 2^64,
    /// is far below what any number of samples could show.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_from_a_known_seed_gives_the_published_numbers() {
        let mut random = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn ln_gamma_of_whole_and_half_numbers_is_the_logarithm_of_the_exact_value() {
        let factorials = (1..20u32).map(|n| (f64::from(n + 1), (1..=n).map(f64::from).product()));
        let halves = [(0.5, std::f64::consts::PI.sqrt()), (1.5, std::f64::consts::PI.sqrt() / 2.0)];
        for (x, exact) in factorials.chain(halves) {
            let exact: f64 = exact;
            assert!((ln_gamma(x) - exact.ln()).abs() < 1e-13 * exact.ln().abs().max(1.0), "{x}");
        }
    }
}
