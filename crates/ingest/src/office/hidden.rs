//! Hidden text of Word files: runs with the font effect "Hidden" (`w:vanish`), by themselves or by
//! a style. The crate `undoc` does not know them, so their text is cut out of the XML before.

use std::collections::HashMap;
use std::ops::Range;

use quick_xml::events::{BytesStart, Event};

use super::xml;

/// Maximum depth of styles that are based on others.
const MAX_BASES: usize = 32;

/// The styles that say whether text is hidden, by their ids.
#[derive(Debug, Default)]
pub(super) struct HiddenStyles(HashMap<String, RunStyle>);

#[derive(Debug, Default)]
struct RunStyle {
    base: Option<String>,
    is_hidden: Option<bool>,
}

impl HiddenStyles {
    /// The styles of `word/styles.xml`, up to its first defect.
    pub(super) fn parse(styles: &str) -> Self {
        let mut all: HashMap<String, RunStyle> = HashMap::new();
        let mut reader = xml::reader(styles);
        let mut current = String::new();
        while let Ok(event) = reader.read_event() {
            match event {
                Event::Start(tag) | Event::Empty(tag) => match tag.name().as_ref() {
                    "w:style" => current = xml::attribute(&tag, "w:styleId").unwrap_or_default(),
                    "w:basedOn" => {
                        all.entry(current.clone()).or_default().base =
                            xml::attribute(&tag, "w:val");
                    }
                    "w:vanish" => {
                        all.entry(current.clone()).or_default().is_hidden = Some(is_on(&tag));
                    }
                    _ => {}
                },
                Event::Eof => break,
                _ => {}
            }
        }
        if all.values().all(|style| style.is_hidden.is_none()) {
            all.clear();
        }
        Self(all)
    }

    /// True if no style hides text.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a style, or of the nearest style that it is based on.
    fn value(&self, id: Option<&str>) -> Option<bool> {
        let mut style = self.0.get(id?)?;
        for _ in 0..MAX_BASES {
            if style.is_hidden.is_some() {
                return style.is_hidden;
            }
            style = self.0.get(style.base.as_deref()?)?;
        }
        None
    }
}

/// The value of an element that is an on-off property.
fn is_on(tag: &BytesStart<'_>) -> bool {
    !matches!(xml::attribute(tag, "w:val").as_deref(), Some("0" | "false" | "off"))
}

/// A run whose end has not come yet.
#[derive(Debug, Default)]
struct OpenRun {
    own: Option<bool>,
    style: Option<bool>,
    paragraph: Option<bool>,
    /// True for a run in a text box that belongs to a hidden one.
    is_outer_hidden: bool,
    has_cuts: bool,
}

impl OpenRun {
    fn is_hidden(&self) -> bool {
        let value = self.own.or(self.style).or(self.paragraph);
        self.is_outer_hidden || value.unwrap_or(false)
    }
}

/// The XML of `word/document.xml` or of notes without the text of hidden runs, and the number of
/// these runs; `None` if there are none, or if the XML is damaged.
pub(super) fn without_hidden_runs(xml: &str, styles: &HiddenStyles) -> Option<(String, u64)> {
    let (mut cuts, mut n_hidden): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
    // The styles of the open paragraphs, and the open runs: a text box is a run with paragraphs.
    let (mut paragraphs, mut runs): (Vec<Option<bool>>, Vec<OpenRun>) = (Vec::new(), Vec::new());
    let mut in_paragraph_properties = false;
    let mut reader = xml::reader(xml);
    loop {
        let start = position(&reader);
        let event = reader.read_event().ok()?;
        let (tag, is_empty) = match event {
            Event::Start(tag) => (tag, false),
            Event::Empty(tag) => (tag, true),
            Event::End(tag) => {
                match tag.name().as_ref() {
                    "w:p" => drop(paragraphs.pop()),
                    "w:pPr" => in_paragraph_properties = false,
                    "w:r" => n_hidden += u64::from(runs.pop().is_some_and(|run| run.has_cuts)),
                    _ => {}
                }
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        let style = || styles.value(xml::attribute(&tag, "w:val").as_deref());
        match (tag.name().as_ref(), runs.last_mut()) {
            ("w:p", _) if !is_empty => paragraphs.push(None),
            ("w:pPr", _) => in_paragraph_properties = !is_empty,
            ("w:pStyle", _) => {
                if let Some(last) = paragraphs.last_mut() {
                    *last = style();
                }
            }
            // Properties as they were before a tracked change.
            ("w:rPrChange" | "w:pPrChange", _) if !is_empty => {
                reader.read_to_end(tag.name()).ok()?;
            }
            // Those of the mark at the end of a paragraph.
            _ if in_paragraph_properties => {}
            ("w:r", outer) if !is_empty => {
                let is_outer_hidden = outer.is_some_and(|outer| outer.is_hidden());
                let paragraph = paragraphs.last().copied().flatten();
                runs.push(OpenRun { paragraph, is_outer_hidden, ..OpenRun::default() });
            }
            ("w:rStyle", Some(run)) => run.style = style(),
            ("w:vanish", Some(run)) => run.own = Some(is_on(&tag)),
            (
                "w:t"
                | "w:tab"
                | "w:br"
                | "w:cr"
                | "w:noBreakHyphen"
                | "w:footnoteReference"
                | "w:endnoteReference",
                Some(run),
            ) if run.is_hidden() => {
                run.has_cuts = true;
                if !is_empty {
                    reader.read_to_end(tag.name()).ok()?;
                }
                cuts.push(start..position(&reader));
            }
            _ => {}
        }
    }
    if cuts.is_empty() {
        return None;
    }
    let mut kept = String::with_capacity(xml.len());
    let mut at = 0;
    for cut in cuts {
        kept.push_str(xml.get(at..cut.start)?);
        at = cut.end;
    }
    kept.push_str(xml.get(at..)?);
    Some((kept, n_hidden))
}

fn position(reader: &quick_xml::Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_hidden_by_themselves_or_by_their_styles() {
        let styles = HiddenStyles::parse(
            "<w:styles><w:style w:styleId='Secret'><w:rPr><w:vanish/></w:rPr></w:style>\
             <w:style w:styleId='Sub'><w:basedOn w:val='Secret'/></w:style>\
             <w:style w:styleId='Loop'><w:basedOn w:val='Loop'/></w:style></w:styles>",
        );
        let run = |properties: &str| format!("<w:r><w:rPr>{properties}</w:rPr><w:t>x</w:t></w:r>");
        for (properties, is_hidden) in [
            ("", false),
            ("<w:vanish/>", true),
            ("<w:vanish w:val='true'/>", true),
            ("<w:vanish w:val='0'/>", false),
            ("<w:rStyle w:val='Secret'/>", true),
            ("<w:rStyle w:val='Sub'/>", true),
            ("<w:rStyle w:val='Loop'/>", false),
            ("<w:rStyle w:val='Sub'/><w:vanish w:val='false'/>", false),
            ("<w:rPrChange><w:rPr><w:vanish/></w:rPr></w:rPrChange>", false),
        ] {
            let xml = format!("<w:p><w:pPr><w:rPr><w:vanish/></w:rPr></w:pPr>{}", run(properties));
            let found = without_hidden_runs(&xml, &styles);
            assert_eq!(found.is_some(), is_hidden, "{properties}");
            if let Some((kept, n)) = found {
                assert_eq!((kept, n), (xml.replace("<w:t>x</w:t>", ""), 1));
            }
        }
        let of_paragraph = format!("<w:p><w:pPr><w:pStyle w:val='Sub'/></w:pPr>{}</w:p>", run(""));
        let after = format!("{of_paragraph}<w:p>{}</w:p>", run(""));
        let (kept, n) = without_hidden_runs(&after, &styles).unwrap();
        assert_eq!((kept.matches("<w:t>").count(), n), (1, 1));
        assert!(kept.ends_with("<w:t>x</w:t></w:r></w:p>"));
    }

    #[test]
    fn text_box_of_a_hidden_run_is_hidden() {
        let xml = "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:drawing><w:p><w:r><w:t>in</w:t></w:r>\
                   </w:p></w:drawing></w:r><w:r><w:t>out</w:t></w:r></w:p>";
        let (kept, n) = without_hidden_runs(xml, &HiddenStyles::default()).unwrap();
        assert_eq!((kept, n), (xml.replace("<w:t>in</w:t>", ""), 1));
    }
}
