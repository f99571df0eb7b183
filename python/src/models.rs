//! The classes `Embedder` and `CrossEncoder`.

use crate::array::{Matrix, Vector, matrix, vector};
use crate::call::{Stop, report, run, run_waiting, run_with};
use crate::engine::EngineSettings;
use crate::error::usage;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use warpseek::bert::embedder::{self, EmbedOptions, Embeddings, Normalize, Role};
use warpseek::bert::modules::Similarity;
use warpseek::bert::reranker::{RerankJob, Reranker};
use warpseek::error::Result;
use warpseek::hub::ModelKind;
use warpseek::models::VectorOptions;
use warpseek::search::no_reranker;
use warpseek::store::ModelStamp;

/// Texts per call of the encoder, between two reports of progress.
const TEXTS: usize = 512;

/// An embedding model.
#[pyclass(name = "Embedder", module = "warpseek._warpseek", frozen)]
pub(crate) struct PyEmbedder {
    model: Arc<embedder::Embedder>,
    stamp: ModelStamp,
}

#[pymethods]
impl PyEmbedder {
    /// Opens the model of this name, downloaded if it is not present. `truncate_dim` keeps the
    /// first dimensions of vectors.
    #[new]
    fn new(
        py: Python<'_>,
        model: Option<String>,
        truncate_dim: Option<usize>,
        settings: EngineSettings,
    ) -> PyResult<Self> {
        let engine = settings.engine()?;
        let open = |_: &Stop, pool: &ThreadPool| {
            let name = engine.model_name(model.as_deref());
            engine.check_kind(name, ModelKind::Embedder)?;
            engine.get_or_download(name)?;
            let normalize = Normalize::AsConfigured;
            let vectors = VectorOptions { normalize, dimensions: truncate_dim };
            pool.install(|| engine.embedder(name, vectors))
        };
        let (model, stamp) = run_waiting(py, open, |_| true, |_, _| Ok(()))?;
        Ok(Self { model: Arc::new(model), stamp })
    }

    /// Dimensions of a vector.
    #[getter]
    fn dim(&self) -> usize {
        self.model.dim()
    }

    /// Limit of a text in tokens, special tokens included.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.model.max_tokens()
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> String {
        self.stamp.name.clone()
    }

    /// The sha256 of the weights.
    #[getter]
    fn sha256(&self) -> String {
        self.stamp.sha256.clone()
    }

    /// The similarity that the model was trained for, `cosine` or `dot`.
    #[getter]
    fn similarity(&self) -> &'static str {
        match self.model.similarity() {
            Similarity::Cosine => "cosine",
            Similarity::Dot => "dot",
        }
    }

    /// The number format that passages are computed in.
    #[getter]
    fn precision(&self) -> String {
        self.model.precision()
    }

    /// The text in front of texts of a role, `query` or `passage`.
    fn prompt(&self, role: &str) -> PyResult<String> {
        Ok(self.model.prompt(role_of(role)?).to_owned())
    }

    /// Embeds texts: vectors `[n, dim]`, tokens and truncated tokens of each. `progress` gets the
    /// number of finished texts.
    #[pyo3(signature = (texts, role, prompt, normalize, progress))]
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        role: &str,
        prompt: Option<String>,
        normalize: bool,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Matrix<'py, f32>, Vector<'py, u32>, Vector<'py, u32>)> {
        let role = role_of(role)?;
        let done = AtomicUsize::new(0);
        let mut all = Embeddings::default();
        let progress = progress.map(Bound::unbind);
        let work = |stop: &Stop| -> Result<Embeddings> {
            all.vectors.reserve_exact(texts.len() * self.model.dim());
            for texts in texts.chunks(TEXTS) {
                let options = EmbedOptions { prompt: prompt.as_deref(), stop: Some(stop) };
                let part = self.model.embed_with(texts, role, options)?;
                all.vectors.extend(part.vectors);
                all.tokens.extend(part.tokens);
                all.lost.extend(part.lost);
                done.fetch_add(texts.len(), Ordering::Relaxed);
            }
            if normalize && !self.model.is_normalized() {
                all.vectors.chunks_exact_mut(self.model.dim()).for_each(embedder::normalize);
            }
            Ok(all)
        };
        let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
        let made = run_with(py, work, tick)?;
        report(py, progress.as_ref(), &done)?;
        let vectors = matrix(py, made.vectors, self.model.dim())?;
        Ok((vectors, vector(py, made.tokens), vector(py, made.lost)))
    }

    /// The number of tokens of each text, without prompt and special tokens.
    fn count_tokens(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<usize>> {
        let count = |_: &Stop| Ok(texts.iter().map(|t| self.model.tokenizer().count(t)).collect());
        run(py, count)
    }
}

/// A cross-encoder.
#[pyclass(module = "warpseek._warpseek", frozen)]
pub(crate) struct CrossEncoder {
    name: String,
    sha256: String,
    model: Arc<Reranker>,
}

#[pymethods]
impl CrossEncoder {
    /// Opens the reranker of this name, or the best one present.
    #[new]
    fn new(py: Python<'_>, model: Option<String>, settings: EngineSettings) -> PyResult<Self> {
        let engine = settings.engine()?;
        let open = |_: &Stop, pool: &ThreadPool| {
            if let Some(name) = &model {
                engine.check_kind(name, ModelKind::Reranker)?;
                engine.get_or_download(name)?;
            }
            let found = pool.install(|| engine.reranker(model.as_deref()))?;
            let (name, model) = found.ok_or_else(no_reranker)?;
            let sha256 = engine.models.find(&name)?.sha256;
            Ok((name, sha256, model))
        };
        let (name, sha256, model) = run_waiting(py, open, |_| true, |_, _| Ok(()))?;
        Ok(Self { name, sha256, model })
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> String {
        self.name.clone()
    }

    /// The sha256 of the weights.
    #[getter]
    fn sha256(&self) -> String {
        self.sha256.clone()
    }

    /// Limit of a pair in tokens, special tokens included.
    #[getter]
    fn max_tokens(&self) -> usize {
        self.model.max_tokens()
    }

    /// The logits of pairs of a query and a passage. `progress` gets the number of finished pairs.
    #[pyo3(signature = (pairs, progress))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        pairs: Vec<(String, String)>,
        progress: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Vector<'py, f32>> {
        let done = AtomicUsize::new(0);
        let progress = progress.map(Bound::unbind);
        let work = |stop: &Stop| -> Result<Vec<f32>> {
            let mut logits = Vec::with_capacity(pairs.len());
            for pairs in pairs.chunks(self.model.batch_pairs()) {
                let jobs: Vec<RerankJob<'_>> = same_query(pairs)
                    .map(|range| RerankJob {
                        query: &pairs[range.start].0,
                        passages: pairs[range]
                            .iter()
                            .map(|(_, passage)| passage.as_str())
                            .collect(),
                    })
                    .collect();
                let scored = self.model.score_batch_until(&jobs, Some(stop))?;
                logits.extend(scored.iter().flat_map(|job| &job.scores).map(|score| score.logit));
                done.fetch_add(pairs.len(), Ordering::Relaxed);
            }
            Ok(logits)
        };
        let tick = |py: Python<'_>, _: &Stop| report(py, progress.as_ref(), &done);
        let logits = run_with(py, work, tick)?;
        report(py, progress.as_ref(), &done)?;
        Ok(vector(py, logits))
    }
}

/// Ranges of neighbouring pairs with the same query, which is tokenized once.
fn same_query(pairs: &[(String, String)]) -> impl Iterator<Item = Range<usize>> {
    let groups = pairs.chunk_by(|a, b| a.0 == b.0);
    groups.scan(0, |start, group| {
        let range = *start..*start + group.len();
        *start = range.end;
        Some(range)
    })
}

fn role_of(name: &str) -> PyResult<Role> {
    match name {
        "query" => Ok(Role::Query),
        "passage" | "document" => Ok(Role::Passage),
        other => Err(usage(format!("invalid role '{other}': use \"query\" or \"passage\""))),
    }
}
