//! Kills at random instants, interrupts, concurrent readers and writers, read-only folders.

use crate::support::cli::{Workplace, records};
use serde_json::Value;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use warpseek::store::Index;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Random numbers in 0..1, other ones in every run. The seed is printed, and WARPSEEK_TEST_SEED
/// replays it.
fn random_fractions() -> impl Iterator<Item = f64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = std::env::var("WARPSEEK_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(now.as_nanos() as u64);
    eprintln!("WARPSEEK_TEST_SEED={seed}");
    (0u64..).map(move |i| xxh3_64_with_seed(&i.to_le_bytes(), seed) as f64 / u64::MAX as f64)
}

/// Starts the program and kills it after a while.
fn kill_after(place: &Workplace, args: &[&str], after: Duration) {
    let mut child =
        place.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
}

/// A folder with `n` records in `corpus.jsonl`, indexed in `idx`.
fn indexed(n: usize) -> Workplace {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(n));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    place
}

/// Live rows of an index.
fn n_rows(place: &Workplace, index: &str) -> u64 {
    let info = place.run(&["info", index, "--json"]).ok().json();
    info["stats"]["rows"].as_u64().unwrap()
}

/// Documents and vectors of an index.
fn content(place: &Workplace, index: &str) -> (Vec<Value>, Vec<f32>) {
    place.run(&["export", index, "--vectors", "v.npy", "--documents", "d.jsonl"]).ok();
    let file = warpseek::vectors::VectorFile::open(&place.path("v.npy"), None).unwrap();
    let mut vectors = vec![0f32; file.n_rows() * file.dim()];
    for (i, row) in vectors.chunks_exact_mut(file.dim()).enumerate() {
        file.read(i, row).unwrap();
    }
    (crate::golden::lines(&place.path("d.jsonl")), vectors)
}

#[track_caller]
fn assert_same_content(place: &Workplace, index: &str, expected: &(Vec<Value>, Vec<f32>)) {
    let got = content(place, index);
    assert_eq!(got.0, expected.0, "ids, texts and their order");
    assert_eq!(got.1.len(), expected.1.len());
    let worst = got.1.iter().zip(&expected.1).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst <= 1e-5, "vectors differ by {worst}");
}

#[test]
fn index_killed_at_any_instant_verifies_resumes_and_ends_identical() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(3000));
    let args = |into: &'static str| {
        ["index", "corpus.jsonl", "--into", into, "--commit-rows", "128", "--quiet"]
    };
    let started = Instant::now();
    place.run(&args("whole")).ok();
    let duration = started.elapsed();
    let expected = content(&place, "whole");
    assert_eq!(expected.0.len(), 3000);
    let (mut before_creation, mut with_rows) = (0, 0);
    for fraction in random_fractions().take(20) {
        let _ = std::fs::remove_dir_all(place.path("killed"));
        kill_after(&place, &args("killed"), duration.mul_f64(fraction));
        let verify = place.run(&["verify", "killed"]);
        if verify.code == 8 {
            // The kill came before there was an index.
            assert!(verify.stderr.contains("no index here"), "{}", verify.stderr);
            before_creation += 1;
        } else {
            assert!(!verify.ok().stdout.contains("DAMAGED"));
            with_rows += u32::from((1..3000).contains(&n_rows(&place, "killed")));
        }
        place.run(&args("killed")).ok();
        place.run(&["verify", "killed"]).ok();
        assert_same_content(&place, "killed", &expected);
    }
    eprintln!("{before_creation} kills came before creation, {with_rows} between commits of rows");
    assert!(with_rows > 0, "no kill hit the run in its middle: {duration:?}");
}

#[test]
fn update_killed_at_any_instant_leaves_old_or_new_documents_and_resumes() {
    let place = indexed(1500);
    place.file("changed.jsonl", records(1500).replace("river", "brook"));
    let update = ["index", "changed.jsonl", "--into", "idx", "--commit-rows", "100", "--quiet"];
    for fraction in random_fractions().take(4) {
        kill_after(&place, &update, Duration::from_millis(20 + (fraction * 600.0) as u64));
        place.run(&["verify", "idx"]).ok();
        assert_eq!(n_rows(&place, "idx"), 1500, "a document is old or new, never both");
    }
    place.run(&update).ok();
    place.run(&["compact", "idx"]).ok();
    let (documents, _) = content(&place, "idx");
    assert_eq!(documents.len(), 1500);
    assert!(documents.iter().all(|d| !d["text"].as_str().unwrap().contains("river")));
}

#[test]
fn compaction_killed_at_any_instant_leaves_a_sound_index() {
    let place = indexed(2000);
    place.run(&["delete", "idx", "--filter", "topic = 'a'"]).ok();
    let expected = content(&place, "idx");
    for fraction in random_fractions().take(8) {
        kill_after(&place, &["compact", "idx"], Duration::from_millis((fraction * 120.0) as u64));
        place.run(&["verify", "idx", "--sample", "2"]).ok();
        assert_same_content(&place, "idx", &expected);
    }
    place.run(&["compact", "idx"]).ok();
    place.run(&["verify", "idx"]).ok();
    assert_same_content(&place, "idx", &expected);
    // No remains of the interrupted compactions are left.
    let names = std::fs::read_dir(place.path("idx")).unwrap().map(|f| f.unwrap().file_name());
    assert_eq!(names.filter(|n| n.to_string_lossy().starts_with("vectors-")).count(), 4);
}

#[test]
fn second_writer_is_told_who_writes() {
    let place = indexed(3000);
    let lock = std::fs::File::options().write(true).open(place.path("idx/lock")).unwrap();
    lock.try_lock().unwrap();
    for args in [
        &["index", "corpus.jsonl", "--into", "idx"][..],
        &["delete", "idx", "d1"],
        &["compact", "idx"],
    ] {
        place.run(args).fails(8, &["idx", "is being written by another process"]);
    }
    // Readers need no lock.
    place.run(&["search", "idx", "river"]).ok();
    drop(lock);
    place.run(&["delete", "idx", "d1"]).ok();
}

#[test]
fn reader_keeps_its_snapshot_while_a_writer_changes_everything() {
    let place = indexed(400);
    let reader = Index::open(&place.path("idx")).unwrap();
    let all: Vec<u32> = (0..400).collect();
    let before = reader.rows(&all).unwrap();
    let values = reader.matrix().unwrap().single().unwrap().values().to_vec();
    place.run(&["delete", "idx", "--filter", "topic IN ('a', 'b')"]).ok();
    place.file("more.jsonl", records(500).replace("lamp", "torch"));
    place.run(&["index", "more.jsonl", "--into", "idx", "--quiet"]).ok();
    place.run(&["compact", "idx"]).ok();
    assert_eq!(reader.rows(&all).unwrap(), before);
    assert_eq!(reader.matrix().unwrap().single().unwrap().values(), values);
    assert_eq!(reader.live().count(), 400);
    let with_lamp = before.iter().filter(|r| r.text.contains("lamp")).count();
    assert_eq!(reader.lexical("lamp", 400, None).unwrap().len(), with_lamp);
    let reopened = Index::open(&place.path("idx")).unwrap();
    assert_eq!(reopened.live().count(), 500);
    assert_ne!(reopened.snapshot_id(), reader.snapshot_id());
    place.run(&["verify", "idx"]).ok();
}

#[test]
fn readers_open_whenever_they_like_while_a_writer_indexes_and_compacts() {
    let place = indexed(600);
    let dir = place.path("idx");
    let stop = AtomicBool::new(false);
    let read = || {
        let mut opened = 0;
        while !stop.load(Ordering::Relaxed) {
            let index = Index::open(&dir).unwrap_or_else(|e| panic!("{e}"));
            let mut rows = Vec::new();
            index.live().collect_range(0..index.n_rows(), &mut rows);
            assert_eq!(index.rows(&rows).unwrap().len(), rows.len());
            opened += 1;
        }
        opened
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        for round in 0..6 {
            place.file("corpus.jsonl", records(600).replace("river", &format!("river{round}")));
            let update =
                ["index", "corpus.jsonl", "--into", "idx", "--commit-rows", "50", "--quiet"];
            place.run(&update).ok();
            place.run(&["compact", "idx"]).ok();
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 3);
        }
    });
    place.run(&["verify", "idx"]).ok();
}

#[cfg(unix)]
#[test]
fn index_in_a_read_only_folder_can_be_searched() {
    use std::os::unix::fs::PermissionsExt;
    let place = indexed(50);
    let set_mode = |mode: u32| {
        let set = |path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for entry in std::fs::read_dir(place.path("idx")).unwrap() {
            set(entry.unwrap().path(), mode & 0o666);
        }
        set(place.path("idx"), mode);
    };
    set_mode(0o555);
    let result = place.run(&["search", "idx", "river", "--json"]);
    let verify = place.run(&["verify", "idx"]);
    set_mode(0o755);
    assert_eq!(result.ok().json()["total_rows"], 50);
    verify.ok();
}

#[cfg(unix)]
#[test]
fn interrupt_ends_an_indexing_run_with_what_it_did_committed() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(20_000));
    let mut child = place
        .command(&["index", "corpus.jsonl", "--into", "idx", "--commit-rows", "64"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Wait until rows are there, then send what Ctrl+C sends.
    let vectors = place.path("idx/vectors-0.f16");
    while std::fs::metadata(&vectors).map_or(0, |m| m.len()) < 20_000 {
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = ["-INT", &child.id().to_string()];
    assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("run the same command again to continue"), "{stderr}");
    place.run(&["verify", "idx"]).ok();
    let rows = n_rows(&place, "idx");
    assert!(rows > 0 && rows < 20_000);
    let rest = place.run(&["index", "corpus.jsonl", "--into", "idx", "--json"]).ok().json();
    assert_eq!(rest["unchanged"].as_u64().unwrap(), rows);
    assert_eq!(rest["added"].as_u64().unwrap(), 20_000 - rows);
}

#[cfg(unix)]
#[test]
fn interrupt_is_seen_while_one_large_document_is_cut() {
    // Two seconds are promised. The rest is for slow machines, on which the document takes
    // minutes to cut; on a fast one it takes most of a minute.
    let limit = Duration::from_secs(10);
    let place = Workplace::new();
    place.file("docs/a.jsonl", records(600));
    let paragraph = "The river runs past the garden. A lamp burns in the window. ".repeat(4);
    place.file("docs/b.txt", format!("{paragraph}\n\n").repeat((60 << 20) / paragraph.len()));
    for (signal, index) in [("-INT", "one"), ("-TERM", "two")] {
        let mut child = place
            .command(&[
                "index",
                "docs",
                "--into",
                index,
                "--commit-rows",
                "64",
                "--max-record-bytes",
                "99999999",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Batches of 128 records are committed; the last 88 wait for the text behind them.
        let vectors = place.path(&format!("{index}/vectors-0.f16"));
        while std::fs::metadata(&vectors).map_or(0, |m| m.len()) < 20_000 {
            assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_secs(3));
        assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
        let asked = Instant::now();
        let kill = [signal, &child.id().to_string()];
        assert!(std::process::Command::new("kill").args(kill).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let took = asked.elapsed();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(took < limit, "{signal} was seen after {took:?}");
        eprintln!("{signal} ended the program after {took:?}");
        assert!(stderr.contains("run the same command again to continue"), "{stderr}");
        place.run(&["verify", index]).ok();
        assert_eq!(n_rows(&place, index), 512);
    }
}
