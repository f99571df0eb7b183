//! Indexing on several machines: each process makes a shard of a part of the inputs.

use super::run::IndexRun;
use super::{IndexOptions, IndexReport, OnError};
use crate::error::{Error, Result};
use crate::store::{IndexManifest, IndexWriter, ShardSummary, begin_shard};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use warpseek_bert::embedder::Embedder;
use warpseek_ingest::{Document, DocumentReader, ListedFile, ReadOptions, open_listed};
use xxhash_rust::xxh3::xxh3_128;

/// A part of the inputs, which becomes one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputPart {
    /// The files, in their order.
    pub files: Vec<ListedFile>,
    /// The records of the only file that belong to the part, from one number up to another,
    /// counted from 0. All records of all files without it.
    #[serde(default)]
    pub records: Option<(u64, u64)>,
    /// See [`DocumentReader::text_columns`], of the inputs as a whole.
    #[serde(default)]
    pub text_columns: BTreeSet<String>,
    /// Records whose id an earlier record of the inputs has: the number of the file, the number of
    /// the record in it, and the name of the file with the earlier one.
    #[serde(default)]
    pub duplicates: Vec<(usize, u64, String)>,
}

impl InputPart {
    /// Opens the files.
    ///
    /// # Errors
    ///
    /// As [`open_listed`].
    pub fn open(&self, options: &ReadOptions) -> Result<DocumentReader> {
        open_listed(&self.files, &self.text_columns, options)
    }

    /// The records of the part. Those whose id occurred before are errors.
    fn records<'a>(
        &'a self,
        documents: &'a mut DocumentReader,
    ) -> impl Iterator<Item = Result<Document>> + 'a {
        let duplicates: HashMap<(usize, u64), &str> =
            self.duplicates.iter().map(|(file, record, of)| ((*file, *record), &**of)).collect();
        let (mut file, mut in_file) = (0, 0);
        let mut checked = documents.map(move |document| {
            let name = match &document {
                Ok(Document { place, .. }) | Err(Error::Input { place, .. }) => &place.file,
                Err(_) => return document,
            };
            // Files follow each other as they are listed.
            while self.files.get(file).is_some_and(|file| file.name != *name) {
                (file, in_file) = (file + 1, 0);
            }
            if file == self.files.len() {
                let reason = format!("{name}: a record of a file that is not listed");
                return Err(Error::usage(reason));
            }
            in_file += 1;
            match (document, duplicates.get(&(file, in_file - 1))) {
                (Ok(Document { id, place, .. }), Some(of)) => {
                    let also =
                        if place.file == **of { String::new() } else { format!(", also in {of}") };
                    let reason =
                        format!("the id '{id}' occurs twice in this input{also}: make ids unique");
                    Err(Error::input(place, reason))
                }
                (document, _) => document,
            }
        });
        let (first, end) = self.records.unwrap_or((0, u64::MAX));
        let (mut number, mut is_over) = (0, false);
        std::iter::from_fn(move || {
            while number < end && !is_over {
                let Some(document) = checked.next() else {
                    is_over = true;
                    let name = self.files.first().map_or("", |file| &file.name);
                    return self.records.map(|_| {
                        Err(Error::usage(format!(
                            "{name}: {number} records could be read, and {end} were counted \
                             before: the file has changed, or cannot be read to its end"
                        )))
                    });
                };
                number += 1;
                match document {
                    // Errors about records before the part are those of other parts.
                    Ok(_) | Err(Error::Input { .. }) if number <= first => {}
                    document => return Some(document),
                }
            }
            None
        })
    }
}

/// The ids of some files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordIds {
    /// Per file the number of records, those that cannot be used among them.
    pub counts: Vec<u64>,
    /// The XXH3-128 of the id of each record; 0 for a record that cannot be used.
    pub ids: Vec<u128>,
}

/// Reads the ids of files, to count their records and to find ids that occur twice.
/// `document_names` has the XXH3-128 of the names of the files that are documents themselves, and
/// with `#` behind the name that of those which have pages or sections.
///
/// # Errors
///
/// [`Error::Input`] for a record with the id that such a file has, or a page or section of it; the
/// errors of reading, with [`OnError::Stop`] and about files that were named themselves also those
/// about records; [`Error::Interrupted`].
pub fn record_ids(
    part: &InputPart,
    document_names: &HashSet<u128>,
    read: &ReadOptions,
    options: &IndexOptions<'_>,
) -> Result<RecordIds> {
    let mut found = RecordIds::default();
    for file in &part.files {
        let documents = open_listed(std::slice::from_ref(file), &part.text_columns, read)?;
        let skips = options.on_error == OnError::Skip || file.is_found() && !read.strict;
        let before = found.ids.len();
        for document in documents {
            if options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted("nothing was indexed".to_owned()));
            }
            match document {
                Ok(Document { id, place, .. }) => {
                    // `<path>`, and `<path>#page=3` of files that have pages or sections.
                    let is_part = |(path, rest): (&str, &str)| {
                        rest.contains('=') && document_names.contains(&id_hash(&format!("{path}#")))
                    };
                    if document_names.contains(&id_hash(&id))
                        || id.rsplit_once('#').is_some_and(is_part)
                    {
                        let file = id.rsplit_once('#').map_or(&*id, |(path, _)| path);
                        let reason = format!(
                            "the id '{id}' can also be that of a document of the file {file}: make \
                             ids unique"
                        );
                        return Err(Error::input(place, reason));
                    }
                    found.ids.push(id_hash(&id));
                }
                Err(Error::Input { .. }) if skips => found.ids.push(0),
                Err(e) => return Err(e),
            }
        }
        found.counts.push((found.ids.len() - before) as u64);
    }
    Ok(found)
}

/// The XXH3-128 of an id or of the name of a file in ids.
pub fn id_hash(id: &str) -> u128 {
    xxh3_128(id.as_bytes())
}

/// Pairs of places, each a number of a list and a place in it, of the same id: the first place of
/// the id, and a later one, in the order of the later ones.
pub fn duplicate_ids(lists: &[Vec<u128>]) -> Vec<[(usize, usize); 2]> {
    let mut all: Vec<(u128, u32, u64)> = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for (number, list) in lists.iter().enumerate() {
        let ids = list.iter().enumerate().filter(|(_, id)| **id != 0);
        all.extend(ids.map(|(place, id)| (*id, number as u32, place as u64)));
    }
    all.sort_unstable();
    let place = |(_, list, place): (u128, u32, u64)| (list as usize, place as usize);
    let mut found = Vec::new();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        found.extend(same[1..].iter().map(|entry| [place(same[0]), place(*entry)]));
    }
    found.sort_unstable_by_key(|pair| pair[1]);
    found
}

/// File in the folder of a shard with the report of the process that made it, as JSON.
const REPORT_FILE: &str = ".report.partial";

/// Indexes a part of the inputs into the shard in a folder, and ends the shard. An interrupted run
/// of the same key is continued, and a shard that it has ended is left as it is. Without any
/// document there is no shard.
///
/// # Errors
///
/// As [`index`](super::index) and [`begin_shard`]; [`Error::Interrupted`].
pub fn index_part(
    (dir, key): (&Path, &str),
    part: &InputPart,
    read: &ReadOptions,
    (embedder, manifest): (&Embedder, &IndexManifest),
    options: IndexOptions<'_>,
    progress: &mut dyn FnMut(&IndexReport) -> bool,
) -> Result<(Value, Option<ShardSummary>)> {
    begin_shard(dir, key, manifest)?;
    let saved = dir.join(REPORT_FILE);
    if let Some(summary) = ShardSummary::read(dir)? {
        let report = std::fs::read(&saved).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let unchanged = summary.documents;
        let unknown = || json!(IndexReport { unchanged, ..IndexReport::default() });
        return Ok((report.unwrap_or_else(unknown), Some(summary)));
    }
    let mut documents = part.open(read)?;
    let found = documents.found_files().clone();
    let found = (!read.strict).then_some(&found);
    let mut writer = IndexWriter::open_or_create(dir, manifest)?;
    let options = IndexOptions { found, ..options };
    let run = IndexRun::new(&mut writer, embedder, options, progress);
    let mut report = run.run_part(&mut part.records(&mut documents))?;
    report.take_notes(documents.notes());
    let decisions = documents.take_decisions();
    report.notes_total += decisions.len() as u64;
    report.notes.extend(decisions);
    if report.interrupted {
        return Err(Error::Interrupted("the run can be continued".to_owned()));
    }
    let report = json!(report);
    if !writer.has_rows() {
        return Ok((report, None));
    }
    // A process that ends before it has told of the shard is asked again.
    std::fs::write(&saved, report.to_string()).map_err(Error::io("write", &saved))?;
    writer.seal()?;
    let summary = ShardSummary::read(dir)?;
    let summary = summary.ok_or_else(|| Error::corrupt(dir, "the shard is gone again"))?;
    Ok((report, Some(summary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_occur_twice_are_found_in_the_order_of_the_input() {
        let lists = [vec![5, 0, 7, 0], vec![8, 7], vec![], vec![9, 5, 7]];
        let found = duplicate_ids(&lists);
        assert_eq!(found, [[(0, 2), (1, 1)], [(0, 0), (3, 1)], [(0, 2), (3, 2)]]);
        assert!(duplicate_ids(&[vec![0, 0], vec![0]]).is_empty());
    }
}
