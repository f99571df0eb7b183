//! Markdown as plain text, for excerpts.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The text of a piece of Markdown: without marks, addresses of links and HTML. Blocks end with a
/// line break.
pub(super) fn to_plain(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut plain = String::with_capacity(markdown.len());
    let mut in_metadata = false;
    for event in Parser::new_ext(markdown, options) {
        match event {
            Event::Start(Tag::MetadataBlock(_)) => in_metadata = true,
            Event::End(TagEnd::MetadataBlock(_)) => in_metadata = false,
            Event::Text(text) | Event::Code(text) if !in_metadata => plain.push_str(&text),
            Event::InlineMath(text) | Event::DisplayMath(text) => plain.push_str(&text),
            Event::SoftBreak | Event::HardBreak | Event::Rule => plain.push('\n'),
            Event::End(TagEnd::TableCell) => plain.push(' '),
            Event::End(
                TagEnd::Paragraph
                | TagEnd::Heading(_)
                | TagEnd::Item
                | TagEnd::CodeBlock
                | TagEnd::TableRow
                | TagEnd::TableHead,
            ) => plain.push('\n'),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::to_plain;

    #[test]
    fn marks_addresses_and_html_are_left_out() {
        let markdown = "---\ntitle: x\n---\n# Bread\n\nWith **strong** `flour`, see \
                        [the book](http://example.org \"t\") <br>and ![a loaf](l.png).\n\n- one\n\
                        - two\n\n| a | b |\n| - | - |\n| c | d |\n\n```rust\nlet x = 1;\n```\n";
        let expected = "Bread\nWith strong flour, see the book and a loaf.\none\ntwo\na b \nc d \n\
                        let x = 1;\n\n";
        assert_eq!(to_plain(markdown), expected);
        assert_eq!(to_plain("2 * 3 * 4 and snake_case_name"), "2 * 3 * 4 and snake_case_name\n");
    }
}
