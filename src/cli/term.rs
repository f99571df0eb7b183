//! What goes to the terminal: data to stdout, everything else to stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use warpseek::error::{Error, Place, Result};

/// Prints a line of data.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::term::print_line(&format!($($arg)*)) };
}
pub(super) use say;

/// Writes a line to stdout.
pub(super) fn print_line(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(Error::io("write to", "stdout"))
}

/// Writes a value as JSON to stdout, readable on a terminal, on one line elsewhere.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = if std::io::stdout().is_terminal() {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    print_line(&text.map_err(|e| Error::usage(format!("this cannot be written as JSON: {e}")))?)
}

/// All of stdin as text.
pub(super) fn read_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(Error::io("read", "<stdin>"))?;
    as_text(bytes, "<stdin>")
}

/// A file as text; `-` is stdin.
pub(super) fn read_text(path: &Path) -> Result<String> {
    if path.as_os_str() == "-" {
        return read_stdin();
    }
    as_text(std::fs::read(path).map_err(Error::io("read", path))?, &path.display().to_string())
}

fn as_text(bytes: Vec<u8>, name: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&b| b == b'\n').count() + 1;
        Error::input(
            Place::record(name, format!("line {line}")),
            "not valid UTF-8: convert the text to UTF-8",
        )
    })
}

/// Refuses an output that would take the place of an input, of another output, or of a file of the
/// index.
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
        let what = match (taken, &index) {
            (Some(other), _) => {
                format!("{} is read or written by this command too", other.display())
            }
            (None, Some(index)) if here.starts_with(index) => {
                "it lies in the index folder".to_owned()
            }
            _ => continue,
        };
        return Err(Error::usage(format!(
            "{}: {what}; choose another output file",
            output.display()
        )));
    }
    Ok(())
}

/// Writes an error to stderr.
pub(super) fn error(error: &Error) {
    let word = paint("error:", "1;31", std::io::stderr().is_terminal());
    write_stderr(&format!("{word} {}", plain(&error.to_string())));
}

/// Writes a warning to stderr.
pub(super) fn warn(text: &str) {
    let word = paint("warning:", "1;33", std::io::stderr().is_terminal());
    write_stderr(&format!("{word} {}", plain(text)));
}

/// Writes a note to stderr.
pub(super) fn note(text: &str) {
    write_stderr(&plain(text));
}

fn write_stderr(line: &str) {
    // Nothing is left to do where stderr itself is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Bold text, if stdout is a terminal that wants colours.
pub(super) fn bold(text: &str) -> String {
    paint(text, "1", std::io::stdout().is_terminal())
}

/// Dimmed text, if stdout is a terminal that wants colours.
pub(super) fn dim(text: &str) -> String {
    paint(text, "2", std::io::stdout().is_terminal())
}

fn paint(text: &str, code: &str, terminal: bool) -> String {
    let wanted = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if wanted { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text from documents, without what a terminal would act on: control characters and marks that
/// change the direction of writing go, line ends and tabs stay.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .filter(|&c| !c.is_control() || matches!(c, '\n' | '\t'))
        .filter(|&c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect()
}

/// Columns of the terminal, within reason.
pub(super) fn width() -> usize {
    let columns = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    columns.unwrap_or(100).clamp(40, 120)
}

/// Breaks text into lines of at most `width` characters, each behind `indent`.
pub(super) fn wrap(text: &str, indent: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let n = word.chars().count();
        if used > 0 && used + 1 + n > width.saturating_sub(indent.len()) {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += n;
        }
    }
    lines.iter().map(|l| format!("{indent}{l}")).collect::<Vec<_>>().join("\n")
}

/// A progress bar on stderr over `total` units (a spinner without), hidden where nobody looks.
pub(super) fn bar(total: Option<u64>, template: &str, quiet: bool) -> ProgressBar {
    let hidden = quiet || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(total, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// An integer with thousands apart: `41,584`.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A size in bytes: `31.9 MB`.
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    for (unit, name) in [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if n >= unit {
            return format!("{:.1} {name}", n / unit);
        }
    }
    format!("{n} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_loses_terminal_escapes_and_direction_marks() {
        assert_eq!(plain("a\x1b[31mred\x07\u{202e}b\n\tc\u{9b}"), "a[31mredb\n\tc");
    }

    #[test]
    fn wrapped_lines_keep_to_the_width() {
        let text = wrap("one two three four fiiiiiiiiive six", "  ", 12);
        assert_eq!(text, "  one two\n  three four\n  fiiiiiiiiive\n  six");
        assert_eq!(wrap("", "> ", 10), "> ");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (thousands(7), thousands(41584), thousands(1234567)),
            ("7".to_owned(), "41,584".to_owned(), "1,234,567".to_owned())
        );
        assert_eq!((bytes(12), bytes(31_900_000)), ("12 bytes".to_owned(), "31.9 MB".to_owned()));
    }
}
