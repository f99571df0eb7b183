//! FAISS vector stores of LangChain, as `save_local` writes them.
//!
//! A folder holds `index.faiss` and `index.pkl`. The second is a pickle of two things: the
//! docstore, a dict of ids to documents, and a dict of positions in the index to ids. It is read
//! as data (`pickle/`): nothing in it is executed.
//!
//! | part | becomes |
//! | --- | --- |
//! | the docstore's id | id |
//! | `page_content` | text |
//! | `metadata` | metadata, in its order |
//!
//! Positions and vectors must match one to one. The store's settings (`distance_strategy`,
//! `normalize_L2`) are not saved: the metric is that of the index.

use super::pickle::json::{JsonWriter, insert};
use super::pickle::{Pickle, PickleValue, PythonClass};
use super::{VectorFile, VectorFormat};
use crate::error::{Error, Place, Result};
use memmap2::Mmap;
use serde_json::Map;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use warpseek_ingest::{
    DEFAULT_MAX_RECORD_BYTES, Document, NON_FINITE, NoteKind, ReadNotes, check_id, shown,
};

/// The name of the index that `save_local` uses if none is given.
pub const DEFAULT_INDEX_NAME: &str = "index";

/// Limit on the documents of a store, spelled out, in bytes: this, and [`SPELLED_PER_BYTE`] for
/// each byte of the pickle. Values may be shared by many documents, but no store repeats them so
/// often.
const SPELLED_BYTES: u64 = 64 << 20;
const SPELLED_PER_BYTE: u64 = 256;

/// Fields of a document that are no content: the state of an old text search, and the arguments
/// it was made of.
const NO_CONTENT: [&str; 4] = ["type", "lookup_str", "lookup_index", "lc_kwargs"];

/// The parts of a document's state beside its fields, of pydantic 1 and 2.
const NO_FIELDS: [&str; 5] = [
    "__fields_set__",
    "__private_attribute_values__",
    "__pydantic_extra__",
    "__pydantic_fields_set__",
    "__pydantic_private__",
];

/// A vector store: vectors, and a document for each.
#[derive(Debug)]
pub struct LangchainStore {
    /// The vectors, in the order of the index.
    pub vectors: VectorFile,
    /// Their documents, in the same order.
    pub documents: LangchainDocuments,
    /// Values that became null, and documents that are left out.
    pub notes: ReadNotes,
}

/// The documents of a store, in the order of its vectors.
#[derive(Debug)]
pub struct LangchainDocuments {
    name: String,
    pickle: Pickle,
    documents: Vec<PickledDocument>,
    next: usize,
}

/// The parts of a document in the pickle.
#[derive(Debug, Clone, Copy)]
struct PickledDocument {
    id: PickleValue,
    text: PickleValue,
    metadata: PickleValue,
}

/// Reads a vector store from the folder that `save_local(folder, index_name)` wrote. All documents
/// are checked at once.
///
/// # Errors
///
/// [`Error::Usage`] if the folder holds no such store, [`Error::Io`] if it cannot be read,
/// [`Error::Input`] if vectors and documents do not belong together, if the pickle has an opcode
/// or a class that is not known, and for a document that cannot be stored, by its id and field.
pub fn open(folder: &Path, index_name: &str) -> Result<LangchainStore> {
    let (index, pickle) = paths(folder, index_name)?;
    let vectors = VectorFile::open(&index, Some(VectorFormat::Faiss))?;
    let file = File::open(&pickle).map_err(Error::io("open", &pickle))?;
    let name = pickle.display().to_string();
    if file.metadata().map_err(Error::io("read", &pickle))?.len() == 0 {
        return Err(Error::input(Place::file(name), "the file is empty: save the store again"));
    }
    // SAFETY: the file is only read. As with every mapped file, the process is interrupted if the
    // user truncates the file meanwhile.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", &pickle))?;
    let id = |row| vectors.id(row).unwrap_or(i64::try_from(row).unwrap_or(i64::MAX));
    let notes = ReadNotes::default();
    let documents = documents(&name, Box::new(map), vectors.n_rows(), &id, &notes)?;
    Ok(LangchainStore { vectors, documents, notes })
}

impl LangchainDocuments {
    /// The name of the file of the documents.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Spells out a document. `left` is the size that all documents together may still have.
    fn document(
        &self,
        stored: PickledDocument,
        left: &mut u64,
        notes: Option<&ReadNotes>,
    ) -> Result<Document> {
        let limit = DEFAULT_MAX_RECORD_BYTES.min(*left);
        let mut writer = JsonWriter { pickle: &self.pickle, left: limit, nulls: 0 };
        let file = || Place::file(self.name.as_str());
        let id = writer
            .key(stored.id)
            .map_err(|reason| Error::input(file(), format!("the id of a document: {reason}")))?;
        let place = Place::record(self.name.as_str(), format!("document '{}'", shown(&id)));
        check_id(&id, &place)?;
        let at = |field: &str| place.clone().field(shown(field));
        let text = writer
            .text(stored.text)
            .map_err(|reason| Error::input(at("page_content"), reason))?
            .to_owned();
        let mut metadata = Map::new();
        let entries = self.pickle.dict(stored.metadata).ok_or_else(|| {
            let kind = self.pickle.kind(stored.metadata);
            Error::input(at("metadata"), format!("must be a dict, found {kind}"))
        })?;
        for &(key, value) in entries {
            let key = writer.key(key).map_err(|reason| Error::input(at("metadata"), reason))?;
            if key.is_empty() {
                let reason = "a field without a name: name it before the store is saved";
                return Err(Error::input(at("metadata"), reason));
            }
            writer.nulls = 0;
            let value = writer.value(value).map_err(|reason| Error::input(at(&key), reason))?;
            if let Some(notes) = notes
                && writer.nulls > 0
            {
                notes.add(&self.name, &key, NoteKind::Null, NON_FINITE, writer.nulls);
            }
            insert(&mut metadata, key, value)
                .map_err(|reason| Error::input(at("metadata"), reason))?;
        }
        *left = left.saturating_sub(limit - writer.left);
        Ok(Document { metadata, ..Document::new(id, text, place) })
    }
}

impl Iterator for LangchainDocuments {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = *self.documents.get(self.next)?;
        self.next += 1;
        let mut left = u64::MAX;
        Some(self.document(stored, &mut left, None))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.documents.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for LangchainDocuments {}

/// The two files of a store.
fn paths(folder: &Path, index_name: &str) -> Result<(PathBuf, PathBuf)> {
    let path = |extension: &str| folder.join(format!("{index_name}.{extension}"));
    let (index, pickle) = (path("faiss"), path("pkl"));
    if index.is_file() && pickle.is_file() {
        return Ok((index, pickle));
    }
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map_err(Error::io("read", folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "faiss"))
        .filter(|path| path.with_extension("pkl").is_file())
        .filter_map(|path| Some(format!("'{}'", shown(path.file_stem()?.to_str()?))))
        .collect();
    names.sort();
    names.truncate(10);
    let cure = if !names.is_empty() {
        format!("choose one of those here with --index-name: {}", names.join(", "))
    } else if index.is_file() {
        format!("to import the vectors alone, name the file {}", index.display())
    } else {
        "a folder is imported if LangChain's save_local wrote it; else name a file of vectors"
            .to_owned()
    };
    let (folder, name) = (folder.display(), shown(index_name));
    Err(Error::usage(format!(
        "{folder}: no vector store here, which would be {name}.faiss and {name}.pkl: {cure}"
    )))
}

/// Reads the documents from a pickle: one for each of the vectors, whose numbers `id` gives.
fn documents(
    name: &str,
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    n_rows: usize,
    id: &dyn Fn(usize) -> i64,
    notes: &ReadNotes,
) -> Result<LangchainDocuments> {
    let refused = |reason: String| Error::input(Place::file(name), reason);
    let pickle = Pickle::read(bytes).map_err(|reason| {
        refused(format!(
            "{reason}. Nothing in it was executed. Make such values text or numbers and save the \
             store again with a current LangChain, or write the documents as jsonl in the order of \
             the index, and import the .faiss file with --documents"
        ))
    })?;
    let (docstore, positions) = parts(&pickle).map_err(|kind| {
        refused(format!(
            "this is not the store of a FAISS index by LangChain, which holds an InMemoryDocstore \
             and a dict of positions; found {kind}: name the folder that save_local wrote"
        ))
    })?;
    let ids = ids_of_rows(&pickle, positions, n_rows, id).map_err(refused)?;

    let mut known: HashMap<DocstoreKey<'_>, usize> = HashMap::with_capacity(docstore.len());
    for (at, (id, _)) in docstore.iter().enumerate() {
        let key = DocstoreKey::of(&pickle, *id).ok_or_else(|| {
            refused(format!("an id of the docstore is {}: ids must be text", pickle.kind(*id)))
        })?;
        if known.insert(key, at).is_some() {
            return Err(refused(format!("the docstore has the id {key} twice: it is damaged")));
        }
    }
    let mut used = vec![false; docstore.len()];
    let mut stored = Vec::with_capacity(n_rows);
    let mut n_other_ids = 0;
    for (row, id) in ids.into_iter().enumerate() {
        let key = DocstoreKey::of(&pickle, id).ok_or_else(|| {
            refused(format!("vector {row} has {} as its id: ids must be text", pickle.kind(id)))
        })?;
        let Some(&at) = known.get(&key) else {
            return Err(refused(format!(
                "vector {row} has the id {key}, and the docstore has no such document: save the \
                 store again after deleting that id, or import the .faiss file with --documents"
            )));
        };
        if std::mem::replace(&mut used[at], true) {
            return Err(refused(format!(
                "vector {row} has the id {key}, which another vector has too: make ids unique"
            )));
        }
        let fields = fields(&pickle, docstore[at].1)
            .map_err(|reason| refused(format!("document {key}: {reason}")))?;
        n_other_ids += u64::from(
            fields.id != PickleValue::None && DocstoreKey::of(&pickle, fields.id) != Some(key),
        );
        stored.push(PickledDocument { id, text: fields.text, metadata: fields.metadata });
    }
    let n_unused = used.iter().filter(|used| !**used).count() as u64;
    if n_unused > 0 {
        let reason = "documents of the docstore that no vector belongs to";
        notes.add(name, "", NoteKind::Omitted, reason, n_unused);
    }
    if n_other_ids > 0 {
        let reason = "ids of documents that are not their ids in the docstore, which are taken";
        notes.add(name, "id", NoteKind::Omitted, reason, n_other_ids);
    }
    let mut left = SPELLED_BYTES + SPELLED_PER_BYTE * pickle.n_bytes() as u64;
    drop(known);
    let documents =
        LangchainDocuments { name: name.to_owned(), pickle, documents: stored, next: 0 };
    for stored in &documents.documents {
        documents.document(*stored, &mut left, Some(notes))?;
    }
    Ok(documents)
}

type Entries<'a> = &'a [(PickleValue, PickleValue)];

/// The docstore's documents, and the positions; or what was found instead.
fn parts(pickle: &Pickle) -> Result<(Entries<'_>, Entries<'_>), String> {
    let root = pickle.root();
    let Some(&[docstore, positions]) = pickle.tuple(root) else { return Err(pickle.kind(root)) };
    let store = pickle.instance(docstore).filter(|i| i.class == PythonClass::Docstore);
    let Some(store) = store else { return Err(pickle.kind(docstore)) };
    let state = pickle.dict(store.state).ok_or_else(|| pickle.kind(store.state))?;
    let &[(key, documents)] = state else { return Err(format!("{} fields", state.len())) };
    if pickle.text(key) != Some("_dict") {
        return Err("a docstore without documents".to_owned());
    }
    let documents = pickle.dict(documents).ok_or_else(|| pickle.kind(documents))?;
    Ok((documents, pickle.dict(positions).ok_or_else(|| pickle.kind(positions))?))
}

/// The docstore's ids in the order of the vectors.
fn ids_of_rows(
    pickle: &Pickle,
    positions: Entries<'_>,
    n_rows: usize,
    id: &dyn Fn(usize) -> i64,
) -> Result<Vec<PickleValue>, String> {
    let mut by_position = HashMap::with_capacity(positions.len());
    for (position, id) in positions {
        let PickleValue::Int(number) = *position else {
            let kind = pickle.kind(*position);
            return Err(format!("a position is {kind}: positions must be integers"));
        };
        if by_position.insert(number, *id).is_some() {
            return Err(format!("the position {number} occurs twice: the pickle is damaged"));
        }
    }
    let unequal = |found: String| {
        // LangChain adds vectors first. If it then refuses their ids, the vectors stay, and the
        // documents that are added later stand one position before their own.
        let cause = match n_rows > positions.len() {
            true => {
                "an `add` with an id that existed leaves such vectors behind, and gives those \
                 after them the wrong documents. Make the store again from its documents"
            }
            false => "the two files were not saved together. Save the store again",
        };
        let n = positions.len();
        format!(
            "the index holds {n_rows} vectors, the pickle names {n} positions, {found}: {cause}"
        )
    };
    let mut ids = Vec::with_capacity(n_rows.min(positions.len()));
    for row in 0..n_rows {
        let position = id(row);
        let missing = || unequal(format!("and none is the position {position} of vector {row}"));
        ids.push(by_position.remove(&position).ok_or_else(missing)?);
    }
    match by_position.keys().min() {
        None => Ok(ids),
        Some(position) => Err(unequal(format!("and no vector is at the position {position}"))),
    }
}

/// The fields of a document.
struct DocumentFields {
    text: PickleValue,
    metadata: PickleValue,
    id: PickleValue,
}

fn fields(pickle: &Pickle, document: PickleValue) -> Result<DocumentFields, String> {
    let other = || format!("it is not a Document but {}", pickle.kind(document));
    let instance = pickle.instance(document).filter(|i| i.class == PythonClass::Document);
    let state = pickle.dict(instance.ok_or_else(other)?.state).ok_or("it has no fields")?;
    let mut own = None;
    for (key, value) in state {
        match pickle.text(*key) {
            Some("__dict__") => own = pickle.dict(*value),
            Some(key) if NO_FIELDS.contains(&key) => {}
            key => return Err(unknown_field(key)),
        }
    }
    let (mut text, mut id) = (None, PickleValue::None);
    let mut metadata = None;
    for (key, value) in own.ok_or("it has no fields")? {
        match pickle.text(*key) {
            Some("page_content") => text = Some(*value),
            Some("metadata") => metadata = Some(*value),
            Some("id") => id = *value,
            Some(key) if NO_CONTENT.contains(&key) => {}
            key => return Err(unknown_field(key)),
        }
    }
    let text = text.ok_or("it has no page_content")?;
    let metadata = metadata.ok_or("it has no metadata")?;
    Ok(DocumentFields { text, metadata, id })
}

fn unknown_field(key: Option<&str>) -> String {
    let key = key.map_or_else(|| "one whose name is not text".to_owned(), shown);
    format!("it has an unknown field: {key}. Move it to the metadata, and save the store again")
}

/// An id that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum DocstoreKey<'a> {
    Text(&'a str),
    Int(i64),
}

impl<'a> DocstoreKey<'a> {
    fn of(pickle: &'a Pickle, value: PickleValue) -> Option<Self> {
        match value {
            PickleValue::Int(number) => Some(DocstoreKey::Int(number)),
            value => pickle.text(value).map(DocstoreKey::Text),
        }
    }
}

impl std::fmt::Display for DocstoreKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DocstoreKey::Text(text) => write!(f, "'{}'", shown(text)),
            DocstoreKey::Int(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests;
