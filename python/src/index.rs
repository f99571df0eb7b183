//! The class `Index`: its methods take Python's arguments and call `reading` and `writing`.

use crate::answer::PyPrompt;
use crate::array::{Matrix, WithVectors, rows};
use crate::batch::{self, BatchArguments};
use crate::call::{Stop, direct, run, run_short, run_waiting};
use crate::engine::EngineSettings;
use crate::error::{OrRaise, usage};
use crate::evaluation;
use crate::opened::{Needs, SharedIndex};
use crate::reading::{self, SearchArguments};
use crate::records::{FieldNames, RecordSource};
use crate::values::to_python;
use crate::writing::{self, Imported};
use numpy::PyReadonlyArray2;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use warpseek::engine::{ChunkOptions, manifest_for};
use warpseek::error::Error;
use warpseek::indexing::base_of;
use warpseek::ingest::chunk::Chunking;
use warpseek::ingest::{self, FieldMap, ReadOptions};
use warpseek::store::filter::Filter;
use warpseek::store::{
    FieldTypes, Index as Snapshot, IndexManifest, IndexMetric, IndexWriter, Language,
};
use warpseek::topk::layout::MAX_DIM;

/// An index folder with the models that it needs. Threads may share it.
#[pyclass(name = "Index", module = "warpseek._warpseek", frozen)]
pub(crate) struct PyIndex(pub(crate) SharedIndex);

#[pymethods]
impl PyIndex {
    /// Opens the index in a folder.
    #[new]
    fn new(
        py: Python<'_>,
        dir: PathBuf,
        model: Option<String>,
        reranker: Option<String>,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let engine = settings.engine()?;
        direct(py, || SharedIndex::open_dir(dir, engine, model, reranker)).map(Self)
    }

    /// Creates an empty index of documents that a model embeds, or of vectors of `dim` dimensions,
    /// and opens it. Without a metric that of the model, or the inner product of given vectors.
    /// `truncate_dim` keeps the first dimensions of the model's vectors.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)]
    fn create(
        py: Python<'_>,
        dir: PathBuf,
        model: Option<String>,
        dim: Option<usize>,
        truncate_dim: Option<usize>,
        embeds: bool,
        metric: Option<&str>,
        chunking: (Option<usize>, Option<usize>, bool),
        language: Option<String>,
        exist_ok: bool,
        reranker: Option<String>,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let engine = settings.engine()?;
        let metric = metric.map(writing::metric_of).transpose()?;
        let create = |_: &Stop, pool: &ThreadPool| {
            if !exist_ok && dir.join("manifest.json").exists() {
                return Err(Error::usage(format!(
                    "{} holds an index already: open it with Index.open, or pass exist_ok=True",
                    dir.display()
                )));
            }
            let language = language.as_deref().map(str::parse::<Language>).transpose()?;
            let (max_tokens, overlap, split_records) = chunking;
            let (manifest, embedder) = match dim.filter(|_| !embeds) {
                Some(dim) => {
                    let known = IndexManifest::find(&dir)?.map(|known| known.metric);
                    let metric = metric.or(known).unwrap_or(IndexMetric::InnerProduct);
                    let manifest = IndexManifest::new(dim, None, Chunking::default());
                    (manifest.with_metric(metric), None)
                }
                None => {
                    let model = engine.model_name(model.as_deref());
                    engine.get_or_download(model)?;
                    let opened =
                        pool.install(|| engine.index_embedder(model, Some(&dir), truncate_dim))?;
                    if let Some(metric) = metric.filter(|metric| *metric != opened.metric) {
                        let (name, own) = (metric.name(), opened.metric.name());
                        return Err(Error::usage(format!(
                            "metric is \"{name}\", and {model} is compared by \"{own}\": leave \
                             metric out"
                        )));
                    }
                    let made = opened.embedder.dim();
                    if let Some(dim) = dim.filter(|dim| *dim != made) {
                        let reason =
                            format!("dim is {dim}, and {model} makes {made}: leave dim out");
                        return Err(Error::usage(reason));
                    }
                    let chunks = ChunkOptions { max_tokens, overlap, split_records };
                    (manifest_for(&opened, chunks)?, Some(Arc::new(opened.embedder)))
                }
            };
            if let Some(dim) = dim.filter(|dim| *dim > MAX_DIM) {
                return Err(Error::usage(format!("dim is {dim}: at most {MAX_DIM} are supported")));
            }
            IndexWriter::open_or_create(&dir, &manifest.with_language(language))?.commit()?;
            let index = SharedIndex::open_dir(dir, Arc::clone(&engine), None, reranker)?;
            index.keep_embedder(embedder);
            Ok(Self(index))
        };
        run_waiting(py, create, |_| true, |_, _| Ok(()))
    }

    /// The model's name; none for imported vectors.
    #[getter]
    fn model_name(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let index = direct(py, || self.0.snapshot())?;
        Ok(index.manifest().model.as_ref().map(|stamp| stamp.name.clone()))
    }

    /// The metric by which the index ranks, `cosine` or `inner_product`.
    #[getter]
    fn metric(&self, py: Python<'_>) -> PyResult<&'static str> {
        Ok(direct(py, || self.0.snapshot())?.manifest().metric.name())
    }

    /// Dimensions of a vector.
    #[getter]
    fn dim(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(direct(py, || self.0.snapshot())?.manifest().dim)
    }

    /// Statistics and settings of the index.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = run(py, |_| reading::stats(&*self.0.snapshot()?))?;
        to_python(py, &stats)
    }

    /// The metadata fields with the numbers of their values by type.
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let index = direct(py, || self.0.snapshot())?;
        let fields: BTreeMap<&str, &FieldTypes> = index.fields().iter().collect();
        to_python(py, &fields)
    }

    /// Searches by words, ranked by BM25.
    fn search_bm25<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        k: usize,
        filter: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = run(py, |stop| {
            let filter = filter.as_deref().map(Filter::parse).transpose()?;
            let searcher = self.0.searcher(Needs::default(), stop)?;
            searcher.search_lexical(text, k, filter.as_ref())
        })?;
        to_python(py, &found)
    }

    /// The number of live documents, or of live rows that pass a filter.
    fn count(&self, py: Python<'_>, filter: Option<String>) -> PyResult<u64> {
        run(py, |_| reading::count(&*self.0.snapshot()?, filter.as_deref()))
    }

    /// True if the index has a document or a row of this id.
    fn contains(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        direct(py, || Ok(!self.0.snapshot()?.rows_of(id)?.is_empty()))
    }

    /// Rows with their texts, and their vectors if asked for: those of ids, those that pass a
    /// filter, or all.
    #[allow(clippy::too_many_arguments)]
    fn get<'py>(
        &self,
        py: Python<'py>,
        ids: Option<Vec<String>>,
        filter: Option<String>,
        offset: usize,
        limit: Option<usize>,
        with_vectors: bool,
    ) -> PyResult<WithVectors<'py>> {
        let index = direct(py, || self.0.snapshot())?;
        let numbers = run(py, |_| {
            let found = reading::find(&index, ids.as_deref(), filter.as_deref())?;
            let end = limit.map_or(found.len(), |limit| offset.saturating_add(limit));
            Ok(found.get(offset..end.min(found.len())).unwrap_or_default().to_vec())
        })?;
        rows_with_vectors(py, &index, &numbers, with_vectors)
    }

    /// Rows of these numbers with their texts, and their vectors if asked for.
    fn rows<'py>(
        &self,
        py: Python<'py>,
        numbers: Vec<u32>,
        with_vectors: bool,
    ) -> PyResult<WithVectors<'py>> {
        let index = direct(py, || self.0.snapshot())?;
        rows_with_vectors(py, &index, &numbers, with_vectors)
    }

    /// The mapped rows, deleted ones included, as float16 `[n_rows, dim]`, without a copy.
    fn mapped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        reading::mapped(py, direct(py, || self.0.snapshot())?)
    }

    /// Searches for texts, for vectors `[n, dim]`, or for vectors with their texts. Returns the
    /// results, and the vectors of all hits if asked for.
    fn search<'py>(
        &self,
        py: Python<'py>,
        texts: Option<Vec<String>>,
        vectors: Option<PyReadonlyArray2<'py, f32>>,
        options: SearchArguments,
        with_vectors: bool,
    ) -> PyResult<WithVectors<'py>> {
        let dim = direct(py, || self.0.snapshot())?.manifest().dim;
        let vectors = vectors.map(|array| rows(&array, dim)).transpose()?;
        let n = vectors.as_ref().map_or(texts.as_ref().map_or(0, Vec::len), |rows| rows.n);
        let is_short = options.reranker(texts.is_some()).is_none()
            && self.0.is_short(n, vectors.is_none(), options.reads_database());
        let work = |stop: &Stop| reading::search(&self.0, texts, vectors, &options, stop);
        let (index, results) = match is_short {
            true => run_short(py, work)?,
            false if self.0.is_remote() => {
                run_waiting(py, |stop, _| work(stop), |_| true, |_, _| Ok(()))?
            }
            false => run(py, work)?,
        };
        let found = to_python(py, &results)?;
        if !with_vectors {
            return Ok((found, None));
        }
        let hits = results.iter().flat_map(|result| &result.hits);
        let numbers: Vec<u32> = hits.map(|hit| hit.row).collect();
        Ok((found, Some(vectors_of(py, &index, &numbers)?)))
    }

    /// Scores `[n, k]` and row numbers `[n, k]` of query vectors `[n, dim]`.
    fn search_vectors<'py>(
        &self,
        py: Python<'py>,
        queries: PyReadonlyArray2<'py, f32>,
        k: usize,
        filter: Option<String>,
    ) -> PyResult<(Matrix<'py, f32>, Matrix<'py, i64>)> {
        let dim = direct(py, || self.0.snapshot())?.manifest().dim;
        let queries = rows(&queries, dim)?;
        let is_short = self.0.is_short(queries.n, false, filter.is_some());
        let work =
            |stop: &Stop| reading::search_vectors(&self.0, &queries, k, filter.as_deref(), stop);
        let (scores, rows) = if is_short { run_short(py, work)? } else { run(py, work)? };
        Ok((crate::array::matrix(py, scores, k)?, crate::array::matrix(py, rows, k)?))
    }

    /// Compares the retrieval order with the reranked one.
    fn compare<'py>(
        &self,
        py: Python<'py>,
        query: &str,
        depth: usize,
        show: usize,
        options: SearchArguments,
    ) -> PyResult<Bound<'py, PyAny>> {
        let comparison =
            run(py, |stop| reading::compare(&self.0, query, (depth, show), &options, stop))?;
        to_python(py, &comparison)
    }

    /// Answers the queries of a file into a file. Returns the report.
    fn batch<'py>(
        &self,
        py: Python<'py>,
        files: BatchArguments,
        options: SearchArguments,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        batch::run(py, &self.0, &files, &options, progress)
    }

    /// Evaluates the index on judged queries.
    #[allow(clippy::too_many_arguments)]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        queries: Bound<'py, PyAny>,
        qrels: Bound<'py, PyAny>,
        measures: Vec<String>,
        depth: usize,
        rerank_depth: usize,
        options: SearchArguments,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        evaluation::evaluate(
            py,
            &self.0,
            (&queries, &qrels),
            &measures,
            (depth, rerank_depth),
            &options,
            progress,
        )
    }

    /// Searches for a question and fills the prompt of a chat model with the hits.
    fn prompt<'py>(
        &self,
        py: Python<'py>,
        question: &str,
        passage_tokens: usize,
        template: Option<String>,
        options: SearchArguments,
    ) -> PyResult<(Bound<'py, PyAny>, PyPrompt)> {
        let (found, prompt) = run(py, |stop| {
            crate::answer::prompt(&self.0, question, passage_tokens, template, &options, stop)
        })?;
        Ok((to_python(py, &found)?, PyPrompt::new(prompt)))
    }

    /// Adds records of an iterator. Returns the report.
    #[allow(clippy::too_many_arguments)]
    fn add<'py>(
        &self,
        py: Python<'py>,
        records: Bound<'py, PyAny>,
        fields: FieldNames,
        vectors: Option<PyReadonlyArray2<'py, f32>>,
        normalize: bool,
        on_error: &str,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_not_feeding().or_raise()?;
        let dim = direct(py, || self.0.snapshot())?.manifest().dim;
        let vectors = vectors.map(|array| rows(&array, dim)).transpose()?;
        let source = RecordSource::new(&records, fields, vectors.is_some())?;
        match vectors {
            None => writing::add(py, &self.0, source, on_error, progress),
            Some(_) if on_error != "raise" => {
                Err(usage("on_error=\"skip\" is for records without vectors"))
            }
            Some(vectors) => {
                writing::add_vectors(py, &self.0, source, vectors, normalize, progress)
            }
        }
    }

    /// Adds the documents of files and folders. Returns the report.
    fn add_files<'py>(
        &self,
        py: Python<'py>,
        paths: Vec<PathBuf>,
        options: writing::FileOptions,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_not_feeding().or_raise()?;
        writing::add_files(py, &self.0, &paths, options, progress)
    }

    /// Brings the index up to date with the files and folders that it has read. Returns the report.
    fn sync<'py>(
        &self,
        py: Python<'py>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_not_feeding().or_raise()?;
        writing::sync(py, &self.0, progress)
    }

    /// Deletes the documents of ids, and those that pass a filter. Returns their number.
    fn delete(&self, py: Python<'_>, ids: Vec<String>, filter: Option<String>) -> PyResult<u64> {
        self.0.check_not_feeding().or_raise()?;
        let delete =
            |stop: &Stop, _: &ThreadPool| writing::delete(&self.0, &ids, filter.as_deref(), stop);
        run_waiting(py, delete, |_| true, |_, _| Ok(()))
    }

    /// Removes deleted rows from the files.
    fn compact<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.check_not_feeding().or_raise()?;
        let compact = |stop: &Stop, _: &ThreadPool| writing::compact(&self.0, stop);
        let compaction = run_waiting(py, compact, |_| true, |_, _| Ok(()))?;
        to_python(py, &compaction)
    }

    /// Checks the files, and that `sample` searches are exact. Returns the findings.
    fn verify<'py>(&self, py: Python<'py>, sample: usize) -> PyResult<Bound<'py, PyAny>> {
        let findings = run(py, |stop| reading::verify(&self.0, sample, stop))?;
        to_python(py, &findings)
    }

    /// Takes up what other processes committed. True if anything was.
    fn refresh(&self, py: Python<'_>) -> PyResult<bool> {
        direct(py, || self.0.reopen())
    }

    /// Closes the index. Nothing is lost: every change is committed when its call returns.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }

    /// Imports a vector file into a new index.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)]
    fn import_vectors<'py>(
        py: Python<'py>,
        file: PathBuf,
        into: PathBuf,
        document_file: Option<PathBuf>,
        documents: Option<Bound<'py, PyAny>>,
        ids: Option<Vec<String>>,
        fields: FieldNames,
        model: Option<String>,
        normalize: bool,
        language: Option<String>,
        metric: Option<&str>,
        settings: EngineSettings,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = settings.engine()?;
        let ranking = writing::Ranking::of(metric, normalize)?;
        let (documents, map) = match documents {
            Some(records) => (
                Some(RecordSource::new(&records, fields, true)?.all(py, usize::MAX)?),
                FieldMap::default(),
            ),
            None => (None, fields.into()),
        };
        let import = |stop: &Stop, pool: &ThreadPool| {
            let documents = match &document_file {
                Some(file) => {
                    let base = Some(base_of(&into)?);
                    let options = ReadOptions { fields: map, base, ..ReadOptions::default() };
                    Some(ingest::open(std::slice::from_ref(file), &options)?.collect())
                }
                None => documents,
            };
            let source = Imported::File(file, documents, ids);
            let model = model.as_deref();
            let language = language.as_deref();
            writing::import(&engine, source, &into, (model, language), ranking, (stop, pool))
        };
        to_python(py, &run_waiting(py, import, |_| true, |_, _| Ok(()))?)
    }

    /// Imports a store that LangChain saved into a new index.
    #[staticmethod]
    #[allow(clippy::too_many_arguments)]
    fn import_langchain<'py>(
        py: Python<'py>,
        folder: PathBuf,
        index_name: String,
        into: PathBuf,
        model: Option<String>,
        normalize: bool,
        language: Option<String>,
        metric: Option<&str>,
        settings: EngineSettings,
    ) -> PyResult<Bound<'py, PyAny>> {
        let engine = settings.engine()?;
        let ranking = writing::Ranking::of(metric, normalize)?;
        let source = Imported::Langchain(folder, index_name);
        let import = |stop: &Stop, pool: &ThreadPool| {
            let model = model.as_deref();
            let language = language.as_deref();
            writing::import(&engine, source, &into, (model, language), ranking, (stop, pool))
        };
        to_python(py, &run_waiting(py, import, |_| true, |_, _| Ok(()))?)
    }
}

fn rows_with_vectors<'py>(
    py: Python<'py>,
    index: &Snapshot,
    numbers: &[u32],
    with_vectors: bool,
) -> PyResult<WithVectors<'py>> {
    let rows = run(py, |_| reading::rows(index, numbers))?;
    let vectors = with_vectors.then(|| vectors_of(py, index, numbers)).transpose()?;
    Ok((to_python(py, &rows)?, vectors))
}

fn vectors_of<'py>(
    py: Python<'py>,
    index: &Snapshot,
    numbers: &[u32],
) -> PyResult<Matrix<'py, f32>> {
    let values = run(py, |_| reading::vectors(index, numbers))?;
    crate::array::matrix(py, values, index.manifest().dim)
}
