//! `warpseek mcp`.

use super::context::{Context, Status};
use super::{interrupt, serve};
use crate::error::Result;
use crate::server::{Access, ServedModels, Serving, serve_stdio};
use clap::Args;

/// Serve indexes to an agent over stdin and stdout, by the Model Context Protocol.
///
/// A program such as Claude, Cursor or VS Code starts this command and calls its tools: search,
/// get, list_indexes. `warpseek serve` offers the same tools over HTTP, at /mcp.
#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// Index folders, each as DIR or NAME=DIR [default: .warpseek here or in a folder above, or the
    /// setting `index`]
    #[arg(value_name = "DIR")]
    indexes: Vec<String>,
    /// Embedding model to use instead of the indexes' own
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Reranker: a listed name, a hub id, a folder, or none [default: the best one present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Index of calls that name none [default: the only one]
    #[arg(long, value_name = "NAME")]
    default_index: Option<String>,
    /// Offer the tools upsert and delete, which change documents
    #[arg(long)]
    allow_writes: bool,
}

pub(super) fn run(args: McpArgs, context: &Context) -> Result<Status> {
    let models = ServedModels {
        model: args.model.as_deref(),
        reranker: args.reranker.as_deref(),
        ..ServedModels::default()
    };
    let mut indexes: Vec<_> = args.indexes.iter().map(|index| serve::named_index(index)).collect();
    if indexes.is_empty() {
        indexes.push(serve::default_name(context.index_dir(None)?));
    }
    let access = Access {
        read_only: !args.allow_writes,
        agent_writes: args.allow_writes,
        ..Access::default()
    };
    let serving = Serving::open(&context.engine, &indexes, models)?;
    let serving = Serving { access, ..serving }.with_default_index(args.default_index)?;
    interrupt::install();
    serve_stdio(serving, interrupt::wait())?;
    Ok(Status::Success)
}
