//! HTML to text: what a browser would show, without the layout.
//!
//! This works on the tokenizer's tags and characters and builds no tree, so nesting costs neither
//! stack nor time, and tags that are left open do no harm.

use std::cell::RefCell;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};

/// The tokenizer compares each attribute of a tag with all before it: this bounds that work.
const MAX_ATTRIBUTES: usize = 20_000;

/// The title (`<title>`, else the first `<h1>`) and the text of a page.
///
/// Blocks are separated by blank lines, list items and table rows stand on lines of their own,
/// cells are separated by tabs. `<pre>` is kept as it is, elsewhere white space counts as one
/// space. Images leave their alternative text; scripts, styles, `<noscript>`, `<template>`,
/// `<head>`, `<svg>` and frames leave nothing.
///
/// # Errors
///
/// A reason where one tag has more attributes than [`MAX_ATTRIBUTES`].
pub(super) fn title_and_text(content: &str) -> Result<(Option<String>, String), String> {
    if most_attributes(content) > MAX_ATTRIBUTES {
        return Err(format!("a tag has more than {MAX_ATTRIBUTES} attributes: is this HTML?"));
    }
    let tokenizer = Tokenizer::new(Extractor::default(), TokenizerOpts::default());
    let queue = BufferQueue::default();
    queue.push_back(StrTendril::from(content));
    let _ = tokenizer.feed(&queue);
    tokenizer.end();
    let page = tokenizer.sink.page.into_inner();
    let title = [page.title, page.heading]
        .into_iter()
        .flatten()
        .map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "))
        .find(|title| !title.is_empty());
    Ok((title, page.text))
}

/// The encoding that the page claims to have, where it is not UTF-8.
pub(super) fn charset(bytes: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_ascii_lowercase();
    let (_, rest) = head.split_once("charset=")?;
    let name: String = rest
        .trim_start_matches(['"', '\''])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    (!name.is_empty() && name != "utf-8").then(|| name.to_ascii_uppercase())
}

#[derive(Default)]
struct Extractor {
    page: RefCell<Page>,
}

impl TokenSink for Extractor {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut page = self.page.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => page.open(&tag),
            Token::TagToken(tag) => {
                page.close(&tag.name);
                TokenSinkResult::Continue
            }
            Token::CharacterTokens(text) => {
                page.characters(&text);
                TokenSinkResult::Continue
            }
            _ => TokenSinkResult::Continue,
        }
    }
}

/// What must stand between the text so far and the next; the larger wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Cell,
    Line,
    Block,
}

/// An element whose content is not shown.
struct Hidden {
    name: String,
    depth: usize,
}

#[derive(Default)]
struct Page {
    text: String,
    gap: Gap,
    title: Option<String>,
    /// In the page's first `<title>`, which may come in several pieces.
    in_title: bool,
    heading: Option<String>,
    /// Where the text of an open `<h1>` begins.
    heading_start: Option<usize>,
    /// The element whose content the tokenizer gives as plain characters.
    raw: Option<String>,
    hidden: Option<Hidden>,
    preformatted: usize,
    /// Right behind `<pre>`, where one line break does not count.
    fresh_pre: bool,
    lists: usize,
}

impl Page {
    fn open(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        self.fresh_pre = false;
        if let Some(hidden) = &mut self.hidden {
            let ends = match hidden.name.as_str() {
                "head" => !is_head_content(name),
                "svg" => name == "body" || gap_around(name) == Gap::Block,
                _ => false,
            };
            if ends || (hidden.name == "head" && name == "template") {
                self.hidden = None;
            } else if hidden.name == name && !tag.self_closing {
                hidden.depth += 1;
            }
        }
        let in_svg = self.hidden.as_ref().is_some_and(|hidden| hidden.name == "svg");
        if let Some(kind) = raw_kind(name)
            && !(in_svg && tag.self_closing)
        {
            self.raw = Some(name.to_string());
            let of_page = self.hidden.as_ref().is_none_or(|hidden| hidden.name == "head");
            self.in_title = name == "title" && of_page && self.title.is_none();
            return TokenSinkResult::RawData(kind);
        }
        if self.hidden.is_some() {
            return TokenSinkResult::Continue;
        }
        match name {
            "plaintext" => {
                self.widen(Gap::Block);
                return TokenSinkResult::Plaintext;
            }
            "head" | "template" => self.hide(name),
            "svg" if !tag.self_closing => self.hide(name),
            "br" if self.preformatted > 0 => self.push("\n"),
            "img" => {
                let alt = tag.attrs.iter().find(|a| &*a.name.local == "alt");
                if let Some(alt) = alt.filter(|alt| !alt.value.trim().is_empty()) {
                    self.widen(Gap::Space);
                    self.flow(&alt.value);
                    self.widen(Gap::Space);
                }
            }
            "pre" | "listing" => {
                self.widen(Gap::Block);
                self.preformatted += 1;
                self.fresh_pre = true;
            }
            "ul" | "ol" | "menu" | "dir" => {
                self.widen(if self.lists > 0 { Gap::Line } else { Gap::Block });
                self.lists += 1;
            }
            "h1" => {
                self.widen(Gap::Block);
                self.heading_start = Some(self.text.len());
            }
            _ => self.widen(gap_around(name)),
        }
        TokenSinkResult::Continue
    }

    fn close(&mut self, name: &str) {
        if self.raw.as_deref() == Some(name) {
            self.raw = None;
            self.widen(gap_around(name));
            return;
        }
        if let Some(hidden) = &mut self.hidden {
            if hidden.name == name {
                hidden.depth -= 1;
                if hidden.depth == 0 {
                    self.hidden = None;
                }
            }
            return;
        }
        match name {
            "pre" | "listing" => {
                if self.preformatted > 0 {
                    self.preformatted -= 1;
                    let kept = self.text.trim_end_matches(['\n', '\r']).len();
                    self.text.truncate(kept);
                }
                self.widen(Gap::Block);
            }
            "ul" | "ol" | "menu" | "dir" => {
                self.lists = self.lists.saturating_sub(1);
                self.widen(if self.lists > 0 { Gap::Line } else { Gap::Block });
            }
            "h1" => {
                if let Some(start) = self.heading_start.take()
                    && self.heading.is_none()
                {
                    self.heading = self
                        .text
                        .get(start..)
                        .filter(|heading| !heading.trim().is_empty())
                        .map(str::to_string);
                }
                self.widen(Gap::Block);
            }
            _ => self.widen(gap_around(name)),
        }
    }

    fn characters(&mut self, text: &str) {
        match self.raw.as_deref() {
            Some("title") => {
                if self.in_title {
                    self.title.get_or_insert_default().push_str(text);
                }
                return;
            }
            Some("textarea") | None => {}
            Some(_) => return,
        }
        if let Some(hidden) = &self.hidden {
            if hidden.name != "head" || text.trim().is_empty() {
                return;
            }
            self.hidden = None;
        }
        if self.preformatted > 0 {
            let text = match std::mem::take(&mut self.fresh_pre) {
                true => text.strip_prefix("\r\n").or(text.strip_prefix('\n')).unwrap_or(text),
                false => text,
            };
            self.push(text);
        } else {
            self.flow(text);
        }
    }

    /// Running text: white space of any kind and length is one space.
    fn flow(&mut self, text: &str) {
        for (number, word) in text.split(char::is_whitespace).enumerate() {
            if number > 0 {
                self.widen(Gap::Space);
            }
            self.push(word);
        }
    }

    /// Text as it is, behind the gap that is due.
    fn push(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Cell => "\t",
                Gap::Line => "\n",
                Gap::Block => "\n\n",
            });
        }
        self.gap = Gap::None;
        self.text.push_str(text);
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn hide(&mut self, name: &str) {
        self.hidden = Some(Hidden { name: name.to_string(), depth: 1 });
    }
}

/// Elements whose content has no tags.
fn raw_kind(name: &str) -> Option<RawKind> {
    Some(match name {
        "script" => RawKind::ScriptData,
        "style" | "noscript" | "iframe" | "noembed" | "noframes" => RawKind::Rawtext,
        "title" | "textarea" => RawKind::Rcdata,
        _ => return None,
    })
}

fn is_head_content(name: &str) -> bool {
    matches!(name, "html" | "head" | "base" | "basefont" | "bgsound" | "link" | "meta" | "template")
        || (raw_kind(name).is_some() && !matches!(name, "iframe" | "textarea" | "noembed"))
}

/// What separates an element's content from its surroundings.
fn gap_around(name: &str) -> Gap {
    match name {
        "address" | "article" | "aside" | "blockquote" | "body" | "center" | "details"
        | "dialog" | "dir" | "div" | "dl" | "fieldset" | "figcaption" | "figure" | "footer"
        | "form" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "header" | "hgroup" | "hr"
        | "html" | "legend" | "listing" | "main" | "menu" | "nav" | "ol" | "p" | "pre"
        | "search" | "section" | "summary" | "table" | "ul" => Gap::Block,
        "br" | "caption" | "dd" | "dt" | "li" | "optgroup" | "option" | "tbody" | "tfoot"
        | "thead" | "tr" => Gap::Line,
        "td" | "th" => Gap::Cell,
        "button" | "input" | "select" | "textarea" => Gap::Space,
        _ => Gap::None,
    }
}

/// At least the largest number of attributes that a tag has: words between `<name` and `>`.
fn most_attributes(content: &str) -> usize {
    let bytes = content.as_bytes();
    let (mut most, mut at) = (0, 0);
    while let Some(open) = bytes[at..].iter().position(|b| *b == b'<') {
        at += open + 1;
        if !bytes.get(at).is_some_and(u8::is_ascii_alphabetic) {
            continue;
        }
        let (mut attributes, mut quote, mut before) = (0, None, b' ');
        for &byte in &bytes[at..] {
            at += 1;
            match quote {
                Some(mark) if byte == mark => quote = None,
                Some(_) => {}
                None if byte == b'>' => break,
                None if before == b'=' && matches!(byte, b'"' | b'\'') => quote = Some(byte),
                None => {
                    let separates =
                        |b: u8| b.is_ascii_whitespace() || matches!(b, b'/' | b'"' | b'\'');
                    if separates(before) && !separates(byte) {
                        attributes += 1;
                    }
                }
            }
            if quote.is_none() && !(byte.is_ascii_whitespace() && before == b'=') {
                before = byte;
            }
        }
        most = most.max(attributes);
    }
    most
}
