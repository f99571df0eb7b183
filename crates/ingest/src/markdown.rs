//! The title of a Markdown file, and its text without front matter.

/// Returns the title and the text without front matter.
///
/// The title is the front matter's `title:`, else the first heading outside of code, else none.
/// Front matter is a block of `key: value` lines between `---`, or of `key = value` lines between
/// `+++`, at the very start.
pub(crate) fn title_and_text(content: String) -> (Option<String>, String) {
    let (front, start) = front_matter(&content);
    let title = front.and_then(front_title).or_else(|| heading(&content[start..]));
    (title, if start == 0 { content } else { content[start..].to_string() })
}

/// The front matter's lines, and the first byte behind it.
fn front_matter(content: &str) -> (Option<&str>, usize) {
    let (fence, separator) = match content.lines().next().map(str::trim_end) {
        Some("---") => ("---", ':'),
        Some("+++") => ("+++", '='),
        _ => return (None, 0),
    };
    let mut offset = 0;
    let mut body = 0;
    for (number, line) in content.split_inclusive('\n').enumerate() {
        let start = offset;
        offset += line.len();
        let line = line.trim_end();
        if number == 0 {
            body = offset;
        } else if line == fence || (fence == "---" && line == "...") {
            return (Some(&content[body..start]), offset);
        } else if !is_front_line(line, separator) {
            // The first line is a thematic break with text below it.
            return (None, 0);
        }
    }
    (None, 0)
}

/// True if `line` may be front matter: a key, a comment, a blank, or a part of the key above (an
/// indented line, an item, a bracket).
fn is_front_line(line: &str, separator: char) -> bool {
    if line.is_empty() || line.starts_with([' ', '\t', '#', '-', '[', ']', '{', '}', '"', '\'']) {
        return true;
    }
    line.split_once(separator).is_some_and(|(key, _)| {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
        key.chars().all(plain) && key.split_whitespace().count() <= 2
    })
}

fn front_title(front: &str) -> Option<String> {
    let value = front.lines().find_map(|line| {
        let rest = line.strip_prefix("title")?.trim_start();
        rest.strip_prefix([':', '='])
    })?;
    let value = value.trim();
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    let title = quoted('"').or_else(|| quoted('\'')).unwrap_or(value).trim();
    // The text of a block scalar (`title: >`) is below; a heading is the better title.
    (!title.is_empty() && !title.starts_with(['|', '>'])).then(|| title.to_string())
}

/// The first heading, `# ATX` or underlined.
fn heading(text: &str) -> Option<String> {
    let mut fence: Option<(char, usize)> = None;
    let mut above = "";
    for line in text.lines() {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let trimmed = line.trim();
        if let Some((mark, length)) = fence {
            let run = run_of(trimmed, mark);
            if run >= length && trimmed.len() == run {
                fence = None;
            }
            continue;
        }
        if indent > 3 || line.starts_with('\t') {
            // Code, or a paragraph that goes on: neither begins a heading.
            continue;
        }
        if let Some(mark @ ('`' | '~')) = trimmed.chars().next()
            && run_of(trimmed, mark) >= 3
        {
            fence = Some((mark, run_of(trimmed, mark)));
            above = "";
            continue;
        }
        let level = run_of(trimmed, '#');
        if (1..=6).contains(&level) {
            let rest = &trimmed[level..];
            let closed = rest.trim_end_matches('#');
            let title = if closed.ends_with([' ', '\t']) { closed } else { rest }.trim();
            if rest.starts_with([' ', '\t']) && !title.is_empty() {
                return Some(title.to_string());
            }
        }
        let underline = run_of(trimmed, '=').max(run_of(trimmed, '-'));
        if underline > 0 && underline == trimmed.len() && is_paragraph(above) {
            return Some(above.to_string());
        }
        above = trimmed;
    }
    None
}

/// True if a line above an underline is text, and not a list, a quote, a table or a rule.
fn is_paragraph(line: &str) -> bool {
    !line.is_empty()
        && !line.starts_with(['#', '>', '|', '<'])
        && !["- ", "* ", "+ ", "---", "***", "___"].iter().any(|mark| line.starts_with(mark))
}

/// The number of `mark`s at the start of `line`. Marks are ASCII, so it is a number of bytes too.
fn run_of(line: &str, mark: char) -> usize {
    line.chars().take_while(|c| *c == mark).count()
}
