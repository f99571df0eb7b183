//! Paired tests against scipy and full enumeration.

use super::{assert_usage_error, golden_json};
use serde_json::Value;
use warpseek::eval::significance::{SignificanceOptions, compare_paired, student_t_two_sided};

#[test]
fn paired_tests_of_golden_values_equal_scipy_and_full_enumeration() {
    for case in golden_json("significance.json")["comparisons"].as_array().unwrap() {
        let values =
            |field: &str| -> Vec<f64> { serde_json::from_value(case[field].clone()).unwrap() };
        let number = |field: &str| case[field].as_f64().unwrap();
        let (name, baseline, system) = (&case["name"], values("baseline"), values("system"));
        let got = compare_paired(&baseline, &system, &SignificanceOptions::default()).unwrap();

        assert_eq!(got.queries, baseline.len());
        assert_eq!(
            [got.wins, got.ties, got.losses].map(Value::from).to_vec(),
            [case["wins"].clone(), case["ties"].clone(), case["losses"].clone()]
        );
        assert!((got.difference - number("difference")).abs() < 1e-12, "{name}");
        assert!((got.mean_system - got.mean_baseline - got.difference).abs() < 1e-12, "{name}");
        let t = got.t_test.unwrap();
        assert!((t.t - number("t")).abs() < 1e-9, "{name}: {t:?}");
        assert!((t.p_value - number("t_p")).abs() < 1e-9, "{name}: {t:?}");

        let (p, wanted) = (got.randomisation.p_value, number("randomisation_p"));
        assert_eq!(got.randomisation.exact, got.wins + got.losses <= 16, "{name}");
        let deviation = (wanted * (1.0 - wanted) / 1e5).sqrt();
        let allowed = if got.randomisation.exact { 1e-12 } else { 4.0 * deviation + 1e-5 };
        assert!((p - wanted).abs() <= allowed, "{name}: {p} {wanted}");

        // An end of the interval strays by about sqrt(0.025 / resamples) / 0.058 standard errors.
        for (end, wanted) in [got.interval.0, got.interval.1].into_iter().zip(values("interval")) {
            assert!(
                (end - wanted).abs() < 0.12 * number("standard_error"),
                "{name}: {end} {wanted}"
            );
        }
    }
}

#[test]
fn student_t_tail_over_a_wide_range_equals_scipy() {
    for point in golden_json("significance.json")["student_t"].as_array().unwrap() {
        let [t, df, p] = ["t", "df", "p"].map(|field| point[field].as_f64().unwrap());
        let found = student_t_two_sided(t, df);
        assert!((found - p).abs() <= 1e-9 * p, "t {t}, df {df}: {found} {p}");
    }
    assert_eq!(student_t_two_sided(f64::INFINITY, 3.0), 0.0);
}

#[test]
fn paired_tests_with_the_same_seed_give_the_same_result_and_with_another_do_not() {
    let baseline: Vec<f64> = (0..50).map(|i| f64::from(i * 37 % 50) / 50.0).collect();
    let system: Vec<f64> = (0..50).map(|i| f64::from(i * 31 % 50) / 49.0).collect();
    let options = SignificanceOptions { permutations: 5000, resamples: 2000, seed: 7 };
    let first = compare_paired(&baseline, &system, &options).unwrap();
    assert_eq!(first, compare_paired(&baseline, &system, &options).unwrap());
    let other = SignificanceOptions { seed: 8, ..options };
    assert_ne!(first, compare_paired(&baseline, &system, &other).unwrap());
    assert_eq!((first.randomisation.exact, first.randomisation.permutations), (false, 5000));
}

#[test]
fn paired_tests_of_equal_systems_find_nothing() {
    let values = [0.1, 0.2, 0.3];
    let rounded = values.map(|value| value + 1e-13);
    let got = compare_paired(&values, &rounded, &SignificanceOptions::default()).unwrap();
    assert_eq!((got.wins, got.ties, got.losses), (0, 3, 0));
    assert_eq!((got.difference, got.interval), (0.0, (0.0, 0.0)));
    assert_eq!((got.randomisation.p_value, got.randomisation.exact), (1.0, true));
    assert_eq!(got.t_test, None);
}

#[test]
fn paired_tests_of_a_constant_gain_leave_t_undefined_and_count_signs() {
    let baseline = [0.1, 0.2, 0.3, 0.4];
    let system = baseline.map(|value| value + 0.1);
    let got = compare_paired(&baseline, &system, &SignificanceOptions::default()).unwrap();
    assert_eq!(got.t_test, None);
    assert_eq!((got.randomisation.p_value, got.randomisation.permutations), (2.0 / 16.0, 16));
}

#[test]
fn paired_tests_of_unusable_values_are_usage_errors() {
    let options = SignificanceOptions::default();
    assert_usage_error(compare_paired(&[0.1], &[0.1, 0.2], &options), "got 1 and 2 values");
    assert_usage_error(compare_paired(&[], &[], &options), "at least one query");
    assert_usage_error(compare_paired(&[f64::NAN], &[0.1], &options), "finite");
    let none = SignificanceOptions { permutations: 0, ..options };
    assert_usage_error(compare_paired(&[0.1], &[0.1], &none), "at least 1");
}
