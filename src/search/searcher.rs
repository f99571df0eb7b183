//! An index with the models that search it.

use crate::error::{Error, Result};
use crate::store::{Index, IndexManifest, ModelStamp};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use warpseek_bert::embedder::Embedder;
use warpseek_bert::reranker::Reranker;
use warpseek_topk::scanner::Scanner;

/// An index with the models to search it. May be shared between threads.
#[derive(Debug, Clone)]
pub struct Searcher {
    /// The snapshot that is searched.
    pub index: Arc<Index>,
    /// Embeds queries. Without it only vectors can be searched for.
    pub embedder: Option<Arc<Embedder>>,
    /// The reranker with its name.
    pub reranker: Option<(String, Arc<Reranker>)>,
    /// Scans the vectors.
    pub scanner: Scanner,
    /// Set to true, it ends the searches that run with [`Error::Interrupted`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl Searcher {
    /// The searcher of the index as it is now, with the same models; `None` if nothing was
    /// committed since.
    ///
    /// # Errors
    ///
    /// As [`Index::open`]; [`Error::Corrupt`] if another index has taken the place of this one.
    pub fn reopened(&self) -> Result<Option<Self>> {
        let new = self.renewed()?;
        Ok((new.index.snapshot_id() != self.index.snapshot_id()).then_some(new))
    }

    /// As [`Searcher::reopened`], also if nothing was committed since. A new snapshot releases the
    /// part of the write-ahead log that an old one keeps.
    ///
    /// # Errors
    ///
    /// As [`Searcher::reopened`].
    pub fn renewed(&self) -> Result<Self> {
        let index = self.index.reopen()?;
        let (new, known) = (index.manifest(), self.index.manifest());
        // Of a model all counts but the number format, which vectors may differ in.
        let model = |manifest: &IndexManifest| {
            manifest.model.clone().map(|stamp| ModelStamp { precision: None, ..stamp })
        };
        let is_same = model(new) == model(known) && new.metric == known.metric;
        if new.dim != known.dim || !is_same {
            let reason = "the index was replaced by another one: open it again (restart a server)";
            return Err(Error::corrupt(self.index.dir(), reason));
        }
        Ok(Self { index: Arc::new(index), ..self.clone() })
    }

    /// The number of tokens of a text as the embedder counts them. Without an embedder: one token
    /// per four characters, as in English.
    pub fn count_tokens(&self, text: &str) -> usize {
        match &self.embedder {
            Some(embedder) => embedder.tokenizer().count(text),
            None => text.chars().count().div_ceil(4),
        }
    }

    /// The reranker with its name.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the searcher has none.
    pub fn require_reranker(&self) -> Result<&(String, Arc<Reranker>)> {
        self.reranker.as_ref().ok_or_else(no_reranker)
    }
}

/// The error of reranking without a reranker.
pub fn no_reranker() -> Error {
    Error::ModelUnavailable {
        model: "reranker".to_owned(),
        reason: "none is present locally; `warpseek models pull ms-marco-MiniLM-L6-v2` fetches \
                 one, or name a folder with --reranker"
            .to_owned(),
    }
}
