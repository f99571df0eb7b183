//! Indexing on several machines: what the process that plans does, and those that make shards.

use crate::call::{Stop, report, run_waiting};
use crate::engine::EngineSettings;
use crate::error::{OrRaise, raised, usage};
use crate::values::to_python;
use crate::writing::FileOptions;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rayon::ThreadPool;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use warpseek::engine::{ChunkOptions, IndexEmbedder, manifest_for};
use warpseek::error::{Error, Result};
use warpseek::indexing::{
    self, IndexOptions, IndexReport, InputPart, InputSettings, OnError, base_of,
};
use warpseek::ingest::{self, ExtractOptions, ListedFile, ReadOptions};
use warpseek::store::{IndexManifest, Language, ShardFolder, ShardSummary, UnfinishedRun};

/// Options of reading, with the action for a record that cannot be used.
fn reading(settings: &InputSettings, base: &std::path::Path) -> PyResult<(ReadOptions, OnError)> {
    let read = settings.read_options(base, ExtractOptions::default()).or_raise()?;
    Ok((read, settings.on_error.unwrap_or(OnError::Stop)))
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json)
        .map_err(|e| Error::usage(format!("a message between processes cannot be read: {e}")))
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::usage(format!("a message between processes cannot be written: {e}")))
}

/// Lists the files of inputs. `into` is the folder of the shards, whose parent is where relative
/// names in ids start. Returns a JSON list of files, and a report of what was left out.
#[pyfunction]
pub(crate) fn list_files<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    options: FileOptions,
    into: PathBuf,
) -> PyResult<(String, Bound<'py, PyAny>)> {
    let (read, _) = reading(&options.settings()?, &base_of(&into).or_raise()?)?;
    let found = py.detach(|| {
        let documents = ingest::open(&paths, &read)?;
        let mut report = IndexReport::default();
        report.take_left_out(&documents);
        Ok((json(&documents.listed_files()?)?, report))
    });
    let (files, left_out) = found.map_err(raised)?;
    Ok((files, to_python(py, &left_out)?))
}

/// The file of an object of a store, as JSON. With `is_found` None stands for one of unknown type.
#[pyfunction]
pub(crate) fn list_object(address: &str, length: u64, is_found: bool) -> PyResult<Option<String>> {
    match ListedFile::of_object(address, length, is_found) {
        Ok(file) => json(&file).map(Some).or_raise(),
        Err(_) if is_found => Ok(None),
        Err(reason) => Err(usage(format!("{address}: {reason}"))),
    }
}

/// A listed file, for the plan.
#[derive(IntoPyObject)]
pub(crate) struct ListedFacts {
    name: String,
    length: u64,
    /// True if it may hold many records with ids of their own.
    has_records: bool,
    is_found: bool,
}

/// Facts about listed files, the columns in the names of folders that are texts, and the hashes of
/// the names of the files that are documents themselves.
#[pyfunction]
pub(crate) fn listed_facts(
    py: Python<'_>,
    files: &str,
) -> PyResult<(Vec<ListedFacts>, BTreeSet<String>, Py<PyBytes>)> {
    let files: Vec<ListedFile> = parsed(files).or_raise()?;
    let facts = files.iter().map(|file| ListedFacts {
        name: file.name.clone(),
        length: file.length,
        has_records: file.has_records(),
        is_found: file.is_found(),
    });
    let documents = files.iter().filter(|file| !file.has_records());
    let names = documents.flat_map(|file| {
        let of_parts = file.has_parts().then(|| format!("{}#", file.label));
        [Some(file.label.clone()), of_parts].into_iter().flatten()
    });
    let hashes: Vec<u8> = names.flat_map(|name| indexing::id_hash(&name).to_le_bytes()).collect();
    let bytes = PyBytes::new(py, &hashes).unbind();
    Ok((facts.collect(), ingest::text_columns_of(&files), bytes))
}

/// Hashes of 16 bytes each.
fn hashes(bytes: &[u8]) -> impl Iterator<Item = u128> {
    bytes.chunks_exact(16).map(|hash| u128::from_le_bytes(hash.try_into().unwrap_or_default()))
}

/// The number of records of each file of a part of the inputs, and the hashes of their ids.
/// `document_names` has the hashes of the names of the files that are documents themselves.
#[pyfunction]
pub(crate) fn record_ids(
    py: Python<'_>,
    part: &str,
    document_names: &[u8],
    options: FileOptions,
) -> PyResult<(Vec<u64>, Py<PyBytes>)> {
    let (read, on_error) = reading(&options.settings()?, ".".as_ref())?;
    let part: InputPart = parsed(part).or_raise()?;
    let names = hashes(document_names).collect();
    let work = |stop: &Stop, _: &ThreadPool| {
        let options = IndexOptions { on_error, stop: Some(stop), ..IndexOptions::default() };
        indexing::record_ids(&part, &names, &read, &options)
    };
    let found = run_waiting(py, work, |_| true, |_, _| Ok(()))?;
    let ids: Vec<u8> = found.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Ok((found.counts, PyBytes::new(py, &ids).unbind()))
}

/// The id and the place of a record of the only file of a part.
#[pyfunction]
pub(crate) fn record_at(
    py: Python<'_>,
    part: &str,
    number: usize,
    options: FileOptions,
) -> PyResult<(String, String)> {
    let (read, _) = reading(&options.settings()?, ".".as_ref())?;
    let part: InputPart = parsed(part).or_raise()?;
    let work = |_: &Stop, _: &ThreadPool| {
        let document = part.open(&read)?.nth(number).transpose()?.ok_or_else(|| {
            Error::usage("a file has changed while it was read: run the same command again")
        })?;
        Ok((document.id, document.place.to_string()))
    };
    run_waiting(py, work, |_| true, |_, _| Ok(()))
}

/// Pairs of places of records with the same id, each the number of a list of hashes and the place
/// in it: the first place of the id, and a later one.
#[pyfunction]
pub(crate) fn duplicate_ids(
    py: Python<'_>,
    lists: Vec<PyBackedBytes>,
) -> Vec<((usize, usize), (usize, usize))> {
    let found = py.detach(|| {
        let lists: Vec<Vec<u128>> = lists.iter().map(|list| hashes(list).collect()).collect();
        indexing::duplicate_ids(&lists)
    });
    found.into_iter().map(|[first, second]| (first, second)).collect()
}

/// The model of a process that makes shards, and how it reads and cuts texts.
#[pyclass(frozen)]
pub(crate) struct PartIndexer {
    model: IndexEmbedder,
    manifest: IndexManifest,
    read: ReadOptions,
    on_error: OnError,
}

#[pymethods]
impl PartIndexer {
    /// Opens the model.
    #[new]
    fn new(
        py: Python<'_>,
        model: (Option<String>, Option<usize>),
        chunks: (Option<usize>, Option<usize>, bool),
        language: Option<&str>,
        options: FileOptions,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let (read, on_error) = reading(&options.settings()?, ".".as_ref())?;
        let language = language.map(str::parse::<Language>).transpose().or_raise()?;
        let engine = settings.engine()?;
        let (max_tokens, overlap, split_records) = chunks;
        let work = |_: &Stop, pool: &ThreadPool| {
            let (model, dimensions) = model;
            let name = engine.model_name(model.as_deref());
            let model = pool.install(|| engine.index_embedder(name, None, dimensions))?;
            let chunks = ChunkOptions { max_tokens, overlap, split_records };
            let manifest = manifest_for(&model, chunks)?.with_language(language);
            Ok((model, manifest))
        };
        let (model, manifest) = run_waiting(py, work, |_| true, |_, _| Ok(()))?;
        Ok(Self { model, manifest, read, on_error })
    }

    /// Indexes a part of the inputs into the shard at `dir`, in a run of this key. `progress` is
    /// called with the number of rows and of documents that were there. Returns the report, and the
    /// summary as JSON, None without any document.
    fn index<'py>(
        &self,
        py: Python<'py>,
        dir: PathBuf,
        key: &str,
        part: &str,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<String>)> {
        let part: InputPart = parsed(part).or_raise()?;
        let (progress, done) = (progress.map(Bound::unbind), AtomicUsize::new(0));
        let work = |stop: &Stop, pool: &ThreadPool| {
            let (on_error, stop) = (self.on_error, &**stop);
            let options = IndexOptions {
                on_error,
                stop: Some(stop),
                threads: Some(pool),
                ..IndexOptions::default()
            };
            let model = (&self.model.embedder, &self.manifest);
            indexing::index_part((&dir, key), &part, &self.read, model, options, &mut |report| {
                done.store((report.rows + report.unchanged) as usize, Ordering::Relaxed);
                !stop.load(Ordering::Relaxed)
            })
        };
        let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
        let (report, summary) = run_waiting(py, work, |_| true, tick)?;
        let summary = summary.as_ref().map(json).transpose().or_raise()?;
        Ok((to_python(py, &report)?, summary))
    }
}

/// The folder of shards while they are made.
#[pyclass(frozen, name = "ShardFolder")]
pub(crate) struct PyShardFolder(Mutex<Option<ShardFolder>>);

impl PyShardFolder {
    fn with<T>(&self, work: impl FnOnce(&mut ShardFolder) -> Result<T>) -> PyResult<T> {
        let mut folder = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match folder.as_mut() {
            Some(folder) => work(folder).or_raise(),
            None => Err(usage("the shards are finished or closed")),
        }
    }
}

#[pymethods]
impl PyShardFolder {
    /// Opens the folder at `path`, to go on with shards that were begun, or to begin anew.
    #[new]
    fn new(path: PathBuf, restart: bool) -> PyResult<Self> {
        let unfinished = match restart {
            true => UnfinishedRun::Discard,
            false => UnfinishedRun::Continue,
        };
        Ok(Self(Mutex::new(Some(ShardFolder::open(&path, unfinished).or_raise()?))))
    }

    /// True if the unfinished run has written its list already.
    fn is_listed(&self) -> PyResult<bool> {
        self.with(|folder| Ok(folder.is_listed()))
    }

    /// The name of the folder of a shard.
    fn name(&self, number: usize) -> PyResult<String> {
        self.with(|folder| Ok(folder.name(number)))
    }

    /// Records the names of the shards that will be made, and keeps them for later runs.
    fn begin(&self, names: Vec<String>) -> PyResult<()> {
        self.with(|folder| {
            folder.begin(&names, names.len())?;
            folder.keep();
            Ok(())
        })
    }

    /// Removes what was begun, and begins anew.
    fn discard(&self) -> PyResult<()> {
        self.with(ShardFolder::discard)
    }

    /// Refuses a shard, by its summary, whose settings are not those of another one.
    fn check_same_settings(&self, first: &str, other: &str) -> PyResult<()> {
        self.with(|folder| {
            let (first, other): (ShardSummary, ShardSummary) = (parsed(first)?, parsed(other)?);
            first.check_same_settings(&other, folder.dir())
        })
    }

    /// The number format in which a shard was embedded, by its summary.
    #[staticmethod]
    fn precision(summary: &str) -> PyResult<Option<String>> {
        let summary: ShardSummary = parsed(summary).or_raise()?;
        Ok(summary.precision().map(str::to_owned))
    }

    /// Writes the list of shards, by their summaries. Returns the numbers of rows and documents,
    /// and the generation.
    fn finish(&self, shards: Vec<String>) -> PyResult<(u64, u64, u64)> {
        let shards: Result<Vec<ShardSummary>> = shards.iter().map(|shard| parsed(shard)).collect();
        let shards = shards.or_raise()?;
        let folder = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let folder = folder.ok_or_else(|| usage("the shards are finished or closed"))?;
        let list = folder.finish(&shards).or_raise()?;
        Ok((list.rows, list.documents, list.generation))
    }

    /// Gives up the lock.
    fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
