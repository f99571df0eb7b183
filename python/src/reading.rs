//! Calls of `Index` that read.

use crate::array::Rows;
use crate::call::{Stop, check};
use crate::opened::{Needs, SharedIndex};
use half::f16;
use numpy::PyArray2;
use numpy::ndarray::{ArrayView2, ShapeBuilder};
use pyo3::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use warpseek::compare::Comparison;
use warpseek::error::{Error, Result};
use warpseek::search::{
    DEFAULT_RERANK_DEPTH, Fusion, QueryInput, SearchOptions, SearchResult, Searcher,
};
use warpseek::store::filter::Filter;
use warpseek::store::{Finding, Index as Snapshot, Row, verify as verify_files};
use warpseek::topk::RowMask;
use warpseek::topk::audit::audit;
use warpseek::topk::scanner::QueryBatch;

/// Queries per call of the searcher.
const QUERIES: usize = 256;

/// Query vectors per call of the scanner.
const VECTORS: usize = 1024;

/// Scores per call of the scanner: a fraction of a second, in which Ctrl+C waits.
const SCORES: usize = 100_000_000;

/// The largest k beyond the number of rows, for which results are padded.
const MAX_PADDED: usize = 1 << 16;

/// Queries per call over this many rows, at most `most`.
fn together(most: usize, n_rows: usize) -> usize {
    (SCORES / n_rows.max(1)).clamp(1, most)
}

/// The arguments of a search.
#[derive(Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct SearchArguments {
    pub(crate) k: usize,
    #[pyo3(item("where"))]
    filter: Option<String>,
    hybrid: bool,
    /// The combination of hybrid search, `weighted` or `rrf`.
    fusion: Option<String>,
    mmr: Option<f32>,
    /// True to rerank in any case, false never; none if there is a reranker.
    rerank: Option<bool>,
    rerank_depth: Option<usize>,
    pub(crate) retriever_weight: Option<f32>,
    min_score: Option<f32>,
    max_per_doc: Option<usize>,
}

impl SearchArguments {
    /// The need of a reranker: none, if there is one (false), or in any case (true).
    pub(crate) fn reranker(&self, has_texts: bool) -> Option<bool> {
        match self.rerank {
            Some(false) => None,
            Some(true) => Some(true),
            None => has_texts.then_some(false),
        }
    }

    /// True if a filter or words are looked up before the texts of the hits.
    pub(crate) fn reads_database(&self) -> bool {
        self.filter.is_some() || self.hybrid || self.max_per_doc.is_some()
    }

    /// The options of a search, without reranking.
    pub(crate) fn options(&self) -> Result<SearchOptions> {
        if self.k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        let fusion = match self.fusion.as_deref() {
            None | Some("weighted") => Fusion::Weighted,
            Some("rrf") => Fusion::Rrf,
            Some(other) => {
                let message = format!("fusion is \"{other}\": use \"weighted\" or \"rrf\"");
                return Err(Error::usage(message));
            }
        };
        Ok(SearchOptions {
            k: self.k,
            rerank_depth: None,
            retriever_weight: self.retriever_weight,
            filter: self.filter.as_deref().map(Filter::parse).transpose()?,
            hybrid: self.hybrid,
            fusion,
            mmr: self.mmr,
            max_per_doc: self.max_per_doc,
            min_score: self.min_score,
            rerank_budget: None,
        })
    }

    /// A searcher with what the arguments need, and the options. Without the texts of all queries,
    /// nothing is reranked unless it must be.
    pub(crate) fn open(
        &self,
        index: &SharedIndex,
        (embeds, has_texts): (bool, bool),
        stop: &Stop,
    ) -> Result<(Searcher, SearchOptions)> {
        let mut options = self.options()?;
        let reranker = self.reranker(has_texts);
        let searcher = index.searcher(Needs { embedder: embeds, reranker }, stop)?;
        if reranker.is_some() && searcher.reranker.is_some() {
            let depth = self.rerank_depth.unwrap_or(DEFAULT_RERANK_DEPTH.max(self.k));
            options.rerank_depth = Some(depth);
        }
        Ok((searcher, options))
    }
}

/// Searches for texts, vectors, or both. Returns also the snapshot that the hits' row numbers are
/// of.
pub(crate) fn search(
    index: &SharedIndex,
    texts: Option<Vec<String>>,
    vectors: Option<Rows>,
    arguments: &SearchArguments,
    stop: &Stop,
) -> Result<(Arc<Snapshot>, Vec<SearchResult>)> {
    let queries: Vec<QueryInput<'_>> = match (&texts, &vectors) {
        (Some(texts), None) => {
            texts.iter().map(|text| QueryInput { text, ..QueryInput::default() }).collect()
        }
        (texts, Some(rows)) => {
            if let Some(texts) = texts.as_ref().filter(|texts| texts.len() != rows.n) {
                let (n, given) = (rows.n, texts.len());
                return Err(Error::usage(format!("text has {given} texts for {n} query vectors")));
            }
            let text = |i: usize| texts.as_ref().map_or("", |texts| texts[i].as_str());
            let vectors = rows.values.chunks_exact(rows.dim).enumerate();
            let query =
                |(i, vector)| QueryInput { text: text(i), vector: Some(vector), filter: None };
            vectors.map(query).collect()
        }
        (None, None) => return Err(Error::usage("a query is needed: a text or a vector")),
    };
    let has_texts = queries.iter().all(|query| !query.text.trim().is_empty());
    let (searcher, options) = arguments.open(index, (vectors.is_none(), has_texts), stop)?;
    // Queries that are reranked are many pairs each, and a few take long enough.
    let together = match options.rerank_depth {
        Some(_) => 8,
        None => together(QUERIES, searcher.index.n_rows()),
    };
    let mut results = Vec::with_capacity(queries.len());
    for queries in queries.chunks(together) {
        check(stop)?;
        results.extend(searcher.search_many(queries, &options)?);
    }
    Ok((searcher.index, results))
}

/// Scores and rows of query vectors, `[n, k]` each; -inf and -1 where there are fewer rows.
pub(crate) fn search_vectors(
    index: &SharedIndex,
    queries: &Rows,
    k: usize,
    filter: Option<&str>,
    stop: &Stop,
) -> Result<(Vec<f32>, Vec<i64>)> {
    if k == 0 {
        return Err(Error::usage("k must be at least 1"));
    }
    let searcher = index.searcher(Needs::default(), stop)?;
    let snapshot = &searcher.index;
    let (dim, n_rows) = (queries.dim, snapshot.n_rows());
    if k > n_rows.max(MAX_PADDED) {
        return Err(Error::usage(format!("k is {k}, and the index has {n_rows} rows: lower k")));
    }
    let n_values = queries.n.saturating_mul(k);
    let filter = filter.map(Filter::parse).transpose()?;
    let passing = filter.map(|filter| snapshot.rows_where(&filter)).transpose()?;
    let live = snapshot.live();
    let mask: Option<&RowMask> = match &passing {
        Some(passing) => Some(&passing.mask),
        None => (live.count() < snapshot.n_rows()).then_some(live),
    };
    let mut scores = filled(n_values, f32::NEG_INFINITY)?;
    let mut rows = filled(n_values, -1i64)?;
    let matrix = snapshot.matrix()?;
    let together = together(VECTORS, n_rows);
    for (part, vectors) in queries.values.chunks(together * dim).enumerate() {
        check(stop)?;
        let batch = QueryBatch::new(vectors, dim)?;
        let masks = vec![mask; batch.len()];
        let k_here = k.min(n_rows.max(1));
        let found = searcher.scanner.top_k_sharded(&matrix, &batch, k_here, &masks)?;
        for (i, hits) in found.iter().enumerate() {
            let at = (part * together + i) * k;
            for (j, hit) in hits.iter().enumerate() {
                (scores[at + j], rows[at + j]) = (hit.score, i64::from(hit.row));
            }
        }
    }
    Ok((scores, rows))
}

/// A vector of equal values; an error if memory is short.
fn filled<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let reason = || Error::usage(format!("k is too large: {n} results do not fit into memory"));
    values.try_reserve_exact(n).map_err(|_| reason())?;
    values.resize(n, value);
    Ok(values)
}

/// Compares the retrieval order with the reranked one, or with the hybrid one without a reranker.
pub(crate) fn compare(
    index: &SharedIndex,
    query: &str,
    (depth, show): (usize, usize),
    arguments: &SearchArguments,
    stop: &Stop,
) -> Result<Comparison> {
    let (searcher, options) = arguments.open(index, (true, true), stop)?;
    if depth == 0 || show == 0 {
        return Err(Error::usage("depth and show must be at least 1"));
    }
    warpseek::compare::compare(&searcher, query, depth, show, &options)
}

/// Statistics and settings.
pub(crate) fn stats(index: &Snapshot) -> Result<Value> {
    let manifest = index.manifest();
    let mut value = json!(index.stats()?);
    let fields = index.fields().iter().map(|(name, types)| (name.to_owned(), types.describe()));
    let fields: serde_json::Map<String, Value> =
        fields.map(|(name, types)| (name, json!(types))).collect();
    value["dim"] = json!(manifest.dim);
    value["metric"] = json!(manifest.metric);
    value["model"] = json!(manifest.model);
    value["chunking"] = json!(manifest.chunking);
    value["language"] = json!(manifest.language());
    value["fields"] = fields.into();
    Ok(value)
}

/// The number of live documents, or of live rows that pass a filter.
pub(crate) fn count(index: &Snapshot, filter: Option<&str>) -> Result<u64> {
    match filter {
        None => index.n_documents(),
        Some(filter) => Ok(index.rows_where(&Filter::parse(filter)?)?.mask.count() as u64),
    }
}

/// Numbers of live rows, each once, in the order of the ids, or ascending.
pub(crate) fn find(
    index: &Snapshot,
    ids: Option<&[String]>,
    filter: Option<&str>,
) -> Result<Vec<u32>> {
    let passing = filter.map(|filter| index.rows_where(&Filter::parse(filter)?)).transpose()?;
    let passes =
        |row: &u32| passing.as_ref().is_none_or(|passing| passing.mask.contains(*row as usize));
    let Some(ids) = ids else {
        let mask = passing.as_ref().map_or(index.live(), |passing| &passing.mask);
        let mut rows = Vec::new();
        mask.collect_range(0..index.n_rows(), &mut rows);
        return Ok(rows);
    };
    let (mut rows, mut seen) = (Vec::new(), HashSet::new());
    for id in ids {
        let of_id = index.rows_of(id)?;
        rows.extend(of_id.into_iter().filter(|row| passes(row) && seen.insert(*row)));
    }
    Ok(rows)
}

/// A row with its text.
#[derive(Debug, Serialize)]
pub(crate) struct FoundRow {
    row: u32,
    id: String,
    doc_id: String,
    title: String,
    text: String,
    tokens_lost: u32,
    document_range: [usize; 2],
    metadata: serde_json::Map<String, Value>,
}

/// Rows with their texts.
pub(crate) fn rows(index: &Snapshot, numbers: &[u32]) -> Result<Vec<FoundRow>> {
    check_rows(index, numbers)?;
    let row = |row: Row| FoundRow {
        row: row.row,
        id: row.id,
        doc_id: row.doc_id,
        title: row.title,
        text: row.text,
        tokens_lost: row.tokens_lost,
        document_range: [row.range.start, row.range.end],
        metadata: row.metadata,
    };
    Ok(index.rows(numbers)?.into_iter().map(row).collect())
}

/// Vectors of rows as float32, `[n, dim]`.
pub(crate) fn vectors(index: &Snapshot, numbers: &[u32]) -> Result<Vec<f32>> {
    check_rows(index, numbers)?;
    Ok(index.vectors(numbers)?.concat())
}

fn check_rows(index: &Snapshot, numbers: &[u32]) -> Result<()> {
    let n = index.n_rows();
    let is_live = |number: &&u32| index.live().contains(**number as usize);
    match numbers.iter().find(|number| !is_live(number)) {
        Some(number) if (*number as usize) < n => {
            Err(Error::usage(format!("row {number} was deleted: search again")))
        }
        Some(number) => {
            Err(Error::usage(format!("there is no row {number}: the index has {n} rows")))
        }
        None => Ok(()),
    }
}

/// Keeps a snapshot mapped while an array of its rows lives.
#[pyclass(frozen)]
struct MappedRows {
    _index: Arc<Snapshot>,
}

/// The mapped rows as a read-only array.
pub(crate) fn mapped<'py>(py: Python<'py>, index: Arc<Snapshot>) -> PyResult<Bound<'py, PyAny>> {
    let shards = index.matrix().map_err(crate::error::raised)?;
    let several = || {
        let reason = "the rows of shards are in several files: open one shard, or take `vectors`";
        crate::error::raised(Error::usage(reason))
    };
    let matrix = shards.single().ok_or_else(several)?;
    let checked = py.detach(|| matrix.check_rows(Some(index.live())));
    checked.map_err(crate::error::raised)?;
    let (n, dim, stride) = (matrix.n_rows(), matrix.dim(), matrix.stride());
    let values: *const f16 = matrix.values().as_ptr();
    // SAFETY: the rows are mapped as long as the snapshot lives, and `stride >= dim` values apart.
    let view = unsafe { ArrayView2::from_shape_ptr((n, dim).strides((stride, 1)), values) };
    let owner = Bound::new(py, MappedRows { _index: Arc::clone(&index) })?.into_any();
    // SAFETY: `owner` keeps the rows mapped, and no one writes to committed rows.
    let array = unsafe { PyArray2::borrow_from_array(&view, owner) };
    let flags = array.getattr("flags")?;
    flags.setattr("writeable", false)?;
    Ok(array.into_any())
}

/// Checks the files, and that `sample` searches are exact.
pub(crate) fn verify(index: &SharedIndex, sample: usize, stop: &Stop) -> Result<Vec<Finding>> {
    let mut findings = verify_files(&index.dir)?;
    if sample == 0 || findings.iter().any(|finding| finding.problem.is_some()) {
        return Ok(findings);
    }
    let searcher = index.searcher(Needs::default(), stop)?;
    let gpu = searcher.scanner.is_gpu().then_some(&searcher.scanner);
    let matrix = searcher.index.matrix()?;
    let outcome = audit(&matrix, searcher.index.live(), gpu, sample, &mut |_| check(stop).is_ok())?;
    check(stop)?;
    findings.push(outcome.into());
    Ok(findings)
}
