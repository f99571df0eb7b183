//! `warpseek shard`.

use super::context::{Context, Status};
use super::interrupt;
use super::term::{HumanCount, say};
use crate::error::Result;
use crate::indexing;
use crate::store::Index;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Cut an index into shards, to be searched on several machines or as one index.
///
/// Every command that reads an index takes the folder of the shards in its place. Shards do not
/// change: run this again to replace them.
#[derive(Debug, Args)]
pub(super) struct ShardArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Rows per shard; all rows of a document are in one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Folder for the shards and their list, shards.json; shards that are there are replaced
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

pub(super) fn run(args: ShardArgs, context: &Context) -> Result<Status> {
    let dir = context.index_dir(args.dir.as_deref())?;
    let index = Index::open(&dir)?;
    interrupt::install();
    let bar = context.bar(Some(index.live().count() as u64), "[{bar:40}] {pos}/{len} rows");
    let list = indexing::shard(&index, &args.into, args.rows, &mut |done| {
        bar.set_position(done);
        !interrupt::requested()
    });
    bar.finish_and_clear();
    let list = list?;
    let value = json!({
        "shards": list.shards.len(),
        "rows": list.rows,
        "documents": list.documents,
        "generation": list.generation,
    });
    context.report(&value, || {
        say!(
            "{}: {} {} of {} rows in all, generation {}",
            args.into.display(),
            HumanCount(list.shards.len() as u64),
            if list.shards.len() == 1 { "shard" } else { "shards" },
            HumanCount(list.rows),
            list.generation
        )
    })
}
