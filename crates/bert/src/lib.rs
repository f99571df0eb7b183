//! Encoders of the BERT family and its descendants for embedding and reranking: model files,
//! tokenizer, packed forward pass, embedder, reranker.
//!
//! | step | module |
//! | --- | --- |
//! | files of a model: a folder, or compiled-in bytes | [`model_files`] |
//! | settings in them, obeyed or refused | [`keys`] |
//! | configuration of the encoder, by [`family`] | [`config`] |
//! | modules of sentence-transformers: pooling, dense layers, prompts | [`modules`] |
//! | texts to token sequences | [`tokenizer`] |
//! | sequences to hidden states to outputs | [`encoder`], on the CPU or a GPU |
//! | texts to vectors | [`embedder`] |
//! | query and passage to a relevance score | [`reranker`] |

pub mod activation;
mod attention;
mod batching;
mod compute_type;
pub mod config;
#[cfg(feature = "cuda")]
mod cuda;
pub mod embedder;
pub mod encoder;
mod encoder_weights;
pub mod family;
mod fingerprint;
mod head;
pub mod keys;
mod linear;
mod linear_input;
mod linear_weights;
mod low_precision;
pub mod model_files;
pub mod modules;
mod packed;
pub mod pooling;
mod reference;
pub mod reranker;
mod rotary;
mod settings;
mod text_parts;
pub mod tokenizer;
mod tokenizer_class;
mod tokenizer_settings;
mod vector_ops;
mod weights;

pub use embedder::{Embedder, Embeddings, Normalize, Role};
pub use encoder::{Encoder, Encoders};
pub use model_files::ModelFiles;
pub use pooling::{Output, Pooling, PoolingMode};
pub use reranker::{PassageScore, RerankJob, RerankScores, Reranker};
pub use tokenizer::{Sequence, Tokenizer};
pub use warpseek_compute as compute;
pub use warpseek_error as error;
