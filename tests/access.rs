//! Indexes of another user: reading them in every state, and what a reader may not do.
//!
//! Run by root, the program runs as a user who owns nothing. Run by anyone else, the index is made
//! read-only for the user who owns it.

use crate::golden::golden;
use crate::support::cli::{ProgramRun, Workplace, finish, small_reranker, words};
use crate::support::server::Server;
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use warpseek::store::IndexWriter;

/// A user and group who own no files.
const NOBODY: u32 = 65534;

/// A place with an index that is read by a user who may not change it, and a folder `out` that this
/// user may write to.
struct Shared {
    place: Workplace,
}

fn is_root(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().uid() == 0
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// True if every user may read and run the file.
fn is_public(path: &Path) -> bool {
    path.ancestors().all(|p| std::fs::metadata(p).is_ok_and(|m| m.mode() & 0o005 == 0o005))
}

impl Shared {
    /// Shares `place`, with the index `idx` closed for writing.
    fn new(place: Workplace) -> Self {
        set_mode(&place.path("."), 0o755);
        std::fs::create_dir(place.path("out")).unwrap();
        set_mode(&place.path("out"), 0o777);
        let shared = Self { place };
        shared.close("idx");
        shared
    }

    /// Four unit vectors with texts, imported without a model.
    fn imported() -> Self {
        let place = Workplace::new();
        write_round(&place, 0);
        import(&place).ok();
        Self::new(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    fn files(&self, index: &str) -> Vec<PathBuf> {
        std::fs::read_dir(self.path(index)).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Lets the reader read an index and nothing more.
    fn close(&self, index: &str) {
        let (folder, file) =
            if is_root(&self.path(index)) { (0o755, 0o644) } else { (0o555, 0o444) };
        self.files(index).iter().for_each(|path| set_mode(path, file));
        set_mode(&self.path(index), folder);
    }

    /// Lets the owner change an index.
    fn open(&self, index: &str) {
        set_mode(&self.path(index), 0o755);
        self.files(index).iter().for_each(|path| set_mode(path, 0o644));
    }

    /// Removes files of an index that end in one of `endings`.
    fn remove(&self, index: &str, endings: &[&str]) {
        self.open(index);
        for path in self.files(index) {
            let name = path.to_str().unwrap();
            if endings.iter().any(|ending| name.ends_with(ending)) {
                std::fs::remove_file(path).unwrap();
            }
        }
        self.close(index);
    }

    /// Copies an index as its files are, with whatever a writer left in them.
    fn copy(&self, from: &str, to: &str) {
        // Another process copies: closing the database here would release its locks.
        let paths = [self.path(from), self.path(to)];
        assert!(Command::new("cp").arg("-R").args(paths).status().unwrap().success());
        self.close(to);
    }

    /// The program with these arguments, as the reader.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        if is_root(&self.path(".")) {
            let program = PathBuf::from(command.get_program());
            if !is_public(&program) {
                let copy = self.path("warpseek-copy");
                if !copy.exists() {
                    std::fs::copy(&program, &copy).unwrap();
                    set_mode(&copy, 0o755);
                }
                let mut copied = Command::new(copy);
                copied.args(command.get_args()).current_dir(self.path("."));
                for (name, value) in command.get_envs() {
                    match value {
                        Some(value) => copied.env(name, value),
                        None => copied.env_remove(name),
                    };
                }
                command = copied;
            }
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs a command line as the reader.
    fn call(&self, line: &str) -> ProgramRun {
        finish(&mut self.command(&words(line)))
    }

    /// The texts of an index, as the reader exports them.
    fn texts(&self, index: &str) -> Vec<String> {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let name = format!("out/{}.jsonl", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.call(&format!("export {index} --documents {name}")).ok();
        let lines = self.place.lines(&name);
        lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever removes the place must be able to.
        for entry in std::fs::read_dir(self.path(".")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                set_mode(&path, 0o755);
            }
        }
    }
}

/// Writes four unit vectors and their documents, whose texts name the round.
fn write_round(place: &Workplace, round: usize) {
    let documents = (0..4).map(|i| {
        format!(
            "{}\n",
            json!({"id": format!("d{i}"),
        "text": format!("round {round}"), "filler": "x".repeat(2000)})
        )
    });
    place.file("documents.jsonl", documents.collect::<String>());
    let mut vectors = Vec::new();
    for i in 0..4 {
        vectors.extend(8u32.to_le_bytes());
        vectors.extend((0..8).flat_map(|j| f32::from(u8::from(i == j)).to_le_bytes()));
    }
    place.file("units.fvecs", vectors);
}

/// Imports the documents of [`write_round`] in one commit.
fn import(place: &Workplace) -> ProgramRun {
    place.call("import units.fvecs --documents documents.jsonl --into idx")
}

/// Deletes a document, and leaves the index as a process that is killed after its commit does.
fn delete_and_leave(shared: &Shared, id: &str) {
    let mut writer = IndexWriter::open(&shared.path("idx")).unwrap();
    let document = writer.find(id).unwrap().unwrap();
    writer.delete(document.seq);
    writer.commit().unwrap();
    shared.copy("idx", "left");
}

/// Bytes of the write-ahead log.
fn log_len(shared: &Shared, index: &str) -> u64 {
    std::fs::metadata(shared.path(index).join("documents.db-wal")).map_or(0, |file| file.len())
}

#[test]
fn every_reading_command_works_on_an_index_of_another_user() {
    let place = crate::cli::indexed(12);
    place.file("q.tsv", "q1\triver lamp\nq2\tgarden\n");
    place.file("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\td1\t1\n");
    let shared = Shared::new(place);
    if is_root(&shared.path(".")) && !is_public(&golden().join("models")) {
        println!("another user may not read the models: nothing is tested");
        return;
    }
    let reranker = small_reranker();
    for (state, removed) in
        [("closed", &[][..]), ("without log", &["-wal", "-shm"]), ("without -shm", &["-shm"])]
    {
        shared.remove("idx", removed);
        for line in [
            "info idx",
            "verify idx",
            "search idx river --json",
            "search idx 'river lamp' --hybrid --filter 'year > 2000'",
            "export idx --vectors out/v.npy --documents out/d.jsonl",
            "batch idx q.tsv --out out/hits.jsonl --restart",
            "eval idx --queries q.tsv --qrels qrels.tsv --no-rerank",
            "answer idx river --no-rerank --dry-run",
            &format!("compare idx river --reranker '{reranker}'"),
        ] {
            eprintln!("{state}: {line}");
            shared.call(line).ok();
        }
        let server = Server::from_command(shared.command(&["serve", "idx", "--port", "0"]));
        let found = server.post("/v1/search", &json!({"query": "river", "k": 3})).ok();
        assert_eq!(found["hits"].as_array().unwrap().len(), 3, "{state}");
        let body = json!({"documents": [{"id": "new", "text": "a text"}]});
        server.post("/v1/documents", &body).fails(403, &["idx", "ermission denied"]);
    }
}

#[test]
fn commits_that_a_killed_writer_left_in_the_log_are_seen() {
    let shared = Shared::imported();
    shared.open("idx");
    delete_and_leave(&shared, "d2");
    // The writer of `idx` has gone meanwhile. Its files were copied before.
    assert!(log_len(&shared, "left") > 0, "the log is empty: nothing is tested");
    let mode_of_shm = |mode| set_mode(&shared.path("left/documents.db-shm"), mode);
    for state in ["with -shm", "with an unreadable -shm", "without -shm"] {
        match state {
            "with an unreadable -shm" => mode_of_shm(0o000),
            "without -shm" => shared.remove("left", &["-shm"]),
            _ => {}
        }
        eprintln!("{state}");
        assert_eq!(shared.texts("left").len(), 3);
        shared.call("verify left").ok();
        let info = shared.call("info left --json").ok().json();
        assert_eq!((&info["stats"]["rows"], &info["stats"]["dead_rows"]), (&json!(3), &json!(1)));
    }
    set_mode(&shared.path("left/documents.db-wal"), 0o000);
    shared.call("info left").fails(8, &["left/documents.db-wal", "Permission denied"]);
    // A commit that was made and is cut off is missed. Without the number of the last commit it
    // does not count, and nothing else is lost.
    shared.open("left");
    let log = shared.path("left/documents.db-wal");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 10]).unwrap();
    shared.close("left");
    shared.call("verify left").fails(5, &["left/documents.db-wal: commits were lost"]);
    shared.open("left");
    std::fs::remove_file(shared.path("left/commits")).unwrap();
    shared.close("left");
    shared.call("verify left").ok();
    // The owner goes on with the same files.
    shared.open("left");
    shared.place.call("verify left").ok();
    shared.place.call("compact left").ok();
    assert_eq!(log_len(&shared, "left"), 0);
}

#[test]
fn log_of_a_server_that_was_killed_is_read() {
    let place = crate::cli::indexed(5);
    for round in 0..20 {
        let server = Server::start(&place, &["idx"]);
        let id = format!("new{round}");
        server.post("/v1/documents", &json!({"documents": [{"id": id, "text": "a zebra"}]})).ok();
        server.signal("KILL");
        server.wait();
        if std::fs::metadata(place.path("idx/documents.db-wal")).is_ok_and(|log| log.len() > 0) {
            let shared = Shared::new(place);
            assert_eq!(shared.texts("idx").len(), 6 + round);
            shared.remove("idx", &["-shm"]);
            assert_eq!(shared.texts("idx").len(), 6 + round);
            return;
        }
    }
    panic!("the server always emptied its log before it was killed");
}

#[test]
fn reader_sees_whole_commits_while_the_owner_writes() {
    let shared = Shared::imported();
    shared.remove("idx", &["-wal", "-shm"]);
    shared.open("idx");
    let stop = AtomicBool::new(false);
    let read = || {
        let mut rounds = Vec::new();
        while !stop.load(Ordering::Relaxed) || rounds.is_empty() {
            let texts = shared.texts("idx");
            assert_eq!(texts.len(), 4, "{texts:?}");
            assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
            rounds.push(texts[0]["round ".len()..].parse::<usize>().unwrap());
        }
        assert!(rounds.is_sorted(), "{rounds:?}");
        rounds
    };
    std::thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        for round in 1..=12 {
            write_round(&shared.place, round);
            import(&shared.place).ok();
            if round % 4 == 0 {
                shared.place.call("compact idx").ok();
            }
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            eprintln!("rounds seen: {:?}", reader.join().unwrap());
        }
    });
    shared.place.call("verify idx").ok();
    assert_eq!(shared.texts("idx"), vec!["round 12"; 4]);
}

#[test]
fn server_of_another_user_follows_the_owners_commits() {
    let place = crate::cli::indexed(5);
    let shared = Shared::new(place);
    for removed in [&["-wal", "-shm"][..], &[]] {
        shared.remove("idx", removed);
        let server = Server::from_command(shared.command(&["serve", "idx", "--port", "0"]));
        let count = || {
            let hits = server.post("/v1/search", &json!({"query": "river", "k": 100})).ok();
            let Value::Array(hits) = &hits["hits"] else { panic!("{hits}") };
            hits.len()
        };
        let before = count();
        shared.open("idx");
        shared.place.run(&["delete", "idx", &format!("d{}", before - 1)]).ok();
        let started = Instant::now();
        while count() != before - 1 {
            assert!(started.elapsed() < Duration::from_secs(20), "the commit stays invisible");
            std::thread::sleep(Duration::from_millis(50));
        }
        shared.place.call("compact idx").ok();
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(count(), before - 1);
        drop(server);
        shared.close("idx");
    }
}

#[test]
fn writing_commands_of_another_user_name_the_folder_and_the_reason() {
    let shared = Shared::imported();
    let before = shared.texts("idx");
    let reason = ["cannot write to idx", "ermission denied", "others can read it"];
    for line in [
        "import units.fvecs --documents documents.jsonl --into idx",
        "index documents.jsonl --into idx",
        "delete idx d1",
        "compact idx",
    ] {
        eprintln!("case: {line}");
        shared.call(line).fails(8, &reason);
    }
    // The lock alone may be written, as in a folder that was shared by halves.
    if is_root(&shared.path(".")) {
        set_mode(&shared.path("idx/lock"), 0o666);
        shared.call("compact idx").fails(8, &reason);
        shared.call("delete idx d1").fails(8, &reason);
    }
    assert_eq!(shared.texts("idx"), before);
    std::fs::create_dir(shared.path("locked")).unwrap();
    set_mode(&shared.path("locked"), 0o555);
    let new = "import units.fvecs --documents documents.jsonl --into locked/new";
    let remedy = "Name a folder for the index where this user may write";
    shared.call(new).fails(8, &["cannot create an index at locked/new", "ermission", remedy]);
}

#[test]
fn index_that_may_not_be_read_is_named_with_the_remedy() {
    let shared = Shared::imported();
    let remedy = ["Permission denied", "chmod -R a+rX"];
    let cases = [
        ("idx", 0o000, "idx/manifest.json"),
        ("idx/manifest.json", 0o000, "idx/manifest.json"),
        ("idx/documents.db", 0o000, "idx/documents.db"),
        ("idx/vectors-0.f16", 0o000, "idx/vectors-0.f16"),
    ];
    for (closed, mode, named) in cases {
        let path = shared.path(closed);
        let before = std::fs::metadata(&path).unwrap().mode();
        set_mode(&path, mode);
        for line in ["info idx", "verify idx", "batch idx units.fvecs --out out/hits.jsonl"] {
            eprintln!("case: {closed}: {line}");
            shared.call(line).fails(8, &[&[named][..], &remedy].concat());
        }
        set_mode(&path, before);
    }
    // The int8 copy costs time alone.
    set_mode(&shared.path("idx/vectors-0.i8"), 0o000);
    let run = shared.call("batch idx units.fvecs --out out/hits.jsonl -k 1").ok();
    assert!(run.stderr.contains("vectors-0.i8"), "{}", run.stderr);
}
