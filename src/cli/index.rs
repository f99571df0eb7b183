//! `warpseek index`.

use super::args::ReadArgs;
use super::context::{Context, Status};
use super::run_summary::{counts, print_left_out, warn_of_truncation};
use super::term::{self, HumanCount, say};
use super::{extract, interrupt, sync};
use crate::engine::{ChunkOptions, manifest_for};
use crate::error::{Error, Result};
use crate::indexing::{self, IndexOptions, IndexReport, InputSettings, LastRecords, OnError};
use crate::ingest::{self, DocumentReader, ReadOptions};
use crate::store::{IndexWriter, Language};
use clap::{Args, ValueEnum};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Read documents, chunk and embed them, and store them in an index.
///
/// Running it again on the same input continues an interrupted run, and otherwise adds only new
/// and changed documents.
#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// Files or folders: jsonl, json, csv, tsv, parquet, txt, md, html, rst, org, tex, source code,
    /// ipynb, eml, pdf, docx, pptx, xlsx, odt, epub, each also as .gz; - reads stdin
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Index folder; created if it does not exist [default: .warpseek here or in a folder above, or
    /// the setting `index`]
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Embedding model: a listed name, a hub id, or a folder [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
    /// Split records of jsonl, csv and parquet too, instead of keeping one row each
    #[arg(long)]
    chunk: bool,
    /// Tokens per chunk [default: 254, or the model's limit if that is less]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens that a chunk repeats of the text before it, about this number and never more
    #[arg(long, value_name = "N", default_value_t = 32)]
    chunk_overlap: usize,
    /// Language of the lexical index that --hybrid searches: none, or a code such as de, fr, ja
    /// or zh [default: none, or that of the index]
    #[arg(long, value_name = "CODE")]
    language: Option<Language>,
    /// Action for a file or record that cannot be used [default: stop at one of a file that is
    /// named itself, skip those below folders]
    #[arg(long, value_enum)]
    on_error: Option<OnError>,
    /// Stop at the first bad file of a folder too; --on-error overrides this
    #[arg(long)]
    strict: bool,
    /// Action for an id that occurs twice in the input
    #[arg(long, value_enum, default_value_t = OnDuplicateArg::Error)]
    on_duplicate: OnDuplicateArg,
    /// Delete documents that came from these inputs and are no longer in them
    #[arg(long)]
    prune: bool,
    /// Then go on: bring the index up to date whenever a file has changed, until Ctrl+C
    #[arg(long)]
    watch: bool,
    /// Prune without a question
    #[arg(long, requires = "prune")]
    yes: bool,
    /// Keep the first N dimensions of vectors, scaled to unit length: for models that were trained
    /// for it (Matryoshka) [default: all, or as the index has]
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Rows per commit; a commit is made at least every five seconds
    #[arg(long, value_name = "N", default_value_t = indexing::DEFAULT_COMMIT_ROWS)]
    commit_rows: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnDuplicateArg {
    /// Stop with an error
    Error,
    /// Keep the last record of an id
    Last,
}

pub(super) fn run(args: IndexArgs, context: &Context) -> Result<Status> {
    let into = context.index_to_write(args.into.as_deref())?;
    let settings = InputSettings {
        on_error: args.on_error,
        strict: args.strict,
        keep_last: args.on_duplicate == OnDuplicateArg::Last,
        ..args.read.settings()
    };
    let strict = settings.is_strict();
    let read = settings.read_options(&indexing::base_of(&into)?, extract::options())?;
    // With `--on-duplicate last` the input is read twice, so stdin is copied to a file first.
    let two_passes = settings.keep_last;
    let has_stdin = args.inputs.iter().any(|i| i.as_os_str() == "-");
    if args.watch && has_stdin {
        return Err(Error::usage("--watch is for files and folders; stdin (-) ends"));
    }
    let stdin = (two_passes && has_stdin).then(copy_stdin).transpose()?;
    let open = || match &stdin {
        None => ingest::open(&args.inputs, &read),
        Some(file) => open_copy(&args.inputs, file.path(), &read),
    };
    // All inputs are checked before the model is downloaded.
    let mut documents = open()?;
    let roots = documents.roots().clone();
    let name = context.engine.model_name(args.model.as_deref());
    let model = context.engine.index_embedder(name, Some(&into), args.dimensions)?;
    let chunks = ChunkOptions {
        max_tokens: args.chunk_tokens,
        overlap: Some(args.chunk_overlap),
        split_records: args.chunk,
    };
    let manifest = manifest_for(&model, chunks)?.with_language(args.language);
    let mut writer = IndexWriter::open_or_create(&into, &manifest)?.removed_unless_used();
    interrupt::install();
    let on_error = args.on_error.unwrap_or(OnError::Stop);
    let found = documents.found_files().clone();
    let found = (!strict).then_some(&found);
    let unless_stopped = |document| match interrupt::requested() {
        true => Err(Error::Interrupted("nothing was indexed".to_owned())),
        false => document,
    };
    let last = match two_passes {
        true => Some(LastRecords::collect(open()?.map(unless_stopped), on_error, found)?),
        false => None,
    };
    indexing::begin_inputs(&mut writer, &documents, &settings)?;
    let started = Instant::now();
    let total = documents.progress().bytes_total;
    let template = match total {
        Some(_) => "[{bar:40}] {percent:>3}%  {msg}  ETA {eta}",
        None => "{spinner} {msg}",
    };
    let bar = context.bar(total, template);
    let mut input = std::iter::from_fn(|| {
        let document = documents.next();
        for note in documents.take_decisions() {
            bar.suspend(|| context.note(&note));
        }
        bar.set_position(documents.progress().bytes_read);
        document
    });
    let options = IndexOptions {
        on_error,
        found,
        inputs: Some(&roots),
        prune: args.prune,
        unchanged: None,
        commit_rows: args.commit_rows.max(1),
        last: last.as_ref(),
        stop: Some(interrupt::flag()),
        threads: None,
    };
    // True once documents of this run are in the index.
    let stored = Cell::new(false);
    let mut progress = |report: &IndexReport| {
        stored.set(report.added + report.updated + report.unchanged > 0);
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!(
            "{} rows, {:.0} rows/s, {:.0} tokens/s",
            HumanCount(report.rows + report.unchanged),
            report.rows as f64 / seconds,
            report.tokens as f64 / seconds
        ));
        !interrupt::requested()
    };
    let outcome = indexing::index(&mut writer, &model.embedder, &mut input, options, &mut progress);
    bar.finish_and_clear();
    let mut report = outcome.inspect_err(|e| {
        let notes = documents.notes();
        term::warn_all(&notes.texts(), notes.total());
        if let Error::Input { place, .. } = e
            && on_error == OnError::Stop
            && stored.get()
            && found.is_none_or(|found| found.source(&place.file).is_none())
        {
            context.note(
                "the records before this one are in the index, and running again continues from \
                 there; --on-error skip skips such records",
            );
        }
    })?;
    report.take_notes(documents.notes());
    report.take_left_out(&documents);
    let seconds = started.elapsed().as_secs_f64();
    let pruned = prune(&mut writer, &mut report, &args, context);
    indexing::record_inputs(&mut writer, &documents, &report, &settings)?;
    print_report(&report, (&args, &into), seconds, context)?;
    pruned?;
    if report.interrupted {
        return Err(Error::Interrupted(
            "the documents indexed so far are committed; run the same command again to continue"
                .to_owned(),
        ));
    }
    writer.keep();
    if args.watch {
        // While it waits, other processes may write to the index.
        drop(writer);
        return sync::watch(&into, Some(Arc::new(model.embedder)), args.model.as_deref(), context);
    }
    Ok(Status::Success)
}

/// Deletes outdated documents, after telling their number and asking.
fn prune(
    writer: &mut IndexWriter,
    report: &mut IndexReport,
    args: &IndexArgs,
    context: &Context,
) -> Result<()> {
    if report.sourceless > 0 {
        context.note(&format!(
            "kept {} documents that are not in this input: it is not known where they came from \
             (an older version, an import or the server added them); `warpseek delete` deletes \
             them",
            HumanCount(report.sourceless)
        ));
    }
    if report.kept > 0 {
        term::warn(&format!(
            "kept {} documents of files that were skipped, in whole or in part: repair the \
             files to update them, or leave the files out (--glob '!FILE') to prune them",
            HumanCount(report.kept)
        ));
    }
    let outdated = &report.outdated;
    if outdated.is_empty() {
        return Ok(());
    }
    let first = writer.ids(&outdated[..outdated.len().min(3)])?;
    let found = format!(
        "{} documents came from these inputs and are no longer in them ('{}'{})",
        HumanCount(outdated.len() as u64),
        first.join("', '"),
        if outdated.len() > first.len() { ", ..." } else { "" }
    );
    if !args.yes {
        let uses_stdin = args.inputs.iter().any(|input| input.as_os_str() == "-");
        if uses_stdin || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Err(Error::usage(format!(
                "{found}: nothing was pruned; --prune --yes deletes them"
            )));
        }
        if !term::ask(&format!("{found}. Delete them?"))? || interrupt::requested() {
            context.note("nothing was pruned");
            return Ok(());
        }
    } else {
        context.note(&format!("pruning: {found}"));
    }
    indexing::prune(writer, report)
}

fn print_report(
    report: &IndexReport,
    (args, into): (&IndexArgs, &Path),
    seconds: f64,
    context: &Context,
) -> Result<()> {
    term::warn_all(&report.notes, report.notes_total);
    let skips_all = args.on_error == Some(OnError::Skip);
    if skips_all {
        for message in &report.messages {
            term::warn(&format!("skipped {message}"));
        }
        if report.skipped > report.messages.len() as u64 {
            term::warn(&format!("and {} more", report.skipped - report.messages.len() as u64));
        }
    }
    // With --quiet the table is printed only if something bad was skipped.
    if !context.quiet || report.skipped > 0 && !skips_all {
        print_left_out(&report.left_out);
    }
    if args.prune && skips_all && report.skipped > 0 {
        term::warn("nothing was pruned: the index may hold the records that were skipped");
    }
    if let Some([id, old, new]) = &report.first_elsewhere {
        term::warn(&format!(
            "{} documents replaced documents of the same id from another input ('{id}' of {old} by \
             that of {new}): make ids unique to keep both",
            HumanCount(report.replaced_elsewhere)
        ));
    }
    let rate = report.tokens as f64 / seconds.max(1e-9);
    if context.json {
        let mut value = serde_json::json!(report);
        value["seconds"] = seconds.into();
        value["tokens_per_second"] = rate.into();
        return term::print_json(&value);
    }
    say!(
        "{}: {} documents; {} rows, {} tokens in {seconds:.1} s ({rate:.0} tokens/s)",
        into.display(),
        counts(report),
        HumanCount(report.rows),
        HumanCount(report.tokens),
    )?;
    warn_of_truncation(report);
    Ok(())
}

/// Copies stdin to a temporary file.
fn copy_stdin() -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()
        .map_err(Error::io("create a file in", std::env::temp_dir()))?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file)
        .and_then(|_| file.flush())
        .map_err(Error::io("read", "<stdin>"))?;
    Ok(file)
}

/// Opens the copy of stdin, which must be the only input.
fn open_copy(inputs: &[PathBuf], copy: &Path, read: &ReadOptions) -> Result<DocumentReader> {
    if inputs.len() > 1 {
        return Err(Error::usage(
            "--on-duplicate last takes files, or stdin alone, not both together",
        ));
    }
    let file = std::fs::File::open(copy).map_err(Error::io("open", copy))?;
    ingest::read_stream(file, "<stdin>", read)
}
