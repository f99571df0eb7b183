//! Opens the models that the hub found: the border between its folders and the encoder.

use crate::error::Result;
use serde::Serialize;
use warpseek_bert::embedder::{Embedder, EmbedderOptions, KnownEmbedder, Normalize};
use warpseek_bert::model_files::ModelFiles;
use warpseek_bert::pooling::{Pooling, PoolingMode};
use warpseek_bert::reranker::{Calibration, Reranker};
use warpseek_compute::device::ComputeOptions;
use warpseek_hub::{ModelFolder, ModelKind, ModelSpec, PoolingSpec};

/// The vectors that an embedder makes.
#[derive(Debug, Clone, Copy)]
pub struct VectorOptions {
    /// The choice to scale them to unit length.
    pub normalize: Normalize,
    /// The first dimensions, which are kept; none for all.
    pub dimensions: Option<usize>,
}

impl From<Normalize> for VectorOptions {
    fn from(normalize: Normalize) -> Self {
        Self { normalize, dimensions: None }
    }
}

/// Opens an embedder. The manifest's entry takes precedence over the configuration in the folder.
///
/// # Errors
///
/// As [`Embedder::open`].
pub fn open_embedder(
    folder: &ModelFolder,
    vectors: impl Into<VectorOptions>,
    compute: ComputeOptions,
) -> Result<Embedder> {
    let VectorOptions { normalize, dimensions } = vectors.into();
    let known = folder.spec.as_ref().and_then(known_embedder);
    let options = EmbedderOptions { known, dimensions };
    Embedder::open(files(folder), options, normalize, compute)
}

/// Opens a reranker, with the token limit and the retriever weight of the manifest's entry.
///
/// # Errors
///
/// As [`Reranker::open`].
pub fn open_reranker(folder: &ModelFolder, compute: ComputeOptions) -> Result<Reranker> {
    let spec = folder.spec.as_ref();
    let max_tokens = spec.map(|spec| spec.max_tokens);
    let weight = spec.and_then(|spec| spec.retriever_weight).unwrap_or(0.0);
    let reranker = Reranker::open(files(folder), max_tokens, compute)?;
    let calibration = spec.and_then(|spec| spec.calibration).map(|spec| Calibration {
        cosine: spec.cosine,
        scale: spec.scale,
        offset: spec.offset,
    });
    Ok(reranker.with_retriever_weight(weight).with_calibration(calibration))
}

/// Configuration of a model, for display.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModelDetails {
    /// `model_type` of its configuration: `bert`, ...
    pub family: Option<String>,
    /// Dimension of an embedder's vectors.
    pub dimension: Option<usize>,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: Option<usize>,
    /// Pooling of an embedder.
    pub pooling: Option<String>,
    /// True if an embedder's vectors are scaled to unit length.
    pub normalize: Option<bool>,
    /// Text in front of queries.
    pub query_prompt: Option<String>,
    /// Text in front of passages.
    pub passage_prompt: Option<String>,
    /// Reason why the model cannot be used.
    pub unusable: Option<String>,
}

/// Reads the configuration of a model. It opens neither tokenizer nor weights.
pub fn describe(folder: &ModelFolder) -> ModelDetails {
    let (spec, files) = (folder.spec.as_ref(), files(folder));
    let family = folder.family();
    let limit = spec.map(|spec| spec.max_tokens);
    let known = ModelDetails {
        family,
        max_tokens: limit,
        dimension: spec.and_then(|s| s.dimension),
        ..Default::default()
    };
    let is_reranker = folder.kind() == Some(ModelKind::Reranker);
    let read = || {
        if is_reranker {
            let limit = Reranker::read_limit(&files, limit)?;
            return Ok(ModelDetails { max_tokens: Some(limit), ..known.clone() });
        }
        let (config, dim) = Embedder::read_config(&files, spec.and_then(known_embedder))?;
        Ok(ModelDetails {
            dimension: Some(dim),
            max_tokens: Some(config.max_tokens),
            pooling: Some(config.pooling.name()),
            normalize: Some(config.normalize),
            query_prompt: Some(config.query_prompt),
            passage_prompt: Some(config.passage_prompt),
            ..known.clone()
        })
    };
    let read: Result<ModelDetails> = read();
    read.unwrap_or_else(|e| ModelDetails { unusable: Some(e.to_string()), ..known.clone() })
}

fn files(folder: &ModelFolder) -> ModelFiles {
    match folder.embedded() {
        Some(model) => ModelFiles::Embedded { name: model.name, files: model.files },
        None => ModelFiles::from(&folder.path),
    }
}

/// Settings of a listed embedder; None for a reranker.
fn known_embedder(spec: &ModelSpec) -> Option<KnownEmbedder> {
    Some(KnownEmbedder {
        pooling: Pooling::of(match spec.pooling? {
            PoolingSpec::Mean => PoolingMode::Mean,
            PoolingSpec::Cls => PoolingMode::Cls,
        }),
        normalize: spec.normalize,
        max_tokens: spec.max_tokens,
        query_prompt: spec.query_prompt.clone().unwrap_or_default(),
    })
}
