//! The process that extracts text: what it may do wrong.
#![cfg(unix)]

use std::time::{Duration, Instant};

use warpseek_ingest::{ExtractRequest, ReadOptions};

use super::{assert_has, outcomes};

/// Everything that comes out of a file whose text a shell script extracts.
fn by_script(script: &str) -> Vec<String> {
    let mut options = ReadOptions::default();
    options.extract.command = Some(["sh", "-c", script].map(Into::into).to_vec());
    options.extract.limits.time = Duration::from_secs(2);
    outcomes("a.pdf", "%PDF-", &options)
}

const SECTION: &str =
    r#"{"section":{"anchor":"page=1","fields":{"page":1},"text":"one","is_markdown":false}}"#;

#[test]
fn process_gets_the_file_and_the_request() {
    let script = format!(r#"cat >/dev/null; echo '{SECTION}'; echo '"end"'"#);
    assert_eq!(by_script(&script), ["one"]);
    let script = r#"case "$(cat)$0" in *%PDF-*'"format":"pdf"'*) echo '"end"';; esac"#;
    assert_has(&by_script(script)[0], &["a.pdf: no text in this pdf file"]);
}

#[test]
fn process_that_ends_too_early_is_an_error_behind_what_it_wrote() {
    let outcome = by_script(&format!("echo '{SECTION}'"));
    assert_eq!(outcome[0], "one");
    assert_has(&outcome[1], &["a.pdf: the text is cut off"]);
    let outcome = by_script(&format!("echo '{SECTION}'; printf '{{\"sec'; kill -SEGV $$"));
    assert_eq!(outcome[0], "one");
    assert_has(&outcome[1], &["a.pdf: the reader of pdf files ended with signal: 11"]);
    let outcome = by_script("echo 'memory allocation of 8 bytes failed' >&2; kill -ABRT $$");
    assert_has(&outcome[0], &["a.pdf: the reader of pdf files needs more than 2 GiB of memory"]);
    let outcome = by_script("echo hello; echo '\"end\"'");
    assert_has(&outcome[0], &["a.pdf: the program that extracts text wrote something else"]);
}

#[test]
fn process_that_takes_too_long_is_ended() {
    let started = Instant::now();
    let outcome = by_script(&format!("echo '{SECTION}'; exec sleep 60"));
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(outcome[0], "one");
    assert_has(&outcome[1], &["a.pdf: reading it takes longer than 2s", "--extract-seconds"]);
}

#[test]
fn program_that_does_not_exist_is_an_error_of_the_system() {
    let mut options = ReadOptions::default();
    options.extract.command = Some(vec!["/nonexistent/warpseek".into()]);
    let outcome = outcomes("a.pdf", "%PDF-", &options);
    assert_has(&outcome[0], &["cannot start /nonexistent/warpseek"]);
}

#[test]
fn request_that_is_none_is_refused() {
    let error = ExtractRequest::parse("{}").unwrap_err().to_string();
    assert_has(&error, &["invalid request to extract text"]);
}
