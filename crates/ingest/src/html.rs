//! HTML to text: what a browser shows, without the layout.
//!
//! This works on the tokenizer's tags and characters and builds no tree. Nesting costs neither
//! stack nor time, and tags that are left open do no harm.

use html5gum::{StartTag, State, Token, Tokenizer};

/// Returns the title (`<title>`, else the first `<h1>`) and the text of a page.
///
/// Blocks are separated by blank lines, list items and table rows are lines of their own, cells are
/// separated by tabs. `<pre>` is kept as it is, elsewhere white space counts as one space. Images
/// leave their alternative text; scripts, styles, `<noscript>`, `<template>`, `<head>`, `<svg>` and
/// frames leave nothing, nor do elements with `hidden` (but not `until-found`) or an inline
/// `display: none`.
pub(crate) fn title_and_text(content: &str) -> (Option<String>, String) {
    let mut page = PageText::default();
    let mut tokenizer = Tokenizer::new(content);
    while let Some(Ok(token)) = tokenizer.next() {
        match token {
            Token::StartTag(tag) => {
                if let Some(state) = page.open(&tag) {
                    tokenizer.set_state(state);
                }
            }
            Token::EndTag(tag) => page.close(&String::from_utf8_lossy(&tag.name)),
            Token::String(text) => page.characters(&String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    let title = [page.title, page.heading]
        .into_iter()
        .flatten()
        .map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "))
        .find(|title| !title.is_empty());
    (title, page.text)
}

/// Bytes at the front of a page in which it may name its encoding.
pub(crate) const CHARSET_HEAD: usize = 1024;

/// The encoding that the page claims to have, if it is not UTF-8.
pub(crate) fn charset(bytes: &[u8]) -> Option<String> {
    let head = &bytes[..bytes.len().min(CHARSET_HEAD)];
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, rest) = head.split_once("charset=")?;
    let name: String = rest
        .trim_start_matches(['"', '\''])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect();
    (!name.is_empty() && name != "utf-8").then(|| name.to_ascii_uppercase())
}

/// Separator between the text so far and the next text; the larger wins.
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
    /// Open lists and tables inside. Where none is, an end tag of one ends the element too.
    containers: usize,
}

/// The text of a page, and the state of reading it.
#[derive(Default)]
struct PageText {
    text: String,
    gap: Gap,
    title: Option<String>,
    /// True in the page's first `<title>`, which may come in several pieces.
    in_title: bool,
    heading: Option<String>,
    /// Offset of the text of an open `<h1>`.
    heading_start: Option<usize>,
    /// The open element whose content has no tags.
    raw: Option<String>,
    hidden: Option<Hidden>,
    preformatted: usize,
    /// True right behind `<pre>`, where one line break does not count.
    fresh_pre: bool,
    lists: usize,
}

impl PageText {
    /// Handles a start tag and returns the tokenizer's state for its content, if that is special.
    fn open(&mut self, tag: &StartTag<()>) -> Option<State> {
        let name = &*String::from_utf8_lossy(&tag.name);
        self.fresh_pre = false;
        if let Some(hidden) = &mut self.hidden {
            let ends = match hidden.name.as_str() {
                "head" => !is_head_content(name),
                "svg" => name == "body" || gap_around(name) == Gap::Block,
                _ => false,
            };
            let is_next = hidden.containers == 0 && ends_before(&hidden.name, name);
            hidden.containers += usize::from(is_container(name));
            if ends || is_next || (hidden.name == "head" && name == "template") {
                self.hidden = None;
            } else if hidden.name == name && !tag.self_closing {
                hidden.depth += 1;
            }
        }
        let in_svg = self.hidden.as_ref().is_some_and(|hidden| hidden.name == "svg");
        if let Some(state) = raw_state(name)
            && !(in_svg && tag.self_closing)
        {
            self.raw = Some(name.to_string());
            let of_page = self.hidden.as_ref().is_none_or(|hidden| hidden.name == "head");
            self.in_title = name == "title" && of_page && self.title.is_none();
            return Some(state);
        }
        if self.hidden.is_some() {
            return None;
        }
        // A hidden body counts as visible: scripts of such pages show it once they are loaded.
        if !matches!(name, "html" | "body") && is_invisible(tag) {
            self.widen(gap_around(name));
            if !is_void(name) {
                self.hide(name);
            }
            return None;
        }
        match name {
            "plaintext" => {
                self.widen(Gap::Block);
                return Some(State::PlainText);
            }
            "head" | "template" => self.hide(name),
            "svg" if !tag.self_closing => self.hide(name),
            "br" if self.preformatted > 0 => self.push("\n"),
            "img" => {
                let alt =
                    tag.attributes.get(b"alt".as_slice()).map(|alt| String::from_utf8_lossy(alt));
                if let Some(alt) = alt.filter(|alt| !alt.trim().is_empty()) {
                    self.widen(Gap::Space);
                    self.flow(&alt);
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
        None
    }

    fn close(&mut self, name: &str) {
        if self.raw.as_deref() == Some(name) {
            self.raw = None;
            self.widen(gap_around(name));
            return;
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.depth -= usize::from(hidden.name == name);
            let is_outside = is_container(name) && hidden.containers == 0 && hidden.name != name;
            hidden.containers = hidden.containers.saturating_sub(usize::from(is_container(name)));
            if !is_outside || !is_open_ended(&hidden.name) {
                if hidden.depth == 0 {
                    self.hidden = None;
                    self.widen(gap_around(name));
                }
                return;
            }
            self.hidden = None;
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
                    let heading = self.text.get(start..).filter(|text| !text.trim().is_empty());
                    self.heading = heading.map(str::to_string);
                }
                self.widen(Gap::Block);
            }
            _ => self.widen(gap_around(name)),
        }
    }

    fn characters(&mut self, mut text: &str) {
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
            // White space in front of the first text is still in the head.
            text = text.trim_ascii_start();
            if hidden.name != "head" || text.trim().is_empty() {
                return;
            }
            self.hidden = None;
        }
        if self.preformatted > 0 {
            let is_fresh = std::mem::take(&mut self.fresh_pre);
            self.push(text.strip_prefix('\n').filter(|_| is_fresh).unwrap_or(text));
        } else {
            self.flow(text);
        }
    }

    /// Adds running text: white space of any kind and length is one space.
    fn flow(&mut self, text: &str) {
        for (number, word) in text.split(char::is_whitespace).enumerate() {
            if number > 0 {
                self.widen(Gap::Space);
            }
            self.push(word);
        }
    }

    /// Adds text as it is, behind the gap that is due.
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
        self.hidden = Some(Hidden { name: name.to_string(), depth: 1, containers: 0 });
    }
}

/// True for an element that its own attributes hide. `hidden="until-found"` does not count, since
/// browsers find such text.
fn is_invisible(tag: &StartTag<()>) -> bool {
    let attribute = |name: &[u8]| {
        let value = tag.attributes.get(name)?;
        Some(String::from_utf8_lossy(value).to_ascii_lowercase())
    };
    let is_hidden = attribute(b"hidden").is_some_and(|value| value.trim() != "until-found");
    let is_styled_away = |style: String| {
        let style: String = style.split_whitespace().collect();
        style.split(';').any(|rule| matches!(rule, "display:none" | "display:none!important"))
    };
    is_hidden || attribute(b"style").is_some_and(is_styled_away)
}

/// True for elements without content and end tag.
fn is_void(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "br"
            | "col"
            | "embed"
            | "hr"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "param"
            | "source"
            | "track"
            | "wbr"
    )
}

/// True for elements that hold items, whose end tags may be left out.
fn is_container(name: &str) -> bool {
    matches!(name, "ul" | "ol" | "menu" | "dl" | "table" | "select")
}

/// True for elements whose end tag may be left out.
fn is_open_ended(name: &str) -> bool {
    matches!(name, "li" | "dd" | "dt" | "td" | "th" | "tr" | "option" | "optgroup" | "p")
}

/// True if an open element `name` ends before the start tag `next`.
fn ends_before(name: &str, next: &str) -> bool {
    match name {
        "p" => gap_around(next) == Gap::Block,
        "dd" | "dt" => matches!(next, "dd" | "dt"),
        "td" | "th" => matches!(next, "td" | "th" | "tr" | "tbody" | "tfoot"),
        "tr" => matches!(next, "tr" | "tbody" | "tfoot"),
        "li" | "option" | "optgroup" => name == next,
        _ => false,
    }
}

/// The tokenizer's state for the content of elements without tags in it.
fn raw_state(name: &str) -> Option<State> {
    match name {
        "script" => Some(State::ScriptData),
        "style" | "noscript" | "iframe" | "noembed" | "noframes" => Some(State::RawText),
        "title" | "textarea" => Some(State::RcData),
        _ => None,
    }
}

fn is_head_content(name: &str) -> bool {
    matches!(name, "html" | "head" | "base" | "basefont" | "bgsound" | "link" | "meta" | "template")
        || (raw_state(name).is_some() && !matches!(name, "iframe" | "textarea" | "noembed"))
}

/// The separator between an element's content and its surroundings.
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
