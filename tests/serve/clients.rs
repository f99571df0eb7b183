//! Clients that people have, the page in a browser, and a fuzzer that reads the description, all against the
//! running server. They are Python's; `tests/serve/requirements.txt` lists the packages.

use crate::support::cli::{Workplace, with_real_model};
use crate::support::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with the packages, if there is one; says what is not checked without it.
fn python(what: &str) -> Option<PathBuf> {
    let python = std::env::var_os("WARPSEEK_SERVE_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!(
            "WARPSEEK_SERVE_PYTHON names no Python with the packages of tests/serve/requirements.txt: {what} was not \
             checked, the other tests rest on this project's own reading of the protocols"
        );
    }
    python
}

/// The demo's passages with the real models, and a server over them.
fn demo() -> (Workplace, Server) {
    let place = Workplace::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo/corpus.jsonl");
    place.file("corpus.jsonl", std::fs::read(corpus).unwrap());
    let command = |args: &[&str]| {
        let mut command = place.command(args);
        with_real_model(&mut command).env("WARPSEEK_BUILTIN_MODELS", "1");
        command
    };
    let mut index = command(&["index", "corpus.jsonl", "--into", "idx"]);
    crate::support::cli::finish(&mut index).ok();
    let server = Server::from_command(command(&["serve", "idx", "--port", "0"]));
    (place, server)
}

fn run(place: &Workplace, python: &Path, script: &str, args: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(script);
    let mut command = Command::new(python);
    command.arg(script).args(args).current_dir(place.path("."));
    // What the program itself says of the same things is the measure.
    command.env("WARPSEEK", env!("CARGO_BIN_EXE_warpseek"));
    with_real_model(&mut command).env("WARPSEEK_BUILTIN_MODELS", "1").env("WARPSEEK_OFFLINE", "1");
    command.env("WARPSEEK_CONFIG", place.path(".private/config.toml"));
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn python_clients_get_what_the_command_line_gives() {
    let Some(python) =
        python("what OpenAI's, Cohere's, LangChain's and other clients make of the server")
    else {
        return;
    };
    let (place, server) = demo();
    run(&place, &python, "clients.py", &[&server.url()]);
}

#[test]
fn page_works_in_a_browser() {
    let Some(python) = python("the page") else { return };
    let (place, server) = demo();
    run(&place, &python, "page.py", &[&server.url()]);
}

#[test]
fn server_keeps_to_its_description_whatever_it_is_sent() {
    let Some(python) = python("whether the server keeps to its description") else { return };
    let (place, server) = demo();
    run(&place, &python, "fuzz.py", &[&server.url()]);
}
