//! Opens what a server serves: indexes, and the models that they share.

use super::served::Served;
use super::settings::{Access, Named, ServerLimits, Serving};
use crate::engine::{Engine, OpenOptions};
use crate::error::{Error, Result};
use crate::search::no_reranker;
use std::path::PathBuf;
use std::sync::Arc;
use warpseek_bert::embedder::{Embedder, Normalize};
use warpseek_bert::encoder::describe;

/// Models that a server serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServedModels<'a> {
    /// Embedding model instead of the indexes' own, and without any index.
    pub model: Option<&'a str>,
    /// Reranker instead of the best one present; `none` for none.
    pub reranker: Option<&'a str>,
    /// True to serve no reranker.
    pub embed_only: bool,
    /// True to serve the reranker alone.
    pub rerank_only: bool,
}

impl Serving {
    /// Opens indexes, each with its name (by default the name of its folder), and models. Indexes
    /// of one model share it. Access is open, limits are the defaults, and no chat service is set.
    ///
    /// # Errors
    ///
    /// As [`Engine::searcher`]; [`Error::Usage`] if two indexes have the same name,
    /// [`Error::ModelUnavailable`] if a reranker is to be served alone and none is present.
    pub fn open(
        engine: &Engine,
        dirs: &[(Option<String>, PathBuf)],
        models: ServedModels<'_>,
    ) -> Result<Self> {
        let reranker = if models.embed_only { None } else { engine.reranker(models.reranker)? };
        if models.rerank_only && reranker.is_none() {
            return Err(no_reranker());
        }
        let mut embedders: Vec<Named<Embedder>> = Vec::new();
        let mut indexes: Vec<Served> = Vec::new();
        for (name, dir) in dirs {
            let options = OpenOptions { model: models.model, ..OpenOptions::default() };
            let mut searcher = engine.searcher(dir, &options)?;
            let name = name.clone().map_or_else(|| Served::name_of(dir), Ok)?;
            if indexes.iter().any(|other| other.name == name) {
                return Err(Error::usage(format!(
                    "two indexes have the name '{name}': give them names, as in NAME=DIR"
                )));
            }
            searcher.reranker = reranker.clone();
            if let (Some(embedder), Some(stamp)) =
                (&searcher.embedder, &searcher.index.manifest().model)
            {
                let same = |known: &&Named<Embedder>| {
                    known.sha256 == stamp.sha256
                        && known.model.fingerprint() == embedder.fingerprint()
                };
                match embedders.iter().find(same) {
                    Some(known) => searcher.embedder = Some(Arc::clone(&known.model)),
                    None => embedders.push(Named {
                        name: stamp.name.clone(),
                        sha256: stamp.sha256.clone(),
                        model: Arc::clone(embedder),
                    }),
                }
            }
            indexes.push(Served::new(name, searcher));
        }
        if embedders.is_empty() && !models.rerank_only {
            let name = engine.model_name(models.model);
            let (embedder, stamp) = engine.embedder(name, Normalize::BySimilarity)?;
            let (name, sha256) = (stamp.name, stamp.sha256);
            embedders.push(Named { name, sha256, model: Arc::new(embedder) });
        }
        let reranker = reranker.map(|(name, model)| {
            let sha256 = engine.models.find(&name).map(|folder| folder.sha256).unwrap_or_default();
            Named { name, sha256, model }
        });
        Ok(Self {
            indexes,
            embedders,
            reranker,
            answers: None,
            access: Access::default(),
            limits: ServerLimits::default(),
            device: engine.scanner().device(),
            precision: describe(engine.compute())?,
        })
    }
}
