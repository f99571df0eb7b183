//! Bad input to the built program: whatever a user gets wrong, the message names the file, the
//! record and the field, says what to do, and nothing that was indexed before is lost.

mod damage;
mod files;
mod outputs;
mod searches;
mod settings;
mod vectors;

use crate::support::cli::{Run, Workplace, records};
use serde_json::Value;

/// A place with an index `idx` of `n` records from `corpus.jsonl`.
fn indexed(n: usize) -> Workplace {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(n));
    place.run(&["index", "corpus.jsonl", "--into", "idx"]).ok();
    place
}

/// Checks that a run was refused with this exit status and that stderr holds each of `parts`;
/// `what` names the case.
#[track_caller]
fn refused(run: &Run, what: &str, code: i32, parts: &[&str]) {
    assert_eq!(run.code, code, "{what}\nstdout: {}\nstderr: {}", run.stdout, run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "{what}: no '{part}' in: {}", run.stderr);
    }
    unbroken(run, what);
}

/// Checks that stderr speaks to a user: no crash, and nothing of what lies below the program.
#[track_caller]
fn unbroken(run: &Run, what: &str) {
    let machinery = [
        "panicked",
        "overflowed its stack",
        "immutable=1",
        "malformed JSON",
        "no such column",
        "UNIQUE constraint",
    ];
    for words in machinery {
        assert!(!run.stderr.contains(words), "{what}: {}", run.stderr);
    }
    assert!((0..=8).contains(&run.code), "{what}: exit status {}: {}", run.code, run.stderr);
}

/// Checks that `idx` is sound, holds `rows` rows, and still answers.
#[track_caller]
fn sound(place: &Workplace, rows: usize) {
    place.run(&["verify", "idx"]).ok();
    let result = place.run(&["search", "idx", "river", "-k", "3", "--json"]).ok().json();
    assert_eq!(result["total_rows"], rows);
    assert_eq!(result["hits"].as_array().unwrap().len(), rows.min(3));
}

/// What `index` reports of taking `file` into `idx`.
#[track_caller]
fn index(place: &Workplace, file: &str, more: &[&str]) -> Value {
    place.run(&[&["index", file, "--into", "idx", "--json"][..], more].concat()).ok().json()
}

#[test]
fn index_of_a_bad_line_keeps_what_came_before_and_resumes_once_it_is_mended() {
    let place = Workplace::new();
    let whole = records(20);
    let mut lines: Vec<&str> = whole.lines().collect();
    let good = std::mem::replace(&mut lines[16], r#"{"_id": "d16", "text": "#);
    place.file("c.jsonl", lines.join("\n"));
    for _ in 0..2 {
        let run = place.run(&["index", "c.jsonl", "--into", "idx"]);
        refused(&run, "bad JSON", 7, &["c.jsonl, line 17"]);
        sound(&place, 16);
    }
    lines[16] = good;
    place.file("c.jsonl", lines.join("\n"));
    let report = index(&place, "c.jsonl", &[]);
    assert_eq!((&report["unchanged"], &report["added"]), (&16.into(), &4.into()));
    sound(&place, 20);
}

#[test]
fn index_of_a_line_that_is_no_json_says_so_in_plain_words() {
    let place = indexed(3);
    let cases = [
        r#"{"_id": "b", "text": "#,
        r#"{"_id": "b", "text": "x"} {"_id": "c", "text": "y"}"#,
        r#"{"_id": "b", "text": "x", "value": NaN}"#,
        r#"{"_id": "b", "text": "\ud800 alone"}"#,
        r#"{'_id': 'b', 'text': 'x'}"#,
    ];
    for case in cases {
        place.file("bad.jsonl", format!("{{\"_id\": \"a\", \"text\": \"good\"}}\n{case}\n"));
        let run = place.run(&["index", "bad.jsonl", "--into", "idx"]);
        refused(&run, case, 7, &["bad.jsonl, line 2", "JSON"]);
    }
    sound(&place, 4);
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
    ];
    for (i, (bad, parts)) in cases.iter().enumerate() {
        let good = |n: u32| format!(r#"{{"_id": "g{i}-{n}", "text": "good bread"}}"#);
        place.file("bad.jsonl", format!("{}\n{bad}\n{}\n", good(1), good(2)));
        let run = place.run(&["index", "bad.jsonl", "--into", "idx"]);
        refused(&run, bad, 7, &[&["bad.jsonl, line 2"][..], parts].concat());
        let report = index(&place, "bad.jsonl", &["--on-error", "skip"]);
        let counts = ["unchanged", "added", "skipped"].map(|name| report[name].as_u64().unwrap());
        assert_eq!(counts, [1, 1, 1], "{bad}");
        let message = report["messages"][0].as_str().unwrap();
        assert!(message.starts_with("bad.jsonl, line 2"), "{message}");
    }
    sound(&place, 3 + 2 * cases.len());
}

#[test]
fn index_that_stopped_at_a_record_says_what_is_kept_and_how_to_go_on() {
    let place = Workplace::new();
    place.file("c.jsonl", records(5) + "{\"_id\": \"b\", \"text\": \"\"}\n");
    let run = place.run(&["index", "c.jsonl", "--into", "idx"]);
    refused(&run, "an empty text", 7, &["c.jsonl, line 6, field 'text'", "--on-error skip"]);
}

#[test]
fn index_of_an_id_that_comes_twice_names_the_line() {
    let place = indexed(3);
    let line = |text: &str| format!("{{\"_id\": \"same\", \"text\": \"{text}\"}}\n");
    place.file("twice.jsonl", line("first") + &line("second"));
    let run = place.run(&["index", "twice.jsonl", "--into", "idx"]);
    let parts = ["twice.jsonl, line 2: ", "'same' comes twice", "--on-duplicate last"];
    refused(&run, "twice", 7, &parts);
    sound(&place, 4);
}

#[test]
fn index_with_a_title_too_long_for_a_chunk_loses_no_other_record() {
    let place = Workplace::new();
    let whole = records(20);
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    let (title, text) = ("river lamp ".repeat(200), "storm ".repeat(300));
    lines.insert(16, format!(r#"{{"_id": "long", "title": "{title}", "text": "{text}"}}"#));
    place.file("c.jsonl", lines.join("\n"));
    let run = place.run(&["index", "c.jsonl", "--into", "idx", "--chunk"]);
    refused(&run, "a long title", 7, &["c.jsonl, line 17, field 'title'", "shorten it"]);
    let stats = place.run(&["info", "idx", "--json"]).ok().json()["stats"].clone();
    assert_eq!(stats["documents"], 16);
    let report = index(&place, "c.jsonl", &["--chunk", "--on-error", "skip"]);
    assert_eq!((&report["added"], &report["skipped"]), (&4.into(), &1.into()));
    place.run(&["verify", "idx"]).ok();
}
