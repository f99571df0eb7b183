//! Notes about the input that are no errors: columns that are left out, values that are replaced.
//!
//! Readers count into one [`ReadNotes`]; the command reports it at the end.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use warpseek_error::Place;

use crate::message::shown;

/// Maximum number of notes that are kept word for word. Further ones are counted.
pub const MAX_NOTES: usize = 100;

/// Maximum number of notes that are counted.
const MAX_KNOWN: usize = 1 << 16;

/// The reason for nulls in the place of numbers that are none.
pub const NON_FINITE: &str = "NaN or infinity, which JSON cannot hold";

/// The consequence of a missing text for a record with a title.
pub const TITLE_ALONE: &str = "its title stands alone";

/// One kind of event in one field of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadNote {
    /// File and field.
    pub place: Place,
    /// The event.
    pub kind: NoteKind,
    /// The cause; for a column also the remedy; for a conflict the folder.
    pub reason: String,
    /// Number of values or records concerned; 0 for a whole column.
    pub count: u64,
}

/// The event that a [`ReadNote`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoteKind {
    /// The column is not part of the metadata.
    LeftOut,
    /// The values became null.
    Null,
    /// The values became text.
    Text,
    /// The records have another value than the folder that the reason names, which gives way.
    Conflict,
    /// Entries of the file, or values of the field, have no place in the index.
    Omitted,
    /// The records have a title and no text.
    NoText,
}

impl fmt::Display for ReadNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, kind, reason, count } = self;
        let count = |one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        match kind {
            NoteKind::LeftOut => write!(f, "{place}: the column is left out: {reason}"),
            NoteKind::Null => {
                write!(f, "{place}: {} null: {reason}", count("value became", "values became"))
            }
            NoteKind::Text => {
                write!(f, "{place}: {} text: {reason}", count("value became", "values became"))
            }
            NoteKind::Omitted => {
                write!(f, "{place}: {} left out: {reason}", count("entry is", "entries are"))
            }
            NoteKind::NoText => {
                write!(f, "{place}: {} no text: {reason}", count("record has", "records have"))
            }
            NoteKind::Conflict => {
                let records = count("record has", "records have");
                write!(
                    f,
                    "{place}: {records} another value than the folder '{reason}' says, and keeps it"
                )
            }
        }
    }
}

/// The notes of a reader, shared with the readers of its files. Clones are the same list.
#[derive(Debug, Clone, Default)]
pub struct ReadNotes(Arc<Mutex<NoteList>>);

#[derive(Debug, Default)]
struct NoteList {
    notes: Vec<ReadNote>,
    /// The position of each distinct note, by the hash of its text.
    known: HashMap<u64, usize>,
    hasher: RandomState,
    /// Decisions about files that have not been taken yet.
    decisions: Vec<String>,
}

impl ReadNotes {
    /// The first [`MAX_NOTES`] notes, in the order in which they came up.
    pub fn list(&self) -> Vec<ReadNote> {
        self.with(|list| list.notes.clone())
    }

    /// [`ReadNotes::list`] as messages.
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().map(ToString::to_string).collect()
    }

    /// Number of distinct notes, those beyond [`MAX_NOTES`] included; 65,536 at most.
    pub fn total(&self) -> u64 {
        self.with(|list| list.known.len() as u64)
    }

    /// Notes that the column `field` of `file` is left out.
    pub(crate) fn left_out(&self, file: &str, field: &str, reason: &str) {
        self.add(file, field, NoteKind::LeftOut, reason, 0);
    }

    /// Adds `count` to the note of this text, which is made if it is new. Without a `field` it is
    /// about the whole file.
    pub fn add(&self, file: &str, field: &str, kind: NoteKind, reason: &str, count: u64) {
        self.with(|list| {
            let hash = list.hasher.hash_one((file, field, kind, reason));
            let next = list.notes.len();
            if list.known.len() >= MAX_KNOWN && !list.known.contains_key(&hash) {
                return;
            }
            let at = *list.known.entry(hash).or_insert(next);
            if at == next && next < MAX_NOTES {
                let place = Place::file(file);
                let place = if field.is_empty() { place } else { place.field(shown(field)) };
                list.notes.push(ReadNote { place, kind, reason: reason.to_owned(), count });
            } else if let Some(note) = list.notes.get_mut(at) {
                note.count += count;
            }
        });
    }

    /// Adds a decision about a file, to be reported.
    pub(crate) fn decide(&self, decision: String) {
        self.with(|list| list.decisions.push(decision));
    }

    /// Adds a decision unless it is the last one already.
    pub(crate) fn decide_once(&self, decision: String) {
        self.with(|list| {
            if list.decisions.last() != Some(&decision) {
                list.decisions.push(decision);
            }
        });
    }

    /// The decisions since the last call.
    pub(crate) fn take_decisions(&self) -> Vec<String> {
        self.with(|list| std::mem::take(&mut list.decisions))
    }

    fn with<T>(&self, work: impl FnOnce(&mut NoteList) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_notes_are_counted_and_the_rest_is_limited() {
        let notes = ReadNotes::default();
        for number in 0..MAX_NOTES + 50 {
            for _ in 0..3 {
                notes.add("f", &format!("x{number}"), NoteKind::Null, "NaN", 1);
            }
        }
        let list = notes.list();
        assert_eq!((list.len(), notes.total()), (MAX_NOTES, MAX_NOTES as u64 + 50));
        assert!(list.iter().all(|note| note.count == 3));
        assert_eq!(list[1].to_string(), "f, field 'x1': 3 values became null: NaN");
    }

    #[test]
    fn a_note_without_a_field_is_about_the_file() {
        let notes = ReadNotes::default();
        notes.add("f", "", NoteKind::Omitted, "no row has them", 2);
        notes.add("f", "id", NoteKind::Omitted, "no row has it", 1);
        let expected = [
            "f: 2 entries are left out: no row has them",
            "f, field 'id': 1 entry is left out: no row has it",
        ];
        assert_eq!(notes.texts(), expected);
    }
}
