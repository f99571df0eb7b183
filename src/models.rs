//! Opens the models that the hub found: the border between its folders and the encoder.

use crate::error::Result;
use warpseek_bert::embedder::{Embedder, EmbedderOptions, KnownEmbedder, Normalize};
use warpseek_bert::model_files::ModelFiles;
use warpseek_bert::pooling::{Pooling, PoolingMode};
use warpseek_bert::reranker::Reranker;
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
    let known = folder.spec.as_ref().and_then(known_embedder);
    let options = EmbedderOptions { known, ..EmbedderOptions::default() };
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
    Ok(reranker.with_retriever_weight(weight))
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
