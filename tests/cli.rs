//! The commands, end to end, with small models whose weights are random.

use crate::golden::golden;
use crate::support::cli::{
    Workplace, finish, records, small_model, small_reranker, with_real_model,
};
use serde_json::Value;
use std::collections::BTreeSet;
use warpseek::cpu::Tier;
use warpseek::scan::HAS_CUDA;

/// A place with an index `idx` of `n` records from `corpus.jsonl`.
pub(crate) fn indexed(n: usize) -> Workplace {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(n));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    place
}

pub(crate) fn ids(result: &Value) -> Vec<String> {
    let hits = result["hits"].as_array().unwrap();
    hits.iter().map(|h| h["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn search(place: &Workplace, query: &str, more: &[&str]) -> Value {
    let mut args = vec!["search", "idx", query, "--json"];
    args.extend(more);
    place.run(&args).ok().json()
}

/// Why there is no GPU.
const NO_GPU: &str = if HAS_CUDA { "there is no NVIDIA driver" } else { "built without CUDA" };

#[test]
fn search_returns_hits_in_order_with_everything_a_hit_carries() {
    let place = indexed(60);
    let result = search(&place, "river lamp garden", &["-k", "5"]);
    let hits = result["hits"].as_array().unwrap();
    assert_eq!(hits.len(), 5);
    for (i, hit) in hits.iter().enumerate() {
        assert_eq!(hit["rank"], i + 1);
        assert_eq!(hit["retrieved_rank"], i + 1);
        assert_eq!(hit["id"], hit["doc_id"]);
        assert!(hit["title"].as_str().unwrap().starts_with("Title "));
        assert!(hit["metadata"]["year"].is_u64() && hit["metadata"]["tags"].is_array());
        assert_eq!(hit["score"], hit["final_score"]);
        assert!(hit.get("rerank_score").is_none());
    }
    let scores: Vec<f64> = hits.iter().map(|h| h["score"].as_f64().unwrap()).collect();
    assert!(scores.windows(2).all(|w| w[0] >= w[1]) && scores[0] <= 1.001);
    assert_eq!((&result["matched_rows"], &result["total_rows"]), (&60.into(), &60.into()));
    assert!(result["took_ms"]["total"].as_f64().unwrap() > 0.0);
    let lines =
        place.run(&["search", "idx", "river lamp garden", "-k", "5", "--jsonl"]).ok().stdout;
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((lines.lines().count(), &first["id"]), (5, &hits[0]["id"]));
    let text = place.run(&["search", "idx", "river lamp garden", "-k", "5"]).ok();
    assert!(
        text.stdout.contains(hits[0]["title"].as_str().unwrap()) && !text.stdout.contains('\x1b')
    );
    assert!(text.stderr.contains("5 hits among 60 rows"), "{}", text.stderr);
}

#[test]
fn search_with_filters_returns_exactly_the_rows_that_pass() {
    let place = indexed(90);
    let all = search(&place, "river lamp", &["-k", "90"]);
    let with = |test: fn(&Value) -> bool| -> Vec<String> {
        let hits = all["hits"].as_array().unwrap();
        let passing = hits.iter().filter(|h| test(h));
        passing.map(|h| h["id"].as_str().unwrap().to_owned()).collect()
    };
    let year = |h: &Value| h["metadata"]["year"].as_i64().unwrap();
    let topic = |h: &Value| h["metadata"]["topic"].as_str().unwrap().to_owned();
    type Case = (&'static str, Vec<String>);
    let cases: Vec<Case> = vec![
        ("year >= 2015", with(|h| h["metadata"]["year"].as_i64().unwrap() >= 2015)),
        (
            "2015 <= year AND NOT topic = 'a'",
            with(|h| {
                h["metadata"]["year"].as_i64().unwrap() >= 2015 && h["metadata"]["topic"] != "a"
            }),
        ),
        (
            "topic IN ('a', 'c') OR year BETWEEN 2001 AND 2003",
            with(|h| {
                let year = h["metadata"]["year"].as_i64().unwrap();
                h["metadata"]["topic"] != "b" || (2001..=2003).contains(&year)
            }),
        ),
        ("'storm' IN tags", with(|h| h["metadata"]["tags"][0] == "storm")),
        (
            "tags CONTAINS 'storm' AND year > 2010",
            with(|h| {
                h["metadata"]["tags"][0] == "storm"
                    && h["metadata"]["year"].as_i64().unwrap() > 2010
            }),
        ),
        (
            "title LIKE 'title 1_'",
            with(|h| {
                let title = h["title"].as_str().unwrap();
                title.len() == 8 && title.starts_with("Title 1")
            }),
        ),
        ("id = 'd7' OR doc_id = 'd8'", with(|h| h["id"] == "d7" || h["id"] == "d8")),
        ("year IS NULL", vec![]),
        ("year = -1", vec![]),
    ];
    assert!(all["hits"].as_array().unwrap().iter().any(|h| year(h) > 2010 && topic(h) == "b"));
    for (filter, expected) in cases {
        let code = if expected.is_empty() { 1 } else { 0 };
        let run =
            place.run(&["search", "idx", "river lamp", "-k", "90", "--json", "--filter", filter]);
        assert_eq!(run.code, code, "{filter}: {}", run.stderr);
        assert_eq!(ids(&run.json()), expected, "{filter}");
        assert_eq!(run.json()["matched_rows"], expected.len(), "{filter}");
        // A few hits under a filter are the first of all that pass.
        if !expected.is_empty() {
            let few = search(&place, "river lamp", &["-k", "2", "--filter", filter]);
            assert_eq!(ids(&few), expected[..expected.len().min(2)], "{filter}");
        }
    }
}

#[test]
fn search_hybrid_finds_a_rare_word_and_mmr_changes_the_order() {
    let place = Workplace::new();
    let mut corpus = records(200);
    corpus
        .push_str("{\"_id\": \"rare\", \"title\": \"\", \"text\": \"lamp xylograph lamp lamp\"}\n");
    place.file("corpus.jsonl", corpus);
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    let lexical = search(&place, "the xylograph (\"quoted\" NEAR *)", &["--hybrid", "-k", "3"]);
    assert!(ids(&lexical).contains(&"rare".to_owned()), "{lexical}");
    assert!(lexical["hits"][0]["score"].as_f64().unwrap() <= 2.0 / 61.0 + 1e-6);
    let plain = ids(&search(&place, "river lamp garden", &["-k", "20"]));
    let diverse = ids(&search(&place, "river lamp garden", &["-k", "20", "--mmr-lambda", "0.3"]));
    assert_eq!(plain[0], diverse[0]);
    assert_ne!(plain, diverse);
    assert_eq!(
        plain,
        ids(&search(&place, "river lamp garden", &["-k", "20", "--mmr-lambda", "1"]))
    );
    let distinct: BTreeSet<&String> = diverse.iter().collect();
    assert_eq!(distinct.len(), 20);
}

#[test]
fn thread_count_and_tier_never_change_a_result() {
    let place = indexed(300);
    let expected = search(&place, "window paper", &["-k", "300"])["hits"].clone();
    for threads in ["1", "2", "7"] {
        for tier in Tier::ALL.map(Tier::name) {
            let mut command =
                place.command(&["search", "idx", "window paper", "-k", "300", "--json"]);
            command.env("WARPSEEK_THREADS", threads).env("WARPSEEK_TIER", tier);
            let run = finish(&mut command);
            if run.code == 4 {
                eprintln!("this CPU lacks the tier {tier}: {}", run.stderr);
                continue;
            }
            assert_eq!(run.ok().json()["hits"], expected, "{threads} threads, {tier}");
        }
    }
}

#[test]
fn rerank_depth_of_zero_keeps_the_retrieval_order() {
    let place = indexed(20);
    let reranker = small_reranker();
    let more = ["--rerank-depth", "0", "--reranker", &reranker];
    let hits = search(&place, "river bread", &more)["hits"].clone();
    assert_eq!(hits, search(&place, "river bread", &["--no-rerank"])["hits"]);
}

#[test]
fn precision_is_an_option_that_hardly_changes_scores() {
    let place = indexed(60);
    let scores = |precision: &str| -> Option<Vec<f64>> {
        let args =
            ["search", "idx", "window paper", "-k", "60", "--precision", precision, "--json"];
        let run = place.run(&args);
        if run.code == 4 {
            assert!(run.stderr.contains("bfloat16"), "{}", run.stderr);
            return None;
        }
        let json = run.ok().json();
        let hits = json["hits"].as_array().unwrap();
        Some(hits.iter().map(|hit| hit["score"].as_f64().unwrap()).collect())
    };
    let exact = scores("f32").unwrap();
    for precision in ["auto", "bf16", "int8"] {
        let Some(got) = scores(precision) else { continue };
        let worst = got.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 0.02, "{precision}: off by {worst}");
    }
    place.run(&["search", "idx", "river", "--precision", "f8"]).fails(2, &["'f8'", "bf16, int8"]);
}

#[test]
fn bench_measures_limits_searches_and_models() {
    let place = Workplace::new();
    let text = place.run(&["bench", "--rows", "2000", "--batch", "1,40"]).ok();
    for part in ["memory", "int8", "float32", "2,000 rows", "of memory"] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    assert!(text.stderr.contains("was not measured"), "{}", text.stderr);
    let args =
        ["bench", "--rows", "500", "--batch", "3", "-k", "5,10", "--pass", "10,100", "--json"];
    let json = place.run(&[&args[..], &["--search-only"]].concat()).ok().json();
    let scans = json["scan"].as_array().unwrap();
    assert_eq!(scans.len(), 4);
    for scan in scans {
        assert!(scan["queries_per_second"].as_f64().unwrap() > 0.0);
        assert_eq!((&scan["rows"], &scan["queries"]), (&500.into(), &3.into()));
    }
    assert!(json["limits"]["int8_products"].as_f64().unwrap() > 1e6);
    place.run(&["bench", "--vectors", "a.npy"]).fails(2, &["--queries"]);
    place.run(&["bench", "--rows", "0", "--search-only"]).fails(2, &["rows"]);
    place.run(&["bench", "--rows", "9", "-k", "0", "--search-only"]).fails(2, &["k must be"]);
}

#[test]
fn compare_prints_both_rankings_and_where_each_row_came_from() {
    let place = indexed(80);
    let reranker = small_reranker();
    let args = ["compare", "idx", "storm bread", "--reranker", reranker.as_str()];
    let text = place.run(&args).ok().stdout;
    let json = place.run(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!(json["second"], "reranked");
    assert_eq!(json["rank_map"].as_array().unwrap().len(), 25);
    assert_eq!(json["before"].as_array().unwrap().len(), 3);
    let first = &json["rank_map"][0];
    assert_eq!(first["rank"], 1);
    let line = format!("reranked #1 was retrieved #{}", first["retrieved_rank"]);
    assert!(text.contains(&line), "{text}");
    assert!(text.contains("Top 3 as retrieved") && text.contains("Top 3 reranked by"));
    // The rank map is a permutation of the 25 retrieved rows.
    let before: BTreeSet<u64> = json["rank_map"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["retrieved_rank"].as_u64().unwrap())
        .collect();
    assert_eq!(before, (1..=25).collect());

    let hybrid = place.run(&["compare", "idx", "storm bread"]).ok();
    assert!(hybrid.stdout.contains("hybrid #1 was"), "{}", hybrid.stdout);
    assert!(hybrid.stderr.contains("comparing the dense ranking with the hybrid one"));
}

#[test]
fn batch_gives_the_same_hits_as_single_searches_in_every_format() {
    let place = indexed(120);
    let queries = "{\"_id\": \"q1\", \"text\": \"river lamp\"}\n\
        {\"_id\": \"q2\", \"text\": \"storm\", \"filter\": \"topic = 'b'\"}\n\
        {\"query_id\": 3, \"query\": \"clock paper\"}\n";
    place.file("q.jsonl", queries);
    let batch = |out: &str| place.run(&["batch", "idx", "q.jsonl", "--out", out, "-k", "7"]).ok();
    let report = batch("out.jsonl");
    assert!(report.stdout.contains("3 queries, 21 hits"), "{}", report.stdout);
    let lines = crate::golden::lines(&place.path("out.jsonl"));
    let singles = [
        search(&place, "river lamp", &["-k", "7"]),
        search(&place, "storm", &["-k", "7", "--filter", "topic = 'b'"]),
        search(&place, "clock paper", &["-k", "7"]),
    ];
    for ((line, single), id) in lines.iter().zip(&singles).zip(["q1", "q2", "3"]) {
        assert_eq!(line["query_id"], id);
        assert_eq!(ids(line), ids(single), "{id}");
        for (a, b) in
            line["hits"].as_array().unwrap().iter().zip(single["hits"].as_array().unwrap())
        {
            let difference = a["score"].as_f64().unwrap() - b["score"].as_f64().unwrap();
            assert!(difference.abs() < 1e-5, "{id}: batched embedding within 1e-5");
        }
        assert_eq!(line["matched_rows"], single["matched_rows"]);
    }
    assert!(!place.path("out.jsonl.partial").exists());

    batch("out.run");
    let run = std::fs::read_to_string(place.path("out.run")).unwrap();
    let rows: Vec<Vec<&str>> = run.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!((rows.len(), rows[0].len()), (21, 6));
    let of_q1: Vec<&str> = rows.iter().filter(|r| r[0] == "q1").map(|r| r[2]).collect();
    assert_eq!(of_q1, ids(&singles[0]));

    batch("out.parquet");
    let text = place
        .run(&[
            "index",
            "out.parquet",
            "--into",
            "again",
            "--id-field",
            "id",
            "--text-field",
            "doc_id",
            "--on-error",
            "skip",
            "--on-duplicate",
            "last",
        ])
        .ok();
    assert!(text.stdout.contains("documents"), "{}", text.stdout);

    let rich = ["batch", "idx", "q.jsonl", "--out", "rich.jsonl", "--with-text", "--reranker"];
    let reranker = small_reranker();
    place.run(&[&rich[..], &[reranker.as_str()]].concat()).ok();
    let line = &crate::golden::lines(&place.path("rich.jsonl"))[0];
    assert!(line["hits"][0]["text"].is_string() && line["hits"][0]["rerank_logit"].is_f64());
}

#[test]
fn batch_that_was_cut_off_continues_and_ends_the_same() {
    let place = indexed(50);
    let queries: String = (0..700).map(|i| format!("q{i}\triver lamp {}\n", i % 37)).collect();
    place.file("q.tsv", &queries);
    place.run(&["batch", "idx", "q.tsv", "--out", "whole.jsonl"]).ok();
    // A journal as a killed run leaves it: a header, some answers, half a line.
    let whole = std::fs::read_to_string(place.path("whole.jsonl")).unwrap();
    let mut child = place
        .command(&["batch", "idx", "q.tsv", "--out", "cut.jsonl"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let journal = place.path("cut.jsonl.partial");
    for _ in 0..2000 {
        let grown = std::fs::metadata(&journal).is_ok_and(|m| m.len() > 10_000);
        if grown || child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    let _ = child.wait();
    if journal.exists() {
        let mut bytes = std::fs::read(&journal).unwrap();
        bytes.truncate(bytes.len() - 7);
        std::fs::write(&journal, bytes).unwrap();
        // Other options do not fit the unfinished run.
        place
            .run(&["batch", "idx", "q.tsv", "--out", "cut.jsonl", "-k", "3"])
            .fails(2, &["cut.jsonl.partial", "--restart"]);
    } else {
        eprintln!("the batch ended before it could be killed; only the finished file is compared");
    }
    place.run(&["batch", "idx", "q.tsv", "--out", "cut.jsonl"]).ok();
    assert_eq!(std::fs::read_to_string(place.path("cut.jsonl")).unwrap(), whole);
    assert!(!journal.exists());
}

#[test]
fn batch_takes_vectors_as_queries() {
    let place = indexed(40);
    place.run(&["export", "idx", "--vectors", "all.npy", "--documents", "all.jsonl"]).ok();
    place.run(&["batch", "idx", "all.npy", "--out", "self.jsonl", "-k", "1"]).ok();
    let documents = crate::golden::lines(&place.path("all.jsonl"));
    for (i, line) in crate::golden::lines(&place.path("self.jsonl")).iter().enumerate() {
        assert_eq!(line["query_id"], i.to_string());
        // Equal texts share a vector: the lowest of them wins.
        let found = &line["hits"][0];
        assert!((found["score"].as_f64().unwrap() - 1.0).abs() < 2e-3, "{line}");
        let text = |id: &Value| documents.iter().find(|d| d["id"] == *id).unwrap()["id"].clone();
        assert_eq!(text(&found["id"]), found["id"]);
    }
}

#[test]
fn eval_gives_the_measures_of_the_run_it_writes() {
    let place = indexed(100);
    let queries: String = (0..12)
        .map(|i| format!("{{\"_id\": \"q{i}\", \"text\": \"Title {i} storm\"}}\n"))
        .collect();
    place.file("q.jsonl", queries);
    let qrels: String = (0..10).map(|i| format!("q{i}\td{i}\t1\nq{i}\td{}\t2\n", i + 40)).collect();
    place.file("qrels.tsv", format!("query-id\tcorpus-id\tscore\n{qrels}missing\td1\t1\n"));
    let reranker = small_reranker();
    let run = place
        .run(&[
            "eval",
            "idx",
            "--queries",
            "q.jsonl",
            "--qrels",
            "qrels.tsv",
            "--json",
            "--per-query",
            "--measures",
            "ndcg@10,map,recall@100",
            "--run-out",
            "out.run",
            "--reranker",
            &reranker,
        ])
        .ok();
    assert!(run.stderr.contains("1 judged queries are not in the query file"), "{}", run.stderr);
    let report = run.json();
    assert_eq!((&report["judged_queries"], &report["unjudged_queries"]), (&11.into(), &2.into()));
    let systems = report["systems"].as_array().unwrap();
    assert_eq!(systems.len(), 2);
    assert!(systems[1]["against_first"]["p_randomisation"].is_f64());
    assert_eq!(systems[0]["per_query"]["missing"]["map"], 0.0);
    // Scoring the written run by itself gives the last system's means.
    use warpseek::eval::{judgments::Judgments, measures, run::Run};
    let judgments = Judgments::read(place.path("qrels.tsv")).unwrap();
    let written = Run::read(place.path("out.run")).unwrap();
    let names = ["ndcg@10", "map", "recall@100"];
    let wanted: Vec<measures::Measure> = names.iter().map(|n| n.parse().unwrap()).collect();
    let options = measures::EvaluateOptions::default();
    let again = measures::evaluate(&written, &judgments, &wanted, &options).unwrap();
    for (name, value) in names.iter().zip(again.mean) {
        let told = systems[1]["mean"][*name].as_f64().unwrap();
        assert!((told - value).abs() < 1e-9, "{name}: {told} against {value}");
    }
    let text = place
        .run(&["eval", "idx", "--queries", "q.jsonl", "--qrels", "qrels.tsv", "--no-rerank"])
        .ok();
    assert!(text.stdout.contains("ndcg@10") && text.stdout.contains("11 judged queries"));
}

#[test]
fn index_takes_in_only_what_changed_and_prunes_what_is_gone() {
    let place = indexed(50);
    let again = place.run(&["index", "corpus.jsonl", "--into", "idx", "--json"]).ok().json();
    assert_eq!((&again["added"], &again["unchanged"]), (&0.into(), &50.into()));
    let changed = records(40).replace("Title 3\"", "Another title\"");
    place.file("corpus.jsonl", changed + "{\"_id\": \"new\", \"text\": \"fresh bread\"}\n");
    let report =
        place.run(&["index", "corpus.jsonl", "--into", "idx", "--json", "--prune"]).ok().json();
    assert_eq!(report["added"], 1);
    assert_eq!(report["updated"], 1);
    assert_eq!(report["unchanged"], 39);
    assert_eq!(report["pruned"], 10);
    let info = place.run(&["info", "idx", "--json"]).ok().json();
    assert_eq!(info["stats"]["rows"], 41);
    assert_eq!(info["stats"]["dead_rows"], 11);
    let before = search(&place, "bread", &["-k", "100", "--hybrid"]);
    assert_eq!(before["total_rows"], 41);
    assert!(!ids(&before).contains(&"d45".to_owned()));
    let compacted = place.run(&["compact", "idx", "--json"]).ok().json();
    assert_eq!((&compacted["rows_before"], &compacted["rows_after"]), (&52.into(), &41.into()));
    place.run(&["verify", "idx", "--sample", "6"]).ok();
    let after = search(&place, "bread", &["-k", "100", "--hybrid"]);
    assert_eq!(ids(&after), ids(&before));
    let info = place.run(&["info", "idx", "--json"]).ok().json();
    assert_eq!((&info["stats"]["dead_rows"], &info["stats"]["generation"]), (&0.into(), &1.into()));
    assert!(!place.path("idx/vectors-0.f16").exists());
}

#[test]
fn delete_takes_ids_document_ids_and_filters() {
    let place = indexed(30);
    let chunks: String = (0..4)
        .map(|i| {
            format!(
                "{{\"id\": \"paper\", \"chunk-id\": \"{i}\", \"chunk\": \"river {i}\", \"title\": \"P\"}}\n"
            )
        })
        .collect();
    place.file("chunks.jsonl", chunks);
    place.run(&["index", "chunks.jsonl", "--into", "idx"]).ok();
    let count = || place.run(&["info", "idx", "--json"]).ok().json()["stats"]["rows"].clone();
    assert_eq!(count(), 34);
    place.run(&["delete", "idx", "d1", "paper-2"]).ok();
    assert_eq!(count(), 32);
    place.run(&["delete", "idx", "paper"]).ok();
    assert_eq!(count(), 29);
    place.run(&["delete", "idx", "d2", "nothing"]).fails(2, &["'nothing'", "--ignore-missing"]);
    assert_eq!(count(), 29);
    place.run(&["delete", "idx", "d2", "nothing", "--ignore-missing"]).ok();
    place.run(&["delete", "idx", "--filter", "topic = 'a'"]).ok();
    assert_eq!(count(), 18);
    place.pipe(&["delete", "idx", "--ids-from", "-"], "d4\nd5\n").ok();
    assert_eq!(count(), 16);
    place.run(&["verify", "idx"]).ok();
}

#[test]
fn export_and_import_give_the_same_answers_in_every_format() {
    let place = indexed(70);
    place.run(&["delete", "idx", "d3", "d33"]).ok();
    let expected = search(&place, "garden train", &["-k", "10"]);
    let model = small_model().display().to_string();
    for name in ["v.npy", "v.fvecs", "v.fbin", "v.faiss"] {
        place.run(&["export", "idx", "--vectors", name, "--documents", "d.jsonl"]).ok();
        assert_eq!(crate::golden::lines(&place.path("d.jsonl")).len(), 68);
        let into = format!("from-{name}");
        place
            .run(&[
                "import",
                name,
                "--into",
                &into,
                "--documents",
                "d.jsonl",
                "--model",
                &model,
                "--title-field",
                "title",
            ])
            .ok();
        let got = place.run(&["search", &into, "garden train", "-k", "10", "--json"]).ok().json();
        assert_eq!(ids(&got), ids(&expected), "{name}");
        for (a, b) in
            got["hits"].as_array().unwrap().iter().zip(expected["hits"].as_array().unwrap())
        {
            assert_eq!((&a["score"], &a["text"]), (&b["score"], &b["text"]), "{name}");
        }
        place.run(&["verify", &into, "--sample", "4"]).ok();
    }
}

#[test]
fn import_of_bare_vectors_answers_vector_queries_only() {
    let place = Workplace::new();
    let vectors = golden().join("vectors");
    let file = |name: &str| vectors.join(name).display().to_string();
    let report = place.run(&["import", &file("small.fbin"), "--into", "idx", "--json"]).ok().json();
    assert_eq!((&report["rows"], &report["dim"]), (&37.into(), &8.into()));
    place.run(&["batch", "idx", &file("small.npy"), "--out", "o.jsonl", "-k", "1"]).ok();
    for (i, line) in crate::golden::lines(&place.path("o.jsonl")).iter().enumerate() {
        assert_eq!(line["hits"][0]["id"], i.to_string());
    }
    place.run(&["search", "idx", "text"]).fails(2, &["imported without a model"]);
    place
        .run(&["import", &file("small_l2.faiss"), "--into", "l2"])
        .fails(2, &["L2", "--normalize"]);
    place.run(&["import", &file("small_l2.faiss"), "--into", "l2", "--normalize"]).ok();
    place
        .run(&["import", &file("small_hnsw.faiss"), "--into", "h"])
        .fails(7, &["IHNf", "IndexFlat"]);
    place.file("ids.txt", "a\nb\n");
    place
        .run(&["import", &file("small.fbin"), "--into", "few", "--ids", "ids.txt"])
        .fails(7, &["ids.txt", "ends after 2 entries"]);
}

#[test]
fn embed_writes_the_same_vectors_as_jsonl_and_npy() {
    let place = Workplace::new();
    let texts = "river lamp\nstorm\n\nclock\n";
    let lines = place.pipe(&["embed"], texts).ok().stdout;
    let rows: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2]["id"], "4");
    place.pipe(&["embed", "-", "--out", "v.npy"], texts).ok();
    let file = warpseek::vectors::VectorFile::open(&place.path("v.npy"), None).unwrap();
    assert_eq!((file.n_rows(), file.dim()), (3, 24));
    let mut vector = vec![0f32; 24];
    for (i, row) in rows.iter().enumerate() {
        file.read(i, &mut vector).unwrap();
        let told: Vec<f32> =
            row["vector"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(told, vector);
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-4);
    }
    let query = place.pipe(&["embed", "--role", "query"], "storm\n").ok().stdout;
    assert_ne!(query.lines().next(), lines.lines().nth(1));
}

#[test]
fn index_reads_every_format_from_files_folders_and_stdin() {
    let place = Workplace::new();
    let sentence = "The river runs past the garden. A lamp burns in the window. ";
    place.file("docs/a.txt", sentence.repeat(40));
    place
        .file("docs/b.md", format!("# Head\n\n{}\n\n## Next\n\n{}", sentence.repeat(30), sentence));
    place.file("docs/sub/c.html", format!("<title>C page</title><p>{sentence}</p>"));
    place.file(
        "docs/d.csv",
        "id,title,text,year\n1,One,river bread,2001\n2,Two,\"clock, paper\",2002\n",
    );
    place.file("docs/e.tsv", "id\ttext\nx\tstorm over the garden\n");
    place.file("docs/photo.jpg", [0xff, 0xd8]);
    place.file("docs/.hidden.txt", "not read");
    let run = place.run(&["index", "docs", "--into", "idx", "--json"]).ok();
    assert!(run.stderr.contains("photo.jpg"), "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["added"], 6);
    assert!(report["rows"].as_u64().unwrap() > 10, "{report}");
    assert_eq!(report["tokens_lost"], 0);
    let hits = search(&place, "river garden lamp window", &["-k", "100"]);
    let found = ids(&hits);
    for id in ["docs/a.txt#0", "docs/b.md#1", "docs/sub/c.html", "1", "2", "x"] {
        assert!(found.contains(&id.to_owned()), "no {id} in {found:?}");
    }
    // Chunks are pieces of the text, in order, and overlap.
    let text = std::fs::read_to_string(place.path("docs/a.txt")).unwrap();
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for hit in hits["hits"].as_array().unwrap().iter().filter(|h| h["doc_id"] == "docs/a.txt") {
        let [start, end] = [0, 1].map(|i| hit["document_range"][i].as_u64().unwrap() as usize);
        assert_eq!(hit["text"], text[start..end]);
        ranges.push([start, end]);
    }
    ranges.sort_unstable();
    assert!(ranges.len() > 3 && ranges.windows(2).all(|w| w[1][0] < w[0][1]), "{ranges:?}");

    let piped = place.pipe(&["index", "-", "--into", "idx", "--json"], records(5)).ok().json();
    assert_eq!(piped["added"], 5);
    let csv = place
        .pipe(&["index", "-", "--format", "csv", "--into", "other", "--json"], "id,text\n9,nine\n");
    assert_eq!(csv.ok().json()["added"], 1);
}

#[test]
fn index_of_the_notebooks_schema_keeps_papers_together() {
    let place = Workplace::new();
    let line = |id: &str, chunk: u32| {
        format!(
            "{{\"doi\": \"{id}\", \"chunk-id\": \"{chunk}\", \"chunk\": \"Deep river nets {chunk}\", \
             \"id\": \"{id}\", \"title\": \"Nets\", \"source\": \"arXiv:{id}\", \
             \"primary_category\": \"cs.CL\", \"published\": \"2024-05-0{chunk}\"}}\n"
        )
    };
    place.file("c.jsonl", line("2401.1", 1) + &line("2401.1", 2) + &line("2402.2", 3));
    place.run(&["index", "c.jsonl", "--into", "idx"]).ok();
    let result = search(&place, "nets", &["--filter", "published >= '2024-05-02'"]);
    let mut found = ids(&result);
    found.sort_unstable();
    assert_eq!(found, ["2401.1-2", "2402.2-3"]);
    let hit = &result["hits"][0];
    assert!(hit["doc_id"].as_str().unwrap().starts_with("240"));
    assert_eq!(hit["title"], "Nets");
    assert!(hit["text"].as_str().unwrap().starts_with("Deep river"), "the chunk alone is the text");
    let only =
        search(&place, "nets", &["--filter", "doc_id = '2401.1' AND primary_category = 'cs.CL'"]);
    assert_eq!(only["matched_rows"], 2);
}

#[test]
fn records_are_split_only_when_asked_and_lost_tokens_are_told() {
    let place = Workplace::new();
    let text = "The river runs past the garden. ".repeat(60);
    place.file(
        "c.jsonl",
        format!("{{\"_id\": \"long\", \"title\": \"T\", \"text\": \"{text}\"}}\n"),
    );
    let whole = place.run(&["index", "c.jsonl", "--into", "whole"]).ok();
    assert!(whole.stderr.contains("lost") && whole.stderr.contains("--chunk"), "{}", whole.stderr);
    let info = place.run(&["info", "whole", "--json"]).ok().json();
    assert_eq!((&info["stats"]["rows"], &info["stats"]["rows_truncated"]), (&1.into(), &1.into()));
    assert!(info["stats"]["tokens_lost"].as_u64().unwrap() > 100);
    let split =
        place.run(&["index", "c.jsonl", "--into", "split", "--chunk", "--json"]).ok().json();
    assert!(split["rows"].as_u64().unwrap() > 3);
    assert_eq!(split["tokens_lost"], 0);
    place
        .run(&["index", "c.jsonl", "--into", "whole", "--chunk"])
        .fails(2, &["records whole", "another folder"]);
}

#[test]
fn index_with_duplicates_stops_or_lets_the_last_one_win() {
    let place = Workplace::new();
    let line = |text: &str| format!("{{\"_id\": \"same\", \"text\": \"{text}\"}}\n");
    let corpus = line("first") + &records(3) + &line("last");
    place.file("c.jsonl", &corpus);
    place
        .run(&["index", "c.jsonl", "--into", "idx"])
        .fails(7, &["c.jsonl, line 5: ", "'same' comes twice", "--on-duplicate last"]);
    let last = ["index", "c.jsonl", "--into", "idx", "--on-duplicate", "last"];
    place.run(&last).ok();
    let hit = search(&place, "last", &["--filter", "id = 'same'"]);
    assert_eq!(hit["hits"][0]["text"], "last");
    let again = place.run(&[&last[..], &["--json"]].concat()).ok().json();
    assert_eq!(
        (&again["added"], &again["updated"], &again["unchanged"]),
        (&0.into(), &0.into(), &4.into())
    );
    let piped =
        place.pipe(&["index", "-", "--into", "p", "--on-duplicate", "last", "--json"], &corpus);
    assert_eq!(piped.ok().json()["added"], 4);
}

#[test]
fn settings_come_from_flags_before_environment_before_file() {
    let place = indexed(10);
    place.file(".private/config.toml", "device = \"cuda:0\"\n");
    place.run(&["search", "idx", "river"]).fails(4, &["cuda:0", NO_GPU]);
    let mut command = place.command(&["search", "idx", "river"]);
    finish(command.env("WARPSEEK_DEVICE", "cpu")).ok();
    let mut command = place.command(&["search", "idx", "river", "--device", "tpu"]);
    finish(command.env("WARPSEEK_DEVICE", "cpu")).fails(2, &["'tpu'"]);
    place.file(".private/config.toml", "devise = \"cpu\"\n");
    place.run(&["info", "idx"]).fails(2, &["config.toml", "devise"]);
}

#[test]
fn doctor_and_models_say_what_is_here() {
    let place = Workplace::new();
    let doctor = place.run(&["doctor"]).ok().stdout;
    for part in ["scan", "generic", NO_GPU, "offline", "all-MiniLM-L6-v2"] {
        assert!(doctor.contains(part), "no {part} in {doctor}");
    }
    let json = place.run(&["doctor", "--json"]).ok().json();
    assert_eq!(json["offline"], true);
    let list = place.run(&["models", "list"]).ok().stdout;
    assert!(list.contains("ms-marco-MiniLM-L6-v2") && list.contains("Apache-2.0"), "{list}");
    place.run(&["models", "path", "all-MiniLM-L6-v2"]).fails(3, &["all-MiniLM-L6-v2"]);
    place.run(&["models", "pull", "ms-marco-MiniLM-L6-v2"]).fails(3, &["offline"]);
    let verify = place.run(&["models", "verify"]).ok().stdout;
    assert!(verify.contains("no model is here"), "{verify}");
}

#[test]
fn output_into_a_closed_pipe_is_no_failure() {
    use std::process::Stdio;
    let place = indexed(2000);
    let mut child = place
        .command(&["search", "idx", "river", "-k", "2000", "--jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn text_from_documents_cannot_control_the_terminal() {
    let place = Workplace::new();
    place.file(
        "c.jsonl",
        "{\"_id\": \"e\", \"title\": \"T\\u001b]0;x\\u0007\", \"text\": \"a\\u001b[31mred\"}\n",
    );
    place.run(&["index", "c.jsonl", "--into", "idx"]).ok();
    let out = place.run(&["search", "idx", "red", "--full"]).ok().stdout;
    assert!(!out.contains('\x1b') && !out.contains('\x07'), "{out:?}");
    assert!(out.contains("a[31mred"));
}

#[test]
fn demo_runs_the_whole_way_with_the_real_model() {
    let place = Workplace::new();
    let out = finish(with_real_model(&mut place.command(&["demo"]))).ok().stdout;
    for part in ["[5/5]", "150 new", "false-sharing", " #1 was retrieved #", "nDCG@10"] {
        assert!(out.contains(part), "no {part} in {out}");
    }
    let score = |name: &str| -> f64 {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap();
        let value = line.split("nDCG@10").nth(1).unwrap().split_whitespace().next().unwrap();
        value.parse().unwrap()
    };
    assert!((score("retrieval") - 0.794).abs() < 0.01 && score("hybrid") > 0.8, "{out}");
}
