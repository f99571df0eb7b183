//! Runs of the built program, without the user's own settings and models.

use crate::golden::golden;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The result of a run of the program.
#[derive(Debug)]
pub(crate) struct ProgramRun {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProgramRun {
    /// The run, after checking that it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// The run, after checking its exit status and that stderr holds each of `parts`, and speaks to
    /// a user: no crash, and no message of a library below the program.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> Self {
        let Self { stdout, stderr, .. } = &self;
        assert_eq!(self.code, code, "stdout: {stdout}\nstderr: {stderr}");
        assert_holds(stderr, parts);
        self.unbroken()
    }

    /// The run, after checking that stderr speaks to a user and that the exit status is documented.
    #[track_caller]
    pub(crate) fn unbroken(self) -> Self {
        let machinery = [
            "panicked",
            "overflowed its stack",
            "immutable=1",
            "malformed JSON",
            "no such column",
            "UNIQUE constraint",
        ];
        for words in machinery {
            assert!(!self.stderr.contains(words), "{words}: {}", self.stderr);
        }
        assert!((0..=8).contains(&self.code), "exit status {}: {}", self.code, self.stderr);
        self
    }

    /// Stdout as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}\nstderr: {}", self.stdout, self.stderr))
    }
}

/// A folder of its own for a test, and the program to run in it.
pub(crate) struct Workplace {
    dir: TempDir,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.file(".private/config.toml", "");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and returns its name.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        name.to_owned()
    }

    /// The program with these arguments: run in the folder, no network, no models but those named.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        // On another machine than the one that built it, the environment names the program.
        let program = std::env::var_os("WARPSEEK_TEST_BINARY");
        let mut command = Command::new(program.unwrap_or(env!("CARGO_BIN_EXE_warpseek").into()));
        let private = self.dir.path().join(".private");
        command
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .env("WARPSEEK_OFFLINE", "1")
            .env("WARPSEEK_BUILTIN_MODELS", "0")
            .env("WARPSEEK_CONFIG", private.join("config.toml"))
            .env("WARPSEEK_CACHE_DIR", private.join("cache"))
            .env("WARPSEEK_MODELS_DIR", private.join("models"))
            .env("HF_HOME", private.join("hf"))
            .env("WARPSEEK_MODEL", small_model())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_ENDPOINT")
            .env_remove("HF_TOKEN")
            .env_remove("RUST_LOG")
            .env_remove("WARPSEEK_INDEX")
            .env_remove("WARPSEEK_RERANKER")
            .env_remove("WARPSEEK_DEVICE")
            .env_remove("WARPSEEK_PRECISION")
            .env_remove("WARPSEEK_TIER")
            .env_remove("WARPSEEK_ENCODER")
            .env_remove("WARPSEEK_CHAT_MODEL")
            .env_remove("GROQ_API_KEY")
            .env_remove("GROQ_BASE_URL");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> ProgramRun {
        finish(&mut self.command(args))
    }

    /// Runs a command line.
    pub(crate) fn call(&self, line: &str) -> ProgramRun {
        self.run(&words(line))
    }

    /// Checks that each command line is refused with its exit status and parts of stderr.
    #[track_caller]
    pub(crate) fn refuses(&self, cases: &[(&str, i32, &[&str])]) {
        for (line, code, parts) in cases {
            eprintln!("case: {line}");
            self.call(line).fails(*code, parts);
        }
    }

    /// Checks that the index `idx` is sound, holds `rows` rows, and still answers.
    #[track_caller]
    pub(crate) fn is_sound(&self, rows: usize) {
        self.call("verify idx").ok();
        let result = self.call("search idx river -k 3 --json").ok().json();
        assert_eq!(result["total_rows"], rows);
        assert_eq!(result["hits"].as_array().unwrap().len(), rows.min(3));
    }

    /// The `stats` of an index.
    #[track_caller]
    pub(crate) fn stats(&self, index: &str) -> Value {
        self.run(&["info", index, "--json"]).ok().json()["stats"].clone()
    }

    /// The lines of a JSON lines file.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        crate::golden::lines(&self.path(name))
    }

    /// Runs with `input` on stdin.
    pub(crate) fn pipe(&self, args: &[&str], input: impl AsRef<[u8]>) -> ProgramRun {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.as_ref().to_vec();
        // A program that stops reading early closes the pipe, which is not a failure.
        let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap();
        to_run(output)
    }
}

/// The words of a command line. A word in single quotes may be empty or hold blanks.
pub(crate) fn words(line: &str) -> Vec<&str> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    words.collect()
}

/// Checks that a text holds all parts.
#[track_caller]
pub(crate) fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
}

/// A place with an index `idx` of `n` records from `corpus.jsonl`.
pub(crate) fn indexed(n: usize) -> Workplace {
    let place = Workplace::new();
    place.file("corpus.jsonl", records(n));
    place.call("index corpus.jsonl --into idx").ok();
    place
}

/// The output of a search in `idx` as JSON.
pub(crate) fn search(place: &Workplace, query: &str, more: &[&str]) -> Value {
    place.run(&[&["search", "idx", query, "--json"][..], more].concat()).ok().json()
}

/// The ids of the hits of a search.
pub(crate) fn ids(result: &Value) -> Vec<String> {
    let hits = result["hits"].as_array().unwrap();
    hits.iter().map(|h| h["id"].as_str().unwrap().to_owned()).collect()
}

/// Lets a command use the real embedding model, which is downloaded first if it is not present.
pub(crate) fn with_real_model(command: &mut Command) -> &mut Command {
    let folder = &crate::support::minilm().path;
    command.env("WARPSEEK_MODEL", "all-MiniLM-L6-v2");
    if folder.ends_with("all-MiniLM-L6-v2") {
        let folder = std::fs::canonicalize(folder).unwrap();
        command.env("WARPSEEK_MODELS_DIR", folder.parent().unwrap())
    } else {
        // The hub's cache has another layout than a folder of models.
        command.env_remove("WARPSEEK_MODELS_DIR").env_remove("HF_HOME")
    }
}

pub(crate) fn finish(command: &mut Command) -> ProgramRun {
    to_run(command.output().unwrap())
}

fn to_run(output: std::process::Output) -> ProgramRun {
    ProgramRun {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A tiny embedding model with random weights, for tests where meaning does not matter.
pub(crate) fn small_model() -> PathBuf {
    golden().join("models/e5-like")
}

/// A tiny cross-encoder with random weights.
pub(crate) fn small_reranker() -> String {
    golden().join("cross-encoder").display().to_string()
}

/// `n` records in BEIR's layout with words that repeat, so that scores tie and differ.
pub(crate) fn records(n: usize) -> String {
    let words = ["river", "lamp", "garden", "train", "window", "paper", "storm", "bread", "clock"];
    (0..n)
        .map(|i| {
            let text: Vec<&str> = (0..4 + i % 9).map(|j| words[(i * 7 + j * j) % 9]).collect();
            format!(
                "{{\"_id\": \"d{i}\", \"title\": \"Title {i}\", \"text\": \"{}\", \"year\": {}, \
                 \"topic\": \"{}\", \"tags\": [\"{}\", \"all\"]}}\n",
                text.join(" "),
                2000 + i % 25,
                ["a", "b", "c"][i % 3],
                words[i % 9],
            )
        })
        .collect()
}
