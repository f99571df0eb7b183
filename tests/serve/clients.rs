//! Clients in Python and JavaScript, the page in a browser, and a fuzzer that reads the API
//! description, all against a running server. `tests/serve/requirements.txt` lists the Python
//! packages, `tests/serve/package.json` those of npm.

use crate::support::chat::{Chat, Reply};
use crate::support::cli::{Workplace, with_real_model};
use crate::support::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A Python with the packages, and a server over the demo's passages with the real models and
/// `more` options. Without a Python: prints what is not tested.
fn demo(what: &str, more: &[&str]) -> Option<(PathBuf, Workplace, Server)> {
    let Some(python) = std::env::var_os("WARPSEEK_SERVE_PYTHON") else {
        eprintln!(
            "{what} not tested: WARPSEEK_SERVE_PYTHON names no Python with the packages of \
             tests/serve/requirements.txt"
        );
        return None;
    };
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
    Some((python.into(), place, server))
}

fn run(place: &Workplace, python: &Path, script: &str, args: &[&str]) {
    crate::support::cli::finish(&mut script_of(place, python, script, args)).ok();
}

fn script_of(place: &Workplace, program: &Path, script: &str, args: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve").join(script);
    let mut command = Command::new(program);
    command.arg(script).args(args).current_dir(place.path("."));
    // The scripts compare replies with the output of the program itself.
    command.env("WARPSEEK", env!("CARGO_BIN_EXE_warpseek"));
    with_real_model(&mut command).env("WARPSEEK_BUILTIN_MODELS", "1").env("WARPSEEK_OFFLINE", "1");
    command.env("WARPSEEK_CONFIG", place.path(".private/config.toml"));
    command
}

#[test]
fn python_clients_get_what_the_command_line_gives() {
    let Some((python, place, server)) = demo("clients in Python", &[]) else { return };
    run(&place, &python, "clients.py", &[&server.url()]);
}

/// Runs a script of agents and chat clients. The chat service quotes the passage that the command
/// line finds first.
fn run_agents(script: &str, program: impl FnOnce(&Path) -> PathBuf) {
    let chat = Chat::start([]);
    let url = chat.url();
    let options = ["--base-url", &url, "--chat-model", "stand-in-8b", "--allow-writes"];
    let Some((python, place, server)) = demo(script, &options) else { return };
    let mut find = place.command(&["search", "idx", AGENTS_QUESTION, "-k", "1", "--json"]);
    with_real_model(&mut find).env("WARPSEEK_BUILTIN_MODELS", "1");
    let found = crate::support::cli::finish(&mut find).ok().json();
    let quote = found["hits"][0]["text"].as_str().unwrap().split('.').next().unwrap();
    let answer = format!("As a source says: \"{quote}\" [1].");
    chat.add([Reply::text(&answer), Reply::stream(vec![Reply::events(&answer, 6)])]);
    let mut command = script_of(&place, &program(&python), script, &[&server.url()]);
    command.env("QUESTION", AGENTS_QUESTION).env("ANSWER", &answer);
    crate::support::cli::finish(&mut command).ok();
}

const AGENTS_QUESTION: &str = "why does the tenth repetition of a word hardly count?";

#[test]
fn agents_and_chat_clients_in_python_get_what_the_command_line_gives() {
    run_agents("agents.py", Path::to_owned);
}

#[test]
fn agents_and_chat_clients_in_javascript_get_what_the_command_line_gives() {
    run_agents("agents.mjs", |_| node());
}

#[test]
fn javascript_clients_get_what_the_command_line_gives() {
    let Some((_, place, server)) = demo("clients in JavaScript", &[]) else { return };
    run(&place, &node(), "clients.mjs", &[&server.url()]);
}

/// Node, which finds the packages by an environment variable that the scripts read.
fn node() -> PathBuf {
    let cure = "WARPSEEK_SERVE_NODE names no folder in which tests/serve/package.json was \
                installed: npm install --prefix FOLDER";
    assert!(std::env::var_os("WARPSEEK_SERVE_NODE").is_some(), "{cure}");
    "node".into()
}

#[test]
fn page_works_in_a_browser() {
    let Some((python, place, server)) = demo("the page", &[]) else { return };
    run(&place, &python, "page.py", &[&server.url()]);
}

#[test]
fn answers_appear_in_the_page_as_they_come() {
    let events = Reply::events("The first thing is here. And this is the last one.", 8);
    let events = String::from_utf8(events).unwrap();
    let pieces = events.split_inclusive("\n\n").map(|event| event.as_bytes().to_vec());
    let reply = Reply { pause: Duration::from_millis(150), ..Reply::stream(pieces.collect()) };
    let chat = Chat::start([reply]);
    let options = ["--base-url", &chat.url(), "--chat-model", "stand-in-8b"];
    let Some((python, place, server)) = demo("answers in the page", &options) else { return };
    run(&place, &python, "page_answer.py", &[&server.url(), "first thing", "last one"]);
}

#[test]
fn server_conforms_to_its_description_under_fuzzing() {
    let Some((python, place, server)) = demo("the API description", &[]) else { return };
    run(&place, &python, "fuzz.py", &[&server.url()]);
}
