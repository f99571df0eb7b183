//! Retrieval quality on judged collections, with the real model. Without the public collections the
//! demo corpus is checked.

use crate::support::cli::{ProgramRun, Workplace, assert_holds, finish, with_real_model};
use crate::support::{paper_chunks, shared_data};
use std::path::Path;

/// Runs with the real embedder and without a reranker, so that the retrieval is measured.
fn run(place: &Workplace, args: &[&str]) -> ProgramRun {
    finish(with_real_model(&mut place.command(args)).env("WARPSEEK_RERANKER", "none"))
}

fn means(place: &Workplace, queries: &Path, qrels: &Path) -> serde_json::Value {
    let (queries, qrels) = (queries.display().to_string(), qrels.display().to_string());
    let args = ["eval", "idx", "--queries", &queries, "--qrels", &qrels, "--json"];
    run(place, &args).ok().json()["systems"][0]["mean"].clone()
}

fn assert_near(got: &serde_json::Value, expected: f64, bound: f64, what: &str) {
    let got = got.as_f64().unwrap();
    assert!((got - expected).abs() <= bound, "{what}: {got}, expected {expected} +- {bound}");
}

#[test]
fn scifact_reaches_the_reference_scores() {
    let place = Workplace::new();
    let Some(data) = shared_data() else {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo");
        let corpus = demo.join("corpus.jsonl").display().to_string();
        run(&place, &["index", &corpus, "--into", "idx"]).ok();
        let mean = means(&place, &demo.join("queries.jsonl"), &demo.join("qrels/test.tsv"));
        // Measured with sentence-transformers and pytrec_eval.
        assert_near(&mean["ndcg@10"], 0.794, 0.003, "demo nDCG@10");
        return;
    };
    let scifact = data.join("scifact");
    let corpus = scifact.join("corpus.jsonl").display().to_string();
    let report = run(&place, &["index", &corpus, "--into", "idx", "--json"]).ok().json();
    assert_eq!(report["added"], 5183);
    let mean = means(&place, &scifact.join("queries.jsonl"), &scifact.join("qrels/test.tsv"));
    // The reference forward pass.
    assert_near(&mean["ndcg@10"], 0.6451, 0.003, "nDCG@10");
    assert_near(&mean["recall@100"], 0.9250, 0.005, "recall@100");
    run(&place, &["verify", "idx", "--sample", "12"]).ok();
}

#[test]
fn chunked_papers_are_searched_compared_and_answered_in_a_batch() {
    let Some(data) = shared_data() else {
        eprintln!("only the commands' own tests cover the notebook's schema here");
        return;
    };
    let place = Workplace::new();
    place.file("papers.jsonl", paper_chunks(&data, 600).join("\n"));
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
    assert_holds(&run(&place, &["compare", "idx", question]).ok().stdout, &["hybrid #1 was"]);
    let queries = data.join("arxiv-chunked/queries.jsonl").display().to_string();
    run(&place, &["batch", "idx", &queries, "--out", "answers.jsonl"]).ok();
    let answers = place.lines("answers.jsonl");
    assert_eq!(answers.len(), 500);
    assert!(answers.iter().all(|a| a["hits"].as_array().unwrap().len() == 10));
}
