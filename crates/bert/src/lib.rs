//! BERT encoders for embedding and reranking: model files, tokenizer, packed forward pass,
//! embedder, reranker.
//!
//! | step | module |
//! | --- | --- |
//! | files of a model: a folder, or compiled-in bytes | [`model_files`] |
//! | configuration of the encoder, of pooling and prompts | [`config`] |
//! | texts to token sequences | [`tokenizer`] |
//! | sequences to hidden states to outputs | [`encoder`], on the CPU or a GPU |
//! | texts to vectors | [`embedder`] |
//! | query and passage to a relevance score | [`reranker`] |

mod attention;
mod batching;
mod compute_type;
pub mod config;
#[cfg(feature = "cuda")]
mod cuda;
pub mod embedder;
pub mod encoder;
mod linear;
pub mod model_files;
mod packed;
mod pooling;
mod reference;
pub mod reranker;
pub mod tokenizer;
mod vector_ops;
mod weights;

pub use embedder::{Embedder, Embeddings, Normalize, Role};
pub use encoder::{Encoder, Encoders};
pub use model_files::ModelFiles;
pub use pooling::Output;
pub use reranker::{PassageScore, RerankJob, RerankScores, Reranker};
pub use tokenizer::{Sequence, Tokenizer};
pub use warpseek_compute as compute;
pub use warpseek_error as error;
