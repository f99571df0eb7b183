//! Opens the models that the hub found: the border between its folders and the encoder.

use crate::error::Result;
use warpseek_bert::config::{EmbedConfig, Pooling};
use warpseek_bert::embedder::{Embedder, Normalize};
use warpseek_bert::model_files::ModelFiles;
use warpseek_bert::reranker::{DEFAULT_MAX_TOKENS, Reranker};
use warpseek_compute::device::ComputeOptions;
use warpseek_hub::{ModelFolder, ModelSpec, PoolingSpec};

/// Opens an embedder. The manifest's entry takes precedence over the configuration in the folder.
///
/// # Errors
///
/// As [`Embedder::open`].
pub fn open_embedder(
    folder: &ModelFolder,
    normalize: Normalize,
    compute: ComputeOptions,
) -> Result<Embedder> {
    let known = folder.spec.as_ref().and_then(embed_config);
    Embedder::open(files(folder), known, normalize, compute)
}

/// Opens a reranker, with the token limit and the retriever weight of the manifest's entry.
///
/// # Errors
///
/// As [`Reranker::open`].
pub fn open_reranker(folder: &ModelFolder, compute: ComputeOptions) -> Result<Reranker> {
    let spec = folder.spec.as_ref();
    let max_tokens = spec.map_or(DEFAULT_MAX_TOKENS, |spec| spec.max_tokens);
    let weight = spec.and_then(|spec| spec.retriever_weight).unwrap_or(0.0);
    let reranker = Reranker::open(files(folder), max_tokens, compute)?;
    Ok(reranker.with_retriever_weight(weight))
}

fn files(folder: &ModelFolder) -> ModelFiles {
    match folder.embedded() {
        Some(model) => ModelFiles::Embedded { name: model.name, files: model.files },
        None => ModelFiles::from(&folder.path),
    }
}

/// Configuration of a listed embedder; None for a reranker.
fn embed_config(spec: &ModelSpec) -> Option<EmbedConfig> {
    Some(EmbedConfig {
        pooling: match spec.pooling? {
            PoolingSpec::Mean => Pooling::Mean,
            PoolingSpec::Cls => Pooling::Cls,
        },
        normalize: spec.normalize,
        max_tokens: spec.max_tokens,
        query_prompt: spec.query_prompt.clone().unwrap_or_default(),
        passage_prompt: String::new(),
    })
}
