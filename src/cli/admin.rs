//! `warpseek info`, `verify`, `compact`, `delete`.

use super::args::options_of;
use super::context::{Context, Status};
use super::default_index::is_index;
use super::interrupt;
use super::term::{self, DecimalBytes, HumanCount, bold, plain, say};
use crate::error::{Error, Result, escaped};
use crate::store::filter::Filter;
use crate::store::{Finding, Index, IndexMetric, IndexWriter};
use crate::topk::audit;
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Show the contents of an index.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
}

pub(super) fn info(args: InfoArgs, context: &Context) -> Result<Status> {
    let dir = context.index_dir(args.dir.as_deref())?;
    let index = Index::open(&dir)?;
    let stats = index.stats()?;
    let manifest = index.manifest();
    if context.json {
        let fields: serde_json::Map<_, _> =
            index.fields().iter().map(|(n, t)| (n.to_owned(), json!(t))).collect();
        let mut manifest = json!(manifest);
        manifest["language"] = json!(index.manifest().language());
        // Not `recorded_inputs`: settings of a later version are shown as they are.
        let input = |(name, stored): (String, String)| {
            let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
            json!({ "name": name, "settings": stored["settings"] })
        };
        let inputs: Vec<Value> = index.inputs()?.into_iter().map(input).collect();
        let shards = index.shard_list().map(|list| &list.shards);
        term::print_json(&json!({
            "manifest": manifest,
            "stats": stats,
            "fields": fields,
            "inputs": inputs,
            "shards": shards,
        }))?;
        return Ok(Status::Success);
    }
    say!("{}", bold(&dir.display().to_string()))?;
    say!(
        "  documents  {} in {} rows of {} dimensions",
        HumanCount(stats.documents),
        HumanCount(stats.rows),
        manifest.dim
    )?;
    if stats.deleted_rows > 0 {
        let deleted = HumanCount(stats.deleted_rows);
        say!("  deleted    {deleted} rows; `warpseek compact` removes them")?;
    }
    let metric = match manifest.metric {
        IndexMetric::Cosine => "cosine, of vectors of unit length",
        IndexMetric::InnerProduct => "inner product, of vectors of any length",
    };
    say!("  metric     {metric}")?;
    match &manifest.model {
        Some(m) => say!("  model      {} (sha256 {})", plain(&m.name), &m.sha256)?,
        None => say!("  model      none: the vectors were imported")?,
    }
    say!(
        "  chunking   {} tokens, {} overlap; records {}",
        manifest.chunking.max_tokens,
        manifest.chunking.overlap,
        if manifest.chunking.split_records { "split" } else { "one row each" }
    )?;
    if !manifest.language().is_none() {
        say!("  language   {} (lexical index)", manifest.language())?;
    }
    say!("  tokens     {} embedded", HumanCount(stats.tokens))?;
    if stats.tokens_lost > 0 {
        say!(
            "  truncated  {} rows lost {} tokens to the model's limit",
            HumanCount(stats.rows_truncated),
            HumanCount(stats.tokens_lost)
        )?;
    }
    say!(
        "  size       {} vectors, {} int8 copy, {} texts; generation {}",
        DecimalBytes(stats.vector_bytes),
        DecimalBytes(stats.int8_bytes),
        DecimalBytes(stats.document_bytes),
        stats.generation
    )?;
    if stats.int8_bytes == 0 {
        say!("  int8 copy  none; `warpseek compact` makes one, for faster searches")?;
    }
    let (format, tool) = (manifest.format_version, &manifest.tool_version);
    say!("  format     {format}, created by warpseek {tool}")?;
    if let Some(list) = index.shard_list() {
        let n = HumanCount(list.shards.len() as u64);
        say!("  shards     {n}, generation {}", list.generation)?;
        for shard in &list.shards {
            let (folder, rows) = (plain(&shard.folder), HumanCount(shard.rows));
            say!("    {folder:24} {rows} rows from row {} on", HumanCount(shard.first_row))?;
        }
    }
    let inputs = index.inputs()?;
    if !inputs.is_empty() {
        say!("  recorded inputs, which `warpseek sync` reads again")?;
        for (name, stored) in inputs {
            say!("    {}{}", escaped(&name), settings_of(&stored))?;
        }
    }
    if index.fields().names().next().is_some() {
        say!("  metadata")?;
        for (name, types) in index.fields().iter() {
            say!("    {:24} {}", plain(name), types.describe())?;
        }
        if !index.fields().counts_readings() {
            say!("    an older catalogue: `warpseek compact` finds numbers and times in texts")?;
        }
    }
    Ok(Status::Success)
}

/// The settings of an input that are not the default, as options of `index`; as they are stored, if
/// a later version stored them.
fn settings_of(stored: &str) -> String {
    let mut stored: Value = serde_json::from_str(stored).unwrap_or_default();
    let settings = stored["settings"].take();
    let options = serde_json::from_value(settings.clone()).map(|known| options_of(&known));
    let options = options.unwrap_or_else(|_| vec![settings.to_string()]);
    options.iter().map(|option| format!("  {}", plain(option))).collect()
}

/// Check an index for damage; with --sample, also check that searches are exact.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Number of searches to compare with an exhaustive one in float64
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
}

pub(super) fn verify(args: VerifyArgs, context: &Context) -> Result<Status> {
    let dir = context.index_dir(args.dir.as_deref())?;
    let mut findings = crate::store::verify(&dir)?;
    let damaged = |findings: &[Finding]| findings.iter().filter(|f| f.problem.is_some()).count();
    if args.sample > 0 && damaged(&findings) == 0 {
        findings.push(audit(&dir, args.sample, context)?);
    }
    let n = damaged(&findings);
    context.report(&json!({ "sound": n == 0, "checks": findings }), || {
        findings.iter().try_for_each(|finding| match &finding.problem {
            None => say!("ok       {}", finding.check),
            Some(problem) => say!("DAMAGED  {}: {}", finding.check, plain(problem)),
        })
    })?;
    if n == 0 {
        return Ok(Status::Success);
    }
    Err(Error::corrupt(dir, format!("{n} of {} checks failed", findings.len())))
}

/// Compares sampled searches with the exhaustive one.
fn audit(dir: &Path, sample: usize, context: &Context) -> Result<Finding> {
    interrupt::install();
    let index = Index::open(dir)?;
    let bar = context.bar(Some(sample as u64), "[{bar:40}] {pos}/{len} searches");
    let scanner = context.engine.scanner();
    let gpu = scanner.is_gpu().then_some(&scanner);
    let mut progress = |done| {
        bar.set_position(done as u64);
        !interrupt::requested()
    };
    let outcome = audit::audit(&index.matrix()?, index.live(), gpu, sample, &mut progress)?;
    bar.finish_and_clear();
    if interrupt::requested() {
        return Err(Error::Interrupted("the audit was stopped".to_owned()));
    }
    Ok(outcome.into())
}

/// Reclaim the space of deleted and replaced documents, and upgrade an older index.
#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
}

pub(super) fn compact(args: CompactArgs, context: &Context) -> Result<Status> {
    let dir = context.index_dir(args.dir.as_deref())?;
    let compaction = IndexWriter::open(&dir)?.compact()?;
    context.report(&compaction, || {
        say!(
            "{}: {} rows, {} deleted ones removed; generation {}",
            dir.display(),
            HumanCount(compaction.rows_after),
            HumanCount(compaction.rows_before - compaction.rows_after),
            compaction.generation
        )
    })
}

/// Delete documents by id, by document id, or by a filter.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// Ids of documents; an id of none is a doc_id, and deletes all documents that share it
    ids: Vec<String>,
    /// Delete the documents that pass this condition
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Read ids from a file, one per line; - reads stdin
    #[arg(long, value_name = "FILE")]
    ids_from: Option<PathBuf>,
    /// Ignore ids that are not in the index
    #[arg(long)]
    ignore_missing: bool,
}

pub(super) fn delete(args: DeleteArgs, context: &Context) -> Result<Status> {
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    let (dir, mut ids) = index_and_ids(&args, context)?;
    if let Some(file) = &args.ids_from {
        let text = term::read_text(file)?;
        ids.extend(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned));
    }
    if ids.is_empty() && filter.is_none() && args.ids_from.is_none() {
        return Err(Error::usage("there is nothing to delete: give ids, --filter or --ids-from"));
    }
    let mut writer = IndexWriter::open(&dir)?;
    let mut deleted = BTreeSet::new();
    let mut missing = Vec::new();
    for id in &ids {
        let found = writer.find_all(id)?;
        if found.is_empty() {
            missing.push(id.as_str());
        }
        deleted.extend(found);
    }
    if !missing.is_empty() && !args.ignore_missing {
        for row in missing.iter().take(5) {
            if let Some(document) = writer.document_of_row(row)? {
                return Err(Error::usage(format!(
                    "'{row}' is one of several chunks of the document '{document}', and nothing \
                     was deleted: delete the whole document by that id"
                )));
            }
        }
        return Err(Error::usage(format!(
            "{} of {} ids are not in the index ('{}'), and nothing was deleted; --ignore-missing \
             skips them",
            missing.len(),
            ids.len(),
            missing[..missing.len().min(5)].join("', '")
        )));
    }
    let mut warnings = Vec::new();
    if let Some(filter) = &filter {
        let (found, notes) = writer.find_where(filter)?;
        deleted.extend(found);
        warnings = notes;
        warnings.iter().for_each(|w| term::warn(w));
    }
    let n = deleted.len() as u64;
    deleted.into_iter().for_each(|seq| writer.delete(seq));
    writer.commit()?;
    let report = json!({ "deleted": n, "missing": missing.len(), "warnings": warnings });
    context.report(&report, || {
        let (dir, n) = (dir.display(), HumanCount(n));
        say!("{dir}: {n} documents deleted; `warpseek compact` reclaims their space")
    })
}

/// The index and the ids. A first argument that is no index folder is an id in the default index.
fn index_and_ids(args: &DeleteArgs, context: &Context) -> Result<(PathBuf, Vec<String>)> {
    let first = args.dir.as_deref().filter(|dir| !is_index(dir));
    let default = || context.default_index();
    // With --ignore-missing a misspelt folder would pass as an id that is missing.
    if let Some(id) = first.and_then(Path::to_str).filter(|_| !args.ignore_missing)
        && let Some(dir) = default()?
    {
        let ids = std::iter::once(id).chain(args.ids.iter().map(String::as_str));
        return Ok((dir, ids.map(str::to_owned).collect()));
    }
    Ok((context.index_dir(args.dir.as_deref())?, args.ids.clone()))
}
