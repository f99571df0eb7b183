//! Opens what a server serves: indexes, and the models that they share.

use super::served::Served;
use super::settings::{Access, Named, ServerLimits, Serving};
use crate::engine::{Engine, OpenOptions};
use crate::error::{Error, Result};
use crate::search::no_reranker;
use crate::store::Index;
use std::iter;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
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
        Self::open_by(engine, dirs, models, &Index::open)
    }

    /// As [`Serving::open`], with indexes that `open` opens.
    ///
    /// # Errors
    ///
    /// As [`Serving::open`].
    pub fn open_by(
        engine: &Engine,
        dirs: &[(Option<String>, PathBuf)],
        models: ServedModels<'_>,
        open: &dyn Fn(&Path) -> Result<Index>,
    ) -> Result<Self> {
        let reranker = if models.embed_only { None } else { engine.reranker(models.reranker)? };
        let sha256 = |name: &str| engine.models.find(name).map(|folder| folder.sha256);
        let reranker_sha256 = reranker.as_ref().and_then(|(name, _)| sha256(name).ok());
        let reranker = reranker.map(|(name, model)| (without_folder(&name).to_owned(), model));
        if models.rerank_only && reranker.is_none() {
            return Err(no_reranker());
        }
        let mut embedders: Vec<Named<Embedder>> = Vec::new();
        let mut indexes: Vec<Served> = Vec::new();
        for (name, dir) in dirs {
            let options = OpenOptions { model: models.model, ..OpenOptions::default() };
            let mut searcher = engine.searcher_of(Arc::new(open(dir)?), &options)?;
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
            searcher.index = Arc::new(searcher.index.shared()?);
            indexes.push(Served::new(name, searcher));
        }
        if embedders.is_empty() && !models.rerank_only {
            let name = engine.model_name(models.model);
            let (embedder, stamp) = engine.embedder(name, Normalize::BySimilarity)?;
            let (name, sha256) = (stamp.name, stamp.sha256);
            embedders.push(Named { name, sha256, model: Arc::new(embedder) });
        }
        let sha256 = reranker_sha256.unwrap_or_default();
        let reranker = reranker.map(|(name, model)| Named { name, sha256, model });
        for n in 0..embedders.len() {
            embedders[n].name = free_name(without_folder(&embedders[n].name), &embedders[..n]);
        }
        Ok(Self {
            indexes,
            default_index: None,
            embedders,
            reranker,
            answers: None,
            access: Access::default(),
            limits: ServerLimits::default(),
            device: engine.scanner().device(),
            precision: describe(engine.compute())?,
        })
    }

    /// The same, with the index of this name for requests that name none.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if no index has the name.
    pub fn with_default_index(self, name: Option<String>) -> Result<Self> {
        if let Some(name) = &name
            && !self.indexes.iter().any(|index| index.name == *name)
        {
            let names: Vec<&str> = self.indexes.iter().map(|index| &*index.name).collect();
            return Err(Error::usage(format!(
                "--default-index: no index is called '{name}': use one of {}",
                names.join(", ")
            )));
        }
        Ok(Self { default_index: name, ..self })
    }
}

/// The name of a model as clients see it, without folders: of a path, the last part.
pub(super) fn without_folder(name: &str) -> &str {
    let path = Path::new(name);
    let is_hub_id = name.matches('/').count() == 1 && !name.starts_with(['/', '.', '~']);
    let is_path = name.contains(['/', MAIN_SEPARATOR]) && (!is_hub_id || path.is_dir());
    let last = path.file_name().and_then(|name| name.to_str());
    last.filter(|_| is_path).unwrap_or(name)
}

/// A name that no other model has.
fn free_name(name: &str, others: &[Named<Embedder>]) -> String {
    let is_free = |name: &String| others.iter().all(|other| other.name != *name);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_show_no_folder() {
        for (name, shown) in [
            ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
            ("BAAI/bge-small-en", "BAAI/bge-small-en"),
            ("/home/me/models/bge", "bge"),
            ("./bge", "bge"),
            ("../some/bge/", "bge"),
        ] {
            assert_eq!(without_folder(name), shown);
        }
    }
}
