//! Evaluation: qrels, runs, measures and significance, against figures made by
//! `golden/eval/make_eval.py` with pytrec_eval, ir_measures and scipy.

mod files;
mod significance;

use crate::support::shared_data;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use warpseek::error::{Error, Result};
use warpseek::eval::measures::{EvaluateOptions, Evaluation, Measure, evaluate};
use warpseek::eval::qrels::Qrels;
use warpseek::eval::run::Run;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/eval").join(name)
}

fn golden_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap()
}

fn qrels(text: &str) -> Result<Qrels> {
    Qrels::from_reader(text.as_bytes(), "judged")
}

fn assert_usage_error<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    let error = result.expect_err(part);
    assert!(matches!(error, Error::Usage(_)), "{error:?}");
    assert!(error.to_string().contains(part), "{error}");
}

/// Every measure of every query, and every mean, within 1e-9 of pytrec_eval's.
fn assert_case_matches(name: &str) {
    let data = golden_json("measures.json");
    let case = data["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let file = |field: &str| golden(case[field].as_str().unwrap());
    let judged = Qrels::read(file("qrels")).unwrap();
    let answers = Run::read(file("run")).unwrap();
    let expected_means = case["mean"].as_object().unwrap();
    let measures: Vec<Measure> = expected_means.keys().map(|name| name.parse().unwrap()).collect();
    assert_eq!(measures.len(), 9);
    let options = EvaluateOptions {
        relevance_level: case["relevance_level"].as_i64().unwrap() as i32,
        drop_self: case["drop_self"].as_bool().unwrap(),
    };
    let got = evaluate(&answers, &judged, &measures, &options).unwrap();

    let count = |field: &str| case[field].as_u64().unwrap() as usize;
    assert_eq!(got.judged, count("judged"));
    assert_eq!(got.answered, count("answered"));
    assert_eq!(got.unjudged, count("unjudged"));
    assert_eq!(got.without_relevant, count("without_relevant"));
    assert_eq!(got.per_query.len(), got.judged);
    for ((measure, mean), found) in expected_means.iter().zip(&got.mean) {
        assert!((found - mean.as_f64().unwrap()).abs() < 1e-9, "{name} {measure}: {found} {mean}");
    }
    for scores in &got.per_query {
        let expected = &case["per_query"][&scores.query];
        for (measure, found) in measures.iter().zip(&scores.values) {
            let wanted = expected[measure.to_string()].as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-9, "{name} {} {measure}: {found}", scores.query);
        }
    }
}

#[test]
fn measures_of_golden_runs_equal_trec_eval() {
    // Graded and binary qrels, higher relevance levels, ranks instead of scores, gzip, and queries
    // in their own ranking.
    for name in [
        "graded",
        "graded_level_2",
        "graded_level_3",
        "ranks",
        "binary",
        "binary_zipped",
        "self_kept",
        "self_dropped",
    ] {
        assert_case_matches(name);
    }
}

/// BM25 over the TREC Deep Learning passages, if the shared data is present.
#[test]
fn measures_of_bm25_on_trec_deep_learning_equal_the_known_figures() {
    let Some(data) = shared_data() else { return assert_case_matches("ranks") };
    for (set, ndcg) in [("trec-dl19", 0.5058), ("trec-dl20", 0.4796)] {
        let judged = Qrels::read(data.join(set).join("qrels/full.trec.txt")).unwrap();
        let bm25 = Run::read(data.join(set).join("runs/bm25.tsv")).unwrap();
        let got = evaluate_default(&bm25, &judged, &[Measure::Ndcg(10)]);
        assert!((got.mean[0] - ndcg).abs() < 5e-5, "{set}: {}", got.mean[0]);
        assert_eq!(got.answered, got.judged);
    }
}

fn evaluate_default(run: &Run, qrels: &Qrels, measures: &[Measure]) -> Evaluation {
    evaluate(run, qrels, measures, &EvaluateOptions::default()).unwrap()
}

#[test]
fn measures_of_a_document_ranked_twice_count_its_first_place() {
    let judged = qrels("q 0 a 1\nq 0 b 1\n").unwrap();
    let mut answers = Run::new();
    let ranking = ["a", "a", "b"].map(|id| (id.to_owned(), 1.0)).to_vec();
    answers.insert("q", ranking).unwrap();
    let measures = [Measure::Precision(2), Measure::Recall(2), Measure::AveragePrecision];
    assert_eq!(evaluate_default(&answers, &judged, &measures).mean, [1.0, 1.0, 1.0]);
}

#[test]
fn measure_names_in_any_case_parse_and_print_back() {
    for (name, printed) in [
        ("nDCG@10", "ndcg@10"),
        ("MRR@10", "mrr@10"),
        ("RR@3", "mrr@3"),
        ("recall@100", "recall@100"),
        ("R@1000", "recall@1000"),
        ("P@5", "p@5"),
        ("MAP", "map"),
        ("ap", "map"),
    ] {
        let measure: Measure = name.parse().unwrap();
        assert_eq!(measure.to_string(), printed);
        assert_eq!(printed.parse::<Measure>().unwrap(), measure);
    }
}

#[test]
fn measure_name_unknown_lists_the_known_ones() {
    for name in ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@ten", "map@10", "err@10", ""] {
        assert_usage_error(
            name.parse::<Measure>(),
            &format!("unknown measure '{name}': choose from ndcg@K, mrr@K, recall@K, p@K"),
        );
    }
}

#[test]
fn evaluate_with_senseless_options_is_a_usage_error() {
    let judged = qrels("q 0 a 1\n").unwrap();
    let (answers, options) = (Run::new(), EvaluateOptions::default());
    let level_0 = EvaluateOptions { relevance_level: 0, ..options };
    let map = [Measure::AveragePrecision];
    assert_usage_error(evaluate(&answers, &judged, &map, &level_0), "relevance level 0");
    assert_usage_error(evaluate(&answers, &judged, &[], &options), "no measure is given");
    let cut = [Measure::Recall(0)];
    assert_usage_error(evaluate(&answers, &judged, &cut, &options), "cut-off must be at least 1");
    let none = Qrels::new();
    assert_usage_error(evaluate(&answers, &none, &map, &options), "no qrels");
}
