//! The index of commands that name none, and the first call of the program.

use crate::support::cli::{Workplace, assert_holds, finish, indexed, small_reranker, words};
use std::path::Path;

/// The program, called in a folder of the place.
fn command_in(place: &Workplace, folder: &str, line: &str) -> std::process::Command {
    let mut command = place.command(&words(line));
    command.current_dir(place.path(folder));
    command
}

/// A place with notes, indexed without a name.
fn noted() -> Workplace {
    let place = Workplace::new();
    place.file("notes/bread.md", "# Bread\n\nFlour, water and salt make a bread.\n");
    place.file("notes/deep/river.md", "# River\n\nThe river runs under the old bridge.\n");
    let run = place.call("index notes").ok();
    assert_holds(&run.stderr, &["index: .warpseek (new)"]);
    assert_holds(&run.stdout, &[".warpseek: 2 added"]);
    place
}

#[test]
fn index_without_a_name_is_found_from_every_folder_below() {
    let place = noted();
    assert!(place.path(".warpseek/manifest.json").is_file());
    let here = place.call("search --no-rerank bread").ok();
    assert_eq!(here.stderr.matches("index: .warpseek\n").count(), 1, "{}", here.stderr);
    assert_holds(&here.stdout, &["notes/bread.md:1"]);
    // Options may stand between the arguments.
    let named = place.call("search .warpseek --json bread -k 1").ok().json();
    assert_eq!(named["hits"][0]["id"].as_str().map(|id| id.ends_with(".md")), Some(true));
    let below = finish(&mut command_in(&place, "notes/deep", "search 'the old bridge' --json"));
    assert_eq!(below.ok().json()["total_rows"], 2);
    // The same index, to which the hidden folder itself adds nothing.
    let again = finish(&mut command_in(&place, "notes", "index .. -q")).ok();
    assert_holds(&again.stdout, &["0 added, 2 unchanged"]);
    assert!(!place.path("notes/.warpseek").exists() && again.stderr.is_empty());
}

#[test]
fn commands_without_an_index_folder_use_the_default_one() {
    let place = noted();
    place.file("q.txt", "bread\nriver\n");
    place.file("q.jsonl", "{\"_id\": \"q1\", \"text\": \"bread\"}\n");
    place.file("qrels.tsv", "q1\t0\tnotes/bread.md\t1\n");
    for line in [
        "info",
        "verify --sample 1",
        "compact",
        "export --documents out.jsonl",
        "compare bread",
        "answer 'what makes a bread?' --dry-run",
        "batch q.txt --out out2.jsonl",
        "eval --queries q.jsonl --qrels qrels.tsv",
        "compare --queries q.jsonl --qrels qrels.tsv",
    ] {
        let line = match line.starts_with("compare --queries") {
            true => format!("{line} --reranker {}", small_reranker()),
            false => line.to_owned(),
        };
        eprintln!("case: {line}");
        let run = place.call(&line).ok();
        assert_eq!(run.stderr.matches("index: .warpseek").count(), 1, "{}", run.stderr);
    }
    place.refuses(&[
        ("delete nobody", 2, &["1 of 1 ids are not in the index"]),
        ("delete typo notes/bread.md --ignore-missing", 8, &["typo"]),
        ("delete", 2, &["nothing to delete"]),
    ]);
    assert_holds(&place.call("delete notes/bread.md").ok().stdout, &["1 documents deleted"]);
    assert_holds(&place.call("delete --filter 'id is not null'").ok().stdout, &["1 documents"]);
}

#[test]
fn setting_names_the_index_where_no_folder_has_one() {
    let place = indexed(5);
    let with = |variable: &str, line: &str| {
        finish(place.command(&words(line)).env("WARPSEEK_INDEX", variable))
    };
    assert_holds(&with("idx", "search river").ok().stderr, &["index: idx\n", "among 5 rows"]);
    with("gone", "search river").fails(8, &["gone", "no index here"]);
    place.file(".private/config.toml", "index = \"idx\"\n");
    assert_eq!(place.call("search river --json").ok().json()["total_rows"], 5);
    place.call("index corpus.jsonl").ok();
    assert!(!place.path(".warpseek").exists());
}

#[test]
fn search_without_an_index_or_a_query_says_what_is_missing() {
    let place = indexed(3);
    let here = Path::new(&place.path("")).canonicalize().unwrap().display().to_string();
    place.refuses(&[
        ("search river", 2, &["no folder .warpseek", &here, "WARPSEEK_INDEX", "index FILES"]),
        ("info", 2, &["no folder .warpseek"]),
        ("mcp", 2, &["no folder .warpseek"]),
        ("search idx", 2, &["idx is an index folder", "query is missing"]),
        ("compare idx", 2, &["idx is an index folder", "query is missing"]),
        ("compare", 2, &["the query is missing"]),
        ("answer idx --dry-run", 2, &["idx is an index folder", "question is missing"]),
        ("batch idx --out o.jsonl", 2, &["file of queries is missing"]),
        ("search", 2, &["the query is missing"]),
        ("search nowhere river", 8, &["nowhere: no index here"]),
    ]);
    place.call("index corpus.jsonl -q").ok();
    place.refuses(&[("search old bridge", 2, &["no index folder 'old'", "\"old bridge\""])]);
}

#[cfg(unix)]
#[test]
fn default_folder_that_is_a_file_or_a_broken_link_is_told_with_the_remedy() {
    let place = indexed(3);
    place.file(".warpseek", "");
    let (find, make) = ("search river", "index corpus.jsonl");
    place.refuses(&[
        (find, 2, &[".warpseek in", "a file, not a folder", "move it away", "index FILES"]),
        (make, 8, &["create an index at .warpseek", "move it away, or name another folder"]),
        ("search .warpseek river", 8, &["this is a file; name the index folder"]),
    ]);
    std::fs::remove_file(place.path(".warpseek")).unwrap();
    std::os::unix::fs::symlink("gone/far", place.path(".warpseek")).unwrap();
    place.refuses(&[
        (find, 2, &["a link that leads to no folder", "move it away"]),
        (make, 8, &["a link to a folder that does not exist", "remove the link"]),
    ]);
    std::fs::create_dir_all(place.path("gone/far")).unwrap();
    place.call(make).ok();
    assert_eq!(place.call("search river --json").ok().json()["total_rows"], 3);
}

#[test]
fn call_without_a_command_says_where_to_begin() {
    let out = Workplace::new().call("").ok().stdout;
    assert_holds(&out, &["warpseek index .", "warpseek search \"", "warpseek serve"]);
}
