//! An index with the models that search it.

use crate::error::{Error, Result};
use crate::store::Index;
use std::sync::Arc;
use warpseek_bert::embedder::Embedder;
use warpseek_bert::reranker::Reranker;
use warpseek_topk::scanner::Scanner;

/// An index with the models to search it. May be shared between threads.
#[derive(Debug)]
pub struct Searcher {
    /// The snapshot that is searched.
    pub index: Index,
    /// Embeds queries. Without it only vectors can be searched for.
    pub embedder: Option<Arc<Embedder>>,
    /// The reranker with its name.
    pub reranker: Option<(String, Arc<Reranker>)>,
    /// Scans the vectors.
    pub scanner: Scanner,
}

impl Searcher {
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
