//! Clients that people have, the page in a browser, and a fuzzer that reads the description, all against the
//! running server. They are Python's; `tests/serve/requirements.txt` lists the packages.

use crate::support::chat::{Chat, Reply};
use crate::support::cli::{Workplace, with_real_model};
use crate::support::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// The demo's passages with the real models, and a server over them, with `more` of options.
fn demo(more: &[&str]) -> (Workplace, Server) {
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
    let serve = [&["serve", "idx", "--port", "0"], more].concat();
    let server = Server::from_command(command(&serve));
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
    let (place, server) = demo(&[]);
    run(&place, &python, "clients.py", &[&server.url()]);
}

#[test]
fn page_works_in_a_browser() {
    let Some(python) = python("the page") else { return };
    let (place, server) = demo(&[]);
    run(&place, &python, "page.py", &[&server.url()]);
}

#[test]
fn answers_appear_in_the_page_as_they_come() {
    let Some(python) = python("whether answers appear in the page as they come") else { return };
    let events = Reply::events("The first thing is here. And this is the last one.", 8);
    let events = String::from_utf8(events).unwrap();
    let pieces = events.split_inclusive("\n\n").map(|event| event.as_bytes().to_vec());
    let reply = Reply { pause: Duration::from_millis(150), ..Reply::stream(pieces.collect()) };
    let chat = Chat::start([reply]);
    let url = chat.url();
    let (place, server) = demo(&["--base-url", &url, "--chat-model", "stand-in-8b"]);
    run(&place, &python, "page_answer.py", &[&server.url(), "first thing", "last one"]);
}

#[test]
fn server_keeps_to_its_description_whatever_it_is_sent() {
    let Some(python) = python("whether the server keeps to its description") else { return };
    let (place, server) = demo(&[]);
    run(&place, &python, "fuzz.py", &[&server.url()]);
}
