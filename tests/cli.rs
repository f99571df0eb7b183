//! The commands, end to end, with small models whose weights are random.

mod default_index;
mod terminal;

use crate::golden::golden;
use crate::support::cli::{
    Workplace, assert_holds, finish, records, small_model, small_reranker, with_real_model, words,
};
pub(crate) use crate::support::cli::{ids, indexed, search};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use warpseek::compute::cpu::Tier;
use warpseek::topk::scanner::HAS_CUDA;

/// The reason why there is no GPU.
const NO_GPU: &str = if HAS_CUDA { "there is no NVIDIA driver" } else { "built without CUDA" };

fn hits(result: &Value) -> &Vec<Value> {
    result["hits"].as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

#[test]
fn search_returns_hits_in_order_with_everything_a_hit_carries() {
    let place = indexed(60);
    let result = search(&place, "river lamp garden", &["-k", "5"]);
    let hits = hits(&result);
    assert_eq!(hits.len(), 5);
    for (i, hit) in hits.iter().enumerate() {
        assert_eq!((&hit["rank"], &hit["retrieved_rank"]), (&json!(i + 1), &json!(i + 1)));
        assert_eq!(hit["id"], hit["doc_id"]);
        assert!(hit["title"].as_str().unwrap().starts_with("Title "));
        assert!(hit["metadata"]["year"].is_u64() && hit["metadata"]["tags"].is_array());
        assert_eq!(hit["score"], hit["final_score"]);
        assert!(hit.get("rerank_score").is_none());
    }
    let scores: Vec<f64> = hits.iter().map(|h| number(&h["score"])).collect();
    assert!(scores.windows(2).all(|w| w[0] >= w[1]) && scores[0] <= 1.001);
    assert_eq!((&result["matched_rows"], &result["total_rows"]), (&json!(60), &json!(60)));
    assert!(number(&result["took_ms"]["total"]) > 0.0);
    let lines = place.call("search idx 'river lamp garden' -k 5 --jsonl").ok().stdout;
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((lines.lines().count(), &first["id"]), (5, &hits[0]["id"]));
    let text = place.call("search idx 'river lamp garden' -k 5").ok();
    assert_holds(&text.stdout, &[hits[0]["title"].as_str().unwrap()]);
    assert!(!text.stdout.contains('\x1b'));
    assert_holds(&text.stderr, &["5 hits among 60 rows"]);
}

#[test]
fn search_with_filters_returns_exactly_the_rows_that_pass() {
    let place = indexed(90);
    let all = search(&place, "river lamp", &["-k", "90"]);
    let year = |h: &Value| h["metadata"]["year"].as_i64().unwrap();
    let is = |h: &Value, topic: &str| h["metadata"]["topic"] == topic;
    let storm = |h: &Value| h["metadata"]["tags"][0] == "storm";
    let title = |h: &Value| h["title"].as_str().unwrap().to_owned();
    type Test<'a> = &'a dyn Fn(&Value) -> bool;
    let cases: [(&str, Test<'_>); 9] = [
        ("year >= 2015", &|h| year(h) >= 2015),
        ("2015 <= year AND NOT topic = 'a'", &|h| year(h) >= 2015 && !is(h, "a")),
        ("topic IN ('a', 'c') OR year BETWEEN 2001 AND 2003", &|h| {
            !is(h, "b") || (2001..=2003).contains(&year(h))
        }),
        ("'storm' IN tags", &storm),
        ("tags CONTAINS 'storm' AND year > 2010", &|h| storm(h) && year(h) > 2010),
        ("title ILIKE 'title 1_'", &|h| title(h).len() == 8 && title(h).starts_with("Title 1")),
        ("id = 'd7' OR doc_id = 'd8'", &|h| h["id"] == "d7" || h["id"] == "d8"),
        ("year IS NULL", &|_| false),
        ("year = -1", &|_| false),
    ];
    assert!(hits(&all).iter().any(|h| year(h) > 2010 && is(h, "b")));
    for (filter, test) in cases {
        let passing = hits(&all).iter().filter(|h| test(h));
        let expected: Vec<&str> = passing.map(|h| h["id"].as_str().unwrap()).collect();
        let args = ["search", "idx", "river lamp", "-k", "90", "--json", "--filter", filter];
        let run = place.run(&args);
        assert_eq!(run.code, i32::from(expected.is_empty()), "{filter}: {}", run.stderr);
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
    let rare = r#"{"_id": "rare", "title": "", "text": "lamp xylograph lamp lamp"}"#;
    place.file("corpus.jsonl", records(200) + rare);
    place.call("index corpus.jsonl --into idx").ok();
    let hybrid = |more: &[&str]| {
        let args = [&["--hybrid", "-k", "3"], more].concat();
        let found = search(&place, "the xylograph (\"quoted\" NEAR *)", &args);
        assert!(ids(&found).contains(&"rare".to_owned()), "{found}");
        number(&found["hits"][0]["score"])
    };
    // The weighted sum of another model than the fitted one lies in 0..1, that of ranks below.
    assert!((0.3..=1.0 + 1e-6).contains(&hybrid(&[])));
    assert!(hybrid(&["--fusion", "rrf"]) <= 2.0 / 61.0 + 1e-6);
    place.call("search idx xylograph --fusion rrf").fails(2, &["--hybrid"]);
    let with = |more: &str| ids(&search(&place, "river lamp garden", &words(more)));
    let (plain, diverse) = (with("-k 20"), with("-k 20 --mmr-lambda 0.3"));
    assert_eq!(plain[0], diverse[0]);
    assert_ne!(plain, diverse);
    assert_eq!(plain, with("-k 20 --mmr-lambda 1"));
    assert_eq!(diverse.iter().collect::<BTreeSet<_>>().len(), 20);
}

#[test]
fn thread_count_and_tier_never_change_a_result() {
    let place = indexed(300);
    // Vectors as queries: the tier also decides how an embedding is rounded.
    place.call("export idx --vectors all.npy --documents all.jsonl").ok();
    place.call("batch idx all.npy --out expected.jsonl -k 50").ok();
    let expected = place.lines("expected.jsonl");
    for threads in ["1", "2", "7"] {
        for tier in Tier::ALL.map(Tier::name) {
            let args = words("batch idx all.npy --out got.jsonl -k 50 --restart");
            let mut command = place.command(&args);
            command.env("WARPSEEK_THREADS", threads).env("WARPSEEK_TIER", tier);
            let run = finish(&mut command);
            if run.code == 4 {
                eprintln!("this CPU lacks the tier {tier}: {}", run.stderr);
                continue;
            }
            run.ok();
            assert_eq!(place.lines("got.jsonl"), expected, "{threads} threads, {tier}");
        }
    }
}

#[test]
fn rerank_depth_of_zero_keeps_the_retrieval_order() {
    let place = indexed(20);
    let reranker = small_reranker();
    let more = ["--rerank-depth", "0", "--reranker", &reranker];
    let reranked = search(&place, "river bread", &more);
    assert_eq!(reranked["hits"], search(&place, "river bread", &["--no-rerank"])["hits"]);
}

#[test]
fn precision_is_an_option_that_hardly_changes_scores() {
    let place = indexed(60);
    let scores = |precision: &str| -> Option<Vec<f64>> {
        let line = "search idx 'window paper' -k 60 --json --precision ";
        let run = place.call(&format!("{line}{precision}"));
        if run.code == 4 {
            assert_holds(&run.stderr, &["bfloat16"]);
            return None;
        }
        Some(hits(&run.ok().json()).iter().map(|hit| number(&hit["score"])).collect())
    };
    let exact = scores("f32").unwrap();
    for precision in ["auto", "bf16", "int8"] {
        let Some(got) = scores(precision) else { continue };
        let worst = got.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 0.02, "{precision}: off by {worst}");
    }
    place.refuses(&[("search idx river --precision f8", 2, &["'f8'", "bf16, int8"])]);
}

#[test]
fn bench_measures_limits_searches_and_models() {
    let place = Workplace::new();
    let text = place.call("bench --rows 2000 --batch 1,40").ok();
    assert_holds(&text.stdout, &["memory", "int8", "float32", "2,000 rows", "of memory"]);
    assert_holds(&text.stderr, &["was not measured"]);
    let line = "bench --rows 500 --batch 3 -k 5,10 --pass 10,100 --json --search-only";
    let json = place.call(line).ok().json();
    let scans = json["scan"].as_array().unwrap();
    assert_eq!(scans.len(), 4);
    for scan in scans {
        assert!(number(&scan["queries_per_second"]) > 0.0);
        assert_eq!((&scan["rows"], &scan["queries"]), (&json!(500), &json!(3)));
    }
    assert!(number(&json["limits"]["int8_products"]) > 1e6);
    place.refuses(&[
        ("bench --vectors a.npy", 2, &["--queries"]),
        ("bench --rows 0 --search-only", 2, &["rows"]),
        ("bench --rows 9 -k 0 --search-only", 2, &["k must be"]),
    ]);
}

#[test]
fn compare_prints_both_rankings_and_where_each_row_came_from() {
    let place = indexed(80);
    let args = ["compare", "idx", "storm bread", "--reranker", &small_reranker()];
    let text = place.run(&args).ok().stdout;
    let json = place.run(&[&args[..], &["--json"]].concat()).ok().json();
    assert_eq!(json["second"], "reranked");
    assert_eq!(json["before"].as_array().unwrap().len(), 3);
    let map = json["rank_map"].as_array().unwrap();
    assert_eq!((map.len(), &map[0]["rank"]), (25, &json!(1)));
    let line = format!("reranked #1 was retrieved #{}", map[0]["retrieved_rank"]);
    assert_holds(&text, &[&line, "Top 3 as retrieved", "Top 3 reranked by"]);
    // The rank map is a permutation of the 25 retrieved rows.
    let before: BTreeSet<u64> = map.iter().map(|m| m["retrieved_rank"].as_u64().unwrap()).collect();
    assert_eq!(before, (1..=25).collect());

    let hybrid = place.call("compare idx 'storm bread'").ok();
    assert_holds(&hybrid.stdout, &["hybrid #1 was"]);
    assert_holds(&hybrid.stderr, &["comparing the dense ranking with the hybrid one"]);
}

#[test]
fn batch_gives_the_same_hits_as_single_searches_in_every_format() {
    let place = indexed(120);
    let queries = "{\"_id\": \"q1\", \"text\": \"river lamp\"}\n\
        {\"_id\": \"q2\", \"text\": \"storm\", \"filter\": \"topic = 'b'\"}\n\
        {\"query_id\": 3, \"query\": \"clock paper\"}\n";
    place.file("q.jsonl", queries);
    let batch = |out: &str| place.call(&format!("batch idx q.jsonl -k 7 --out {out}")).ok();
    assert_holds(&batch("out.jsonl").stdout, &["3 queries, 21 hits"]);
    let singles = [
        search(&place, "river lamp", &["-k", "7"]),
        search(&place, "storm", &["-k", "7", "--filter", "topic = 'b'"]),
        search(&place, "clock paper", &["-k", "7"]),
    ];
    for ((line, single), id) in place.lines("out.jsonl").iter().zip(&singles).zip(["q1", "q2", "3"])
    {
        assert_eq!(line["query_id"], id);
        assert_eq!(ids(line), ids(single), "{id}");
        for (a, b) in hits(line).iter().zip(hits(single)) {
            let difference = number(&a["score"]) - number(&b["score"]);
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
    let line = "index out.parquet --into again --id-field id --text-field doc_id --on-error skip \
                --on-duplicate last";
    assert_holds(&place.call(line).ok().stdout, &["documents"]);

    let rich = "batch idx q.jsonl --out rich.jsonl --with-text --reranker";
    place.run(&[&words(rich)[..], &[&small_reranker()]].concat()).ok();
    let line = &place.lines("rich.jsonl")[0];
    assert!(line["hits"][0]["text"].is_string() && line["hits"][0]["rerank_logit"].is_f64());
}

#[test]
fn batch_that_was_cut_off_continues_and_ends_the_same() {
    let place = indexed(50);
    let queries: String = (0..700).map(|i| format!("q{i}\triver lamp {}\n", i % 37)).collect();
    place.file("q.tsv", &queries);
    place.call("batch idx q.tsv --out whole.jsonl").ok();
    let whole = std::fs::read_to_string(place.path("whole.jsonl")).unwrap();
    // An invalid line at the end leaves a journal with all answers.
    place.file("q.tsv", queries.clone() + "no tab\n");
    place.refuses(&[("batch idx q.tsv --out cut.jsonl", 7, &["q.tsv, line 701"])]);
    place.file("q.tsv", &queries);
    let journal = place.path("cut.jsonl.partial");
    let full = std::fs::read(&journal).unwrap();
    let ends: Vec<usize> = (1..=full.len()).filter(|end| full[end - 1] == b'\n').collect();
    assert_eq!(ends.len(), 701);
    // A killed run leaves the first line, some answers, and half a line.
    for answered in [1, 255, 256, 300, 699] {
        std::fs::write(&journal, &full[..ends[answered] + 30]).unwrap();
        // Other options do not match the unfinished run.
        let other = "batch idx q.tsv --out cut.jsonl -k 3";
        place.refuses(&[(other, 2, &["cut.jsonl.partial", "--restart"])]);
        let report = place.call("batch idx q.tsv --out cut.jsonl --json").ok().json();
        assert_eq!([&report["queries"], &report["resumed"]], [700, answered]);
        let cut = std::fs::read_to_string(place.path("cut.jsonl")).unwrap();
        assert!(cut == whole, "continued after {answered} answers");
        assert!(!journal.exists());
    }
}

#[test]
fn query_files_of_every_format_give_the_same_answers() {
    let place = indexed(40);
    place.file(
        "q.jsonl",
        "{\"_id\": \"q1\", \"text\": \"river\"}\n{\"_id\": \"q2\", \"text\": \"lamp, storm\"}\n",
    );
    place.file("hq.tsv", "qid\tquery\nq1\triver\nq2\tlamp, storm\n");
    place.file("q.csv", "query,id\nriver,q1\n\"lamp, storm\",q2\n");
    place.file("wide.csv", "year,ask,key\n2001,river,q1\n2002,\"lamp, storm\",q2\n");
    place.file("bare.csv", "river,q1\n\"lamp, storm\",q2\n");
    place.file("qrels.txt", "q1 0 d3 1.0\nq2 0 d4 1.0\n");
    let answers = |queries: &str| {
        let run = place.call(&format!("batch idx {queries} --out o.jsonl --restart")).ok();
        assert_holds(&run.stdout, &["2 queries"]);
        (place.lines("o.jsonl"), run.stderr)
    };
    let (expected, _) = answers("q.jsonl");
    for (queries, note) in [
        ("hq.tsv", "hq.tsv: tsv, its first line is a header: ids from 'qid', texts from 'query'"),
        ("q.csv", "q.csv: csv, its first line is a header: ids from 'id', texts from 'query'"),
        ("wide.csv --query-field ask --id-field key", "ids from 'key', texts from 'ask'"),
        (
            "bare.csv --no-header --query-field column_1 --id-field column_2",
            "its first line is data, not a header: ids from 'column_2', texts from 'column_1'",
        ),
    ] {
        let (got, stderr) = answers(queries);
        assert_eq!(got, expected, "{queries}");
        assert_holds(&stderr, &[note]);
        let embedded = place.call(&format!("embed {queries}")).ok().stdout;
        assert_eq!(embedded.lines().count(), 2, "{embedded}");
        let line = format!("eval idx --queries {queries} --qrels qrels.txt --no-rerank --json");
        let run = place.call(&line).ok();
        assert_holds(&run.stderr, &[note, ": 2 queries"]);
        assert_eq!(run.json()["judged_queries"], 2);
        assert_eq!(run.json()["unjudged_queries"], 0);
    }
    let quiet = place.call("batch idx hq.tsv --out o.jsonl --quiet").ok();
    assert_eq!(quiet.stderr, "");
    // Passages with titles, from a table.
    place.file("p.csv", "id,title,text\np1,River,\"lamp, storm\"\np2,Bread,clock\n");
    let args = ["rerank", "river", "--json", "--passages", "p.csv", "--reranker"];
    let run = place.run(&[&args[..], &[&small_reranker()]].concat()).ok();
    assert_holds(&run.stderr, &["p.csv: 2 passages", "ids from 'id', texts from 'text'"]);
    let results = run.json();
    let results = results["results"].as_array().unwrap();
    let mut ids: Vec<&str> = results.iter().map(|r| r["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["p1", "p2"]);
}

#[test]
fn index_of_a_tsv_without_header_says_so() {
    let place = Workplace::new();
    place.file("collection.tsv", "0\tThe \"river\" runs\n1\t\"Lamp\" and storm\n2\tbread\n");
    let run = place.call("index collection.tsv --into idx --json").ok();
    assert_eq!(run.json()["added"], 3);
    assert_holds(&run.stderr, &["collection.tsv: the first line is data, not a header"]);
    assert_eq!(ids(&search(&place, "river", &[])).len(), 3);
    let again = place.call("index collection.tsv --into idx --no-header --json").ok();
    assert_eq!(again.json()["unchanged"], 3);
    assert!(!again.stderr.contains("header"), "{}", again.stderr);
    place.file("d.csv", "D7,\"river, lamp\"\n");
    place.call("index d.csv --into other --no-header").ok();
    let found = place.run(&["search", "other", "river", "--json"]).ok().json();
    assert_eq!(
        (&found["hits"][0]["id"], &found["hits"][0]["text"]),
        (&json!("D7"), &json!("river, lamp"))
    );
}

#[test]
fn eval_of_queries_that_are_documents_hints_at_drop_self() {
    let place = indexed(20);
    place.file("q.tsv", "d1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "d1 0 d3 1\nq2 0 d4 1\n");
    let line = "eval idx --queries q.tsv --qrels qrels.txt --no-rerank";
    let hint = "1 judged queries have the id of a document";
    assert_holds(&place.call(line).ok().stderr, &[hint, "--drop-self"]);
    assert!(!place.call(&format!("{line} --drop-self")).ok().stderr.contains(hint));
}

#[test]
fn batch_takes_vectors_as_queries() {
    let place = indexed(40);
    place.call("export idx --vectors all.npy --documents all.jsonl").ok();
    place.call("batch idx all.npy --out self.jsonl -k 1").ok();
    let documents = place.lines("all.jsonl");
    for (i, line) in place.lines("self.jsonl").iter().enumerate() {
        assert_eq!(line["query_id"], i.to_string());
        // Equal texts share a vector: the lowest row of them wins.
        let found = &line["hits"][0];
        assert!((number(&found["score"]) - 1.0).abs() < 2e-3, "{line}");
        assert!(documents.iter().any(|d| d["id"] == found["id"]));
    }
}

#[test]
fn eval_gives_the_measures_of_the_run_it_writes() {
    let place = indexed(100);
    let queries =
        (0..12).map(|i| format!("{{\"_id\": \"q{i}\", \"text\": \"Title {i} storm\"}}\n"));
    place.file("q.jsonl", queries.collect::<String>());
    let qrels: String = (0..10).map(|i| format!("q{i}\td{i}\t1\nq{i}\td{}\t2\n", i + 40)).collect();
    place.file("qrels.tsv", format!("query-id\tcorpus-id\tscore\n{qrels}missing\td1\t1\n"));
    let line = "eval idx --queries q.jsonl --qrels qrels.tsv --json --per-query --measures \
                ndcg@10,map,recall@100 --run-out out.run --reranker";
    let run = place.run(&[&words(line)[..], &[&small_reranker()]].concat()).ok();
    assert_holds(&run.stderr, &["1 judged queries are not in the query file"]);
    let report = run.json();
    let counts = (&report["judged_queries"], &report["unjudged_queries"]);
    assert_eq!(counts, (&json!(11), &json!(2)));
    let systems = report["systems"].as_array().unwrap();
    assert_eq!(systems.len(), 2);
    assert!(systems[1]["against_first"]["p_randomisation"].is_f64());
    assert_eq!(systems[0]["per_query"]["missing"]["map"], 0.0);
    // Scoring the written run gives the last system's means.
    use warpseek::eval::{measures, qrels::Qrels, run::Run};
    let qrels = Qrels::read(place.path("qrels.tsv")).unwrap();
    let written = Run::read(place.path("out.run")).unwrap();
    let names = ["ndcg@10", "map", "recall@100"];
    let wanted = names.map(|n| n.parse::<measures::Measure>().unwrap());
    let again = measures::evaluate(&written, &qrels, &wanted, &Default::default()).unwrap();
    for (name, value) in names.iter().zip(again.mean) {
        let told = number(&systems[1]["mean"][*name]);
        assert!((told - value).abs() < 1e-9, "{name}: {told} against {value}");
    }
    let text = place.call("eval idx --queries q.jsonl --qrels qrels.tsv --no-rerank").ok();
    assert_holds(&text.stdout, &["ndcg@10", "11 judged queries"]);
}

#[test]
fn index_takes_in_only_what_changed_and_prunes_what_is_gone() {
    let place = indexed(50);
    let again = place.call("index corpus.jsonl --into idx --json").ok().json();
    assert_eq!((&again["added"], &again["unchanged"]), (&json!(0), &json!(50)));
    let changed = records(40).replace("Title 3\"", "Another title\"");
    place.file("corpus.jsonl", changed + "{\"_id\": \"new\", \"text\": \"fresh bread\"}\n");
    let report = place.call("index corpus.jsonl --into idx --json --prune --yes").ok().json();
    let counts = ["added", "updated", "unchanged", "pruned"].map(|name| number(&report[name]));
    assert_eq!(counts, [1.0, 1.0, 39.0, 10.0]);
    let stats = place.stats("idx");
    assert_eq!((&stats["rows"], &stats["dead_rows"]), (&json!(41), &json!(11)));
    let before = search(&place, "bread", &["-k", "100", "--hybrid"]);
    assert_eq!(before["total_rows"], 41);
    assert!(!ids(&before).contains(&"d45".to_owned()));
    let compacted = place.call("compact idx --json").ok().json();
    assert_eq!((&compacted["rows_before"], &compacted["rows_after"]), (&json!(52), &json!(41)));
    place.call("verify idx --sample 6").ok();
    assert_eq!(ids(&search(&place, "bread", &["-k", "100", "--hybrid"])), ids(&before));
    let stats = place.stats("idx");
    assert_eq!((&stats["dead_rows"], &stats["generation"]), (&json!(0), &json!(1)));
    assert!(!place.path("idx/vectors-0.f16").exists());
}

#[test]
fn delete_takes_ids_document_ids_and_filters() {
    let place = indexed(30);
    let chunk = |i| {
        let (id, chunk) = (format!("{i}"), format!("river {i}"));
        json!({"id": "paper", "chunk-id": id, "chunk": chunk, "title": "P"}).to_string() + "\n"
    };
    place.file("chunks.jsonl", (0..4).map(chunk).collect::<String>());
    place.call("index chunks.jsonl --into idx").ok();
    let count = || place.stats("idx")["rows"].clone();
    assert_eq!(count(), 34);
    place.call("delete idx d1 paper-2").ok();
    assert_eq!(count(), 32);
    place.call("delete idx paper").ok();
    assert_eq!(count(), 29);
    place.refuses(&[("delete idx d2 nothing", 2, &["'nothing'", "--ignore-missing"])]);
    assert_eq!(count(), 29);
    place.call("delete idx d2 nothing --ignore-missing").ok();
    place.run(&["delete", "idx", "--filter", "topic = 'a'"]).ok();
    assert_eq!(count(), 18);
    place.pipe(&words("delete idx --ids-from -"), "d4\nd5\n").ok();
    assert_eq!(count(), 16);
    place.call("verify idx").ok();
}

#[test]
fn export_and_import_give_the_same_answers_in_every_format() {
    let place = indexed(70);
    place.call("delete idx d3 d33").ok();
    let expected = search(&place, "garden train", &["-k", "10"]);
    let model = small_model().display().to_string();
    for name in ["v.npy", "v.fvecs", "v.fbin", "v.faiss"] {
        place.call(&format!("export idx --vectors {name} --documents d.jsonl")).ok();
        assert_eq!(place.lines("d.jsonl").len(), 68);
        let line = format!("import {name} --into from-{name} --documents d.jsonl --model");
        place.run(&[&words(&line)[..], &[&model, "--title-field", "title"]].concat()).ok();
        let line = format!("search from-{name} 'garden train' -k 10 --json");
        let got = place.call(&line).ok().json();
        assert_eq!(ids(&got), ids(&expected), "{name}");
        for (a, b) in hits(&got).iter().zip(hits(&expected)) {
            assert_eq!((&a["score"], &a["text"]), (&b["score"], &b["text"]), "{name}");
        }
        place.call(&format!("verify from-{name} --sample 4")).ok();
    }
}

#[test]
fn import_of_bare_vectors_answers_vector_queries_only() {
    let place = Workplace::new();
    for name in ["small.fbin", "small.npy", "small_l2.faiss", "small_hnsw.faiss"] {
        place.file(name, std::fs::read(golden().join("vectors").join(name)).unwrap());
    }
    let report = place.call("import small.fbin --into idx --json").ok().json();
    assert_eq!((&report["rows"], &report["dim"]), (&json!(37), &json!(8)));
    place.call("batch idx small.npy --out o.jsonl -k 1").ok();
    for (i, line) in place.lines("o.jsonl").iter().enumerate() {
        assert_eq!(line["hits"][0]["id"], i.to_string());
    }
    // Unit vectors: the order by L2 distance is that by inner product.
    place.call("import small_l2.faiss --into l2").ok();
    place.file("ids.txt", "a\nb\n");
    place.refuses(&[
        ("search idx text", 2, &["imported without a model"]),
        ("import small_hnsw.faiss --into h", 7, &["IHNf", "IndexFlat"]),
        ("import small.fbin --into few --ids ids.txt", 7, &["ids.txt", "only 2 entries"]),
    ]);
    // What fails leaves no index behind.
    assert!(cfg!(windows) || !place.path("few").exists());
    place.call("import small_l2.faiss --into l2 --normalize").ok();
}

#[test]
fn embed_writes_the_same_vectors_as_jsonl_and_npy() {
    let place = Workplace::new();
    let texts = "river lamp\nstorm\n\nclock\n";
    let lines = place.pipe(&["embed"], texts).ok().stdout;
    let rows: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[2]["id"], "4");
    place.pipe(&words("embed - --out v.npy"), texts).ok();
    let file = warpseek::vectors::VectorFile::open(&place.path("v.npy"), None).unwrap();
    assert_eq!((file.n_rows(), file.dim()), (3, 24));
    for (row, vector) in rows.iter().zip(file.read_all().unwrap().chunks_exact(24)) {
        let told = row["vector"].as_array().unwrap().iter().map(|v| number(v) as f32);
        assert_eq!(told.collect::<Vec<f32>>(), vector);
        let norm: f32 = vector.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-4);
    }
    let query = place.pipe(&words("embed --role query"), "storm\n").ok().stdout;
    assert_ne!(query.lines().next(), lines.lines().nth(1));
}

#[test]
fn index_reads_every_format_from_files_folders_and_stdin() {
    let place = Workplace::new();
    let sentence = "The river runs past the garden. A lamp burns in the window. ";
    let (long, page) = (sentence.repeat(40), format!("<title>C page</title><p>{sentence}</p>"));
    let markdown = format!("# Head\n\n{}\n\n## Next\n\n{}", sentence.repeat(30), sentence);
    let csv = "id,title,text,year\n1,One,river bread,2001\n2,Two,\"clock, paper\",2002\n";
    let files: [(&str, &[u8]); 7] = [
        ("docs/a.txt", long.as_bytes()),
        ("docs/b.md", markdown.as_bytes()),
        ("docs/sub/c.html", page.as_bytes()),
        ("docs/d.csv", csv.as_bytes()),
        ("docs/e.tsv", b"id\ttext\nx\tstorm over the garden\n"),
        ("docs/photo.jpg", &[0xff, 0xd8]),
        ("docs/.hidden.txt", b"not read"),
    ];
    files.iter().for_each(|(name, content)| drop(place.file(name, content)));
    let run = place.call("index docs --into idx --json").ok();
    assert_holds(&run.stderr, &["photo.jpg"]);
    let report = run.json();
    assert_eq!((&report["added"], &report["tokens_lost"]), (&json!(6), &json!(0)));
    assert!(report["rows"].as_u64().unwrap() > 10, "{report}");
    let found = search(&place, "river garden lamp window", &["-k", "100"]);
    for id in ["docs/a.txt#0", "docs/b.md#1", "docs/sub/c.html", "1", "2", "x"] {
        assert!(ids(&found).contains(&id.to_owned()), "no {id} in {:?}", ids(&found));
    }
    // Chunks are parts of the text, in order, and overlap.
    let mut ranges: Vec<[usize; 2]> = Vec::new();
    for hit in hits(&found).iter().filter(|h| h["doc_id"] == "docs/a.txt") {
        let [start, end] = [0, 1].map(|i| hit["document_range"][i].as_u64().unwrap() as usize);
        assert_eq!(hit["text"], long[start..end]);
        ranges.push([start, end]);
    }
    ranges.sort_unstable();
    assert!(ranges.len() > 3 && ranges.windows(2).all(|w| w[1][0] < w[0][1]), "{ranges:?}");

    let piped = place.pipe(&words("index - --into idx --json"), records(5)).ok().json();
    assert_eq!(piped["added"], 5);
    let csv = words("index - --format csv --into other --json");
    assert_eq!(place.pipe(&csv, "id,text\n9,nine\n").ok().json()["added"], 1);
}

#[test]
fn index_of_the_notebooks_schema_keeps_papers_together() {
    let place = Workplace::new();
    let line = |id: &str, chunk: u32| {
        let line = json!({
            "doi": id, "chunk-id": chunk.to_string(), "chunk": format!("Deep river nets {chunk}"),
            "id": id, "title": "Nets", "source": format!("arXiv:{id}"),
            "primary_category": "cs.CL", "published": format!("2024-05-0{chunk}"),
        });
        line.to_string() + "\n"
    };
    place.file("c.jsonl", line("2401.1", 1) + &line("2401.1", 2) + &line("2402.2", 3));
    place.call("index c.jsonl --into idx").ok();
    let result = search(&place, "nets", &["--filter", "published >= '2024-05-02'"]);
    let mut found = ids(&result);
    found.sort_unstable();
    assert_eq!(found, ["2401.1-2", "2402.2-3"]);
    let hit = &result["hits"][0];
    assert!(hit["doc_id"].as_str().unwrap().starts_with("240"));
    assert_eq!(hit["title"], "Nets");
    assert!(hit["text"].as_str().unwrap().starts_with("Deep river"), "the chunk alone is the text");
    let filter = "doc_id = '2401.1' AND primary_category = 'cs.CL'";
    assert_eq!(search(&place, "nets", &["--filter", filter])["matched_rows"], 2);
}

#[test]
fn records_are_split_only_when_asked_and_lost_tokens_are_told() {
    let place = Workplace::new();
    let text = "The river runs past the garden. ".repeat(60);
    place.file("c.jsonl", json!({"_id": "long", "title": "T", "text": text}).to_string());
    let whole = place.call("index c.jsonl --into whole").ok();
    assert_holds(&whole.stderr, &["lost", "--chunk"]);
    let stats = place.stats("whole");
    assert_eq!((&stats["rows"], &stats["rows_truncated"]), (&json!(1), &json!(1)));
    assert!(stats["tokens_lost"].as_u64().unwrap() > 100);
    let split = place.call("index c.jsonl --into split --chunk --json").ok().json();
    assert!(split["rows"].as_u64().unwrap() > 3);
    assert_eq!(split["tokens_lost"], 0);
    let other = "index c.jsonl --into whole --chunk";
    place.refuses(&[(other, 2, &["records whole", "another folder"])]);
}

#[test]
fn index_with_duplicates_stops_or_lets_the_last_one_win() {
    let place = Workplace::new();
    let line = |text: &str| format!("{{\"_id\": \"same\", \"text\": \"{text}\"}}\n");
    let corpus = line("first") + &records(3) + &line("last");
    place.file("c.jsonl", &corpus);
    let parts = ["c.jsonl, line 5: ", "'same' occurs twice", "--on-duplicate last"];
    place.refuses(&[("index c.jsonl --into idx", 7, &parts)]);
    place.call("index c.jsonl --into idx --on-duplicate last").ok();
    let hit = search(&place, "last", &["--filter", "id = 'same'"]);
    assert_eq!(hit["hits"][0]["text"], "last");
    let again = place.call("index c.jsonl --into idx --on-duplicate last --json").ok().json();
    let counts = ["added", "updated", "unchanged"].map(|name| number(&again[name]));
    assert_eq!(counts, [0.0, 0.0, 4.0]);
    let piped = place.pipe(&words("index - --into p --on-duplicate last --json"), &corpus);
    assert_eq!(piped.ok().json()["added"], 4);
}

#[test]
fn settings_come_from_flags_before_environment_before_file() {
    let place = indexed(10);
    place.file(".private/config.toml", "device = \"cuda:0\"\n");
    place.refuses(&[("search idx river", 4, &["cuda:0", NO_GPU])]);
    let with = |line: &str| finish(place.command(&words(line)).env("WARPSEEK_DEVICE", "cpu"));
    with("search idx river").ok();
    with("search idx river --device tpu").fails(2, &["--device", "'tpu'"]);
    // An empty variable sets nothing.
    finish(place.command(&words("info idx")).env("WARPSEEK_DEVICE", "")).fails(4, &["cuda:0"]);
    place.file(".private/config.toml", "devise = \"cpu\"\n");
    place.refuses(&[("info idx", 2, &["config.toml", "devise"])]);
}

#[test]
fn doctor_and_models_say_what_is_here() {
    let place = Workplace::new();
    let doctor = place.call("doctor").ok().stdout;
    assert_holds(&doctor, &["scan", "generic", NO_GPU, "offline", "all-MiniLM-L6-v2"]);
    assert_eq!(place.call("doctor --json").ok().json()["offline"], true);
    let list = place.call("models list").ok().stdout;
    assert_holds(&list, &["ms-marco-MiniLM-L6-v2", "Apache-2.0"]);
    place.refuses(&[
        ("models path all-MiniLM-L6-v2", 3, &["all-MiniLM-L6-v2"]),
        ("models pull ms-marco-MiniLM-L6-v2", 3, &["offline"]),
    ]);
    assert_holds(&place.call("models verify").ok().stdout, &["no model is present"]);
}

#[test]
fn models_list_and_info_describe_every_model() {
    let place = Workplace::new();
    let all = place.call("models list --json").ok().json();
    let all = all.as_array().unwrap();
    assert!(all.len() >= 20, "{}", all.len());
    for model in all {
        let spec = &model["spec"];
        let is_embedder = spec["kind"] == "embedder";
        assert!(is_embedder || spec["kind"] == "reranker", "{spec}");
        assert_eq!(spec["dimension"].is_u64(), is_embedder, "{spec}");
        assert!(
            spec["max_tokens"].as_u64() >= Some(128) && model["bytes"].as_u64() > Some(1 << 20)
        );
        assert!(spec["license"].is_string() && spec["languages"][0].is_string(), "{spec}");
        let has_files = spec["files"].as_array().is_some_and(|files| !files.is_empty());
        assert_eq!(model["pinned"], has_files);
        assert!(has_files || spec["revision"].is_null() && model["about"] == true);
    }
    let list = place.call("models list").ok().stdout;
    let line = |name: &str| {
        let mut lines = list.lines().filter(|line| line.split(' ').next() == Some(name));
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("bge-m3"), "bge-m3 embedder 1024 8192 ~2.27 GB MIT multilingual not pinned");
    let pinned = "bge-small-en-v1.5 embedder 384 512 134.18 MB MIT en pinned";
    assert_eq!(line("bge-small-en-v1.5"), pinned);
    assert!(line("multi-qa-mpnet-base-dot-v1").contains("not stated"));
    assert!(list.lines().all(|line| line.starts_with('~') || line.chars().count() <= 140));

    let absent = place.call("models info all-mpnet-base-v2").ok().stdout;
    assert_holds(&absent, &["embedder", "768", "~438 MB", "not pinned", "not present"]);
    let model = small_model().display().to_string();
    let info = place.run(&["models", "info", &model, "--json"]).ok().json();
    assert_eq!((&info["kind"], &info["family"]), (&json!("embedder"), &json!("bert")));
    assert_eq!((&info["dimension"], &info["pinned"]), (&json!(24), &json!(false)));
    assert_eq!((&info["verified_by"], &info["pooling"]), (&json!("nothing"), &json!("mean")));
    let files = info["files"].as_array().unwrap();
    assert!(files.iter().any(|file| file["path"] == "1_Pooling/config.json"), "{info}");
    assert_holds(&place.run(&["models", "info", &model]).ok().stdout, &["mean", "config.json"]);
    place.refuses(&[
        ("models info all-mpnet-base", 3, &["did you mean 'all-mpnet-base-v2'"]),
        ("models info https://huggingface.co/BAAI/bge-m3", 3, &["use 'bge-m3'"]),
        ("models pull text-embedding-3-small", 3, &["hosted model of OpenAI"]),
        ("models pull BAAI/bge-large", 3, &["offline", "models list", "'bge-large-en-v1.5'"]),
    ]);
}

#[test]
fn model_of_the_other_kind_is_refused_by_name() {
    let place = indexed(3);
    place.refuses(&[
        (
            "search idx river --reranker bge-m3",
            3,
            &["it is an embedder, not a reranker", "--model"],
        ),
        ("rerank river lamp --reranker BAAI/bge-m3", 3, &["such as ms-marco-MiniLM-L6-v2"]),
        ("index corpus.jsonl --into new --model bge-reranker-base", 3, &["not an embedder"]),
        ("search idx river --model ms-marco-MiniLM-L6-v2", 3, &["such as all-MiniLM-L6-v2"]),
    ]);
    // A folder tells it by its configuration.
    let reranker = small_reranker();
    place.pipe(&["embed", "--model", &reranker], "river\n").fails(3, &["it is a reranker"]);
}

#[test]
fn output_into_a_closed_pipe_is_no_failure() {
    let place = indexed(2000);
    let mut child = place
        .command(&words("search idx river -k 2000 --jsonl"))
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
    let record = json!({"_id": "e", "title": "T\u{1b}]0;x\u{7}", "text": "a\u{1b}[31mred"});
    place.file("c.jsonl", record.to_string());
    place.call("index c.jsonl --into idx").ok();
    let out = place.call("search idx red --full").ok().stdout;
    assert!(!out.contains('\x1b') && !out.contains('\x07'), "{out:?}");
    assert_holds(&out, &["a[31mred"]);
}

#[test]
fn demo_runs_the_whole_way_with_the_real_model() {
    let place = Workplace::new();
    let out = finish(with_real_model(&mut place.command(&["demo"]))).ok().stdout;
    assert_holds(&out, &["[5/5]", "150 new", "false-sharing", " #1 was retrieved #", "nDCG@10"]);
    let score = |name: &str| -> f64 {
        let line = out.lines().find(|l| l.starts_with(name)).unwrap();
        let value = line.split("nDCG@10").nth(1).unwrap().split_whitespace().next().unwrap();
        value.parse().unwrap()
    };
    assert!((score("retrieval") - 0.794).abs() < 0.01 && score("hybrid") > 0.8, "{out}");
}
