//! Titles in the properties of files, which are often defaults of a program.

/// Endings of names that programs enter as titles.
const ENDINGS: [&str; 18] = [
    ".doc", ".docx", ".docm", ".odt", ".rtf", ".tex", ".dvi", ".ps", ".indd", ".qxd", ".pdf",
    ".ppt", ".pptx", ".xls", ".xlsx", ".txt", ".html", ".pub",
];

/// Titles that programs enter by default, or their beginnings.
const MADE_UP: [&str; 12] = [
    "untitled",
    "microsoft word",
    "microsoft powerpoint",
    "powerpoint presentation",
    "powerpoint-präsentation",
    "document",
    "dokument",
    "presentation",
    "slide 1",
    "title",
    "(anonymous)",
    "unknown",
];

/// The title, if a person may have written it: not a file name or a default of a program.
pub(super) fn real(title: Option<&str>) -> Option<String> {
    let words: Vec<&str> = title?.split_whitespace().collect();
    let title = words.join(" ");
    let lower = title.to_lowercase();
    let is_made_up = MADE_UP.iter().any(|made_up| {
        lower.strip_prefix(made_up).is_some_and(|rest| {
            rest.chars().all(|c| c.is_ascii_digit() || c == ' ') || rest.starts_with(" - ")
        })
    });
    let is_name = ENDINGS.iter().any(|ending| lower.ends_with(ending));
    let letters = title.chars().filter(|c| c.is_alphabetic()).count();
    (letters >= 2 && !is_made_up && !is_name).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::real;

    #[test]
    fn titles_that_programs_made_are_none() {
        for title in [
            "",
            "  ",
            "Untitled",
            "untitled 2",
            "Microsoft Word - report.doc",
            "x.tex",
            "PowerPoint Presentation",
            "Document1",
            "12",
            "(anonymous)",
        ] {
            assert_eq!(real(Some(title)), None, "{title}");
        }
        assert_eq!(
            real(Some("Document  retrieval\nat scale")).as_deref(),
            Some("Document retrieval at scale")
        );
        assert_eq!(real(Some("日本語")).as_deref(), Some("日本語"));
        assert_eq!(real(None), None);
    }
}
