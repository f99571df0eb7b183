//! Query files, qrels, passages, and the files that results are written to.

use super::counts;
use crate::support::cli::{Workplace, assert_holds, indexed, small_reranker};

/// A place with an index, two queries and their qrels.
fn with_queries() -> Workplace {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    place
}

const EVAL: &str = "eval idx --queries q.tsv --qrels";

#[test]
fn batch_of_a_bad_query_names_its_line_and_keeps_the_answers_before_it() {
    let place = indexed(20);
    let first = r#"{"_id": "q1", "text": "river"}"#;
    let cases: &[(&str, &str, &[u8], &[&str])] = &[
        ("a.jsonl", first, br#"{"_id": "q2", "text": "#, &["not valid JSON"]),
        ("b.jsonl", first, br#"{"_id": "q2"}"#, &["'text'", "it has _id"]),
        ("c.jsonl", first, br#"{"_id": "q2", "text": 5}"#, &["field 'text'", "not a number"]),
        ("d.jsonl", first, br#"{"_id": "q2", "text": " "}"#, &["field 'text'", "no text"]),
        ("e.jsonl", first, br#"{"_id": null, "text": "x"}"#, &["field '_id'", "not null"]),
        ("f.jsonl", first, br#"{"_id": "q1", "text": "x"}"#, &["query id 'q1'", "first in line 1"]),
        ("g.jsonl", first, br#"["q2", "x"]"#, &["not a JSON object"]),
        ("h.jsonl", first, b"{\"_id\": \"q2\", \"text\": \"\xe9\"}", &["UTF-8"]),
        ("i.jsonl", first, br#"{"_id": "q2", "text": "x", "filter": 7}"#, &["field 'filter'"]),
        ("j.jsonl", first, br#"{"_id": "q2", "vector": [1, "x"]}"#, &["field 'vector'", "number"]),
        ("k.tsv", "q1\triver", b"no tab", &["no tab", "`id <tab> text`"]),
        ("n.tsv", "q1\triver", b"q1\tlamp", &["query id 'q1' occurs twice, first in line 1"]),
        ("l.tsv", "q1\triver", b"\tlamp", &["field 'id'", "empty"]),
        ("m.tsv", "q1\triver", b"q2\t ", &["field 'text'", "no text"]),
    ];
    for (name, first, bad, parts) in cases {
        place.file(name, [first.as_bytes(), b"\n", bad, b"\n"].concat());
        let out = format!("{name}.out");
        let line = format!("{name}, line 2");
        let run = place.call(&format!("batch idx {name} --out {out}"));
        let run = run.fails(7, &[&[line.as_str()][..], parts].concat());
        assert!(!run.stderr.contains("at line 1"), "the line number is the file's: {}", run.stderr);
        let journal = std::fs::read_to_string(place.path(&format!("{out}.partial"))).unwrap();
        assert!(journal.contains("\"query_id\":\"q1\""), "{name}: {journal}");
        assert!(!place.path(&out).exists());
    }
    place.is_sound(20);
}

#[test]
fn batch_whose_query_file_was_mended_continues_after_the_answers() {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\nno tab\n");
    place.refuses(&[("batch idx q.tsv --out out.jsonl", 7, &["q.tsv, line 2"])]);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    let report = place.call("batch idx q.tsv --out out.jsonl --json").ok().json();
    assert_eq!(counts(&report, ["queries", "resumed"]), [2, 1]);
}

#[test]
fn batch_of_many_queries_with_few_filters_answers_each_with_its_own() {
    let place = indexed(60);
    let query = |i: usize| {
        let filter = [None, Some("topic = 'a'"), Some("topic = 'b' OR year = 2001")][i % 3];
        serde_json::json!({"_id": i, "text": "river", "filter": filter}).to_string() + "\n"
    };
    place.file("q.jsonl", (0..9).map(query).collect::<String>());
    place.run(&["batch", "idx", "q.jsonl", "--out", "o.jsonl", "--filter", "year > 2002"]).ok();
    let matched = |filter: &str| {
        let args = ["search", "idx", "river", "--json", "--filter", filter];
        place.run(&args).ok().json()["matched_rows"].clone()
    };
    let expected = [
        matched("year > 2002"),
        matched("(year > 2002) AND (topic = 'a')"),
        matched("(year > 2002) AND (topic = 'b' OR year = 2001)"),
    ];
    for (i, line) in place.lines("o.jsonl").iter().enumerate() {
        assert_eq!(line["matched_rows"], expected[i % 3], "{line}");
    }
}

#[test]
fn batch_of_a_query_that_does_not_fit_the_index_names_its_line() {
    let place = indexed(20);
    let cases: &[(&str, &[&str])] = &[
        (r#""text": "x", "filter": "yaer > 1""#, &["field 'filter'", "did you mean year"]),
        (r#""text": "x", "filter": "year >""#, &["field 'filter'", "Expected"]),
        (r#""text": "x", "filter": """#, &["field 'filter'", "it is empty"]),
        (r#""text": "x", "filter": "year > 1) OR (id = 1""#, &["field 'filter'", "Column: 9"]),
        (r#""vector": [1, 2]"#, &["field 'vector'", "2 dimensions", "24"]),
        (r#""vector": []"#, &["field 'vector'", "24"]),
    ];
    for (query, parts) in cases {
        place.file("q.jsonl", format!("{{\"_id\": \"a\", \"text\": \"x\"}}\n{{{query}}}\n"));
        let parts = [&["q.jsonl, line 2"][..], parts].concat();
        place.refuses(&[("batch idx q.jsonl --out out.jsonl --restart", 7, &parts)]);
    }
    place.is_sound(20);
}

#[test]
fn batch_that_answered_nothing_stands_in_nobodys_way() {
    let place = with_queries();
    place.file("empty.tsv", "");
    place.refuses(&[
        ("batch idx empty.tsv --out out.jsonl", 7, &["empty.tsv", "no queries"]),
        ("batch idx q.tsv --out out.jsonl --filter 'yaer > 2000'", 2, &["'yaer'"]),
        ("batch idx q.tsv --out out.jsonl --mmr-lambda 2", 2, &["MMR"]),
    ]);
    place.call("batch idx q.tsv --out out.jsonl --filter 'year > 2000'").ok();
    assert_eq!(place.lines("out.jsonl").len(), 2);
}

#[test]
fn batch_into_a_place_that_cannot_be_written_names_it() {
    let place = with_queries();
    std::fs::create_dir(place.path("folder")).unwrap();
    place.refuses(&[
        ("batch idx none.tsv --out out.jsonl", 8, &["none.tsv"]),
        ("batch idx folder --out out.jsonl", 8, &["folder"]),
        ("batch idx q.tsv --out none/out.jsonl", 8, &["none/out.jsonl"]),
        ("batch idx q.tsv --out folder", 2, &["folder", "a regular file"]),
        ("batch idx q.tsv --out o --format xml", 2, &["'xml'", "jsonl, trec"]),
        ("batch idx q.tsv --out o.run --with-text", 2, &["--with-text", "jsonl"]),
        ("export idx --vectors none/v.npy", 8, &["none"]),
        ("export idx --vectors v.csv", 2, &["v.csv", ".npy, .fvecs, .fbin or .faiss"]),
        ("embed q.tsv --out none/v.npy", 8, &["none"]),
        ("embed q.tsv --out v.csv", 2, &["v.csv", ".npy"]),
    ]);
    assert_eq!(std::fs::read_dir(place.path("folder")).unwrap().count(), 0);
}

#[test]
fn batch_of_an_id_that_trec_cannot_carry_keeps_the_answers_for_another_format() {
    let place = indexed(20);
    place.file("q.tsv", "q 1\triver\nq2\tlamp\n");
    let parts = ["'q 1'", "white space", "another output format"];
    place.refuses(&[("batch idx q.tsv --out out.run", 7, &parts)]);
    let report = place.call("batch idx q.tsv --out out.run --format jsonl --json").ok().json();
    assert_eq!(counts(&report, ["queries", "resumed"]), [2, 2]);
}

#[test]
fn output_over_an_input_is_refused_and_both_are_kept() {
    let place = with_queries();
    place.call("export idx --vectors v.npy").ok();
    let cases = [
        ("batch idx q.tsv --out q.tsv", "q.tsv"),
        ("batch idx q.tsv --out ./q.tsv", "q.tsv"),
        ("batch idx v.npy --out v.npy", "v.npy"),
        (&format!("{EVAL} qrels.txt --run-out q.tsv"), "q.tsv"),
        (&format!("{EVAL} qrels.txt --run-out qrels.txt"), "qrels.txt"),
        ("export idx --documents idx/documents.db", "idx/documents.db"),
        ("export idx --documents idx/manifest.json", "idx/manifest.json"),
        ("batch idx q.tsv --out idx/documents.db", "idx/documents.db"),
        ("export idx --vectors x.npy --documents x.npy", "x.npy"),
    ];
    for (line, name) in cases {
        let before = std::fs::read(place.path(name)).ok();
        place.refuses(&[(line, 2, &[name])]);
        assert_eq!(std::fs::read(place.path(name)).ok(), before, "{line} wrote over {name}");
    }
    place.is_sound(20);
}

#[cfg(unix)]
#[test]
fn output_never_takes_the_place_of_what_is_no_file() {
    use std::os::unix::fs::FileTypeExt;
    let place = with_queries();
    let path = place.path("device");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for line in [
        "export idx --documents device",
        "export idx --vectors device --format npy",
        "batch idx q.tsv --out device",
        &format!("{EVAL} qrels.txt --run-out device"),
    ] {
        let run = place.call(line).unbroken();
        let still = std::fs::symlink_metadata(&path).unwrap().file_type().is_socket();
        assert!(still, "{line} replaced it by a file");
        assert!(run.code != 0 && run.stderr.contains("device"), "{line}: {}", run.stderr);
    }
}

#[test]
fn eval_with_invalid_qrels_names_the_line_and_the_columns() {
    let place = with_queries();
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["no relevance judgment"]),
        (b"query-id\tcorpus-id\tscore\n", &["no relevance judgment"]),
        (b"q1 d3 1\n", &["line 1", "query-id, corpus-id, score"]),
        (b"q1 0 d3\n", &["line 1", "query, iteration, document, level"]),
        (b"{\"query\": \"q1\"}\n", &["line 1", "query-id, corpus-id, score"]),
        (b"q1 0 d3 x\n", &["line 1, field 'level'", "'x'", "write an integer"]),
        (b"q1 0 d3 1.5\n", &["line 1, field 'level'", "'1.5'"]),
        (b"q1 0 d3 1.\n", &["line 1, field 'level'", "'1.'"]),
        (b"q1 0 d3 1\nq2 0\n", &["line 2", "expected 4 columns", "found 2"]),
        (b"query-id\tcorpus-id\tscore\nq1\td3\tone\n", &["line 2, field 'score'", "'one'"]),
        (b"q1 0 d3 1\nq1 0 d3 2\n", &["line 2", "level 2 here and level 1 before"]),
        (b"q1 0 d\xe9 1\n", &["line 1", "UTF-8"]),
    ];
    for (content, parts) in cases {
        place.file("bad.txt", content);
        let parts = [&["bad.txt"][..], parts].concat();
        place.refuses(&[(&format!("{EVAL} bad.txt"), 7, &parts)]);
    }
    for measure in ["foo", "ndcg@0", "ndcg@-1", ""] {
        let line = format!("{EVAL} qrels.txt --measures '{measure}'");
        place.refuses(&[(&line, 2, &["unknown measure", "ndcg@K"])]);
    }
    place.refuses(&[(&format!("{EVAL} gone.txt"), 8, &["gone.txt"])]);
}

#[test]
fn eval_of_files_that_do_not_belong_together_names_them() {
    let place = with_queries();
    place.file("others.txt", "z1 0 d3 1\n");
    place.file("empty.tsv", "");
    place.refuses(&[
        (&format!("{EVAL} others.txt"), 7, &["q.tsv", "others.txt", "belong together"]),
        ("eval idx --queries empty.tsv --qrels qrels.txt", 7, &["empty.tsv", "no queries"]),
    ]);
    place.file("absent.txt", "q1 0 elsewhere-1 1\nq2 0 elsewhere-2 1\n");
    let parts = ["absent.txt", "0 of 2 judged documents are in the index"];
    place.refuses(&[(&format!("{EVAL} absent.txt"), 7, &parts)]);
    place.file("some.txt", "q1 0 elsewhere-1 1\nq2 0 d3 1\n");
    let run = place.call(&format!("{EVAL} some.txt")).ok();
    assert_holds(&run.stderr, &["warning", "some.txt", "1 of 2 judged documents are in the index"]);
}

#[test]
fn delete_of_what_is_not_there_deletes_nothing() {
    let place = indexed(20);
    place.refuses(&[
        ("delete idx nothing", 2, &["'nothing'", "nothing was deleted", "--ignore-missing"]),
        ("delete idx d1 d2 nothing", 2, &["1 of 3 ids", "'nothing'"]),
        ("delete idx ''", 2, &["nothing was deleted"]),
        ("delete idx", 2, &["nothing to delete"]),
        ("delete idx --filter ''", 2, &["it is empty"]),
        ("delete idx --filter 'yaer > 1'", 2, &["'yaer'", "did you mean year"]),
        ("delete idx d1 --filter 'yaer > 1'", 2, &["'yaer'"]),
        ("delete idx --ids-from gone.txt", 8, &["gone.txt"]),
    ]);
    place.file("ids.txt", b"d1\ncaf\xe9\n");
    place.refuses(&[("delete idx --ids-from ids.txt", 7, &["ids.txt, line 2", "UTF-8"])]);
    place.is_sound(20);
}

#[test]
fn embed_and_rerank_of_nothing_say_what_they_lack() {
    let place = Workplace::new();
    let reranker = small_reranker();
    let rerank = |query: &'static str| ["rerank", query, "--reranker", reranker.as_str()];
    for input in ["", "\n \n"] {
        place.pipe(&["embed"], input).fails(7, &["no text to embed"]);
        place.pipe(&rerank("river"), input).fails(2, &["nothing to rerank"]);
    }
    place.run(&rerank(" ")).fails(2, &["the query is empty"]);
    let line = |more: &str| format!("rerank river --reranker '{reranker}' {more}");
    place.refuses(&[
        (&line("lamp ' '"), 2, &["passage 2 is empty"]),
        (&line("lamp --top-n 0"), 2, &["--top-n above 0"]),
        (&line("--passages gone.txt"), 8, &["gone.txt"]),
        ("embed gone.txt", 8, &["gone.txt"]),
    ]);
    place.pipe(&["embed"], "a\tx\na\ty\n").fails(7, &["line 2: the text id 'a'", "in line 1"]);
    let parts = ["line 3: the passage id 'a' occurs twice, first in line 2"];
    place.pipe(&rerank("river"), "id\ttext\na\tx\na\ty\n").fails(7, &parts);
    place.refuses(&[(&line("lamp --id-field x"), 2, &["--id-field", "--passages"])]);
    let cases: [(&[u8], &[&str]); 3] = [
        (b"{\"_id\": \"a\", \"text\": ", &["not valid JSON"]),
        (b"{\"_id\": \"a\", \"text\": 5}", &["field 'text'", "not a number"]),
        (b"caf\xe9", &["UTF-8"]),
    ];
    for (input, parts) in cases {
        let parts = [&["<stdin>, line 1"][..], parts].concat();
        place.pipe(&["embed"], input).fails(7, &parts);
        place.pipe(&rerank("river"), input).fails(7, &parts);
    }
}
