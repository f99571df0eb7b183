//! Values in the place of those that metadata cannot hold.

use serde_json::Value;

use crate::notes::NoteKind;

/// Null, text or another value in the place of one, and the reason.
#[derive(Debug)]
pub(super) struct Substitute {
    pub(super) value: Value,
    pub(super) kind: NoteKind,
    /// The same for all values of a kind, so that they can be counted.
    pub(super) reason: &'static str,
    /// More about this one value.
    pub(super) detail: String,
}

impl Substitute {
    pub(super) fn null(reason: &'static str) -> Self {
        Self { value: Value::Null, kind: NoteKind::Null, reason, detail: String::new() }
    }

    pub(super) fn text(text: String, reason: &'static str) -> Self {
        let value = Value::String(text);
        Self { value, kind: NoteKind::Text, reason, detail: String::new() }
    }
}
