//! reStructuredText and Org: prose with headings, whose title is the first of these.

/// Characters that underline a title in reStructuredText.
const ADORNMENTS: &str = "=-`:.'\"~^_*+#<>!$%&(),/;?@[]{}|\\";

/// Returns the title of reStructuredText and the text without comments.
pub(crate) fn rst(content: &str) -> (Option<String>, String) {
    let lines: Vec<&str> = content.lines().collect();
    let is_line = |line: &str| {
        let line = line.trim_end();
        let mark = line.chars().next().filter(|c| ADORNMENTS.contains(*c));
        mark.is_some_and(|mark| line.chars().all(|c| c == mark)).then(|| line.chars().count())
    };
    let title = lines.windows(2).find_map(|pair| {
        let [text, below] = pair else { return None };
        let text = text.trim();
        let is_title = is_line(text).is_none()
            && is_line(below).is_some_and(|length| length >= 3 || length >= text.chars().count());
        (is_title && !text.is_empty()).then(|| text.to_owned())
    });
    // A comment is `..` and a text that is not a directive, target, footnote or substitution.
    let (mut text, mut in_comment) = (String::new(), false);
    for line in content.split_inclusive('\n') {
        let is_indented = line.starts_with([' ', '\t']) || line.trim().is_empty();
        in_comment = match line.trim_end().strip_prefix(".. ") {
            Some(rest) => !rest.contains("::") && !rest.trim_start().starts_with(['_', '[', '|']),
            None if line.trim_end() == ".." => true,
            None => in_comment && is_indented,
        };
        if !in_comment {
            text.push_str(line);
        }
    }
    (title, text)
}

/// Returns the title of an Org file, `#+TITLE:` or its first headline, and the text without
/// comments, settings and drawers.
pub(crate) fn org(content: &str) -> (Option<String>, String) {
    let (mut title, mut headline, mut text) = (None, None, String::new());
    let (mut in_drawer, mut in_comment) = (false, false);
    for line in content.split_inclusive('\n') {
        let trimmed = line.trim();
        let lower = trimmed.to_ascii_lowercase();
        if in_comment || lower.starts_with("#+begin_comment") {
            in_comment = lower != "#+end_comment";
            continue;
        }
        if in_drawer {
            in_drawer = lower != ":end:";
            continue;
        }
        if matches!(lower.as_str(), ":properties:" | ":logbook:") {
            in_drawer = true;
            continue;
        }
        if lower.starts_with("#+title:") {
            let value = trimmed["#+title:".len()..].trim();
            title.get_or_insert_with(|| value.to_owned());
            continue;
        }
        // Blocks of code and quotes stay, settings and comments do not.
        let is_block = lower.starts_with("#+begin") || lower.starts_with("#+end");
        let is_setting = trimmed.starts_with("#+") || trimmed == "#" || trimmed.starts_with("# ");
        if is_setting && !is_block {
            continue;
        }
        let stars = line.len() - line.trim_start_matches('*').len();
        if stars > 0 && line[stars..].starts_with(' ') && headline.is_none() {
            headline = Some(line[stars..].trim().to_owned());
        }
        text.push_str(line);
    }
    let title = [title, headline].into_iter().flatten().find(|title| !title.is_empty());
    (title, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rst_title_is_the_first_underlined_line() {
        let text =
            "====\nName\n====\n\n.. a comment\n   of two lines\n\nText\n----\n.. note:: kept\n";
        let (title, read) = rst(text);
        assert_eq!(title.as_deref(), Some("Name"));
        assert_eq!(read, "====\nName\n====\n\nText\n----\n.. note:: kept\n");
        assert_eq!(rst("no title\n\n--\n").0, None);
    }

    #[test]
    fn org_settings_and_drawers_are_no_text() {
        let text = "#+TITLE: Name\n#+AUTHOR: x\n# note\n* Head\n:PROPERTIES:\n:ID: 1\n:END:\nText\n\
                    #+BEGIN_COMMENT\nno\n#+END_COMMENT\n#+BEGIN_SRC sh\nls\n#+END_SRC\n";
        let (title, read) = org(text);
        assert_eq!(title.as_deref(), Some("Name"));
        assert_eq!(read, "* Head\nText\n#+BEGIN_SRC sh\nls\n#+END_SRC\n");
        assert_eq!(org("** Two\nx").0.as_deref(), Some("Two"));
        assert_eq!(org("*bold* x"), (None, "*bold* x".into()));
    }
}
