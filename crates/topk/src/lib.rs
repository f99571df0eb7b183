#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! | module | content |
//! | --- | --- |
//! | [`layout`] | padding, limits and norms of rows |
//! | [`matrix`] | half-precision rows, borrowed |
//! | [`mask`] | bitmaps of rows that may be returned |
//! | [`checksums`] | checksums of rows, compared before their first use |
//! | [`sq8`] | the int8 copy of the rows, with the error of each row |
//! | [`oracle`] | the canonical score and the naive scan that defines the correct answer |
//! | [`shards`] | the rows of several matrices, and the merge of their results |
//! | [`scanner`] | the fast scan, on the CPU or a GPU |
//! | [`audit`] | fast scans against the oracle on your own data |

pub mod audit;
mod checking;
pub mod checksums;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod gpu;
pub mod layout;
pub mod mask;
pub mod matrix;
pub mod oracle;
mod queries;
pub mod scanner;
pub mod shards;
pub mod sq8;

pub use layout::{row_norm_upper, stride_of};
pub use mask::RowMask;
pub use matrix::MatrixView;
pub use oracle::ScoredRow;
pub use scanner::{GpuOptions, QueryBatch, Scanner};
pub use shards::ShardedMatrix;
pub use sq8::{Sq8Matrix, Sq8View};
pub use warpseek_compute as compute;
pub use warpseek_error as error;
