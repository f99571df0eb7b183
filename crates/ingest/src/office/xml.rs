//! Reading of XML: events, attributes, references.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::event::ExtractError;

/// A reader of XML that accepts wrong end tags.
pub(super) fn reader(xml: &str) -> Reader<&[u8]> {
    let mut reader = Reader::from_str(xml);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    reader
}

/// The next event; the error names the entry of the archive.
pub(super) fn next<'a>(
    reader: &mut Reader<&'a [u8]>,
    entry: &str,
) -> Result<Event<'a>, ExtractError> {
    reader.read_event().map_err(|e| {
        let at = reader.error_position();
        ExtractError::new(format!(
            "the entry '{entry}' is damaged at byte {at} ({e}): save the file again"
        ))
    })
}

/// The value of an attribute.
pub(super) fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = tag.attributes();
    let found = attributes.with_checks(false).flatten().find(|a| a.key.as_ref() == name)?;
    let value = quick_xml::escape::unescape(&found.value).map(Cow::into_owned);
    Some(value.unwrap_or_else(|_| found.value.to_string()))
}

/// The text of a reference: `&amp;`, `&#233;`. Unknown ones are a space.
pub(super) fn reference(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return c.to_string();
    }
    let name = reference.xml10_content();
    quick_xml::escape::resolve_xml_entity(&name).unwrap_or(" ").to_owned()
}

/// The text of the first element of a name.
pub(super) fn element_text(xml: &str, name: &str) -> Option<String> {
    let mut reader = reader(xml);
    let mut found: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.name().as_ref() == name => found = Some(String::new()),
            Event::End(tag) if tag.name().as_ref() == name => return found,
            Event::Text(text) => found.iter_mut().for_each(|f| f.push_str(&text.xml10_content())),
            Event::GeneralRef(e) => found.iter_mut().for_each(|f| f.push_str(&reference(&e))),
            Event::Eof => return None,
            _ => {}
        }
    }
}
