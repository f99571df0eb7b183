//! Ids of documents and rows, the inputs that documents come from, and pruning by these.

use crate::support;
use crate::support::cli::{
    ProgramRun, Workplace, assert_holds, finish, ids, indexed, records, search, words,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The counts of a report.
fn counts<const N: usize>(run: &ProgramRun, names: [&str; N]) -> [u64; N] {
    let report = run.json();
    names.map(|name| report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}")))
}

/// Runs a command line in a folder below the workplace.
fn call_in(place: &Workplace, folder: &str, line: &str) -> ProgramRun {
    finish(place.command(&words(line)).current_dir(place.path(folder)))
}

/// The ids of all rows.
fn all_ids(place: &Workplace) -> Vec<String> {
    let mut all = ids(&search(place, "river", &["-k", "1000"]));
    all.sort_unstable();
    all
}

fn documents(place: &Workplace) -> Value {
    place.stats("idx")["documents"].clone()
}

/// Records without ids.
fn without_ids(words: &[&str]) -> String {
    words.iter().map(|word| json!({ "text": format!("river {word}") }).to_string() + "\n").collect()
}

#[test]
fn ids_of_rows_are_unique_whatever_the_documents_are_called() {
    let place = Workplace::new();
    let (long, short) = ("The river runs past the garden. ".repeat(100), "short".to_owned());
    let texts = [
        ("doc", &long),
        ("doc#0", &short),
        ("doc#0#0", &short),
        ("doc#1", &long),
        ("doc#1#0", &short),
        ("doc#01", &short),
        ("page#top", &short),
    ];
    let line = |(id, text): (&str, &String)| json!({"id": id, "text": text}).to_string() + "\n";
    place.file("c.jsonl", texts.map(line).concat());
    place.call("index c.jsonl --into idx --chunk").ok();
    let all = all_ids(&place);
    assert_eq!(place.stats("idx")["rows"], all.len());
    assert!(all.len() > 10);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    for id in ["doc#0", "doc#0#0", "doc#0#0#0", "doc#1#0", "doc#1#0#0", "doc#01", "page#top"] {
        assert!(all.contains(&id.to_owned()), "no {id} in {all:?}");
    }
    // A document is deleted by its own id, or by that of its only row.
    let gone = |name: &str, row: &str| {
        assert_eq!(place.call(&format!("delete idx {name} --json")).ok().json()["deleted"], 1);
        let left = all_ids(&place);
        assert!(!left.contains(&row.to_owned()) && left.contains(&"doc#0".to_owned()), "{left:?}");
    };
    gone("doc#0", "doc#0#0");
    gone("doc#0#0#0", "doc#0#0#0");
    let reason = ["'doc#2' is one of several chunks of the document 'doc'", "nothing was deleted"];
    place.refuses(&[
        ("delete idx doc#2", 2, &reason),
        ("delete idx doc#999", 2, &["are not in the index ('doc#999')"]),
        ("delete idx page#top#0", 2, &["are not in the index"]),
    ]);
    place.call("verify idx").ok();
}

#[test]
fn text_is_one_document_however_its_path_is_written() {
    let place = Workplace::new();
    place.file("docs/sub/n.md", "# River\n\nA lamp.");
    let absolute = place.path("docs/sub/n.md").display().to_string();
    let into = place.path("idx").display().to_string();
    assert_eq!(counts(&place.call("index docs --into idx --json").ok(), ["added"]), [1]);
    for (folder, input) in [
        ("docs/sub", "n.md"),
        ("docs/sub", "./n.md"),
        ("docs/sub", "."),
        ("docs/sub", "../sub/n.md"),
        ("docs", absolute.as_str()),
        ("docs", ".."),
        (".", "docs/sub/../sub"),
    ] {
        let run = call_in(&place, folder, &format!("index {input} --into {into} --json")).ok();
        assert_eq!(counts(&run, ["added", "updated", "unchanged"]), [0, 0, 1], "{input}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("sub/n.md", place.path("docs/link.md")).unwrap();
        std::os::unix::fs::symlink("docs", place.path("alias")).unwrap();
        for input in ["docs/link.md", "alias", "alias/sub/n.md"] {
            let run = place.call(&format!("index {input} --into idx --json")).ok();
            assert_eq!(counts(&run, ["added", "updated", "unchanged"]), [0, 0, 1], "{input}");
        }
    }
    let found = search(&place, "river", &[]);
    assert_eq!(ids(&found), ["docs/sub/n.md"]);
    assert_eq!(found["hits"][0]["metadata"]["path"], "docs/sub/n.md");
    assert_eq!(documents(&place), 1);
}

#[test]
fn records_without_ids_of_different_files_do_not_replace_each_other() {
    let place = Workplace::new();
    place.file("one/data.jsonl", without_ids(&["lamp", "bread"]));
    place.file("two/data.jsonl", without_ids(&["storm", "clock"]));
    for (folder, input) in
        [("one", "data.jsonl"), ("two", "data.jsonl"), ("one", "."), ("two", ".")]
    {
        call_in(&place, folder, &format!("index {input} --into ../idx")).ok();
    }
    assert_eq!(documents(&place), 4);
    // The same file again is the same documents, and a changed one replaces its own.
    place.file("two/data.jsonl", without_ids(&["storm", "paper", "train"]));
    let run = place.call("index one two/data.jsonl --into idx --json").ok();
    assert_eq!(counts(&run, ["added", "updated", "unchanged"]), [1, 1, 3]);
    let names = ["one/data.jsonl:1", "one/data.jsonl:2", "two/data.jsonl:1"];
    assert_eq!(all_ids(&place)[..3], names);
}

#[test]
fn records_without_ids_of_another_stream_are_refused() {
    let place = Workplace::new();
    let index = |more: &str, input: &str| {
        place.pipe(&words(&format!("index - --into idx --json {more}")), input)
    };
    assert_eq!(counts(&index("", &without_ids(&["lamp"])).ok(), ["added"]), [1]);
    // The same stream, and a longer one.
    let run = index("", &without_ids(&["lamp", "bread"])).ok();
    assert_eq!(counts(&run, ["added", "unchanged"]), [1, 1]);
    let other = without_ids(&["storm"]);
    let parts = ["<stdin>, line 1", "'stdin:1'", "--id-field"];
    index("", &other).fails(7, &parts);
    let run = index("--on-error skip", &other).ok();
    assert_eq!(counts(&run, ["skipped", "updated"]), [1, 0]);
    assert_holds(&run.json()["messages"][0].to_string(), &["'stdin:1'"]);
    // An id of its own says that it is a new version.
    index("", "{\"id\": \"x\", \"text\": \"river\"}").ok();
    let run = index("", "{\"id\": \"x\", \"text\": \"river bank\"}").ok();
    assert_eq!(counts(&run, ["updated"]), [1]);
    assert_eq!(documents(&place), 3);
}

#[test]
fn prune_deletes_what_came_from_the_inputs_and_nothing_else() {
    let place = indexed(20);
    for name in ["docs/a.txt", "docs/sub/b.txt", "docs/sub/c.txt", "docs2/d.txt"] {
        place.file(name, format!("The river of {name}"));
    }
    place.call("index docs docs2 --into idx").ok();
    std::fs::remove_file(place.path("docs/sub/b.txt")).unwrap();
    std::fs::remove_file(place.path("docs/a.txt")).unwrap();
    place.file("docs2/e.txt", "The river of docs2/e.txt");
    let prune = |input: &str, expected: u64| {
        let run = place.call(&format!("index {input} --into idx --prune --yes --json")).ok();
        assert_eq!(counts(&run, ["pruned"]), [expected], "{input}");
        run
    };
    prune("docs2", 0);
    let run = prune("docs/sub", 1);
    assert_holds(&run.stderr, &["1 documents", "'docs/sub/b.txt'"]);
    prune("corpus.jsonl", 0);
    assert_eq!(documents(&place), 20 + 4);
    prune("docs", 1);
    place.file("corpus.jsonl", records(12));
    prune("docs docs2", 0);
    let run = prune("corpus.jsonl", 8);
    assert_holds(&run.stderr, &["8 documents", "'d12', 'd13', 'd14', ..."]);
    assert_eq!(documents(&place), 12 + 3);
    // A compaction keeps what is known.
    place.call("compact idx").ok();
    std::fs::remove_file(place.path("docs2/d.txt")).unwrap();
    place.file("corpus.jsonl", records(11));
    prune("docs", 0);
    prune(".", 2);
    assert_eq!(documents(&place), 11 + 2);
    place.call("verify idx").ok();
}

#[test]
fn prune_without_a_terminal_tells_the_number_and_needs_yes() {
    let place = indexed(20);
    place.file("corpus.jsonl", records(15) + "{\"_id\": \"new\", \"text\": \"bread\"}\n");
    let parts = ["5 documents", "'d15', 'd16', 'd17', ...", "--prune --yes", "nothing was pruned"];
    let run = place.call("index corpus.jsonl --into idx --prune --json").fails(2, &parts);
    assert_eq!(counts(&run, ["added", "pruned"]), [1, 0]);
    assert_eq!(documents(&place), 21);
    place.refuses(&[("index corpus.jsonl --into idx --yes", 2, &["--prune"])]);
    place.call("index corpus.jsonl --into idx --prune --yes").ok();
    assert_eq!(documents(&place), 16);
    // Nothing to delete, nothing to ask.
    place.call("index corpus.jsonl --into idx --prune").ok();
}

#[test]
fn prune_goes_by_the_input_that_held_a_document_last() {
    let place = Workplace::new();
    let line = |id: &str, text: &str| json!({"id": id, "text": text}).to_string() + "\n";
    place.file("a.jsonl", line("1", "river") + &line("2", "lamp") + &line("3", "bread"));
    place.file("b.jsonl", line("2", "lamp") + &line("3", "clock"));
    place.call("index a.jsonl --into idx").ok();
    let run = place.call("index b.jsonl --into idx").ok();
    let parts = ["1 documents replaced", "('3' of a.jsonl by that of b.jsonl)"];
    assert_holds(&run.stderr, &parts);
    place.file("a.jsonl", line("1", "river"));
    let run = place.call("index a.jsonl --into idx --prune --yes --json").ok();
    assert_eq!(counts(&run, ["pruned", "unchanged"]), [0, 1]);
    place.file("b.jsonl", line("3", "clock"));
    let run = place.call("index b.jsonl --into idx --prune --yes --json").ok();
    assert_eq!(counts(&run, ["pruned", "unchanged"]), [1, 1]);
    assert_eq!(all_ids(&place), ["1", "3"]);
}

#[test]
fn prune_of_a_stream_takes_the_documents_of_streams() {
    let place = indexed(6);
    let index = |n: usize| {
        let line = words("index - --into idx --prune --yes --json");
        place.pipe(&line, records(n).replace("\"d", "\"s")).ok()
    };
    assert_eq!(counts(&index(5), ["added", "pruned"]), [5, 0]);
    assert_eq!(counts(&index(3), ["unchanged", "pruned"]), [3, 2]);
    assert_eq!(documents(&place), 6 + 3);
}

#[test]
fn prune_keeps_documents_of_unknown_source_and_says_so() {
    let place = indexed(10);
    // An index of an older version has no sources.
    let database = support::database(&place.path("idx"));
    let n = database.execute("DELETE FROM state WHERE name LIKE 'source:%'", []).unwrap();
    assert_eq!(n, 1);
    drop(database);
    place.file("corpus.jsonl", records(7));
    let run = place.call("index corpus.jsonl --into idx --prune --json").ok();
    assert_eq!(counts(&run, ["unchanged", "pruned"]), [7, 0]);
    assert_holds(&run.stderr, &["kept 3 documents", "an older version", "warpseek delete"]);
    // Those that were in the input belong to it from then on.
    place.file("corpus.jsonl", records(5));
    let run = place.call("index corpus.jsonl --into idx --prune --yes --json").ok();
    assert_eq!(counts(&run, ["unchanged", "pruned"]), [5, 2]);
    assert_eq!(documents(&place), 8);
    place.call("verify idx").ok();
}

#[test]
fn records_left_out_for_a_later_one_are_counted() {
    let place = Workplace::new();
    place.file("c.jsonl", records(4) + &records(2));
    place.refuses(&[(
        "index c.jsonl --into idx",
        7,
        &["'d0' occurs twice", "--on-duplicate last"],
    )]);
    let run = place.call("index c.jsonl --into idx --on-duplicate last --json").ok();
    assert_eq!(counts(&run, ["duplicates"]), [2]);
    assert_eq!(documents(&place), 4);
}
