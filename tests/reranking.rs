//! Reranking from the command line: the choice of the reranker, the order, and its evaluation.

use crate::cli::{ids, indexed, search};
use crate::support::cli::{Workplace, assert_holds, finish, small_reranker};
use serde_json::{Value, json};

#[test]
fn search_without_a_reranker_says_so_and_refuses_an_explicit_depth() {
    let place = indexed(20);
    let note = "showing the retrieval order: no reranker is present";
    let run = place.run(&["search", "idx", "river"]).ok();
    assert_eq!(run.stderr.matches(note).count(), 1);
    assert!(run.stderr.contains("warpseek models pull ms-marco-MiniLM-L6-v2"), "{}", run.stderr);
    for quiet in ["--no-rerank", "--reranker=none", "--quiet"] {
        let run = place.run(&["search", "idx", "river", quiet]).ok();
        assert!(!run.stderr.contains(note), "{quiet}");
    }
    let run = place.run(&["search", "idx", "river", "--rerank-depth", "10"]);
    run.fails(3, &["reranker", "none is present locally", "models pull"]);
}

#[test]
fn search_with_a_reranker_orders_by_its_logit_and_keeps_both_ranks() {
    let place = indexed(80);
    let reranker = small_reranker();
    let more = ["-k", "80", "--reranker", reranker.as_str(), "--rerank-depth", "30"];
    let reranked = search(&place, "storm bread clock", &more);
    let plain = ids(&search(&place, "storm bread clock", &["-k", "80", "--no-rerank"]));
    let hits = reranked["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 80);
    let logits: Vec<f64> = hits[..30].iter().map(|h| h["rerank_logit"].as_f64().unwrap()).collect();
    assert!(logits.is_sorted_by(|a, b| a >= b));
    for hit in &hits[..30] {
        let logit = hit["rerank_logit"].as_f64().unwrap();
        let score = hit["rerank_score"].as_f64().unwrap();
        assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
        assert_eq!(hit["rerank_score"], hit["final_score"]);
        let [start, end] = [0, 1].map(|i| hit["window"][i].as_u64().unwrap() as usize);
        assert_eq!((start, end), (0, hit["text"].as_str().unwrap().len()));
    }
    // Deeper hits keep their rank, and the retrieval order is that of a plain search.
    for (i, hit) in hits.iter().enumerate() {
        let retrieved = hit["retrieved_rank"].as_u64().unwrap() as usize;
        assert_eq!(hit["id"], plain[retrieved - 1]);
        assert!(i < 30 || (retrieved == i + 1 && hit.get("rerank_logit").is_none()));
    }
    assert_ne!(ids(&reranked), plain);
}

#[test]
fn search_with_a_retriever_weight_blends_standard_scores() {
    let place = indexed(40);
    let reranker = small_reranker();
    let with = |weight: &str| {
        let more = ["--reranker", &reranker, "--rerank-depth", "20", "--retriever-weight", weight];
        search(&place, "the quick river", &[&["-k", "20"][..], &more].concat())
    };
    let value = |hit: &Value, key: &str| hit[key].as_f64().unwrap();
    let hits = |result: &Value| result["hits"].as_array().unwrap().clone();
    let blended = hits(&with("0.25"));
    let z = |key: &str| -> Vec<f64> {
        let values: Vec<f64> = blended.iter().map(|h| value(h, key)).collect();
        let mean = values.iter().sum::<f64>() / 20.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20.0;
        values.iter().map(|v| (v - mean) / variance.sqrt()).collect()
    };
    for ((hit, score), logit) in blended.iter().zip(z("score")).zip(z("rerank_logit")) {
        let expected = 0.25 * score + 0.75 * logit;
        assert!((value(hit, "final_score") - expected).abs() < 1e-3, "{hit}");
    }
    assert!(blended.is_sorted_by(|a, b| value(a, "final_score") >= value(b, "final_score")));
    for (key, weight) in [("rerank_logit", "0"), ("score", "1")] {
        let hits = hits(&with(weight));
        assert!(hits.is_sorted_by(|a, b| value(a, key) >= value(b, key)), "{weight}");
    }
}

/// The reranker that is compiled into the program, in a folder without models.
#[cfg(feature = "builtin-reranker")]
#[test]
fn search_in_an_empty_folder_reranks_with_the_reranker_that_is_built_in() {
    let place = indexed(20);
    let run = |args: &[&str]| finish(place.command(args).env("WARPSEEK_BUILTIN_MODELS", "1")).ok();
    let result = run(&["search", "idx", "river", "--json"]).json();
    assert_eq!(result["reranker"], "warpseek-rerank-mini");
    assert!(result["hits"][0]["rerank_logit"].is_f64());
    assert!(run(&["compare", "idx", "river"]).stdout.contains("reranked #1 was retrieved #"));
    let query = "how do whales breathe?";
    let passages = [
        "The stock market closed lower on Friday after a week of heavy trading.",
        "Whales are mammals: they come to the surface to breathe air through a blowhole.",
        "A compiler turns source code into machine code.",
    ];
    let rerank = [&["rerank", query][..], &passages, &["--json"]].concat();
    let ranked = run(&rerank).json();
    assert_eq!(ranked["results"][0]["index"], 1, "{ranked}");
    // A batch reranks only on request.
    place.file("q.jsonl", "{\"_id\": \"q1\", \"text\": \"river\"}\n");
    for (more, is_reranked) in [(&[][..], false), (&["--rerank-depth", "5"], true)] {
        let args = ["batch", "idx", "q.jsonl", "--out", "out.jsonl", "--restart"];
        run(&[&args[..], more].concat());
        let out = std::fs::read_to_string(place.path("out.jsonl")).unwrap();
        assert_eq!(out.contains("\"rerank_score\":0"), is_reranked, "{more:?}");
    }
    assert!(run(&["models", "list"]).stdout.contains("built in"));
    let verified = run(&["models", "verify", "warpseek-rerank-mini"]).stdout;
    assert!(verified.starts_with("ok") && verified.contains("builtin:"), "{verified}");
    // Logits of each precision against Candle's own forward pass.
    let logits = |variable: &str, value: &str| -> Option<Vec<f64>> {
        let mut command = place.command(&rerank);
        let run = finish(command.env("WARPSEEK_BUILTIN_MODELS", "1").env(variable, value));
        if run.code == 4 {
            eprintln!("this CPU cannot compute in {value}");
            return None;
        }
        let mut results = run.ok().json()["results"].as_array().unwrap().clone();
        results.sort_by_key(|r| r["index"].as_u64());
        Some(results.iter().map(|r| r["rerank_logit"].as_f64().unwrap()).collect())
    };
    let reference = logits("WARPSEEK_ENCODER", "reference").unwrap();
    for (precision, bound) in [("f32", 1e-3), ("bf16", 0.05), ("int8", 0.3), ("auto", 0.3)] {
        let Some(got) = logits("WARPSEEK_PRECISION", precision) else { continue };
        for (got, expected) in got.iter().zip(&reference) {
            assert!((got - expected).abs() < bound, "{precision}: {got}, expected {expected}");
        }
    }
}

#[test]
fn eval_of_a_given_ranking_reranks_that_one() {
    let place = indexed(30);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    place.file("given.tsv", "q1\td9\t1\nq1\td3\t2\nq1\tstranger\t3\nq2\td4\t1\n");
    let reranker = small_reranker();
    let args = ["eval", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt", "--json"];
    let more = ["--candidates", "given.tsv", "--measures", "mrr@10", "--reranker", &reranker];
    let run = place.run(&[&args[..], &more].concat()).ok();
    assert!(run.stderr.contains("1 documents of the given ranking are not in the index"));
    let report = run.json();
    assert_eq!(
        report["candidates"],
        json!({"documents": 4, "documents_in_index": 3, "missing_queries": 0, "unused_queries": 0})
    );
    let systems = report["systems"].as_array().unwrap();
    assert_eq!(systems[0]["name"], "given ranking");
    assert_eq!(systems[0]["mean"]["mrr@10"], 0.75);
    assert_eq!(systems[1]["name"], "cross-encoder, top 50");
    let first = systems[1]["mean"]["mrr@10"].as_f64().unwrap();
    assert!([0.75, 1.0].contains(&first), "{first}");
    // With a retriever weight the table also holds the reranker alone.
    let weighed = [&args[..], &more, &["--retriever-weight", "1"]].concat();
    let report = place.run(&weighed).ok().json();
    let systems = report["systems"].as_array().unwrap();
    let names: Vec<&Value> = systems.iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["given ranking", "cross-encoder alone, top 50", "cross-encoder, top 50"]);
    assert_eq!(systems[1]["mean"]["mrr@10"], first);
    let clash = [&args[..], &more, &["--hybrid"]].concat();
    place.run(&clash).fails(2, &["--candidates", "--hybrid"]);
}

#[test]
fn compare_over_judged_queries_evaluates_each_depth() {
    let place = indexed(60);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    let reranker = small_reranker();
    let args = ["compare", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt"];
    let run = place.run(&[&args[..], &["--reranker", &reranker]].concat()).ok();
    let names = ["retrieval", "cross-encoder, top 10", "cross-encoder, top 100", "randomisation p"];
    for name in names {
        assert!(run.stdout.contains(name), "{}", run.stdout);
    }
}

#[test]
fn rerank_orders_passages_by_the_logit() {
    let place = Workplace::new();
    let reranker = small_reranker();
    let args = ["rerank", "river", "--reranker", &reranker];
    let passages = ["lamp garden", "river train", "storm"];
    let run = place.run(&[&args[..], &["--json"], &passages].concat()).ok().json();
    let results = run["results"].as_array().unwrap();
    let logits: Vec<f64> = results.iter().map(|r| r["rerank_logit"].as_f64().unwrap()).collect();
    assert!(logits.len() == 3 && logits.is_sorted_by(|a, b| a >= b));
    let piped = place.pipe(&[&args[..], &["--top-n", "2"]].concat(), passages.join("\n"));
    assert_eq!(piped.ok().stdout.lines().count(), 2);
    place.run(&["rerank", "river", "lamp"]).fails(3, &["none is present locally"]);
}

#[test]
fn eval_names_the_reranker_that_ran() {
    let place = indexed(30);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    let reranker = small_reranker();
    let args = ["eval", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt"];
    let more = ["--reranker", &reranker, "--rerank-depth", "5", "--retriever-weight", "0.5"];
    let report = place.run(&[&args[..], &more, &["--json"]].concat()).ok().json();
    assert_eq!(report["reranker"], reranker);
    assert_eq!(report["rerankers"][0]["name"], reranker);
    let sha256 = report["rerankers"][0]["sha256"].as_str().unwrap().to_owned();
    assert_eq!((sha256.len(), report["rerankers"].as_array().unwrap().len()), (64, 1));
    let systems = report["systems"].as_array().unwrap();
    assert_eq!(systems[0]["reranker"], Value::Null);
    for (system, weight) in systems[1..].iter().zip([0.0, 0.5]) {
        let expected = json!({"name": reranker, "depth": 5, "retriever_weight": weight});
        assert_eq!(system["reranker"], expected);
    }
    let text = place.run(&[&args[..], &more].concat()).ok().stdout;
    assert_holds(&text, &[&format!("reranker: {reranker} (sha256 {sha256})")]);
    assert_holds(&text, &["2 of 2 judged documents are in the index"]);
    let report = place.run(&[&args[..], &["--no-rerank", "--json"]].concat()).ok().json();
    assert_eq!((&report["reranker"], &report["rerankers"]), (&Value::Null, &json!([])));
    let args = ["compare", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt", "--json"];
    let report = place.run(&[&args[..], &["--reranker", &reranker]].concat()).ok().json();
    assert_eq!(report["reranker"], reranker);
}

#[test]
fn eval_tells_or_refuses_what_does_not_belong_together() {
    let place = indexed(30);
    place.file("q.tsv", "q1\triver\nq2\tlamp\nq3\tnobody judged this\n");
    let strangers: String = (0..5).map(|i| format!("q1 0 stranger{i} 1\n")).collect();
    place.file("strangers.txt", &strangers);
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\nq1 0 d5 0\nq1 0 far 1\nq9 0 d6 1\n");
    place.file("other.txt", "x1 0 d3 1\n");
    let eval = "eval idx --queries q.tsv --no-rerank --qrels";
    let none = "strangers.txt: 0 of 5 judged documents are in the index";
    let foreign = "none of its 3 queries has judgments in other.txt";
    place.refuses(&[
        (&format!("{eval} strangers.txt"), 7, &[none, "'stranger0'"]),
        (&format!("{eval} strangers.txt --json"), 7, &[none]),
        (&format!("{eval} other.txt"), 7, &["q.tsv", foreign]),
    ]);
    let run = place.call(&format!("{eval} qrels.txt --json")).ok();
    let report = run.json();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!((count("judged_documents"), count("judged_documents_in_index")), (5, 4));
    assert_eq!((count("relevant_documents"), count("absent_documents")), (4, 1));
    assert_eq!((count("judged_queries"), count("missing_queries")), (3, 1));
    assert_eq!(count("unjudged_queries"), 1);
    let some = "4 of 5 judged documents are in the index";
    let missing = "1 judged queries are not in the query file and count 0";
    assert_holds(&report["warnings"].to_string(), &[some, missing]);
    assert_holds(&run.stderr, &[some, missing]);
    let text = place.call(&format!("{eval} qrels.txt")).ok().stdout;
    assert_holds(&text, &[some, "1 queries without judgments left out", "3 judged queries"]);
    // Deleted documents are not in the index.
    place.call("delete idx d3 d4 d5 d6").ok();
    let gone = "qrels.txt: 0 of 5 judged documents are in the index";
    place.refuses(&[(&format!("{eval} qrels.txt"), 7, &[gone])]);
}

#[test]
fn eval_of_a_given_ranking_that_does_not_belong_is_refused() {
    let place = indexed(30);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    place.file("queries.run", "x1\td3\t1\nx2\td4\t1\n");
    place.file("documents.run", "q1\tfar\t1\nq2\tfarther\t1\nq2\tfar\t2\n");
    place.file("some.run", "q1\td3\t1\nq1\tfar\t2\nx2\td4\t1\n");
    let eval = "eval idx --queries q.tsv --qrels qrels.txt --no-rerank --candidates";
    let queries = "queries.run: none of its 2 queries is one of the 2 judged queries";
    let documents = "documents.run: 0 of 2 ranked documents are in the index";
    place.refuses(&[
        (&format!("{eval} queries.run"), 7, &[queries]),
        (&format!("{eval} documents.run"), 7, &[documents]),
    ]);
    let run = place.call(&format!("{eval} some.run --measures mrr@10 --json")).ok();
    let warnings = [
        "1 judged queries are not in the given ranking and count 0",
        "1 queries of the given ranking are not among the judged queries",
        "1 of 2 are in the index",
    ];
    assert_holds(&run.stderr, &warnings);
    let report = run.json();
    assert_holds(&report["warnings"].to_string(), &warnings);
    assert_eq!(report["systems"][0]["mean"]["mrr@10"], 0.5);
    assert_eq!(
        report["candidates"],
        json!({"documents": 2, "documents_in_index": 1, "missing_queries": 1, "unused_queries": 1})
    );
}
