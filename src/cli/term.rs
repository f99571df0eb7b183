//! Terminal input and output: data goes to stdout, everything else to stderr.

use crate::error::{Error, Place, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use supports_hyperlinks::Stream;

pub(super) use indicatif::{DecimalBytes, HumanCount};

/// Prints a line of data.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::term::print_line(&format!($($arg)*)) };
}
pub(super) use say;

/// Writes a line to stdout.
pub(super) fn print_line(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(Error::io("write to", "stdout"))
}

/// Writes a value as JSON to stdout: indented on a terminal, else on one line.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    if !std::io::stdout().is_terminal() {
        return print_json_line(value);
    }
    print_line(&serde_json::to_string_pretty(value).map_err(not_json)?)
}

/// Writes a value as one line of JSON to stdout.
pub(super) fn print_json_line(value: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string(value).map_err(not_json)?)
}

fn not_json(error: serde_json::Error) -> Error {
    Error::usage(format!("the result cannot be written as JSON: {error}"))
}

/// A file as text; `-` is stdin.
pub(super) fn read_text(path: &Path) -> Result<String> {
    if path.as_os_str() != "-" {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        return as_text(bytes, &path.display().to_string());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(Error::io("read", "<stdin>"))?;
    as_text(bytes, "<stdin>")
}

fn as_text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&b| b == b'\n').count() + 1;
        let reason = "not valid UTF-8: convert the text to UTF-8";
        Error::input(Place::record(name, format!("line {line}")), reason)
    })
}

/// Refuses an output file that is also an input, another output, or inside the index folder.
pub(super) fn check_outputs(
    outputs: &[&Path],
    inputs: &[&Path],
    index: Option<&Path>,
) -> Result<()> {
    let real = |path: &Path| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::canonicalize(path)
            .or_else(|_| {
                Ok(std::fs::canonicalize(folder)?.join(path.file_name().unwrap_or_default()))
            })
            .unwrap_or_else(|_: std::io::Error| path.to_path_buf())
    };
    let index = index.filter(|dir| dir.join("manifest.json").exists()).map(real);
    for (i, output) in outputs.iter().enumerate() {
        let here = real(output);
        let taken = inputs.iter().chain(&outputs[..i]).find(|other| real(other) == here);
        let reason = match (taken, &index) {
            (Some(other), _) => {
                format!("the command also reads or writes {}", other.display())
            }
            (None, Some(index)) if here.starts_with(index) => {
                "the path is inside the index folder".to_owned()
            }
            _ => continue,
        };
        let output = output.display();
        return Err(Error::usage(format!("{output}: {reason}; choose another output file")));
    }
    Ok(())
}

/// Writes an error to stderr.
pub(super) fn error(error: &Error) {
    let word = console::style("error:").for_stderr().red().bold();
    write_stderr(&format!("{word} {}", plain(&error.to_string())));
}

/// Writes a warning to stderr.
pub(super) fn warn(text: &str) {
    let word = console::style("warning:").for_stderr().yellow().bold();
    write_stderr(&format!("{word} {}", plain(text)));
}

/// Writes the first of `total` warnings to stderr, and the number of the others.
pub(super) fn warn_all(first: &[String], total: u64) {
    first.iter().for_each(|text| warn(text));
    if total > first.len() as u64 {
        warn(&format!("and {} more about the input", total - first.len() as u64));
    }
}

/// Writes a note to stderr.
pub(super) fn note(text: &str) {
    write_stderr(&plain(text));
}

/// Asks a question on the terminal; true if the answer is yes.
pub(super) fn ask(question: &str) -> Result<bool> {
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "{} [y/N] ", plain(question)).and_then(|()| stderr.flush());
    asked.map_err(Error::io("write to", "stderr"))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Error::io("read", "stdin"))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn write_stderr(line: &str) {
    // If stderr is closed there is nowhere left to report to.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Bold text, if stdout is a terminal with colours.
pub(super) fn bold(text: &str) -> String {
    console::style(text).bold().to_string()
}

/// Dimmed text, if stdout is a terminal with colours.
pub(super) fn dim(text: &str) -> String {
    console::style(text).dim().to_string()
}

/// Text as a link to a file, if stdout is a terminal that shows links, and colours are wanted.
pub(super) fn link(file: &Path, text: &str) -> String {
    if !console::colors_enabled() || !supports_hyperlinks::on(Stream::Stdout) {
        return text.to_owned();
    }
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let mut address = String::new();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                address.push(char::from(byte));
            }
            _ => address.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("\x1b]8;;file://{address}\x1b\\{text}\x1b]8;;\x1b\\")
}

/// Delay before the line of [`with_progress`] appears.
const PROGRESS_DELAY: Duration = Duration::from_millis(300);

/// Runs `work`. If it takes longer than [`PROGRESS_DELAY`], a line on stderr shows `what` and the
/// time, and is erased at the end; not if `quiet`, or if stderr is not a terminal.
pub(super) fn with_progress<T>(what: &str, quiet: bool, work: impl FnOnce() -> T) -> T {
    if quiet || !std::io::stderr().is_terminal() {
        return work();
    }
    std::thread::scope(|scope| {
        let (working, done) = channel::<()>();
        scope.spawn(move || {
            if done.recv_timeout(PROGRESS_DELAY) == Err(RecvTimeoutError::Timeout) {
                let bar = bar(None, "{spinner} {msg}, {elapsed}", quiet);
                bar.set_message(what.to_owned());
                bar.enable_steady_tick(Duration::from_millis(100));
                // Ends when the sender is dropped.
                let _ = done.recv();
                bar.finish_and_clear();
            }
        });
        let result = work();
        drop(working);
        result
    })
}

/// A number with `digits` decimal places. One that rounds to zero has no minus sign.
pub(super) fn decimal(value: impl Into<f64>, digits: usize) -> String {
    let text = format!("{:.digits$}", value.into());
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|b| matches!(b, b'0' | b'.')) => zero.to_owned(),
        _ => text,
    }
}

/// [`decimal`] with a plus sign in front of what is not negative.
pub(super) fn signed(value: impl Into<f64>, digits: usize) -> String {
    let text = decimal(value, digits);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

/// Text from documents without control characters and bidirectional marks, which a terminal would
/// act on. Line ends and tabs stay.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|&c| !c.is_control() || matches!(c, '\n' | '\t'))
        .filter(|&c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect()
}

/// Reflows text into indented lines that fit the terminal (40 to 120 columns).
pub(super) fn wrap(text: &str, indent: &str) -> String {
    let columns = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let width = columns.unwrap_or(100).clamp(40, 120);
    let words: Vec<&str> = text.split_whitespace().collect();
    let options = textwrap::Options::new(width).initial_indent(indent).subsequent_indent(indent);
    textwrap::fill(&words.join(" "), options.break_words(false))
}

/// A progress bar on stderr over `total` units; a spinner without a total. Hidden if `quiet`, or if
/// stderr is not a terminal.
pub(super) fn bar(total: Option<u64>, template: &str, quiet: bool) -> ProgressBar {
    let hidden = quiet || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(total, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_loses_terminal_escapes_and_direction_marks() {
        assert_eq!(plain("a\x1b[31mred\x07\u{202e}b\n\tc\u{9b}"), "a[31mredb\n\tc");
    }

    #[test]
    fn numbers_that_round_to_zero_have_no_minus_sign() {
        assert_eq!(
            [-0.0, -0.000_04, -0.000_06].map(|v: f32| decimal(v, 4)),
            ["0.0000", "0.0000", "-0.0001"]
        );
        assert_eq!(
            [-0.0004, 0.0, 1.5, -1.5].map(|v: f64| signed(v, 3)),
            ["+0.000", "+0.000", "+1.500", "-1.500"]
        );
    }

    #[test]
    fn wrapped_lines_are_indented_and_keep_to_the_width() {
        let text = wrap(&"one\ntwo ".repeat(30), "  ");
        assert!(text.lines().count() > 1);
        assert!(text.lines().all(|line| line.starts_with("  ") && line.len() <= 120), "{text}");
    }
}
