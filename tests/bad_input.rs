//! Bad input to the built program: every message names the file, the record and the field, and says
//! what to do, and the index keeps everything that it had before.

mod damage;
mod files;
mod outputs;
mod searches;
mod settings;
pub(crate) mod vectors;

use crate::support::cli::{Workplace, assert_holds, indexed, records, small_reranker};
use serde_json::{Value, json};

/// The report of `index` for taking `file` into `idx`.
#[track_caller]
fn index(place: &Workplace, file: &str, more: &[&str]) -> Value {
    place.run(&[&["index", file, "--into", "idx", "--json"][..], more].concat()).ok().json()
}

/// Counts of a report.
#[track_caller]
fn counts<const N: usize>(report: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| report[name].as_u64().unwrap())
}

#[test]
fn index_of_a_bad_line_keeps_what_came_before_and_resumes_once_it_is_mended() {
    let place = Workplace::new();
    let whole = records(20);
    let mut lines: Vec<&str> = whole.lines().collect();
    let good = std::mem::replace(&mut lines[16], r#"{"_id": "d16", "text": "#);
    place.file("c.jsonl", lines.join("\n"));
    for _ in 0..2 {
        place.refuses(&[("index c.jsonl --into idx", 7, &["c.jsonl, line 17"])]);
        place.is_sound(16);
    }
    lines[16] = good;
    place.file("c.jsonl", lines.join("\n"));
    assert_eq!(counts(&index(&place, "c.jsonl", &[]), ["unchanged", "added"]), [16, 4]);
    place.is_sound(20);
}

#[test]
fn index_of_a_bad_record_names_line_and_field_and_keeps_the_others() {
    let place = indexed(3);
    let long = format!(r#"{{"_id": "{}", "text": "x"}}"#, "i".repeat(600));
    let cases: &[(&str, &[&str])] = &[
        (r#"{"_id": "b"}"#, &["field 'text'", "no text"]),
        (r#"{"_id": "b", "text": 7}"#, &["field 'text'", "must be a string, found a number"]),
        (r#"{"_id": "b", "text": null}"#, &["field 'text'", "must be a string, found null"]),
        (r#"{"_id": "b", "text": ["x"]}"#, &["field 'text'", "found an array"]),
        (r#"{"_id": "b", "text": " \t\n "}"#, &["field 'text'", "the text is empty"]),
        (r#"{"text": "no id"}"#, &["field '_id'", "no id"]),
        (r#"{"_id": "", "text": "x"}"#, &["field '_id'", "may not be empty"]),
        (r#"{"_id": "  ", "text": "x"}"#, &["field '_id'", "may not be empty"]),
        (r#"{"_id": null, "text": "x"}"#, &["field '_id'", "a string or an integer, found null"]),
        (r#"{"_id": ["b"], "text": "x"}"#, &["field '_id'", "found an array"]),
        (r#"{"_id": 1.5, "text": "x"}"#, &["field '_id'", "write it as a string"]),
        (r#"{"_id": "a\tb", "text": "x"}"#, &["field '_id'", "control characters"]),
        (&long, &["field '_id'", "600 bytes long", "at most 512"]),
        (r#"{"_id": "b", "title": ["t"], "text": "x"}"#, &["field 'title'", "found an array"]),
        (r#"{"_id": "b", "text": "x", "text": "y"}"#, &["'text' appears twice"]),
        (r#"["b", "x"]"#, &["expected an object, found an array"]),
        ("42", &["expected an object, found a number"]),
        // Not JSON.
        (r#"{"_id": "b", "text": "#, &["JSON"]),
        (r#"{"_id": "b", "text": "x"} {"_id": "c", "text": "y"}"#, &["JSON"]),
        (r#"{"_id": "b", "text": "x", "value": nan}"#, &["JSON"]),
        (r#"{"_id": "b", "text": "\ud800 alone"}"#, &["JSON"]),
        (r#"{'_id': 'b', 'text': 'x'}"#, &["JSON"]),
    ];
    for (i, (bad, parts)) in cases.iter().enumerate() {
        eprintln!("case: {bad}");
        let good = |n: u32| format!(r#"{{"_id": "g{i}-{n}", "text": "good bread"}}"#);
        place.file("bad.jsonl", format!("{}\n{bad}\n{}\n", good(1), good(2)));
        let parts = [&["bad.jsonl, line 2"][..], parts, &["--on-error skip"]].concat();
        place.refuses(&[("index bad.jsonl --into idx", 7, &parts)]);
        let report = index(&place, "bad.jsonl", &["--on-error", "skip"]);
        assert_eq!(counts(&report, ["unchanged", "added", "skipped"]), [1, 1, 1], "{bad}");
        let message = report["messages"][0].as_str().unwrap();
        assert!(message.starts_with("bad.jsonl, line 2"), "{message}");
    }
    place.is_sound(3 + 2 * cases.len());
}

#[test]
fn index_of_a_title_without_a_text_embeds_the_title_and_tells_it() {
    let place = Workplace::new();
    place.file(
        "c.jsonl",
        "{\"_id\": \"a\", \"title\": \"storm bread\", \"text\": \"\"}\n\
         {\"_id\": \"b\", \"title\": \"clock\", \"text\": null}\n\
         {\"_id\": \"c\", \"title\": \"\", \"text\": \"storm bread\"}\n",
    );
    for more in ["", "--chunk"] {
        let into = format!("idx{more}");
        let run = place.call(&format!("index c.jsonl --into {into} --json {more}")).ok();
        let report = run.json();
        let note = "c.jsonl, field 'text': 2 records have no text: its title stands alone";
        assert_eq!((&report["added"], &report["notes"]), (&json!(3), &json!([note])));
        assert_holds(&run.stderr, &[note]);
        let search = format!("search {into} 'storm bread' --hybrid --no-rerank --json");
        let found = place.call(&search).ok().json();
        let hits = found["hits"].as_array().unwrap();
        // The title is the passage: its vector is that of the same words as a text.
        let dense = place.call(&search.replace("--hybrid", "")).ok().json();
        let dense = dense["hits"].as_array().unwrap();
        let hit = |hits: &[Value], id: &str| hits.iter().find(|h| h["id"] == id).unwrap().clone();
        assert_eq!(hit(dense, "a")["score"], hit(dense, "c")["score"]);
        let a = hit(hits, "a");
        assert_eq!((&a["title"], &a["text"]), (&json!("storm bread"), &json!("")));
        let index = warpseek::store::Index::open(&place.path(&into)).unwrap();
        let words = index.lexical("storm bread", 3, None).unwrap();
        assert_eq!(words.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0, 2]);
        place.run(&["verify", &into]).ok();
        place.run(&["compact", &into]).ok();
    }
    let rerank = small_reranker();
    let args = ["search", "idx", "storm", "--reranker", &rerank, "--json"];
    assert_eq!(place.run(&args).ok().json()["hits"].as_array().unwrap().len(), 3);
}

#[test]
fn index_with_a_title_too_long_for_a_chunk_loses_no_other_record() {
    let place = Workplace::new();
    let whole = records(20);
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let (title, text) = ("river lamp ".repeat(200), "storm ".repeat(300));
    lines.insert(16, format!(r#"{{"_id": "long", "title": "{title}", "text": "{text}"}}"#));
    place.file("c.jsonl", lines.join("\n"));
    let parts = ["c.jsonl, line 17, field 'title'", "shorten it"];
    place.refuses(&[("index c.jsonl --into idx --chunk", 7, &parts)]);
    assert_eq!(place.stats("idx")["documents"], 16);
    let report = index(&place, "c.jsonl", &["--chunk", "--on-error", "skip"]);
    assert_eq!(counts(&report, ["added", "skipped"]), [4, 1]);
    place.call("verify idx").ok();
}
