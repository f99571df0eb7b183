//! Files and records that were left out, by reason.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::message::escaped;

/// A file that was found in a folder and will not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file.
    pub path: PathBuf,
    /// The reason: `unknown type '.xyz'`.
    pub reason: String,
}

/// Maximum number of different reasons; all others are one group.
const MAX_REASONS: usize = 100;

/// Names that are kept of each reason.
const MAX_NAMES: usize = 3;

/// Files or records that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkipGroup {
    /// The reason, without what differs from file to file: numbers, names, the remedy.
    pub reason: String,
    /// Number of files, or of records for a reason that is about records.
    pub count: u64,
    /// The first names, without control characters.
    pub first: Vec<String>,
    /// The whole reason of the first, with the remedy.
    pub detail: String,
}

/// Counts of what was left out, by reason, in the order in which the reasons came up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SkipTable {
    groups: Vec<SkipGroup>,
}

impl SkipTable {
    /// Adds the file or record `name`. Reasons that differ only in numbers, quoted names and the
    /// remedy are one.
    pub fn add(&mut self, name: &str, reason: &str) {
        self.add_to(&general(reason), name, reason);
    }

    /// Adds a file that was left out before it was read; its reason is kept as it is.
    pub fn add_file(&mut self, name: &str, reason: &str) {
        self.add_to(reason, name, reason);
    }

    /// Adds a number of files whose names are not known.
    pub fn add_count(&mut self, count: u64, reason: &str) {
        if count > 0 {
            let (reason, detail, first) = (reason.to_owned(), reason.to_owned(), Vec::new());
            self.groups.push(SkipGroup { reason, count, first, detail });
        }
    }

    /// Adds the groups of another table.
    pub fn merge(&mut self, other: Self) {
        for group in other.groups {
            match self.groups.iter_mut().find(|known| known.reason == group.reason) {
                Some(known) => {
                    known.count += group.count;
                    known.first.extend(group.first);
                    known.first.truncate(MAX_NAMES);
                }
                None => self.groups.push(group),
            }
        }
    }

    /// The groups.
    pub fn groups(&self) -> &[SkipGroup] {
        &self.groups
    }

    /// True if nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn add_to(&mut self, key: &str, name: &str, detail: &str) {
        let is_full = self.groups.len() >= MAX_REASONS;
        let key = match self.groups.iter().any(|group| group.reason == key) || !is_full {
            true => key,
            false => "another reason",
        };
        let at = self.groups.iter().position(|group| group.reason == key);
        let at = at.unwrap_or_else(|| {
            let (reason, detail) = (key.to_owned(), detail.to_owned());
            self.groups.push(SkipGroup { reason, count: 0, first: Vec::new(), detail });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.count += 1;
        if group.first.len() < MAX_NAMES {
            group.first.push(escaped(name));
        }
    }
}

/// A reason up to its details, with `…` for quoted names and numbers.
fn general(reason: &str) -> String {
    let end = [": ", " ("].iter().filter_map(|mark| reason.find(mark)).min();
    let mut general = String::new();
    let mut rest = &reason[..end.unwrap_or(reason.len())];
    while let Some(c) = rest.chars().next() {
        let word_start = !general.ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let quoted = (c == '\'' && word_start).then(|| rest[1..].find('\'')).flatten();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let taken = match quoted {
            Some(length) => length + 2,
            None if word_start => digits,
            None => 0,
        };
        match quoted {
            Some(_) => general.push_str("'…'"),
            None if taken > 0 => general.push('…'),
            None => general.push(c),
        }
        rest = &rest[taken.max(if taken == 0 { c.len_utf8() } else { 0 })..];
    }
    general
}

/// The files that were found in folders, by name, with their sources: an error about one of them
/// does not stop a run.
#[derive(Debug, Clone, Default)]
pub struct FoundFiles {
    pub(crate) sources: Arc<HashMap<String, Arc<str>>>,
    /// Sources of files and folders that were found and could not be opened.
    pub(crate) unread: Arc<Vec<String>>,
    /// Names of those that were named themselves, with [`ReadOptions::named_as_found`].
    ///
    /// [`ReadOptions::named_as_found`]: crate::ReadOptions::named_as_found
    pub(crate) named: Arc<HashSet<String>>,
}

impl FoundFiles {
    /// The source of a file with this name in messages; `None` if it was named itself.
    pub fn source(&self, name: &str) -> Option<&Arc<str>> {
        self.sources.get(name)
    }

    /// True if the file with this name in messages was named itself, and is read as those below
    /// folders are.
    pub fn is_named(&self, name: &str) -> bool {
        self.named.contains(name)
    }

    /// True if a document of this source may lie in a file or folder that could not be opened.
    pub fn is_unread(&self, source: &str) -> bool {
        self.unread.iter().any(|unread| {
            let rest = source.strip_prefix(unread.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_without_their_details() {
        for (reason, expected) in [
            ("not valid JSON: EOF (column 3)", "not valid JSON"),
            (
                "not valid UTF-8 at byte 17 of the line: convert",
                "not valid UTF-8 at byte … of the line",
            ),
            ("the id 'a: b' occurs twice", "the id 'a"),
            ("the id 'ab' occurs twice in 3 files", "the id '…' occurs twice in … files"),
            ("it's odd", "it's odd"),
            ("", ""),
        ] {
            assert_eq!(general(reason), expected);
        }
    }

    #[test]
    fn groups_count_and_keep_the_first_names() {
        let mut table = SkipTable::default();
        for number in 0..5 {
            table.add(&format!("f{number}"), &format!("bad at byte {number}: mend it"));
        }
        table.add_file("a.png", "unknown type '.png'");
        table.add_count(0, "hidden");
        table.add_count(7, "hidden");
        let counts: Vec<_> =
            table.groups().iter().map(|group| (group.reason.as_str(), group.count)).collect();
        assert_eq!(counts, [("bad at byte …", 5), ("unknown type '.png'", 1), ("hidden", 7)]);
        assert_eq!(table.groups()[0].first, ["f0", "f1", "f2"]);
        assert_eq!(table.groups()[0].detail, "bad at byte 0: mend it");
        for number in 0..200 {
            table.add_file("f", &format!("reason {number}"));
        }
        assert_eq!(table.groups().len(), MAX_REASONS + 1);
    }
}
