//! Retrieval quality on judged collections, with the real model.
//!
//! The collections lie outside the repository: in the folder that `WARPSEEK_SHARED` names, else in
//! `../shared`. Where they are absent the same is checked on the demo corpus.

use crate::support::cli::{Run, Workplace, finish, with_real_model};
use std::path::{Path, PathBuf};

pub(crate) fn shared() -> Option<PathBuf> {
    let folder = std::env::var_os("WARPSEEK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let data = folder.join("data");
    if data.is_dir() {
        return Some(data);
    }
    eprintln!("{} is not there: using the small data of the repository instead", data.display());
    None
}

/// Runs with the real embedder and without a reranker: what is judged here is the retrieval.
fn run(place: &Workplace, args: &[&str]) -> Run {
    finish(with_real_model(&mut place.command(args)).env("WARPSEEK_RERANKER", "none"))
}

fn means(place: &Workplace, queries: &Path, qrels: &Path, more: &[&str]) -> serde_json::Value {
    let (queries, qrels) = (queries.display().to_string(), qrels.display().to_string());
    let mut args = vec!["eval", "idx", "--queries", &queries, "--qrels", &qrels, "--json"];
    args.extend(more);
    run(place, &args).ok().json()["systems"][0]["mean"].clone()
}

fn assert_near(got: &serde_json::Value, expected: f64, bound: f64, what: &str) {
    let got = got.as_f64().unwrap();
    assert!((got - expected).abs() <= bound, "{what}: {got}, expected {expected} +- {bound}");
}

#[test]
fn scifact_reaches_the_reference_scores() {
    let place = Workplace::new();
    let Some(data) = shared() else {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo");
        let corpus = demo.join("corpus.jsonl").display().to_string();
        run(&place, &["index", &corpus, "--into", "idx"]).ok();
        let mean = means(&place, &demo.join("queries.jsonl"), &demo.join("qrels/test.tsv"), &[]);
        // Measured with sentence-transformers and pytrec_eval.
        assert_near(&mean["ndcg@10"], 0.794, 0.003, "demo nDCG@10");
        return;
    };
    let scifact = data.join("scifact");
    let corpus = scifact.join("corpus.jsonl").display().to_string();
    let report = run(&place, &["index", &corpus, "--into", "idx", "--json"]).ok().json();
    assert_eq!(report["added"], 5183);
    let mean = means(&place, &scifact.join("queries.jsonl"), &scifact.join("qrels/test.tsv"), &[]);
    // The reference forward pass.
    assert_near(&mean["ndcg@10"], 0.6451, 0.003, "nDCG@10");
    assert_near(&mean["recall@100"], 0.9250, 0.005, "recall@100");
    run(&place, &["verify", "idx", "--sample", "12"]).ok();
}

#[test]
fn chunked_papers_are_searched_compared_and_answered_in_a_batch() {
    let Some(data) = shared() else {
        eprintln!("only the commands' own tests cover the notebook's schema here");
        return;
    };
    let place = Workplace::new();
    let folder = data.join("arxiv-chunked");
    let file = std::fs::File::open(folder.join("train.jsonl.gz")).unwrap();
    let lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file));
    let first: Vec<String> = std::io::BufRead::lines(lines).take(600).map(|l| l.unwrap()).collect();
    place.file("papers.jsonl", first.join("\n"));
    let report = run(&place, &["index", "papers.jsonl", "--into", "idx", "--json"]).ok().json();
    assert_eq!(report["added"], 600);
    let question = "can you explain why we would want to do rlhf?";
    let hits = run(&place, &["search", "idx", question, "--json"]).ok().json();
    assert_eq!(hits["hits"].as_array().unwrap().len(), 10);
    let filter = "primary_category = 'cs.CL' AND published >= '2024'";
    let some = run(&place, &["search", "idx", question, "--json", "--filter", filter]).ok().json();
    for hit in some["hits"].as_array().unwrap() {
        assert_eq!(hit["metadata"]["primary_category"], "cs.CL");
        assert!(hit["metadata"]["published"].as_str().unwrap() >= "2024");
    }
    let comparison = run(&place, &["compare", "idx", question]).ok().stdout;
    assert!(comparison.contains("hybrid #1 was"), "{comparison}");
    let queries = folder.join("queries.jsonl").display().to_string();
    run(&place, &["batch", "idx", &queries, "--out", "answers.jsonl"]).ok();
    let answers = crate::golden::lines(&place.path("answers.jsonl"));
    assert_eq!(answers.len(), 500);
    assert!(answers.iter().all(|a| a["hits"].as_array().unwrap().len() == 10));
}
