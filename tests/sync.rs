//! Bringing an index up to date: `sync`, `index --watch`, `sync --watch`, `serve --watch`.

use crate::support::cli::{ProgramRun, Workplace, records};
use crate::support::server::Server;
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Time after which the times of a file that was just written tell later changes.
const SETTLED: Duration = Duration::from_millis(250);

/// A folder `notes` with `n` texts and one csv file, indexed in `idx`.
fn indexed_notes(n: usize) -> Workplace {
    let place = Workplace::new();
    for i in 0..n {
        place.file(&format!("notes/{i}.txt"), format!("Note {i} about a river and a lamp."));
    }
    place.file("notes/table.csv", "id,text\na,bread\nb,butter\n");
    std::thread::sleep(SETTLED);
    place.call("index notes --into idx").ok();
    place
}

/// Brings `idx` up to date and returns the report.
#[track_caller]
fn synced(place: &Workplace) -> Value {
    place.call("sync idx --json").ok().json()
}

/// Checks numbers of a report by their names.
#[track_caller]
fn assert_counts(report: &Value, expected: &[(&str, u64)]) {
    for (name, number) in expected {
        assert_eq!(report[name], *number, "{name} in {report}");
    }
}

/// The documents of an index, without their order.
fn documents(place: &Workplace, index: &str) -> Vec<String> {
    let file = format!("{index}.documents.jsonl");
    place.run(&["export", index, "--documents", &file]).ok();
    let mut documents: Vec<String> = place.lines(&file).iter().map(Value::to_string).collect();
    documents.sort();
    documents
}

/// Checks that `idx` holds what a new index of the same folder does, and is sound.
#[track_caller]
fn assert_as_new(place: &Workplace) {
    let _ = std::fs::remove_dir_all(place.path("new"));
    place.call("index notes --into new").ok();
    assert_eq!(documents(place, "idx"), documents(place, "new"));
    place.call("verify idx").ok();
}

#[test]
fn sync_reads_only_what_has_changed() {
    let place = indexed_notes(20);
    let report = synced(&place);
    assert_counts(&report, &[("files_read", 0), ("files_unchanged", 21), ("added", 0)]);
    assert_eq!(report["inputs"], json!(["notes"]));

    place.file("notes/new.md", "# New\n\nA note that was not there.");
    place.file("notes/3.txt", "Another text.");
    place.file("notes/table.csv", "id,text\na,bread\n");
    std::fs::remove_file(place.path("notes/4.txt")).unwrap();
    std::fs::rename(place.path("notes/5.txt"), place.path("notes/renamed.txt")).unwrap();
    std::thread::sleep(SETTLED);
    let report = synced(&place);
    let counts = [("files_read", 4), ("files_unchanged", 17), ("added", 2), ("updated", 1)];
    assert_counts(&report, &counts);
    assert_counts(&report, &[("unchanged", 1), ("pruned", 3), ("rows", 3)]);
    assert_as_new(&place);
    let report = synced(&place);
    assert_counts(&report, &[("files_read", 0), ("pruned", 0), ("rows", 0)]);

    let text = place.call("sync idx").ok().stdout;
    assert!(text.starts_with("idx: 0 of 21 files read; 0 added documents; 0 rows in "), "{text}");
}

#[test]
fn files_with_errors_are_read_again_and_keep_their_documents() {
    let place = indexed_notes(3);
    place.file("notes/table.csv", "id,text\na,\"bread\n");
    place.file("notes/bad.json", "[1");
    std::thread::sleep(SETTLED);
    for _ in 0..2 {
        let report = synced(&place);
        assert_counts(&report, &[("files_read", 2), ("skipped", 2), ("pruned", 0), ("kept", 2)]);
    }
    place.file("notes/table.csv", "id,text\nb,jam\n");
    std::fs::remove_file(place.path("notes/bad.json")).unwrap();
    std::thread::sleep(SETTLED);
    assert_counts(&synced(&place), &[("files_read", 1), ("updated", 1), ("pruned", 1)]);
    assert_as_new(&place);
}

#[cfg(unix)]
#[test]
fn file_of_the_same_size_and_time_that_was_replaced_is_read() {
    let place = indexed_notes(2);
    let old = std::fs::metadata(place.path("notes/0.txt")).unwrap();
    let text = "Note 0 about a storm and a lamp.";
    place.file("notes/0.txt", text);
    let file = std::fs::File::options().write(true).open(place.path("notes/0.txt")).unwrap();
    file.set_modified(old.modified().unwrap()).unwrap();
    let new = std::fs::metadata(place.path("notes/0.txt")).unwrap();
    assert_eq!((old.len(), old.modified().unwrap()), (new.len(), new.modified().unwrap()));
    assert_counts(&synced(&place), &[("files_read", 1), ("updated", 1)]);
    assert!(documents(&place, "idx").iter().any(|document| document.contains(text)));
}

#[test]
fn file_that_was_written_just_before_it_was_read_is_read_again() {
    let place = Workplace::new();
    place.file("notes/a.txt", "One.");
    // As if it had been written in the very moment of reading.
    let now = std::time::SystemTime::now() + Duration::from_secs(60);
    let file = std::fs::File::options().write(true).open(place.path("notes/a.txt")).unwrap();
    file.set_modified(now).unwrap();
    place.call("index notes --into idx").ok();
    for _ in 0..2 {
        assert_counts(&synced(&place), &[("files_read", 1), ("unchanged", 1)]);
    }
}

#[test]
fn records_that_index_left_in_the_index_go_with_sync() {
    let place = indexed_notes(1);
    place.file("notes/table.csv", "id,text\na,bread\n");
    std::thread::sleep(SETTLED);
    // Without --prune the document `b` stays.
    place.call("index notes --into idx").ok();
    assert_counts(&synced(&place), &[("files_read", 1), ("pruned", 1)]);
    assert_as_new(&place);
}

#[test]
fn inputs_are_read_with_the_options_they_were_indexed_with() {
    let place = indexed_notes(2);
    place.file("notes/sub/table.tsv", "key\tbody\nx\tone\ny\ttwo\n");
    place.file("notes/sub/a.log", "A log.");
    place.file("corpus.jsonl", records(30));
    std::thread::sleep(SETTLED);
    let options = "--id-field key --text-field body --glob '*.tsv'";
    place.call(&format!("index notes/sub --into idx {options}")).ok();
    place.call("index corpus.jsonl --into idx").ok();
    let before = documents(&place, "idx");
    let report = synced(&place);
    assert_eq!(report["inputs"], json!(["corpus.jsonl", "notes", "notes/sub"]));
    assert_counts(&report, &[("files_read", 0), ("files_unchanged", 5), ("pruned", 0)]);
    assert_eq!(documents(&place, "idx"), before);

    place.file("notes/sub/table.tsv", "key\tbody\nx\tone\nz\tthree\n");
    std::thread::sleep(SETTLED);
    assert_counts(&synced(&place), &[("files_read", 1), ("added", 1), ("pruned", 1)]);
    let ids: Vec<String> = documents(&place, "idx");
    assert!(ids.iter().any(|document| document.contains("\"id\":\"z\"")), "{ids:?}");

    // The folder above, read again, has the folder below too.
    place.call("index notes --into idx --on-error skip").ok();
    let info = place.call("info idx --json").ok().json();
    let names: Vec<&Value> =
        info["inputs"].as_array().unwrap().iter().map(|input| &input["name"]).collect();
    assert_eq!(names, ["corpus.jsonl", "notes"]);
    assert_eq!(info["inputs"][1]["settings"], json!({"on_error": "skip"}));
}

#[test]
fn settings_that_a_failed_run_began_to_use_are_not_mixed_with_old_stamps() {
    let place = indexed_notes(2);
    place.file("notes/more.csv", "id,text,body\nm,by text,by body\n");
    std::thread::sleep(SETTLED);
    place.call("index notes --into idx").ok();
    assert_counts(&synced(&place), &[("files_read", 0)]);
    // The run with another field stops at `table.csv`, when `more.csv` has been stored.
    place.call("index notes --into idx --text-field body --strict").fails(7, &["body"]);
    assert!(documents(&place, "idx").iter().any(|document| document.contains("by body")));
    // Its settings are not recorded, so `sync` restores what the recorded ones give.
    assert_counts(&synced(&place), &[("files_read", 4), ("updated", 1)]);
    assert_as_new(&place);
}

#[test]
fn ids_that_another_file_has_are_refused() {
    let place = indexed_notes(1);
    place.file("notes/second.csv", "id,text\na,other bread\n");
    std::thread::sleep(SETTLED);
    let report = synced(&place);
    assert_counts(&report, &[("files_read", 1), ("skipped", 1), ("updated", 0)]);
    let message = report["messages"][0].as_str().unwrap();
    let expected = "the id 'a' is also in notes/table.csv";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn one_bad_input_does_not_keep_others_from_being_read() {
    let place = Workplace::new();
    place.file("a.jsonl", "{\"id\": \"1\", \"text\": \"one\"}\n");
    place.file("b.txt", "The first text.");
    place.file("empty/c.txt", "A text in a folder.");
    place.file("gone.txt", "A text that goes.");
    std::thread::sleep(SETTLED);
    place.call("index a.jsonl b.txt empty gone.txt --into idx").ok();
    place.file("a.jsonl", "{\"id\": \"1\", \"text\": \"uno\"}\n{\"id\": \"2\"}\n");
    place.file("b.txt", "The second text.");
    std::thread::sleep(SETTLED);
    let run = place.call("sync idx --json").fails(7, &["a.jsonl, line 2", "text"]);
    assert_counts(&run.json(), &[("updated", 2), ("skipped", 1), ("pruned", 0)]);
    // An input that is gone, and a folder that has lost its files, keep their documents.
    std::fs::remove_file(place.path("gone.txt")).unwrap();
    std::fs::remove_file(place.path("empty/c.txt")).unwrap();
    place.file("a.jsonl", "{\"id\": \"1\", \"text\": \"un\"}\n");
    std::thread::sleep(SETTLED);
    let run = place.call("sync idx --json").fails(7, &["gone.txt", "--forget gone.txt"]);
    assert_counts(&run.json(), &[("updated", 1), ("skipped", 0), ("pruned", 0)]);
    assert_eq!(place.stats("idx")["documents"], 4);
    place.call("sync idx --forget gone.txt").ok();
    place.call("sync idx").fails(7, &["no readable file in this folder"]);
    let run = place.call("sync idx --forget empty --json").ok();
    assert_eq!(run.json(), json!({"forgotten": "empty", "above": null}));
    assert_counts(&synced(&place), &[("files_unchanged", 2)]);
    // The default of the command that recorded an input counts: with --strict it stops at once.
    place.file("c.jsonl", "{\"id\": \"7\", \"text\": \"seven\"}\n");
    place.call("index c.jsonl --into idx --strict").ok();
    place.file("c.jsonl", "{\"id\": \"8\", \"text\": \"eight\"}\n{}\n");
    place.file("b.txt", "The third text.");
    let run = place.call("sync idx --json").fails(7, &["c.jsonl, line 2"]);
    assert_counts(&run.json(), &[("updated", 1), ("added", 1), ("rows", 2)]);
}

#[test]
fn document_of_a_file_that_became_empty_is_deleted() {
    let place = indexed_notes(2);
    place.file("single.md", "A file that is named itself.");
    std::thread::sleep(SETTLED);
    place.call("index single.md --into idx").ok();
    for (path, content) in [("notes/0.txt", ""), ("notes/1.txt", "\n \r\n"), ("single.md", "")] {
        place.file(path, content);
    }
    assert_counts(&synced(&place), &[("pruned", 3), ("skipped", 0), ("kept", 0)]);
    assert_counts(&synced(&place), &[("pruned", 0), ("skipped", 0), ("kept", 0)]);
    std::fs::remove_file(place.path("notes/table.csv")).unwrap();
    assert_counts(&synced(&place), &[("pruned", 2)]);
    assert_eq!(place.stats("idx")["documents"], 0);
    place.call("index single.md --into idx").fails(7, &["single.md"]);
}

#[test]
fn copied_folder_with_its_index_follows_its_own_files() {
    let place = Workplace::new();
    place.file("one/a.txt", "A note.");
    place.call("index one --into one/.warpseek").ok();
    std::fs::create_dir(place.path("two")).unwrap();
    std::fs::rename(place.path("one/.warpseek"), place.path("two/.warpseek")).unwrap();
    std::fs::remove_dir_all(place.path("one")).unwrap();
    place.file("two/a.txt", "A note of the copy.");
    let report = place.call("sync two/.warpseek --json").ok().json();
    assert_eq!(report["inputs"], json!(["."]));
    assert_counts(&report, &[("updated", 1), ("added", 0)]);
    let info = place.call("info two/.warpseek").ok().stdout;
    assert!(info.contains("\n    .\n"), "{info}");
    let forgotten = place.call("sync two/.warpseek --forget two --json").ok().json();
    assert_eq!(forgotten["forgotten"], ".");
}

#[cfg(unix)]
#[test]
fn link_that_gets_another_target_is_followed() {
    let place = Workplace::new();
    place.file("v1/a.txt", "The first version.");
    place.file("v2/b.txt", "The second version.");
    std::os::unix::fs::symlink("v1", place.path("current")).unwrap();
    place.call("index current --into idx").ok();
    let _watching = Watching::start(&place, "sync idx --watch");
    place.file("v1/c.txt", "Another file of the first version.");
    wait_until("a file behind the link", || has(&place, "Another file of the first"));
    std::fs::remove_file(place.path("current")).unwrap();
    std::os::unix::fs::symlink("v2", place.path("current")).unwrap();
    wait_until("the other folder", || has(&place, "second") && !has(&place, "first"));
    let report = synced(&place);
    assert_eq!(report["inputs"], json!(["current"]));
    assert_eq!(place.stats("idx")["documents"], 1);
}

#[cfg(unix)]
#[test]
fn target_of_a_file_that_is_a_link_is_watched() {
    let place = Workplace::new();
    place.file("there/note.txt", "Before.");
    std::os::unix::fs::symlink("there/note.txt", place.path("here.txt")).unwrap();
    place.call("index here.txt --into idx").ok();
    let _watching = Watching::start(&place, "sync idx --watch");
    place.file("there/note.txt", "Between.");
    wait_until("the first change", || has(&place, "Between"));
    place.file("there/note.txt", "After.");
    wait_until("the second change", || has(&place, "After"));
}

#[test]
fn inputs_of_a_run_that_stopped_are_recorded_if_it_wrote_something() {
    let place = indexed_notes(1);
    place.file("more.jsonl", "{\"text\": \"first\"}\n{}\n");
    place.file("bad.jsonl", "{}\n");
    place.call("index more.jsonl --into idx").fails(7, &["more.jsonl, line 2"]);
    place.call("index bad.jsonl --into idx").fails(7, &["bad.jsonl"]);
    place.file("more.jsonl", "{\"text\": \"first\"}\n{\"text\": \"second\"}\n");
    let report = synced(&place);
    assert_eq!(report["inputs"], json!(["more.jsonl", "notes"]));
    assert_counts(&report, &[("added", 1), ("unchanged", 1)]);
}

#[test]
fn options_of_recorded_inputs_are_shown() {
    let place = indexed_notes(1);
    place.file("t.csv", "key;a b\n1;one\n");
    let options = [
        "index",
        "t.csv",
        "--into",
        "idx",
        "--text-field",
        "a b",
        "--delimiter",
        ";",
        "--on-duplicate",
        "last",
        "--max-record-bytes",
        "1000",
        "--strict",
    ];
    place.run(&options).ok();
    let info = place.call("info idx").ok().stdout;
    let expected = "t.csv  --text-field 'a b'  --delimiter ';'  --max-record-bytes 1000  --strict  \
                    --on-duplicate last\n";
    assert!(info.contains(expected) && info.contains("\n    notes\n"), "{info}");
}

#[test]
fn last_records_are_kept_by_sync_too() {
    let place = Workplace::new();
    place.file("a.csv", "id,text\n1,old\n2,two\n");
    place.file("b.csv", "id,text\n1,new\n");
    std::thread::sleep(SETTLED);
    place.call("index a.csv b.csv --into idx --on-duplicate last").ok();
    let before = documents(&place, "idx");
    assert_counts(&synced(&place), &[("files_read", 2), ("duplicates", 1), ("updated", 0)]);
    assert_eq!(documents(&place, "idx"), before);
    place.file("b.csv", "id,text\n3,three\n");
    assert_counts(&synced(&place), &[("updated", 1), ("added", 1)]);
}

#[test]
fn wrong_calls_are_refused_and_change_nothing() {
    let place = indexed_notes(2);
    place.file("v.csv", "id,text\n1,one\n");
    place.pipe(&["index", "-", "--into", "streamed"], "{\"text\": \"one\", \"id\": \"1\"}\n").ok();
    std::fs::rename(place.path("notes"), place.path("gone")).unwrap();
    place.refuses(&[
        ("sync nowhere", 8, &["nowhere"]),
        ("sync streamed", 2, &["no recorded inputs", "warpseek index"]),
        ("sync streamed --watch", 2, &["no recorded inputs"]),
        ("sync idx", 7, &["notes", "sync idx --forget notes"]),
        ("sync idx --forget other", 2, &["other is not a recorded input", "notes"]),
        ("sync idx --forget notes --watch", 2, &["--watch"]),
        ("index - --into idx --watch", 2, &["--watch", "stdin"]),
        ("serve streamed --port 0 --watch", 2, &["streamed", "no recorded inputs"]),
        ("serve --embed-only --watch", 2, &["--watch"]),
    ]);
    assert_eq!(place.stats("idx")["documents"], 4);
    place.call("sync idx --forget notes").ok();
    place.call("sync idx").fails(2, &["no recorded inputs"]);
    assert_eq!(place.stats("idx")["documents"], 4);
    place.call("verify idx").ok();

    // All files gone from a folder that is there.
    std::fs::rename(place.path("gone"), place.path("notes")).unwrap();
    place.call("index notes --into idx").ok();
    std::fs::remove_dir_all(place.path("notes")).unwrap();
    std::fs::create_dir(place.path("notes")).unwrap();
    place.call("sync idx").fails(7, &["no readable file in this folder"]);
    assert_eq!(place.stats("idx")["documents"], 4);
}

#[test]
fn sync_killed_at_any_instant_ends_as_a_new_index() {
    let place = Workplace::new();
    let lines = records(400);
    let lines: Vec<&str> = lines.lines().collect();
    let write = |round: usize| {
        for (file, part) in lines.chunks(40).enumerate() {
            let n = 40 - (file + round) % 3;
            let text: Vec<String> =
                part[..n].iter().map(|line| line.replace("Title", &format!("T{round}"))).collect();
            place.file(&format!("notes/{file}.jsonl"), text.join("\n"));
        }
        std::thread::sleep(SETTLED);
    };
    write(0);
    place.call("index notes --into idx").ok();
    for round in 1..8 {
        write(round);
        let mut child = place
            .command(&["sync", "idx"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 * round as u64));
        let _ = child.kill();
        child.wait().unwrap();
        place.call("verify idx").ok();
    }
    synced(&place);
    assert_as_new(&place);
    assert_counts(&synced(&place), &[("files_read", 0), ("rows", 0)]);
}

/// A run that watches, and is killed with the test.
struct Watching(Child);

impl Watching {
    fn start(place: &Workplace, line: &str) -> Self {
        let mut command = place.command(&crate::support::cli::words(line));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `is_so`, and returns the time that took.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

/// True if the text is a document of `idx`.
fn has(place: &Workplace, text: &str) -> bool {
    let run: ProgramRun = place.run(&["export", "idx", "--documents", "has.jsonl"]);
    run.code == 0 && std::fs::read_to_string(place.path("has.jsonl")).unwrap().contains(text)
}

#[cfg(unix)]
#[test]
fn watched_folder_is_followed_through_changes_renames_and_its_own_removal() {
    let place = Workplace::new();
    place.file("notes/a.txt", "The first note.");
    // The index lies in the folder that is watched.
    let mut watching = Watching::start(&place, "index notes --into notes/idx --watch");
    let has = |text: &str| {
        let args = ["export", "notes/idx", "--documents", "has.jsonl"];
        place.run(&args).code == 0
            && std::fs::read_to_string(place.path("has.jsonl")).unwrap().contains(text)
    };
    wait_until("the first note", || has("The first note"));
    std::thread::sleep(Duration::from_millis(500));
    place.file("notes/sub/deep/b.txt", "A second note, in new folders.");
    wait_until("a note in new folders", || has("A second note"));
    std::fs::rename(place.path("notes/a.txt"), place.path("notes/c.txt")).unwrap();
    wait_until("the new name", || has("c.txt") && !has("a.txt"));
    place.file("notes/.warpseekignore", "sub/\n");
    wait_until("an ignored folder", || !has("A second note"));
    std::fs::remove_file(place.path("notes/.warpseekignore")).unwrap();
    wait_until("the folder again", || has("A second note"));
    // Its own commits are not changes.
    std::thread::sleep(Duration::from_millis(600));
    let log =
        || std::fs::metadata(place.path("notes/idx/documents.db")).unwrap().modified().unwrap();
    let before = log();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(log(), before);
    let pid = rustix::process::Pid::from_child(&watching.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(watching.0.wait().unwrap().code(), Some(0));
    place.call("verify notes/idx").ok();
}

#[test]
fn removed_input_is_waited_for() {
    let place = indexed_notes(3);
    let _watching = Watching::start(&place, "sync idx --watch");
    place.file("notes/new.txt", "A note before the folder goes.");
    wait_until("the note", || has(&place, "before the folder goes"));
    std::fs::rename(place.path("notes"), place.path("moved")).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(has(&place, "before the folder goes"));
    std::fs::rename(place.path("moved"), place.path("notes")).unwrap();
    place.file("notes/later.txt", "A note after the folder came back.");
    wait_until("the later note", || has(&place, "came back"));
    // Another process adds an input, which is followed from then on.
    place.file("more/x.txt", "Another input.");
    place.call("index more --into idx").ok();
    std::thread::sleep(Duration::from_millis(1500));
    place.file("more/y.txt", "A change of the second input.");
    wait_until("the other change", || has(&place, "A change of the second input"));
}

#[test]
fn watched_folder_that_was_made_anew_is_followed() {
    let place = indexed_notes(3);
    let _watching = Watching::start(&place, "sync idx --watch");
    std::fs::remove_dir_all(place.path("notes")).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    place.file("notes/a.txt", "A note in the new folder.");
    wait_until("the new folder", || has(&place, "A note in the new folder"));
    std::thread::sleep(Duration::from_millis(1500));
    place.file("notes/b.txt", "A note after it.");
    wait_until("the note after it", || has(&place, "A note after it"));
}

#[cfg(unix)]
#[test]
fn folder_above_an_input_that_is_replaced_is_noticed() {
    let place = Workplace::new();
    place.file("x/n/1.txt", "The first note.");
    place.call("index x/n --into idx").ok();
    let _watching = Watching::start(&place, "sync idx --watch");
    place.file("x/n/2.txt", "A note before the move.");
    wait_until("the note before", || has(&place, "A note before the move"));
    std::fs::rename(place.path("x"), place.path("x2")).unwrap();
    place.file("x/n/3.txt", "A note at the old place.");
    wait_until("the note at the old place", || has(&place, "A note at the old place"));
    place.file("x/n/4.txt", "A note after the move.");
    wait_until("the note after", || has(&place, "A note after the move"));
}

#[cfg(unix)]
#[test]
fn documents_of_a_file_that_a_link_reaches_too_are_kept() {
    let place = Workplace::new();
    place.file("n/a.txt", "A note.");
    place.file("o/t.txt", "A file with two paths.");
    std::os::unix::fs::symlink("../o/t.txt", place.path("n/l.txt")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    place.call("index n --into idx").ok();
    place.call("index o --into idx").ok();
    for _ in 0..2 {
        assert_counts(&synced(&place), &[("pruned", 0), ("added", 0)]);
        assert!(has(&place, "A file with two paths"));
    }
}

#[test]
fn input_that_is_forgotten_below_another_one_is_told() {
    let place = indexed_notes(2);
    place.file("notes/sub/x.md", "A note below.");
    place.call("index notes/sub --into idx").ok();
    let run = place.call("sync idx --forget notes/sub").ok();
    assert!(run.stderr.contains("'notes', which is above it"), "{}", run.stderr);
}

#[test]
fn documents_of_an_input_that_is_gone_below_another_one_are_kept() {
    let place = indexed_notes(2);
    for folder in ["gone", "emptied"] {
        place.file(&format!("notes/{folder}/x.md"), "A note below.");
    }
    place.call("index notes/gone notes/emptied --into idx").ok();
    place.call("index notes --into idx").ok();
    // Alike, so that all are read together.
    place.call("index notes/gone notes/emptied --into idx").ok();
    std::fs::remove_dir_all(place.path("notes/gone")).unwrap();
    std::fs::remove_file(place.path("notes/emptied/x.md")).unwrap();
    let run = place.call("sync idx --json").fails(7, &["notes/gone"]);
    assert_counts(&run.json(), &[("pruned", 0)]);
    assert_eq!(run.json()["inputs"], json!(["notes", "notes/emptied", "notes/gone"]));
    place.call("sync idx --forget notes/gone").ok();
    assert_counts(&place.call("sync idx --json").fails(7, &["emptied"]).json(), &[("pruned", 1)]);
    assert_eq!(place.stats("idx")["documents"], 5);
}

#[test]
fn documents_that_another_file_took_over_come_back() {
    let place = Workplace::new();
    let record = |id: &str| format!("{{\"id\": \"{id}\", \"text\": \"text\"}}\n");
    place.file("n/z.jsonl", record("a"));
    place.file("o.jsonl", record("a") + &record("b"));
    std::thread::sleep(SETTLED);
    place.call("index n --into idx").ok();
    place.call("index o.jsonl --into idx").ok();
    place.file("o.jsonl", record("b"));
    std::thread::sleep(SETTLED);
    assert_counts(&synced(&place), &[("files_read", 2), ("pruned", 0), ("unchanged", 2)]);
    assert_counts(&synced(&place), &[("files_read", 0)]);
    // An id of a file that is not read again is refused, also where that has other settings.
    place.call("index n --into idx --no-ignore").ok();
    place.file("n/z.jsonl", record("a") + &record("b"));
    let report = synced(&place);
    assert_counts(&report, &[("skipped", 1), ("updated", 0), ("replaced_elsewhere", 0)]);
    let message = report["messages"][0].as_str().unwrap();
    let expected = "the id 'b' is also in o.jsonl";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn every_bad_input_is_told_and_strict_ones_stop_alone() {
    let place = Workplace::new();
    for name in ["a.txt", "b.txt", "s/c.txt", "d.txt"] {
        place.file(name, format!("The text of {name}."));
    }
    place.file("bad.jsonl", "{\"text\": \"x\"}\n");
    std::thread::sleep(SETTLED);
    place.call("index a.txt bad.jsonl s --into idx --strict").ok();
    place.call("index b.txt d.txt --into idx").ok();
    place.file("bad.jsonl", "{}\n");
    place.file("a.txt", "Another text.");
    std::fs::rename(place.path("s/c.txt"), place.path("s/new.txt")).unwrap();
    std::fs::remove_file(place.path("b.txt")).unwrap();
    place.file("d.txt", "");
    let run = place.call("sync idx --json").fails(7, &["b.txt", "bad.jsonl"]);
    let report = run.json();
    // `s/new.txt` replaces `s/c.txt`, and `d.txt` is empty.
    assert_counts(&report, &[("updated", 1), ("added", 1), ("pruned", 2)]);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[cfg(unix)]
#[test]
fn input_that_became_a_pipe_is_refused() {
    let place = Workplace::new();
    place.file("a.txt", "A text.");
    place.call("index a.txt --into idx").ok();
    std::fs::remove_file(place.path("a.txt")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("a.txt")).status().unwrap();
    assert!(made.success());
    place.call("sync idx").fails(7, &["not a regular file or folder any more", "--forget a.txt"]);
}

#[cfg(target_os = "linux")]
#[test]
fn input_whose_name_is_not_utf8_is_not_recorded() {
    use std::os::unix::ffi::OsStrExt;
    let place = Workplace::new();
    let name = std::ffi::OsStr::from_bytes(b"bad\xff");
    std::fs::create_dir(place.path("").join(name)).unwrap();
    std::fs::write(place.path("").join(name).join("a.txt"), "A text.").unwrap();
    let mut command = place.command(&["index"]);
    let run = crate::support::cli::finish(command.arg(name).args(["--into", "idx"])).ok();
    assert!(run.stderr.contains("bad\\xFF: not recorded for `warpseek sync`"), "{}", run.stderr);
    place.call("sync idx").fails(2, &["no recorded inputs"]);
}

#[cfg(unix)]
#[test]
fn link_above_a_target_that_gets_another_one_is_noticed() {
    let place = Workplace::new();
    place.file("release/1/c.txt", "The first release.");
    place.file("release/2/c.txt", "Release number two.");
    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, place.path(at)).unwrap();
    link("release/1", "current");
    link("current/c.txt", "c.txt");
    place.call("index c.txt --into idx").ok();
    let _watching = Watching::start(&place, "sync idx --watch");
    place.file("release/1/c.txt", "The first release, changed.");
    wait_until("the change", || has(&place, "The first release, changed"));
    std::fs::remove_file(place.path("current")).unwrap();
    link("release/2", "current");
    wait_until("the other release", || has(&place, "Release number two"));
}

#[test]
fn served_index_follows_its_files() {
    let place = indexed_notes(5);
    let server = Server::start(&place, &["idx", "--watch"]);
    let total = || {
        let found = server.post("/v1/search", &json!({"query": "river", "k": 50})).ok();
        found["total_rows"].as_u64().unwrap()
    };
    assert_eq!(total(), 7);
    place.file("notes/new.txt", "A note that appears while the index is served.");
    wait_until("the new note", || total() == 8);
    std::fs::remove_file(place.path("notes/0.txt")).unwrap();
    wait_until("the removal", || total() == 7);
    // A client's own documents stay.
    let document = json!({"documents": [{"id": "own", "text": "From a client."}]});
    server.post("/v1/documents", &document).ok();
    wait_until("a client's document", || total() == 8);
    place.file("notes/1.txt", "A change after it.");
    wait_until("the change", || has(&place, "A change after it"));
    assert_eq!(total(), 8);
}
