//! Source code: its languages, and the places where it is cut.
//!
//! No grammar is used. A line that is indented no deeper than the first line of a function does not
//! belong to the function, unless it closes it. This holds with braces and with indentation.

use std::ops::Range;

/// The name of the format, then the file name endings.
pub(crate) const EXTENSIONS: &[&str] = &[
    "code", "py", "rs", "ts", "js", "tsx", "jsx", "mjs", "cjs", "java", "go", "c", "h", "cpp",
    "hpp", "cc", "cxx", "hh", "cu", "cuh", "cs", "rb", "php", "swift", "kt", "kts", "scala", "sh",
    "bash", "zsh", "ps1", "sql", "lua", "r", "jl", "pl", "pm", "dart", "ex", "exs", "erl", "hs",
    "ml", "clj", "fs", "vb", "m", "mm", "zig", "nim", "groovy", "f90", "proto", "pyi", "vue",
    "svelte",
];

/// The language that an ending stands for, for the metadata.
pub(crate) fn language(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let (_, ending) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?;
    let language = match ending {
        "py" | "pyi" => "python",
        "rs" => "rust",
        "ts" | "tsx" => "typescript",
        "js" | "jsx" | "mjs" | "cjs" => "javascript",
        "h" => "c",
        "cpp" | "hpp" | "cc" | "cxx" | "hh" => "cpp",
        "cu" | "cuh" => "cuda",
        "cs" => "csharp",
        "rb" => "ruby",
        "kt" | "kts" => "kotlin",
        "sh" | "bash" | "zsh" => "shell",
        "ps1" => "powershell",
        "jl" => "julia",
        "pl" | "pm" => "perl",
        "ex" | "exs" => "elixir",
        "erl" => "erlang",
        "hs" => "haskell",
        "ml" => "ocaml",
        "clj" => "clojure",
        "fs" => "fsharp",
        "m" | "mm" => "objective-c",
        "f90" => "fortran",
        other if EXTENSIONS[1..].contains(&other) => other,
        _ => return None,
    };
    Some(language.to_owned())
}

/// A line at which code may be cut.
#[derive(Debug, Clone, Copy)]
struct Line {
    start: usize,
    /// Columns of white space; `None` for a blank line.
    indent: Option<usize>,
    /// True after a blank line.
    is_apart: bool,
    /// True for a line that belongs to the one above: it closes a block, or begins its next part.
    goes_on: bool,
}

/// Cuts code into pieces of at most `room` by `size`: at the outermost blocks after a blank line,
/// and within a block that is too large, at the next ones inside it. Neighbours that fit together
/// stay together. A line that is too large alone is one piece.
pub(crate) fn split<E>(
    text: &str,
    room: usize,
    size: &impl Fn(&str) -> Result<usize, E>,
) -> Result<Vec<Range<usize>>, E> {
    let lines = lines(text);
    let mut pieces: Vec<(Range<usize>, usize)> = Vec::new();
    // Stretches of lines, the next on top.
    let mut waiting: Vec<Range<usize>> = std::iter::once(0..lines.len()).collect();
    while let Some(stretch) = waiting.pop() {
        let range = bytes_of(&lines, &stretch, text.len());
        if text[range.clone()].trim().is_empty() {
            continue;
        }
        let cuts = best_cuts(&lines[stretch.clone()]);
        // A block that may be cut is measured only if it may fit at all.
        let is_huge = range.len() > room.saturating_mul(MAX_BYTES_PER_TOKEN);
        let length =
            if is_huge && !cuts.is_empty() { usize::MAX } else { size(&text[range.clone()])? };
        if length <= room || cuts.is_empty() {
            match pieces.last_mut() {
                Some((last, total)) if total.saturating_add(length) <= room => {
                    (last.end, *total) = (range.end, *total + length);
                }
                _ => pieces.push((range, length)),
            }
            continue;
        }
        let mut end = stretch.end;
        for cut in cuts.into_iter().rev() {
            waiting.push(stretch.start + cut..end);
            end = stretch.start + cut;
        }
        waiting.push(stretch.start..end);
    }
    let trimmed = |range: Range<usize>| {
        let piece = &text[range.clone()];
        // The indentation of the first line is part of it.
        let blank = piece.len() - piece.trim_start_matches(['\n', '\r']).len();
        range.start + blank..range.start + piece.trim_end().len()
    };
    Ok(pieces.into_iter().map(|(range, _)| trimmed(range)).collect())
}

/// No token has more bytes of code than this, on average over a chunk.
const MAX_BYTES_PER_TOKEN: usize = 64;

/// The lines, numbered from the first, at which a stretch of lines is cut best: the least indented,
/// and of these the ones after a blank line if there are any. Never its first line.
fn best_cuts(lines: &[Line]) -> Vec<usize> {
    let places = || lines.iter().enumerate().skip(1).filter(|(_, line)| !line.goes_on);
    let rank = |line: &Line| line.indent.map(|indent| (indent, !line.is_apart));
    let Some(best) = places().filter_map(|(_, line)| rank(line)).min() else { return Vec::new() };
    places().filter(|(_, line)| rank(line) == Some(best)).map(|(at, _)| at).collect()
}

fn lines(text: &str) -> Vec<Line> {
    let (mut start, mut is_apart) = (0, false);
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let trimmed = content.trim_start();
        let width = |c: char| if c == '\t' { 4 } else { 1 };
        let blank = content[..content.len() - trimmed.len()].chars().map(width).sum();
        let indent = (!trimmed.is_empty()).then_some(blank);
        lines.push(Line { start, indent, is_apart, goes_on: goes_on(trimmed) });
        is_apart = indent.is_none();
        start += line.len();
    }
    lines
}

/// True for a line that closes a block, or begins its next part.
fn goes_on(line: &str) -> bool {
    let word = line.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    line.starts_with(['}', ')', ']', '{'])
        || matches!(
            word,
            "end"
                | "else"
                | "elif"
                | "elseif"
                | "except"
                | "finally"
                | "catch"
                | "rescue"
                | "fi"
                | "done"
                | "esac"
        )
}

fn bytes_of(lines: &[Line], stretch: &Range<usize>, length: usize) -> Range<usize> {
    let at = |line: usize| lines.get(line).map_or(length, |line| line.start);
    at(stretch.start)..at(stretch.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a text whose size is its number of words.
    fn pieces(text: &str, room: usize) -> Vec<&str> {
        let size = |part: &str| Ok::<_, ()>(part.split_whitespace().count());
        split(text, room, &size).unwrap().into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn functions_stay_whole_where_they_fit() {
        let (a, b) = ("# one\ndef a():\n    x = 1\n\n    return x", "def b():\n    return 2");
        let d = "class C:\n    def d(self):\n        return 1";
        let e = "    def e(self):\n        return 2";
        let text = format!("{a}\n\n\n{b}\n\n{d}\n\n{e}\n");
        assert_eq!(pieces(&text, 9), [a, b, d, e]);
        assert_eq!(pieces(&text, 13), [format!("{a}\n\n\n{b}"), format!("{d}\n\n{e}")]);
        assert_eq!(pieces(&text, 100), [text.trim_end()]);
        let rust = "fn a() {\n    1\n}\nfn b() {\n    if x {\n\n        2\n    } else {\n        \
                    3\n    }\n}\n";
        assert_eq!(pieces(rust, 14), [&rust[..16], rust[17..].trim_end()]);
    }

    #[test]
    fn lines_are_the_last_resort_and_nothing_is_lost() {
        for (text, room) in
            [("a b c d\ne f\ng", 2), ("\n\n", 1), ("", 1), ("\ta\n  b\n}\n}\nend", 1)]
        {
            let words: Vec<&str> = text.split_whitespace().collect();
            let pieces = pieces(text, room);
            let cut: Vec<&str> = pieces.iter().flat_map(|piece| piece.split_whitespace()).collect();
            assert_eq!(cut, words, "{text:?}");
        }
        let deep: String = (0..5000).map(|n| format!("{}x\n", " ".repeat(n % 997))).collect();
        assert_eq!(pieces(&deep, 1).len(), 5000);
    }

    #[test]
    fn language_is_that_of_the_ending() {
        assert_eq!(language("a/b.RS.gz").as_deref(), Some("rust"));
        assert_eq!(language("x.java").as_deref(), Some("java"));
        assert_eq!((language("x.txt"), language("code"), language("x.code")), (None, None, None));
    }
}
