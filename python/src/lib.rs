//! The Rust core of the Python package: classes over the library, without policy of their own.
//!
//! Python's own part, in `warpseek/`, takes frames and records, names arguments in its messages and
//! shows results. Nothing here prints.
//!
//! | file | contents |
//! | --- | --- |
//! | `call` | computations without the GIL: threads per process, Ctrl+C, progress |
//! | `error` | errors of the library as exceptions |
//! | `engine` | settings of Python callers, messages to `logging` |
//! | `array` | NumPy arrays in and out, checked |
//! | `values` | Python values as JSON values |
//! | `records` | records of an iterator as documents |
//! | `opened` | an index with its models, in every process |
//! | `reading`, `writing`, `evaluation`, `batch` | what is done with it |
//! | `remote`, `indexing` | shards in other processes, and made by them |
//! | `models`, `index`, `answer`, `server` | the classes |

mod answer;
mod array;
mod batch;
mod call;
mod engine;
mod error;
mod evaluation;
mod index;
mod indexing;
mod models;
mod opened;
mod reading;
mod records;
mod remote;
mod server;
mod values;
mod writing;

use pyo3::prelude::*;

/// The Rust core of warpseek.
#[pymodule(name = "_warpseek")]
mod warpseek_core {
    #[pymodule_export]
    use crate::answer::PyPrompt;
    #[pymodule_export]
    use crate::call::{get_num_threads, set_num_threads};
    #[pymodule_export]
    use crate::engine::version;
    #[pymodule_export]
    use crate::index::PyIndex;
    #[pymodule_export]
    use crate::indexing::{
        PartIndexer, PyShardFolder, duplicate_ids, list_files, list_object, listed_facts,
        record_at, record_ids,
    };
    #[pymodule_export]
    use crate::models::{CrossEncoder, PyEmbedder};
    #[pymodule_export]
    use crate::remote::{PyShard, open_remote, shard_list, stop_requested};
    #[pymodule_export]
    use crate::server::{Server, main};
}
