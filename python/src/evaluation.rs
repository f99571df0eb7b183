//! Evaluation on judged queries, given as files or as dicts.

use crate::call::{Stop, report, run_with};
use crate::error::usage;
use crate::opened::SharedIndex;
use crate::reading::SearchArguments;
use crate::values::to_python;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use warpseek::error::{Place, Result};
use warpseek::eval::measures::Measure;
use warpseek::eval::qrels::Qrels;
use warpseek::eval::{EvalOptions, JudgedQueries, RerankedSystem, evaluate as evaluate_all};
use warpseek::queries::{Query, QueryOptions, QueryReader};
use warpseek::search::SearchOptions;

/// Evaluates the index on judged queries. Queries are a path or a dict of texts, qrels a path or a
/// dict of dicts of levels.
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    index: &SharedIndex,
    (queries, qrels): (&Bound<'py, PyAny>, &Bound<'py, PyAny>),
    measures: &[String],
    (depth, rerank_depth): (usize, usize),
    arguments: &SearchArguments,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let queries = match queries.cast::<PyDict>() {
        Ok(texts) => Given::Here(judged_texts(texts)?),
        Err(_) => Given::Path(queries.extract::<PathBuf>()?),
    };
    let qrels = match qrels.cast::<PyDict>() {
        Ok(levels) => Given::Here(levels_of(levels)?),
        Err(_) => Given::Path(qrels.extract::<PathBuf>()?),
    };
    let (done, progress) = (AtomicUsize::new(0), progress.map(Bound::unbind));
    let work = |stop: &Stop| -> Result<Value> {
        let judged = judged(queries, qrels)?;
        let options = EvalOptions {
            measures: measures.iter().map(|m| m.parse()).collect::<Result<Vec<Measure>>>()?,
            depth,
            search: SearchOptions { k: depth, ..arguments.options()? },
            ..EvalOptions::default()
        };
        let (searcher, opened) = arguments.open(index, (true, true), stop)?;
        let reranker = opened.rerank_depth.and(searcher.reranker.clone());
        let rerankers: Vec<_> = reranker.into_iter().collect();
        let weight = arguments.retriever_weight;
        let systems = RerankedSystem::all(&rerankers, &[rerank_depth], weight);
        let report = evaluate_all(&searcher, &systems, &judged, &options, &mut |finished, _| {
            done.store(finished, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        })?;
        done.store(report.systems.first().map_or(0, |s| s.evaluation.judged), Ordering::Relaxed);
        let sha256 = |name: &str| index.engine.reranker_sha256(name);
        let mut value = report.to_json(&options, true, &sha256);
        value["rows"] = json!(searcher.index.live().count());
        Ok(value)
    };
    let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
    let value = run_with(py, work, tick)?;
    report(py, progress.as_ref(), &done)?;
    to_python(py, &value)
}

enum Given<T> {
    Here(T),
    Path(PathBuf),
}

fn judged_texts(texts: &Bound<'_, PyDict>) -> PyResult<Vec<Query>> {
    let mut queries = Vec::with_capacity(texts.len());
    for (i, (id, text)) in texts.iter().enumerate() {
        let text: String = text.extract().map_err(|_| {
            let found = crate::values::type_name(&text);
            usage(format!("queries must map ids to texts, found {found} for '{id}'"))
        })?;
        queries.push(Query {
            id: id.str()?.extract()?,
            text,
            title: String::new(),
            vector: None,
            filter: None,
            place: Place::record("queries", format!("query {}", i + 1)),
        });
    }
    Ok(queries)
}

fn levels_of(levels: &Bound<'_, PyDict>) -> PyResult<Vec<(String, String, i32)>> {
    let mut all = Vec::new();
    for (query, documents) in levels.iter() {
        let query: String = query.str()?.extract()?;
        let documents = documents.cast::<PyDict>().map_err(|_| {
            let found = crate::values::type_name(&documents);
            usage(format!("qrels must map query ids to dicts, found {found} for '{query}'"))
        })?;
        for (document, level) in documents.iter() {
            let document: String = document.str()?.extract()?;
            let level: i32 = level.extract().map_err(|_| {
                usage(format!(
                    "qrels of query '{query}', document '{document}': a level is an integer, found \
                     {level}"
                ))
            })?;
            all.push((query.clone(), document, level));
        }
    }
    Ok(all)
}

fn judged(
    queries: Given<Vec<Query>>,
    qrels: Given<Vec<(String, String, i32)>>,
) -> Result<JudgedQueries> {
    let queries = match queries {
        Given::Here(queries) => queries,
        Given::Path(path) => {
            QueryReader::open(&path, &QueryOptions::default())?.collect::<Result<Vec<_>>>()?
        }
    };
    let (qrels, qrels_file) = match qrels {
        Given::Path(path) => (Qrels::read(&path)?, path.display().to_string()),
        Given::Here(levels) => {
            let mut qrels = Qrels::new();
            for (query, document, level) in &levels {
                qrels.insert(query, document, *level)?;
            }
            (qrels, "qrels".to_owned())
        }
    };
    Ok(JudgedQueries { queries, qrels, qrels_file })
}
