//! Query files, judgments, passages, and the places that results go to.

use super::{indexed, refused, sound, unbroken};
use crate::support::cli::{Workplace, small_reranker};

/// A place with an index, two queries and judgments of them.
fn with_queries() -> Workplace {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    place.file("qrels.txt", "q1 0 d3 1\nq2 0 d4 1\n");
    place
}

fn batch<'a>(queries: &'a str, out: &'a str) -> [&'a str; 5] {
    ["batch", "idx", queries, "--out", out]
}

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
        ("f.jsonl", first, br#"{"_id": "q1", "text": "x"}"#, &["'q1' comes twice"]),
        ("g.jsonl", first, br#"["q2", "x"]"#, &["not a JSON object"]),
        ("h.jsonl", first, b"{\"_id\": \"q2\", \"text\": \"\xe9\"}", &["UTF-8"]),
        (
            "i.jsonl",
            first,
            br#"{"_id": "q2", "text": "x", "filter": 7}"#,
            &["field 'filter'", "not a number"],
        ),
        ("j.jsonl", first, br#"{"_id": "q2", "vector": [1, "x"]}"#, &["field 'vector'", "number"]),
        ("k.tsv", "q1\triver", b"no tab", &["no tab", "`id <tab> text`"]),
        ("l.tsv", "q1\triver", b"\tlamp", &["field 'id'", "empty"]),
        ("m.tsv", "q1\triver", b"q2\t ", &["field 'text'", "no text"]),
    ];
    for (name, first, bad, parts) in cases {
        place.file(name, [first.as_bytes(), b"\n", bad, b"\n"].concat());
        let out = format!("{name}.out");
        let line = format!("{name}, line 2");
        let run = place.run(&batch(name, &out));
        refused(&run, name, 7, &[&[line.as_str()][..], parts].concat());
        assert!(!run.stderr.contains("at line 1"), "there is but one line 2: {}", run.stderr);
        let journal = std::fs::read_to_string(place.path(&format!("{out}.partial"))).unwrap();
        assert!(journal.contains("\"query_id\":\"q1\""), "{name}: {journal}");
        assert!(!place.path(&out).exists());
    }
    sound(&place, 20);
}

#[test]
fn batch_whose_query_file_was_mended_goes_on_behind_the_answers() {
    let place = indexed(20);
    place.file("q.tsv", "q1\triver\nno tab\n");
    refused(&place.run(&batch("q.tsv", "out.jsonl")), "no tab", 7, &["q.tsv, line 2"]);
    place.file("q.tsv", "q1\triver\nq2\tlamp\n");
    let report = place.run(&[&batch("q.tsv", "out.jsonl")[..], &["--json"]].concat()).ok().json();
    assert_eq!((&report["queries"], &report["resumed"]), (&2.into(), &1.into()));
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
        let args = [&batch("q.jsonl", "out.jsonl")[..], &["--restart"]].concat();
        refused(&place.run(&args), query, 7, &[&["q.jsonl, line 2"][..], parts].concat());
    }
    sound(&place, 20);
}

#[test]
fn batch_that_answered_nothing_stands_in_nobodys_way() {
    let place = with_queries();
    place.file("empty.tsv", "");
    refused(&place.run(&batch("empty.tsv", "out.jsonl")), "empty", 7, &["empty.tsv", "no queries"]);
    for wrong in [["--filter", "yaer > 2000"], ["--mmr-lambda", "2"]] {
        let run = place.run(&[&batch("q.tsv", "out.jsonl")[..], &wrong].concat());
        refused(&run, &wrong.join(" "), 2, &[]);
    }
    let right = ["--filter", "year > 2000"];
    place.run(&[&batch("q.tsv", "out.jsonl")[..], &right].concat()).ok();
    assert_eq!(crate::golden::lines(&place.path("out.jsonl")).len(), 2);
}

#[test]
fn batch_into_a_place_that_cannot_be_written_names_it() {
    let place = with_queries();
    std::fs::create_dir(place.path("folder")).unwrap();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&batch("none.tsv", "out.jsonl"), 8, &["none.tsv"]),
        (&batch("folder", "out.jsonl"), 8, &["folder"]),
        (&batch("q.tsv", "none/out.jsonl"), 8, &["none/out.jsonl"]),
        (&batch("q.tsv", "folder"), 2, &["folder", "a regular file"]),
        (&["batch", "idx", "q.tsv", "--out", "o", "--format", "xml"], 2, &["'xml'", "jsonl, trec"]),
        (&["batch", "idx", "q.tsv", "--out", "o.run", "--with-text"], 2, &["--with-text", "jsonl"]),
        (&["export", "idx", "--vectors", "none/v.npy"], 8, &["none"]),
        (&["export", "idx", "--vectors", "v.csv"], 2, &["v.csv", ".npy, .fvecs, .fbin or .faiss"]),
        (&["embed", "q.tsv", "--out", "none/v.npy"], 8, &["none"]),
        (&["embed", "q.tsv", "--out", "v.csv"], 2, &["v.csv", ".npy"]),
    ];
    for (args, code, parts) in cases {
        refused(&place.run(args), &args.join(" "), *code, parts);
    }
    assert_eq!(std::fs::read_dir(place.path("folder")).unwrap().count(), 0);
}

#[test]
fn batch_of_an_id_that_trec_cannot_carry_keeps_the_answers_for_another_format() {
    let place = indexed(20);
    place.file("q.tsv", "q 1\triver\nq2\tlamp\n");
    let run = place.run(&batch("q.tsv", "out.run"));
    refused(&run, "trec", 7, &["'q 1'", "white space", "another output format"]);
    let other = ["--format", "jsonl", "--json"];
    let report = place.run(&[&batch("q.tsv", "out.run")[..], &other].concat()).ok().json();
    assert_eq!((&report["queries"], &report["resumed"]), (&2.into(), &2.into()));
}

#[test]
fn output_over_an_input_is_refused_and_both_are_kept() {
    let place = with_queries();
    place.run(&["export", "idx", "--vectors", "v.npy"]).ok();
    let eval = ["eval", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt", "--run-out"];
    let cases: &[(Vec<&str>, &str)] = &[
        (batch("q.tsv", "q.tsv").to_vec(), "q.tsv"),
        (batch("q.tsv", "./q.tsv").to_vec(), "q.tsv"),
        (batch("v.npy", "v.npy").to_vec(), "v.npy"),
        ([&eval[..], &["q.tsv"]].concat(), "q.tsv"),
        ([&eval[..], &["qrels.txt"]].concat(), "qrels.txt"),
        (vec!["export", "idx", "--documents", "idx/documents.db"], "idx/documents.db"),
        (vec!["export", "idx", "--documents", "idx/manifest.json"], "idx/manifest.json"),
        (batch("q.tsv", "idx/documents.db").to_vec(), "idx/documents.db"),
        (vec!["export", "idx", "--vectors", "x.npy", "--documents", "x.npy"], "x.npy"),
    ];
    for (args, name) in cases {
        let before = std::fs::read(place.path(name)).ok();
        let run = place.run(args);
        assert_eq!(std::fs::read(place.path(name)).ok(), before, "{args:?} wrote over {name}");
        refused(&run, &args.join(" "), 2, &[name]);
    }
    sound(&place, 20);
}

#[cfg(unix)]
#[test]
fn output_never_takes_the_place_of_what_is_no_file() {
    use std::os::unix::fs::FileTypeExt;
    let place = with_queries();
    let path = place.path("device");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for args in [
        &["export", "idx", "--documents", "device"][..],
        &["export", "idx", "--vectors", "device", "--format", "npy"],
        &batch("q.tsv", "device"),
        &["eval", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt", "--run-out", "device"],
    ] {
        let run = place.run(args);
        let still = std::fs::symlink_metadata(&path).unwrap().file_type().is_socket();
        assert!(still, "{args:?} put a file in its place");
        unbroken(&run, &args.join(" "));
        assert!(run.code != 0 && run.stderr.contains("device"), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn eval_with_judgments_that_are_none_names_the_line_and_the_columns() {
    let place = with_queries();
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["no judgment"]),
        (b"query-id\tcorpus-id\tscore\n", &["no judgment"]),
        (b"q1 d3 1\n", &["line 1", "query-id, corpus-id, score"]),
        (b"q1 0 d3\n", &["line 1", "query, iteration, document, level"]),
        (b"{\"query\": \"q1\"}\n", &["line 1", "query-id, corpus-id, score"]),
        (b"q1 0 d3 x\n", &["line 1, field 'level'", "'x'", "write an integer"]),
        (b"q1 0 d3 1.5\n", &["line 1, field 'level'", "'1.5'"]),
        (b"q1 0 d3 1\nq2 0\n", &["line 2", "expected 4 columns", "found 2"]),
        (b"query-id\tcorpus-id\tscore\nq1\td3\tone\n", &["line 2, field 'score'", "'one'"]),
        (b"q1 0 d3 1\nq1 0 d3 2\n", &["line 2", "level 2 here and level 1 before"]),
        (b"q1 0 d\xe9 1\n", &["line 1", "UTF-8"]),
    ];
    for (content, parts) in cases {
        place.file("bad.txt", content);
        let run = place.run(&["eval", "idx", "--queries", "q.tsv", "--qrels", "bad.txt"]);
        let what = String::from_utf8_lossy(content);
        refused(&run, &what, 7, &[&["bad.txt"][..], parts].concat());
    }
    let eval = ["eval", "idx", "--queries", "q.tsv", "--qrels", "qrels.txt"];
    for measure in ["foo", "ndcg@0", "ndcg@-1", ""] {
        let run = place.run(&[&eval[..], &["--measures", measure]].concat());
        refused(&run, measure, 2, &["unknown measure", "ndcg@K"]);
    }
    let gone = ["eval", "idx", "--queries", "q.tsv", "--qrels", "gone.txt"];
    refused(&place.run(&gone), "gone", 8, &["gone.txt"]);
}

#[test]
fn eval_of_files_that_do_not_belong_together_names_them() {
    let place = with_queries();
    place.file("others.txt", "z1 0 d3 1\n");
    let run = place.run(&["eval", "idx", "--queries", "q.tsv", "--qrels", "others.txt"]);
    unbroken(&run, "no query is judged");
    assert!(matches!(run.code, 2 | 7), "{}", run.stderr);
    for part in ["q.tsv", "others.txt", "belong together"] {
        assert!(run.stderr.contains(part), "no '{part}' in: {}", run.stderr);
    }
    place.file("empty.tsv", "");
    let run = place.run(&["eval", "idx", "--queries", "empty.tsv", "--qrels", "qrels.txt"]);
    refused(&run, "no query", 7, &["empty.tsv", "no queries"]);
}

#[test]
fn eval_with_judgments_of_documents_that_the_index_lacks_warns() {
    let place = with_queries();
    place.file("others.txt", "q1 0 elsewhere-1 1\nq2 0 elsewhere-2 1\n");
    let run = place.run(&["eval", "idx", "--queries", "q.tsv", "--qrels", "others.txt"]).ok();
    assert!(run.stderr.contains("warning") && run.stderr.contains("others.txt"), "{}", run.stderr);
}

#[test]
fn delete_of_what_is_not_there_deletes_nothing() {
    let place = indexed(20);
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["nothing"], 2, &["'nothing'", "nothing was deleted", "--ignore-missing"]),
        (&["d1", "d2", "nothing"], 2, &["1 of 3 ids", "'nothing'"]),
        (&[""], 2, &["nothing was deleted"]),
        (&[], 2, &["required"]),
        (&["--filter", ""], 2, &["it is empty"]),
        (&["--filter", "yaer > 1"], 2, &["'yaer'", "did you mean year"]),
        (&["d1", "--filter", "yaer > 1"], 2, &["'yaer'"]),
        (&["--ids-from", "gone.txt"], 8, &["gone.txt"]),
    ];
    for (more, code, parts) in cases {
        refused(
            &place.run(&[&["delete", "idx"][..], more].concat()),
            &more.join(" "),
            *code,
            parts,
        );
    }
    sound(&place, 20);
    place.file("ids.txt", b"d1\ncaf\xe9\n");
    let run = place.run(&["delete", "idx", "--ids-from", "ids.txt"]);
    refused(&run, "Latin-1", 7, &["ids.txt, line 2", "UTF-8"]);
    sound(&place, 20);
}

#[test]
fn embed_and_rerank_of_nothing_say_what_they_lack() {
    let place = Workplace::new();
    let reranker = small_reranker();
    let rerank = |query: &'static str| ["rerank", query, "--reranker", reranker.as_str()];
    for input in ["", "\n \n"] {
        refused(&place.pipe(&["embed"], input), "embed", 7, &["no text to embed"]);
        refused(&place.pipe(&rerank("river"), input), "rerank", 2, &["nothing to rerank"]);
    }
    refused(&place.run(&rerank(" ")), "no query", 2, &["the query is empty"]);
    let run = place.run(&[&rerank("river")[..], &["lamp", " "]].concat());
    refused(&run, "an empty passage", 2, &["passage 2 is empty"]);
    let run = place.run(&[&rerank("river")[..], &["lamp", "--top-n", "0"]].concat());
    refused(&run, "none", 2, &["--top-n above 0"]);
    let run = place.run(&[&rerank("river")[..], &["--passages", "gone.txt"]].concat());
    refused(&run, "gone", 8, &["gone.txt"]);
    let cases: &[(&[u8], &[&str])] = &[
        (b"{\"_id\": \"a\", \"text\": ", &["not valid JSON"]),
        (b"{\"_id\": \"a\", \"text\": 5}", &["field 'text'", "not a number"]),
        (b"caf\xe9", &["UTF-8"]),
    ];
    for (input, parts) in cases {
        let parts = [&["<stdin>, line 1"][..], parts].concat();
        let what = String::from_utf8_lossy(input);
        refused(&place.pipe(&["embed"], input), &what, 7, &parts);
        refused(&place.pipe(&rerank("river"), input), &what, 7, &parts);
    }
    refused(&place.run(&["embed", "gone.txt"]), "gone", 8, &["gone.txt"]);
}
