//! Embedders of indexes: their metric and stamp, and the settings of a new index.

use super::Engine;
use crate::error::{Error, Result};
use crate::models::{VectorOptions, open_embedder};
use crate::store::{Index, IndexManifest, IndexMetric, IndexWriter, Language, ModelStamp};
use std::path::Path;
use warpseek_bert::embedder::{Embedder, Normalize};
use warpseek_bert::modules::Similarity;
use warpseek_hub::ModelKind;
use warpseek_ingest::chunk::Chunking;

/// Default maximum length of a chunk, in tokens.
const DEFAULT_CHUNK_TOKENS: usize = 254;

/// The property of a [`ModelStamp`] that names the model's similarity.
const SIMILARITY: &str = "similarity";

/// The chunking of a new index. `None` stands for the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChunkOptions {
    /// Maximum length of a chunk, in tokens.
    pub max_tokens: Option<usize>,
    /// Tokens that a chunk repeats of the text before it.
    pub overlap: Option<usize>,
    /// True to split records too, not only running text.
    pub split_records: bool,
}

/// An embedding model that is to make the vectors of an index.
#[derive(Debug)]
pub struct IndexEmbedder {
    /// The model.
    pub embedder: Embedder,
    /// Its stamp in the index.
    pub stamp: ModelStamp,
    /// The metric of its vectors.
    pub metric: IndexMetric,
}

/// Vectors that are to be imported.
#[derive(Debug, Clone, Copy)]
pub struct ImportTarget<'a> {
    /// Dimensions of a vector, at least 1.
    pub dim: usize,
    /// The model that made them, if it is known.
    pub model: Option<&'a str>,
    /// The metric of the index, if it was asked for.
    pub metric: Option<IndexMetric>,
    /// True if the vectors have unit length.
    pub is_unit: bool,
    /// True if they are scaled to it.
    pub is_scaled: bool,
    /// The language of the lexical index, if one is chosen.
    pub language: Option<Language>,
}

impl Engine {
    /// The embedder of this name, and the stamp of indexes made with it.
    ///
    /// # Errors
    ///
    /// As [`Engine::get_or_download`] and [`Embedder::open`]; [`Error::ModelUnavailable`] if it is
    /// a reranker.
    pub fn embedder(
        &self,
        name: &str,
        vectors: impl Into<VectorOptions>,
    ) -> Result<(Embedder, ModelStamp)> {
        let vectors = vectors.into();
        self.check_kind(name, ModelKind::Embedder)?;
        let folder = self.get_or_download(name)?;
        if folder.kind() == Some(ModelKind::Reranker) {
            return Err(self.wrong_kind(name, ModelKind::Embedder));
        }
        let embedder = self.model(|compute| open_embedder(&folder, vectors, compute))?;
        let stamp = ModelStamp {
            name: folder.name.clone(),
            revision: folder.revision.clone(),
            sha256: folder.sha256.clone(),
            max_tokens: embedder.max_tokens(),
            properties: embedder.fingerprint().into_iter().collect(),
            precision: Some(embedder.precision_family().to_owned()),
        };
        Ok((embedder, stamp))
    }

    /// The embedder of this name for the index in `dir`, existing or not, or for a new one without
    /// it, with the first `dimensions` of its vectors. A new index ranks by the model's own
    /// similarity. One that was made with the same weights keeps its metric, and its dimensions
    /// unless others are asked for.
    ///
    /// # Errors
    ///
    /// As [`Engine::embedder`]; [`Error::Corrupt`] if the index has a damaged manifest.
    pub fn index_embedder(
        &self,
        name: &str,
        dir: Option<&Path>,
        dimensions: Option<usize>,
    ) -> Result<IndexEmbedder> {
        let known = dir.map(IndexManifest::find).transpose()?.flatten();
        let dimensions = dimensions.or(known.as_ref().and_then(shortened));
        let vectors = VectorOptions { normalize: Normalize::BySimilarity, dimensions };
        let (embedder, stamp) = self.embedder(name, vectors)?;
        let known = known.filter(|known| {
            let same = |model: &ModelStamp| {
                let (own, other) = (&model.properties, &stamp.properties);
                let names_similarity = own.contains_key(SIMILARITY);
                model.sha256 == stamp.sha256
                    && (!names_similarity || own.get(SIMILARITY) == other.get(SIMILARITY))
            };
            known.model.as_ref().is_some_and(same)
        });
        let metric = known.map_or(metric_of(&embedder), |known| known.metric);
        self.with_metric(name, (embedder, stamp), metric, dimensions)
    }

    /// The embedder with a metric: opened again if the metric needs another normalization than the
    /// model's own similarity.
    fn with_metric(
        &self,
        name: &str,
        (embedder, stamp): (Embedder, ModelStamp),
        metric: IndexMetric,
        dimensions: Option<usize>,
    ) -> Result<IndexEmbedder> {
        if metric == metric_of(&embedder) {
            return Ok(IndexEmbedder { embedder, stamp, metric });
        }
        let vectors = VectorOptions { normalize: normalization(metric), dimensions };
        let (embedder, stamp) = self.embedder(name, vectors)?;
        Ok(IndexEmbedder { embedder, stamp, metric })
    }

    /// The embedder of an index, or none for imported vectors: the model that the index names, or
    /// `other`, another copy of it. For imported vectors, `other` is the model that made them.
    ///
    /// # Errors
    ///
    /// As [`Engine::embedder`]; [`Error::ModelUnavailable`] naming what differs if the model is not
    /// the one that the index was made with, [`Error::Usage`] if the dimensions differ.
    pub fn embedder_of(&self, index: &Index, other: Option<&str>) -> Result<Option<Embedder>> {
        let IndexManifest { model, dim, metric, .. } = index.manifest();
        let Some(name) = other.or(model.as_ref().map(|stamp| stamp.name.as_str())) else {
            return Ok(None);
        };
        let normalize = model.as_ref().map_or(Normalize::BySimilarity, |_| normalization(*metric));
        let vectors = VectorOptions { normalize, dimensions: shortened(index.manifest()) };
        let (embedder, here) = self.embedder(name, vectors)?;
        let differences = model.as_ref().map_or_else(Vec::new, |stamp| stamp.differences(&here));
        if !differences.is_empty() {
            return Err(Error::ModelUnavailable {
                model: name.to_owned(),
                reason: format!(
                    "the index was made with another model or other settings of it: {}; name the \
                     right folder with --model, or restore its files",
                    differences.join("; ")
                ),
            });
        }
        match embedder.dim() {
            made if made == *dim => Ok(Some(embedder)),
            made => Err(Error::usage(format!(
                "the index has {dim} dimensions, and {name} makes {made}: name the model that \
                     made the vectors with --model"
            ))),
        }
    }

    /// A writer of the index in `dir` for imported vectors, which removes a new index unless
    /// something is committed. A new index has the metric that was
    /// asked for; else the cosine if they are scaled, or if they have unit length and their model
    /// is compared by it; else the inner product.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the model makes vectors of other dimensions, or an index is there that
    /// was made otherwise; the errors of [`Engine::embedder`] and of the store.
    pub fn import_writer(&self, dir: &Path, target: ImportTarget<'_>) -> Result<IndexWriter> {
        let ImportTarget { dim, model, metric, is_unit, is_scaled, language } = target;
        let opened = model
            .map(|model| {
                let (embedder, stamp) = self.embedder(model, Normalize::BySimilarity)?;
                if embedder.dim() != dim {
                    let own = embedder.dim();
                    return Err(Error::usage(format!(
                        "the vectors have {dim} dimensions, {model} makes {own}: name the model \
                         that made them with --model"
                    )));
                }
                Ok((model, embedder, stamp))
            })
            .transpose()?;
        let known = IndexManifest::find(dir)?;
        let default = match &opened {
            _ if is_scaled => IndexMetric::Cosine,
            _ if !is_unit => IndexMetric::InnerProduct,
            Some((_, embedder, _)) => metric_of(embedder),
            None => IndexMetric::Cosine,
        };
        let metric = metric.or(known.map(|known| known.metric)).unwrap_or(default);
        let stamp = match opened {
            Some((model, embedder, stamp)) => {
                Some(self.with_metric(model, (embedder, stamp), metric, None)?.stamp)
            }
            None => None,
        };
        let manifest = IndexManifest::new(dim, stamp, Chunking::default()).with_metric(metric);
        let writer = IndexWriter::open_or_create(dir, &manifest.with_language(language))?;
        Ok(writer.removed_unless_used())
    }
}

/// The dimensions of an index whose vectors are the first ones of its model's.
fn shortened(manifest: &IndexManifest) -> Option<usize> {
    let stated = manifest.model.as_ref()?.properties.get("dimensions")?;
    stated.contains(" of ").then_some(manifest.dim)
}

/// The metric of new indexes of a model.
fn metric_of(embedder: &Embedder) -> IndexMetric {
    match embedder.similarity() {
        Similarity::Cosine => IndexMetric::Cosine,
        Similarity::Dot => IndexMetric::InnerProduct,
    }
}

/// The normalization of vectors of an index.
fn normalization(metric: IndexMetric) -> Normalize {
    match metric {
        IndexMetric::Cosine => Normalize::Always,
        IndexMetric::InnerProduct => Normalize::AsConfigured,
    }
}

/// The manifest of a new index of documents that a model embeds.
///
/// # Errors
///
/// [`Error::Usage`] if the chunks do not fit the model.
pub fn manifest_for(model: &IndexEmbedder, chunks: ChunkOptions) -> Result<IndexManifest> {
    let IndexEmbedder { embedder, stamp, metric } = model;
    let room = embedder.max_tokens().saturating_sub(embedder.overhead());
    if room == 0 {
        return Err(Error::usage(format!(
            "{}: the prompt alone fills the model's limit of {} tokens",
            stamp.name,
            embedder.max_tokens()
        )));
    }
    let chunking = Chunking {
        max_tokens: chunks.max_tokens.unwrap_or(DEFAULT_CHUNK_TOKENS.min(room)),
        overlap: chunks.overlap.unwrap_or(Chunking::default().overlap),
        split_records: chunks.split_records,
    };
    chunking.check(room)?;
    let manifest = IndexManifest::new(embedder.dim(), Some(stamp.clone()), chunking);
    Ok(manifest.with_metric(*metric))
}
