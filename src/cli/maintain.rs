//! `warpseek info`, `verify`, `compact`, `delete`.

use super::context::Context;
use super::term::{self, bold, bytes, plain, say, thousands};
use super::{Outcome, interrupt};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use warpseek::error::{Error, Result};
use warpseek::scan::audit;
use warpseek::store::filter::Filter;
use warpseek::store::{Finding, Index, IndexWriter};

/// Show what an index holds.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// The index folder
    dir: PathBuf,
}

pub(super) fn info(args: InfoArgs, context: &Context) -> Result<Outcome> {
    let index = Index::open(&args.dir)?;
    let stats = index.stats()?;
    let manifest = index.manifest();
    if context.json {
        let fields: serde_json::Map<_, _> =
            index.fields().iter().map(|(n, t)| (n.to_owned(), json!(t))).collect();
        term::print_json(&json!({ "manifest": manifest, "stats": stats, "fields": fields }))?;
        return Ok(Outcome::Success);
    }
    say!("{}", bold(&args.dir.display().to_string()))?;
    say!(
        "  documents  {} in {} rows of {} dimensions",
        thousands(stats.documents),
        thousands(stats.rows),
        manifest.dim
    )?;
    if stats.deleted_rows > 0 {
        say!(
            "  dead       {} rows; `warpseek compact` removes them",
            thousands(stats.deleted_rows)
        )?;
    }
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
    say!("  tokens     {} embedded", thousands(stats.tokens))?;
    if stats.tokens_lost > 0 {
        say!(
            "  truncated  {} rows lost {} tokens to the model's limit",
            thousands(stats.rows_truncated),
            thousands(stats.tokens_lost)
        )?;
    }
    say!(
        "  size       {} vectors, {} prefilter, {} texts; generation {}",
        bytes(stats.vector_bytes),
        bytes(stats.int8_bytes),
        bytes(stats.document_bytes),
        stats.generation
    )?;
    if stats.int8_bytes == 0 {
        say!("  prefilter  none; `warpseek compact` makes one, and searches get faster")?;
    }
    say!(
        "  format     {}, created by warpseek {}",
        manifest.format_version,
        manifest.tool_version
    )?;
    if index.fields().names().next().is_some() {
        say!("  metadata")?;
        for (name, types) in index.fields().iter() {
            say!("    {:24} {}", plain(name), types.describe())?;
        }
    }
    Ok(Outcome::Success)
}

/// Check an index for damage; with --sample, also check that searches are exact.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The index folder
    dir: PathBuf,
    /// Compare this many searches with an exhaustive one in float64
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
}

pub(super) fn verify(args: VerifyArgs, context: &Context) -> Result<Outcome> {
    let mut findings = warpseek::store::verify(&args.dir)?;
    let damaged = |findings: &[Finding]| findings.iter().filter(|f| f.problem.is_some()).count();
    if args.sample > 0 && damaged(&findings) == 0 {
        interrupt::install();
        let index = Index::open(&args.dir)?;
        let bar =
            term::bar(Some(args.sample as u64), "[{bar:40}] {pos}/{len} searches", context.quiet);
        let scanner = context.scanner()?;
        let gpu = scanner.is_gpu().then_some(&scanner);
        let mut progress = |done| {
            bar.set_position(done as u64);
            !interrupt::asked()
        };
        let (matrix, live) = (index.matrix()?, index.live());
        let outcome = audit::audit(&matrix, live, gpu, args.sample, &mut progress)?;
        bar.finish_and_clear();
        findings.push(Finding {
            check: format!(
                "{} searches equal to an exhaustive one in float64, bit for bit, by {}",
                outcome.searches,
                outcome.backends.join(", ")
            ),
            problem: outcome.difference,
        });
        if interrupt::asked() {
            return Err(Error::Interrupted("the audit was stopped".to_owned()));
        }
    }
    let n = damaged(&findings);
    if context.json {
        term::print_json(&json!({ "sound": n == 0, "checks": findings }))?;
    } else {
        for finding in &findings {
            match &finding.problem {
                None => say!("ok       {}", finding.check)?,
                Some(problem) => say!("DAMAGED  {}: {}", finding.check, plain(problem))?,
            }
        }
    }
    if n == 0 {
        return Ok(Outcome::Success);
    }
    Err(Error::corrupt(args.dir, format!("{n} of {} checks failed", findings.len())))
}

/// Give back the space of deleted and replaced documents, and bring an older index up to date.
#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    /// The index folder
    dir: PathBuf,
}

pub(super) fn compact(args: CompactArgs, context: &Context) -> Result<Outcome> {
    let compaction = IndexWriter::open(&args.dir)?.compact()?;
    if context.json {
        term::print_json(&compaction)?;
    } else {
        say!(
            "{}: {} rows, {} dead ones removed; generation {}",
            args.dir.display(),
            thousands(compaction.rows_after),
            thousands(compaction.rows_before - compaction.rows_after),
            compaction.generation
        )?;
    }
    Ok(Outcome::Success)
}

/// Delete documents by id, by document id, or by a filter.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The index folder
    dir: PathBuf,
    /// Ids; one that is no row's document is taken as a doc_id and deletes all its documents
    #[arg(required_unless_present_any = ["filter", "ids_from"])]
    ids: Vec<String>,
    /// Delete what passes this condition
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Ids from a file, one a line; - reads stdin
    #[arg(long, value_name = "FILE")]
    ids_from: Option<PathBuf>,
    /// Ids that the index does not hold are no error
    #[arg(long)]
    ignore_missing: bool,
}

pub(super) fn delete(args: DeleteArgs, context: &Context) -> Result<Outcome> {
    let filter = args.filter.as_deref().map(Filter::parse).transpose()?;
    let mut ids = args.ids.clone();
    if let Some(file) = &args.ids_from {
        let text = term::read_text(file)?;
        ids.extend(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned));
    }
    let mut writer = IndexWriter::open(&args.dir)?;
    let mut gone = std::collections::BTreeSet::new();
    let mut missing = Vec::new();
    for id in &ids {
        let found = writer.find_all(id)?;
        if found.is_empty() {
            missing.push(id.as_str());
        }
        gone.extend(found);
    }
    if !missing.is_empty() && !args.ignore_missing {
        let shown: Vec<&str> = missing.iter().take(5).copied().collect();
        return Err(Error::usage(format!(
            "{} of {} ids are not in the index ('{}'), and nothing was deleted; --ignore-missing passes \
             over them",
            missing.len(),
            ids.len(),
            shown.join("', '")
        )));
    }
    if let Some(filter) = &filter {
        gone.extend(writer.find_where(filter)?);
    }
    let n = gone.len() as u64;
    gone.into_iter().for_each(|seq| writer.delete(seq));
    writer.commit()?;
    if context.json {
        term::print_json(&json!({ "deleted": n, "missing": missing.len() }))?;
    } else {
        say!(
            "{}: {} documents deleted; their space comes back with `warpseek compact`",
            args.dir.display(),
            thousands(n)
        )?;
    }
    Ok(Outcome::Success)
}
