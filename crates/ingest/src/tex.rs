//! TeX and LaTeX as prose: without comments and preamble, simple commands unwrapped.
//!
//! Macros are not expanded. Formulas and listings stay as they are written. A command that is not
//! known leaves its arguments, which are mostly text.

/// Commands that are dropped with their arguments.
const DROPPED: &[&str] = &[
    "label",
    "ref",
    "eqref",
    "pageref",
    "autoref",
    "cref",
    "Cref",
    "cite",
    "citep",
    "citet",
    "citealp",
    "citeauthor",
    "citeyear",
    "nocite",
    "bibliography",
    "bibliographystyle",
    "includegraphics",
    "input",
    "include",
    "usepackage",
    "documentclass",
    "vspace",
    "hspace",
    "pagestyle",
    "thispagestyle",
    "setlength",
    "setcounter",
    "addtocounter",
    "newcommand",
    "renewcommand",
    "providecommand",
    "DeclareMathOperator",
    "newtheorem",
    "definecolor",
    "color",
    "hypersetup",
    "graphicspath",
    "addbibresource",
    "index",
    "bibitem",
    "pagenumbering",
    "fontsize",
];

/// Commands whose argument is a heading.
const HEADINGS: &[&str] =
    &["part", "chapter", "section", "subsection", "subsubsection", "paragraph", "title"];

/// Environments that are not unwrapped.
const VERBATIM: &[&str] = &["verbatim", "lstlisting", "minted", "Verbatim"];

/// Maximum length of an argument, in bytes; a longer one is text.
const MAX_ARGUMENT: usize = 2000;

/// Commands that stand for a character.
const SYMBOLS: &[(&str, &str)] = &[
    ("ss", "ß"),
    ("ae", "æ"),
    ("AE", "Æ"),
    ("oe", "œ"),
    ("OE", "Œ"),
    ("o", "ø"),
    ("O", "Ø"),
    ("aa", "å"),
    ("AA", "Å"),
    ("l", "ł"),
    ("L", "Ł"),
    ("i", "i"),
    ("j", "j"),
    ("LaTeX", "LaTeX"),
    ("TeX", "TeX"),
    ("ldots", "…"),
    ("dots", "…"),
    ("textbackslash", "\\"),
    ("textendash", "–"),
    ("textemdash", "—"),
    ("copyright", "©"),
    ("S", "§"),
    ("par", "\n\n"),
    ("newline", "\n"),
    ("quad", " "),
    ("qquad", " "),
    ("item", "\n- "),
];

/// Accents as combining characters, which follow the letter.
const ACCENTS: &[(char, char)] = &[
    ('\'', '\u{301}'),
    ('`', '\u{300}'),
    ('^', '\u{302}'),
    ('"', '\u{308}'),
    ('~', '\u{303}'),
    ('=', '\u{304}'),
    ('.', '\u{307}'),
];

/// Returns the title, that of `\title`, and the text.
pub(crate) fn title_and_text(content: &str) -> (Option<String>, String) {
    let content = without_comments(content);
    let title = content.find("\\title{").and_then(|at| group(&content[at + "\\title".len()..]));
    let title = title.map(|(title, _)| one_line(&unwrapped(title)));
    let body = match content.split_once("\\begin{document}") {
        Some((_, body)) => body,
        None => &content,
    };
    let body = body.split("\\end{document}").next().unwrap_or_default();
    let text = unwrapped(body);
    let title = title.filter(|title| !title.is_empty()).or_else(|| first_heading(body));
    (title, text)
}

fn first_heading(body: &str) -> Option<String> {
    let heading = |name: &&str| {
        let command = format!("\\{name}");
        let at = body.find(&format!("{command}{{"))?;
        Some((at, one_line(&unwrapped(group(&body[at + command.len()..])?.0))))
    };
    HEADINGS.iter().filter_map(heading).min().map(|(_, title)| title).filter(|t| !t.is_empty())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text without comments: `%` and what follows it on its line, and environments of the name.
/// Listings stay as they are written.
fn without_comments(content: &str) -> String {
    let mut text = String::with_capacity(content.len());
    let mut open: Option<String> = None;
    for line in content.split_inclusive('\n') {
        if let Some(end) = &open {
            if end != COMMENT_END {
                text.push_str(line);
            }
            if line.contains(end.as_str()) {
                open = None;
            }
            continue;
        }
        let start = comment_start(line);
        let code = &line[..start.unwrap_or(line.len())];
        if code.trim_start().starts_with("\\begin{comment}") {
            open = (!code.contains(COMMENT_END)).then(|| COMMENT_END.to_owned());
            continue;
        }
        // A comment takes its line break along, but not that of a paragraph.
        if start.is_none() || !code.trim().is_empty() {
            text.push_str(code);
            text.push_str(if start.is_some() { "\n" } else { "" });
        }
        open = VERBATIM.iter().find_map(|name| {
            let (_, behind) = code.split_once(&format!("\\begin{{{name}}}"))?;
            let end = format!("\\end{{{name}}}");
            (!behind.contains(&end)).then_some(end)
        });
    }
    text
}

/// The end of the environment whose content is a comment.
const COMMENT_END: &str = "\\end{comment}";

/// The first byte of the comment in a line: a `%` that is not escaped, and not in an argument that
/// is read as it is written.
fn comment_start(line: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = line[at..].find(['\\', '%']) {
        at += found;
        if line.as_bytes()[at] == b'%' {
            return Some(at);
        }
        let behind = &line[at + 1..];
        let length = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, arguments) = behind.split_at(length);
        at += 1 + length;
        let end = match name {
            "verb" | "lstinline" => {
                let starred = arguments.strip_prefix('*').unwrap_or(arguments);
                let mark = starred.chars().next().filter(|mark| !mark.is_whitespace());
                mark.and_then(|mark| {
                    let close = if mark == '{' { '}' } else { mark };
                    let inner = &starred[mark.len_utf8()..];
                    let end = inner.find(close)? + close.len_utf8();
                    Some(arguments.len() - inner.len() + end)
                })
            }
            "url" | "href" | "path" | "nolinkurl" => {
                group(arguments).map(|(_, rest)| arguments.len() - rest.len())
            }
            // The character after the backslash is escaped.
            "" => behind.chars().next().map(char::len_utf8),
            _ => None,
        };
        at += end.unwrap_or(0);
    }
    None
}

/// The content of the group in braces at the start of `text`, and the rest.
fn group(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{')?;
    let (mut depth, mut is_escaped) = (1, false);
    for (at, byte) in inner.bytes().take(MAX_ARGUMENT).enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}

/// `text` after the star and the optional argument that it may begin with.
fn behind_options(text: &str) -> &str {
    let text = text.strip_prefix('*').unwrap_or(text);
    let end_of = |inner: &str| inner.bytes().take(MAX_ARGUMENT).position(|b| b == b']');
    let end = text.strip_prefix('[').and_then(end_of);
    end.map_or(text, |end| &text[end + 2..])
}

/// The text before `end`, and the rest after it; all of the text if there is no `end`.
fn up_to<'a>(text: &'a str, end: &str) -> (&'a str, &'a str) {
    text.split_once(end).unwrap_or((text, ""))
}

fn unwrapped(content: &str) -> String {
    let mut text = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find(['\\', '{', '}', '~', '$']) {
        text.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        rest = match rest.as_bytes()[at] {
            b'\\' => command(behind, &mut text),
            b'~' => {
                text.push(' ');
                behind
            }
            b'$' => {
                let mark = if behind.starts_with('$') { "$$" } else { "$" };
                let (formula, after) = up_to(&rest[at + mark.len()..], mark);
                text.push_str(&format!("{mark}{formula}{mark}"));
                after
            }
            _ => behind,
        };
    }
    text.push_str(rest);
    squeezed(&text)
}

/// Handles the command whose name `rest` begins with. Returns the rest after the command.
fn command<'a>(rest: &'a str, text: &mut String) -> &'a str {
    let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (name, behind) = rest.split_at(length);
    let Some(first) = rest.chars().next() else { return "" };
    if name.is_empty() {
        let behind = &rest[first.len_utf8()..];
        match first {
            '[' | '(' => {
                let (open, close) = if first == '[' { ("\\[", "\\]") } else { ("\\(", "\\)") };
                let (formula, after) = up_to(behind, close);
                text.push_str(&format!("{open}{formula}{close}"));
                return after;
            }
            '\\' => text.push('\n'),
            '%' | '&' | '_' | '#' | '$' | '{' | '}' => text.push(first),
            _ => {
                if let Some((_, mark)) = ACCENTS.iter().find(|(accent, _)| *accent == first) {
                    return accent(behind, *mark, text);
                }
                if matches!(first, ',' | ';' | ':' | ' ' | '\n') {
                    text.push(' ');
                }
            }
        }
        return behind;
    }
    if let Some((_, symbol)) = SYMBOLS.iter().find(|(known, _)| *known == name) {
        text.push_str(symbol);
        let behind = if name == "item" { behind_options(behind) } else { behind };
        return behind.trim_start_matches([' ', '\t']);
    }
    let arguments = behind_options(behind);
    if DROPPED.contains(&name) {
        let mut after = arguments;
        while let Some((_, next)) = group(after) {
            after = behind_options(next);
        }
        return after;
    }
    match (name, group(arguments)) {
        ("begin", Some((environment, after))) => {
            text.push_str("\n\n");
            let environment = environment.trim_end_matches('*');
            if VERBATIM.contains(&environment) {
                // The options of a listing, and the language of `minted`.
                let after = match environment {
                    "lstlisting" => behind_options(after),
                    "minted" => {
                        let after = behind_options(after);
                        group(after).map_or(after, |(_, after)| after)
                    }
                    _ => after,
                };
                let (code, after) = up_to(after, &format!("\\end{{{environment}}}"));
                text.push_str(code.trim_matches('\n'));
                text.push_str("\n\n");
                return after;
            }
            // The columns of a table, the place of a figure.
            let after = behind_options(after);
            match environment {
                "tabular" | "array" | "minipage" => group(after).map_or(after, |(_, after)| after),
                _ => after,
            }
        }
        ("end", Some((_, after))) => {
            text.push_str("\n\n");
            after
        }
        ("href", Some((_, after))) => after,
        ("footnote", Some((_, _))) => {
            text.push(' ');
            arguments
        }
        (_, Some((heading, after))) if HEADINGS.contains(&name) => {
            // The commands within the heading are unwrapped before it is put on one line.
            text.push_str(&format!("\n\n{}\n\n", one_line(&heading_text(heading))));
            after
        }
        (_, Some(_)) => arguments,
        (_, None) => behind,
    }
}

/// A heading with its commands unwrapped; one inside another is left as it is.
fn heading_text(heading: &str) -> String {
    match HEADINGS.iter().any(|name| heading.contains(&format!("\\{name}"))) {
        true => heading.to_owned(),
        false => unwrapped(heading),
    }
}

/// Puts an accent on the letter that `rest` begins with, in braces or not.
fn accent<'a>(rest: &'a str, mark: char, text: &mut String) -> &'a str {
    let inner = rest.strip_prefix('{');
    let letters = inner.unwrap_or(rest);
    let letters = letters.strip_prefix("\\").unwrap_or(letters);
    let Some(letter) = letters.chars().next().filter(|c| c.is_alphabetic()) else { return rest };
    text.push(letter);
    text.push(mark);
    let after = &letters[letter.len_utf8()..];
    match inner {
        Some(_) => after.strip_prefix('}').unwrap_or(after),
        None => after,
    }
}

/// The text with at most one blank line in a row, and no blanks at the ends of lines.
fn squeezed(text: &str) -> String {
    let mut squeezed = String::with_capacity(text.len());
    let mut blank = 0;
    for line in text.lines() {
        let line = line.trim_end();
        blank = if line.is_empty() { blank + 1 } else { 0 };
        if blank < 2 && !(line.is_empty() && squeezed.is_empty()) {
            squeezed.push_str(line);
            squeezed.push('\n');
        }
    }
    squeezed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_in_listings_and_addresses_are_no_comments() {
        let text = "Use \\verb|%d| to print. % gone\n\\begin{verbatim}\nprintf(\"%d items\");\n\
                    \\end{verbatim}\n\\begin{lstlisting}[language=Python]\nx = a % b\n\
                    \\end{lstlisting}\n\\begin{comment}\nhidden\n\\end{comment}\n\
                    See \\url{http://x.org/a%20b} for 50\\% more.\n\
                    \\href{http://x.org/%7Eme}{Home}.\n";
        let (_, read) = title_and_text(text);
        for kept in ["to print.", "printf(\"%d items\");", "x = a % b", "a%20b", "50% more", "Home"]
        {
            assert!(read.contains(kept), "{kept}: {read}");
        }
        for dropped in ["gone", "hidden", "language"] {
            assert!(!read.contains(dropped), "{dropped}: {read}");
        }
    }

    #[test]
    fn preamble_comments_and_commands_are_no_text() {
        let content = "\\documentclass{article} % class\n\\newcommand{\\x}[1]{y}\n\
            \\title{On \\emph{Rivers}\\thanks{x}}\n% hidden\n\\begin{document}\n\\maketitle\n\
            \\section*{Water} \\label{s:w}\nA 5\\% rise~of \\textbf{the \
            \\emph{level}}, see \\cite[p.~2]{a}.\n\
            \\begin{itemize}\n\\item one % no\n\\item[b] two\n\\end{itemize}\n\
            Caf\\'e stra\\ss e $a_{1} \\le b$ \\href{http://x}{here}\n\
            \\begin{verbatim}\nx % \\emph{y}\n\\end{verbatim}\n\\end{document}\nrest";
        let (title, text) = title_and_text(content);
        assert_eq!(title.as_deref(), Some("On Riversx"));
        for part in [
            "Water\n",
            "A 5% rise of the level, see .",
            "- one",
            "- two",
            "Cafe\u{301} straße $a_{1} \\le b$ here",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        for part in ["class", "hidden", "newcommand", "rest", "s:w", "\\emph{level}", " no\n"] {
            assert!(!text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn damaged_text_ends_and_loses_nothing_else() {
        for content in [
            "\\",
            "{",
            "$",
            "\\begin{",
            "\\section{a",
            "\\cite{",
            "\\[x",
            "\\'",
            "é\\é%",
            "\\item[",
        ] {
            title_and_text(content);
        }
        assert_eq!(
            title_and_text("\\section{Only} text"),
            (Some("Only".into()), "Only\n\n text\n".into())
        );
        let deep = "\\section{".repeat(10_000);
        title_and_text(&deep);
    }
}
