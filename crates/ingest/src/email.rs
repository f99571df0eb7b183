//! E-mail messages (RFC 5322, MIME), read by the crate `mail-parser`.

use mail_parser::{Address, MessageParser, PartType};
use serde_json::{Map, Value};

use crate::html;

/// The parts of a message that are read.
pub(crate) struct Email {
    pub(crate) subject: Option<String>,
    pub(crate) text: String,
    /// `from`, `to`, `cc` and `date`.
    pub(crate) metadata: Map<String, Value>,
    /// Number of parts that are not read.
    pub(crate) attachments: u64,
}

/// Reads a message. The text is its plain text, else that of its HTML.
///
/// # Errors
///
/// The reason why these bytes are not a message.
pub(crate) fn read(bytes: &[u8]) -> Result<Email, String> {
    let message = MessageParser::default().parse(bytes);
    let message =
        message.filter(|m| m.from().is_some() || m.date().is_some() || m.subject().is_some());
    let Some(message) = message else {
        return Err(
            "not an e-mail message: it has no header From, Date or Subject; rename it".into()
        );
    };
    let bodies = message.text_body.iter().chain(&message.html_body);
    let bodies: Vec<&PartType<'_>> =
        bodies.filter_map(|id| message.parts.get(*id as usize)).map(|part| &part.body).collect();
    let plain = bodies.iter().filter_map(|body| match body {
        PartType::Text(text) if !text.trim().is_empty() => Some(text.to_string()),
        _ => None,
    });
    let pages = bodies.iter().filter_map(|body| match body {
        PartType::Html(page) => Some(html::title_and_text(page).1),
        _ => None,
    });
    let text = plain.chain(pages).find(|text| !text.trim().is_empty()).unwrap_or_default();
    let mut metadata = Map::new();
    let addresses = [("from", message.from()), ("to", message.to()), ("cc", message.cc())];
    for (name, address) in addresses {
        if let Some(shown) = address.map(shown).filter(|shown| !shown.is_empty()) {
            metadata.insert(name.to_owned(), Value::String(shown));
        }
    }
    if let Some(date) = message.date().filter(|date| date.is_valid()) {
        metadata.insert("date".to_owned(), Value::String(date.to_rfc3339()));
    }
    let attachments = message.attachments().count() as u64;
    let subject = message.subject().map(str::trim).filter(|subject| !subject.is_empty());
    Ok(Email { subject: subject.map(str::to_owned), text, metadata, attachments })
}

/// Addresses as `Name <address>`, separated by commas.
fn shown(address: &Address<'_>) -> String {
    let all = address.iter().map(|one| match (one.name(), one.address()) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        (name, address) => name.or(address).unwrap_or_default().to_owned(),
    });
    all.filter(|one| !one.is_empty()).collect::<Vec<_>>().join(", ")
}
