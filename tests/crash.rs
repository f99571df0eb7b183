//! Kills at random instants, concurrent readers and writers, full and read-only media.

use crate::support::cli::{Workplace, records};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// SplitMix64, seeded by the time so that every run of the tests tries other instants; the seed is
/// printed so that a failure can be replayed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = std::env::var("WARPSEEK_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or(now.as_nanos() as u64);
        eprintln!("WARPSEEK_TEST_SEED={seed}");
        Self(seed)
    }

    /// Uniform in 0..1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn spawn(place: &Workplace, args: &[&str]) -> Child {
    place.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The rows of an index: documents, and vectors as numbers.
fn content(place: &Workplace, index: &str) -> (Vec<Value>, Vec<f32>) {
    place.run(&["export", index, "--vectors", "v.npy", "--documents", "d.jsonl"]).ok();
    let file = warpseek::vectors::VectorFile::open(&place.path("v.npy"), None).unwrap();
    let mut all = Vec::new();
    let mut row = vec![0f32; file.dim()];
    for i in 0..file.n_rows() {
        file.read(i, &mut row).unwrap();
        all.extend_from_slice(&row);
    }
    (crate::golden::lines(&place.path("d.jsonl")), all)
}

fn assert_same_content(place: &Workplace, got: &str, expected: &(Vec<Value>, Vec<f32>)) {
    let got = content(place, got);
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
    let mut random = Random::new();
    let (mut before_creation, mut with_rows) = (0, 0);
    for _ in 0..20 {
        let _ = std::fs::remove_dir_all(place.path("killed"));
        let mut child = spawn(&place, &args("killed"));
        std::thread::sleep(duration.mul_f64(random.share()));
        child.kill().unwrap();
        child.wait().unwrap();
        let verify = place.run(&["verify", "killed"]);
        if verify.code == 8 {
            // The kill came before there was an index.
            assert!(verify.stderr.contains("no index here"), "{}", verify.stderr);
            before_creation += 1;
        } else {
            let verify = verify.ok();
            assert!(!verify.stdout.contains("DAMAGED"));
            let info = place.run(&["info", "killed", "--json"]).ok().json();
            let rows = info["stats"]["rows"].as_u64().unwrap() as usize;
            with_rows += usize::from(rows > 0 && rows < 3000);
        }
        place.run(&args("killed")).ok();
        place.run(&["verify", "killed"]).ok();
        assert_same_content(&place, "killed", &expected);
    }
    eprintln!(
        "{before_creation} kills came before creation, {with_rows} in the middle of the rows"
    );
    assert!(with_rows > 0, "no kill hit the run in its middle: {duration:?}");
}

#[test]
fn update_killed_at_any_instant_leaves_old_or_new_documents_and_resumes() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(1500));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let changed = records(1500).replace("river", "brook");
    place.file("changed.jsonl", changed);
    let update = ["index", "changed.jsonl", "--into", "idx", "--commit-rows", "100", "--quiet"];
    let mut random = Random::new();
    for round in 0..4 {
        let mut child = spawn(&place, &update);
        std::thread::sleep(Duration::from_millis(20 + (random.share() * 600.0) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        place.run(&["verify", "idx"]).ok();
        let info = place.run(&["info", "idx", "--json"]).ok().json();
        assert_eq!(
            info["stats"]["rows"], 1500,
            "round {round}: a document is old or new, never both"
        );
    }
    place.run(&update).ok();
    place.run(&["compact", "idx"]).ok();
    let (documents, _) = content(&place, "idx");
    assert_eq!(documents.len(), 1500);
    assert!(documents.iter().all(|d| !d["text"].as_str().unwrap().contains("river")));
}

#[test]
fn compaction_killed_at_any_instant_leaves_a_sound_index() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(2000));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    place.run(&["delete", "idx", "--filter", "topic = 'a'"]).ok();
    let expected = content(&place, "idx");
    let mut random = Random::new();
    for _ in 0..8 {
        let mut child = spawn(&place, &["compact", "idx"]);
        std::thread::sleep(Duration::from_millis((random.share() * 120.0) as u64));
        let _ = child.kill();
        child.wait().unwrap();
        place.run(&["verify", "idx", "--sample", "2"]).ok();
        assert_same_content(&place, "idx", &expected);
    }
    place.run(&["compact", "idx"]).ok();
    place.run(&["verify", "idx"]).ok();
    assert_same_content(&place, "idx", &expected);
    // What interrupted compactions left is gone.
    let files = std::fs::read_dir(place.path("idx")).unwrap();
    let matrices =
        files.filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with("vectors-"));
    assert_eq!(matrices.count(), 3);
}

#[test]
fn second_writer_is_told_who_writes() {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(3000));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let lock = std::fs::File::options().write(true).open(place.path("idx/lock")).unwrap();
    lock.try_lock().unwrap();
    for args in [
        &["index", "corpus.jsonl", "--into", "idx"][..],
        &["delete", "idx", "d1"],
        &["compact", "idx"],
    ] {
        place.run(args).fails(8, &["idx", "is being written by another process"]);
    }
    // Readers do not care.
    place.run(&["search", "idx", "river"]).ok();
    drop(lock);
    place.run(&["delete", "idx", "d1"]).ok();
}

#[test]
fn reader_keeps_its_snapshot_while_a_writer_changes_everything() {
    use warpseek::store::Index;
    let place = Workplace::new();
    place.file("corpus.jsonl", records(400));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let reader = Index::open(&place.path("idx")).unwrap();
    let all: Vec<u32> = (0..400).collect();
    let before = reader.rows(&all).unwrap();
    let values = reader.matrix().unwrap().values().to_vec();
    place.run(&["delete", "idx", "--filter", "topic IN ('a', 'b')"]).ok();
    place.file("more.jsonl", records(500).replace("lamp", "torch"));
    place.run(&["index", "more.jsonl", "--into", "idx", "--quiet"]).ok();
    place.run(&["compact", "idx"]).ok();
    assert_eq!(reader.rows(&all).unwrap(), before);
    assert_eq!(reader.matrix().unwrap().values(), values);
    assert_eq!(reader.live().count(), 400);
    assert_eq!(
        reader.lexical("lamp", 400, None).unwrap().len(),
        before.iter().filter(|r| r.text.contains("lamp")).count()
    );
    let reopened = Index::open(&place.path("idx")).unwrap();
    assert_eq!(reopened.live().count(), 500);
    assert_ne!(reopened.snapshot_id(), reader.snapshot_id());
    place.run(&["verify", "idx"]).ok();
}

#[test]
fn readers_open_whenever_they_like_while_a_writer_indexes_and_compacts() {
    use warpseek::store::Index;
    let place = Workplace::new();
    place.file("corpus.jsonl", records(600));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let dir = place.path("idx");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut opened = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let index = Index::open(&dir).unwrap_or_else(|e| panic!("{e}"));
                        let mut rows = Vec::new();
                        index.live().collect_range(0..index.n_rows(), &mut rows);
                        assert_eq!(index.rows(&rows).unwrap().len(), rows.len());
                        opened += 1;
                    }
                    opened
                })
            })
            .collect();
        for round in 0..6 {
            place.file("corpus.jsonl", records(600).replace("river", &format!("river{round}")));
            let update =
                ["index", "corpus.jsonl", "--into", "idx", "--commit-rows", "50", "--quiet"];
            place.run(&update).ok();
            place.run(&["compact", "idx"]).ok();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
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
    let place = Workplace::new();
    place.file("corpus.jsonl", records(50));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let mode = |mode: u32| {
        for entry in std::fs::read_dir(place.path("idx")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o666)).unwrap();
        }
        let folder = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.path("idx"), folder).unwrap();
    };
    mode(0o555);
    let result = place.run(&["search", "idx", "river", "--json"]);
    let verify = place.run(&["verify", "idx"]);
    mode(0o755);
    assert_eq!(result.ok().json()["total_rows"], 50);
    verify.ok();
}

#[test]
fn interrupt_ends_an_indexing_run_with_what_it_did_committed() {
    #[cfg(unix)]
    {
        let place = Workplace::new();
        place.file("corpus.jsonl", records(20_000));
        let mut child = place
            .command(&["index", "corpus.jsonl", "--into", "idx", "--commit-rows", "64"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Wait until rows are there, then send what Ctrl+C sends.
        let matrix = place.path("idx/vectors-0.f16");
        while std::fs::metadata(&matrix).map_or(0, |m| m.len()) < 20_000 {
            assert!(child.try_wait().unwrap().is_none(), "ended before it could be interrupted");
            std::thread::sleep(Duration::from_millis(2));
        }
        let killed = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("run the same command again to go on"), "{stderr}");
        place.run(&["verify", "idx"]).ok();
        let info = place.run(&["info", "idx", "--json"]).ok().json();
        let rows = info["stats"]["rows"].as_u64().unwrap();
        assert!(rows > 0 && rows < 20_000);
        let rest = place.run(&["index", "corpus.jsonl", "--into", "idx", "--json"]).ok().json();
        assert_eq!(rest["unchanged"].as_u64().unwrap(), rows);
        assert_eq!(rest["added"].as_u64().unwrap(), 20_000 - rows);
    }
}
