//! Records of a Python iterator as documents, made on the calling thread and passed to another.

use crate::call::Stop;
use crate::error::usage;
use crate::values::{Converter, Replaced, type_name};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyTuple};
use serde_json::Value;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use warpseek::error::{Error, Result};
use warpseek::ingest::{Document, FieldMap, NON_FINITE, NoteKind, ReadNotes, RecordParts, Records};

/// Records that are made at a time, with the GIL.
const BATCH: usize = 128;

/// Batches that wait to be indexed.
const MAX_WAITING: usize = 8;

/// Time between two looks at Ctrl+C while the other thread is busy.
const TICK: Duration = Duration::from_millis(20);

type JsonObject = serde_json::Map<String, Value>;

/// Documents, or errors about records.
pub(crate) type Batch = Vec<Result<Document>>;

/// Makes documents of a Python iterator. An item is a mapping, whose fields get their roles by
/// name; a pair of a mapping and the metadata to keep; or a tuple `(id, text, title, metadata)`.
pub(crate) struct RecordSource {
    iterator: Py<PyIterator>,
    records: Records,
    /// An exception that is no error about a record, such as KeyboardInterrupt.
    exception: Option<PyErr>,
}

/// Names of the fields with id, text and title, and of the metadata to keep.
#[derive(Debug, Default, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct FieldNames {
    pub(crate) id: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) metadata: Option<Vec<String>>,
}

impl RecordSource {
    pub(crate) fn new(
        records: &Bound<'_, PyAny>,
        fields: FieldNames,
        has_vectors: bool,
    ) -> PyResult<Self> {
        let FieldNames { id, text, title, metadata } = fields;
        let iterator = records.try_iter().map_err(|_| {
            let found = type_name(records);
            usage(format!("records must be iterable, found {found}: pass a list of dicts"))
        })?;
        let map = FieldMap { id, text, title, metadata };
        let records = Records::new("records", map, has_vectors);
        Ok(Self { iterator: iterator.unbind(), records, exception: None })
    }

    /// Notes on the records so far; a clone goes on with them.
    pub(crate) fn notes(&self) -> ReadNotes {
        self.records.notes().clone()
    }

    /// The next documents; none at the end.
    ///
    /// # Errors
    ///
    /// An exception of the iterator.
    pub(crate) fn next_batch(&mut self, py: Python<'_>) -> PyResult<Batch> {
        let mut batch = Batch::with_capacity(BATCH);
        while batch.len() < BATCH {
            let Some(item) = self.iterator.bind(py).clone().next() else { break };
            let document = self.document(&item?);
            match self.exception.take() {
                Some(exception) => return Err(exception),
                None => batch.push(document),
            }
        }
        Ok(batch)
    }

    /// All documents, but not much more than `expected`.
    ///
    /// # Errors
    ///
    /// An exception of the iterator.
    pub(crate) fn all(mut self, py: Python<'_>, expected: usize) -> PyResult<Batch> {
        let mut all = Batch::new();
        loop {
            let batch = self.next_batch(py)?;
            if batch.is_empty() || all.len() > expected {
                return Ok(all);
            }
            all.extend(batch);
            py.check_signals()?;
        }
    }

    fn document(&mut self, item: &Bound<'_, PyAny>) -> Result<Document> {
        let place = self.records.next_place();
        let mut replaced = Replaced::new();
        let mut exception = None;
        let (py, replaced_) = (item.py(), &mut replaced);
        let mut values =
            Converter { py, place: &place, replaced: replaced_, exception: &mut exception };
        let document = match item.cast::<PyTuple>() {
            Ok(pair) if pair.len() == 2 => match values.pair_of(pair) {
                Ok((record, metadata)) => {
                    let document = self.records.document(record);
                    document.map(|document| Document { metadata, ..document })
                }
                Err(e) => Err(self.skip(e)),
            },
            Ok(parts) => match values.parts(parts) {
                Ok(parts) => self.records.document_of(parts),
                Err(e) => Err(self.skip(e)),
            },
            Err(_) => match values.object(item) {
                Ok(record) => self.records.document(record),
                Err(e) => Err(self.skip(e)),
            },
        };
        self.exception = exception;
        for field in replaced {
            self.records.notes().add(self.records.name(), &field, NoteKind::Null, NON_FINITE, 1);
        }
        document
    }

    fn skip(&mut self, error: Error) -> Error {
        self.records.skip();
        error
    }
}

impl<'py> Converter<'_, 'py> {
    /// A record and the metadata to keep.
    fn pair_of(&mut self, pair: &Bound<'py, PyTuple>) -> Result<(JsonObject, JsonObject)> {
        type Pair<'a> = (Bound<'a, PyAny>, Bound<'a, PyAny>);
        let (record, metadata) =
            pair.extract::<Pair<'_>>().map_err(|e| self.fail("", e.to_string()))?;
        let record = self.object(&record)?;
        let is_none = metadata.is_none();
        let metadata = if is_none { JsonObject::new() } else { self.object(&metadata)? };
        Ok((record, metadata))
    }

    /// The parts of a record: `(id, text, title, metadata)`. The id is a string, an integer or
    /// None.
    fn parts(&mut self, parts: &Bound<'py, PyTuple>) -> Result<RecordParts> {
        type Parts<'a> = (Bound<'a, PyAny>, Bound<'a, PyAny>, Bound<'a, PyAny>, Bound<'a, PyAny>);
        let (id, text, title, metadata) = parts
            .extract::<Parts<'_>>()
            .map_err(|e| self.fail("", format!("(id, text, title, metadata) is needed: {e}")))?;
        let id = self.id(&id)?;
        let text = self.string(&text, "text")?;
        let title = if title.is_none() { String::new() } else { self.string(&title, "title")? };
        let metadata = match metadata.is_none() {
            true => serde_json::Map::new(),
            false => self.object(&metadata)?,
        };
        Ok(RecordParts { id, text, title, metadata })
    }

    fn id(&mut self, id: &Bound<'py, PyAny>) -> Result<Option<String>> {
        match self.value(id, "id", 1)? {
            Value::Null => Ok(None),
            Value::String(id) => Ok(Some(id)),
            Value::Number(id) if !id.is_f64() => Ok(Some(id.to_string())),
            _ => {
                let found = type_name(id);
                let reason = format!("an id must be a string or an integer, found {found}: {id}");
                Err(self.fail("id", reason))
            }
        }
    }

    fn string(&mut self, text: &Bound<'py, PyAny>, field: &str) -> Result<String> {
        match self.value(text, field, 1)? {
            Value::String(text) => Ok(text),
            _ => {
                let reason = format!("the {field} must be a string, found {}", type_name(text));
                Err(self.fail(field, reason))
            }
        }
    }
}

/// Sends the documents of `source` until its end, an exception, or the end of the receiver.
pub(crate) fn send(
    mut source: RecordSource,
    sender: SyncSender<Batch>,
    stop: &Stop,
    mut tick: impl FnMut(Python<'_>) -> PyResult<()>,
) -> PyResult<()> {
    loop {
        let mut batch = Python::attach(|py| {
            py.check_signals()?;
            tick(py)?;
            source.next_batch(py)
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        loop {
            match sender.try_send(batch) {
                Ok(()) => break,
                // The other thread has failed, and returns why.
                Err(TrySendError::Disconnected(_)) => return Ok(()),
                Err(TrySendError::Full(unsent)) => {
                    batch = unsent;
                    std::thread::sleep(TICK);
                    Python::attach(|py| {
                        py.check_signals()?;
                        tick(py)
                    })?;
                }
            }
            if stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

/// A channel for batches of documents.
pub(crate) fn channel() -> (SyncSender<Batch>, Receiver<Batch>) {
    sync_channel(MAX_WAITING)
}
