//! `warpseek index`.

use super::context::{Context, DEFAULT_MODEL};
use super::term::{self, say, thousands};
use super::{Outcome, interrupt};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use warpseek::chunk::Chunking;
use warpseek::embed::Normalize;
use warpseek::error::{Error, Result};
use warpseek::indexing::{self, IndexOptions, IndexReport, LastRecords, OnError};
use warpseek::ingest::{self, DocumentReader, FieldMap, FileFormat, ReadOptions};
use warpseek::store::{IndexManifest, IndexWriter};

/// Read documents, cut and embed them, and store them in an index.
///
/// Running it again on the same input continues an interrupted run, and otherwise takes in only
/// what is new or changed.
#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// Files or folders: jsonl, csv, tsv, parquet, txt, md, html, each also as .gz; - reads stdin
    #[arg(required = true, value_name = "INPUT")]
    pub(super) inputs: Vec<PathBuf>,
    /// The index folder; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub(super) into: PathBuf,
    /// The embedding model: a name, a hub id, or a folder [default: all-MiniLM-L6-v2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    pub(super) read: ReadArgs,
    /// Cut records of jsonl, csv and parquet too, instead of keeping one row each
    #[arg(long)]
    chunk: bool,
    /// Tokens of a chunk [default: 254, or what the model takes if that is less]
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens that a chunk repeats of the one before it
    #[arg(long, value_name = "N", default_value_t = 32)]
    chunk_overlap: usize,
    /// What to do with a record that cannot be used
    #[arg(long, value_enum, default_value_t = OnErrorArg::Stop)]
    on_error: OnErrorArg,
    /// What to do when an id comes twice in the input
    #[arg(long, value_enum, default_value_t = OnDuplicateArg::Error)]
    on_duplicate: OnDuplicateArg,
    /// Delete documents of the index that the input does not hold
    #[arg(long)]
    prune: bool,
    /// Rows after which a batch is committed; one is committed every five seconds anyway
    #[arg(long, value_name = "N", default_value_t = indexing::DEFAULT_COMMIT_ROWS)]
    commit_rows: usize,
}

/// How input is read.
#[derive(Debug, Clone, Args)]
pub(super) struct ReadArgs {
    /// The format of every input [default: by file name; stdin: jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The field with the id
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// The field with the text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// The field with the title
    #[arg(long, value_name = "NAME")]
    title_field: Option<String>,
    /// The fields to keep as metadata [default: all others]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    metadata_fields: Option<Vec<String>>,
    /// The longest record, in bytes after decompression
    #[arg(long, value_name = "BYTES", default_value_t = ingest::DEFAULT_MAX_RECORD_BYTES)]
    max_record_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnErrorArg {
    /// Stop there; what was read before it is kept
    Stop,
    /// Go on, and list at the end what was skipped
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnDuplicateArg {
    /// Stop with an error
    Error,
    /// The last record of an id wins
    Last,
}

impl ReadArgs {
    pub(super) fn options(&self) -> Result<ReadOptions> {
        Ok(ReadOptions {
            format: self.format.as_deref().map(str::parse::<FileFormat>).transpose()?,
            fields: FieldMap {
                id: self.id_field.clone(),
                text: self.text_field.clone(),
                title: self.title_field.clone(),
                metadata: self.metadata_fields.clone(),
            },
            max_record_bytes: self.max_record_bytes,
        })
    }
}

pub(super) fn run(args: IndexArgs, context: &Context) -> Result<Outcome> {
    let read = args.read.options()?;
    // A stream can be read once only: where the last record of an id wins, it goes to a file first.
    let two_passes = args.on_duplicate == OnDuplicateArg::Last;
    let spool = if two_passes && args.inputs.iter().any(|i| i.as_os_str() == "-") {
        Some(spool_stdin()?)
    } else {
        None
    };
    let open = || match &spool {
        None => ingest::open(&args.inputs, &read),
        Some(file) => open_spooled(&args.inputs, file.path(), &read),
    };
    // All inputs are checked before the model is fetched.
    let mut documents = open()?;
    let name = args.model.as_deref().or(context.settings.model.as_deref()).unwrap_or(DEFAULT_MODEL);
    let (embedder, stamp) = context.embedder(name, Normalize::Always)?;
    let room = embedder.max_tokens().saturating_sub(embedder.overhead());
    if room == 0 {
        return Err(Error::usage(format!(
            "{name}: the prompt alone fills the {} tokens that the model takes",
            embedder.max_tokens()
        )));
    }
    let chunking = Chunking {
        max_tokens: args.chunk_tokens.unwrap_or(254.min(room)),
        overlap: args.chunk_overlap,
        split_records: args.chunk,
    };
    chunking.check(room)?;
    let manifest = IndexManifest::new(embedder.dim(), Some(stamp), chunking);
    let mut writer = IndexWriter::open_or_create(&args.into, &manifest)?;
    interrupt::install();
    let on_error = if args.on_error == OnErrorArg::Skip { OnError::Skip } else { OnError::Stop };
    let last = if two_passes { Some(LastRecords::collect(open()?, on_error)?) } else { None };

    let started = Instant::now();
    let shown = Progress::new(&documents, context.quiet);
    let options =
        IndexOptions { on_error, prune: args.prune, commit_rows: args.commit_rows.max(1) };
    let outcome = indexing::index(
        &mut writer,
        &embedder,
        &mut ByRef(&mut documents, &shown),
        last.as_ref(),
        options,
        &mut |report| {
            shown.show(report, started);
            !interrupt::asked()
        },
    );
    shown.bar.finish_and_clear();
    let report = outcome.inspect_err(|e| {
        if matches!(e, Error::Input { .. }) && on_error == OnError::Stop {
            context.note(
                "what came before this record is in the index, and running again goes on from there; \
                 --on-error skip passes over such records",
            );
        }
    })?;
    for skipped in documents.skipped_files() {
        context.note(&format!("left out {}: {}", skipped.path.display(), skipped.reason));
    }
    print_report(&report, &args, started.elapsed().as_secs_f64(), context)?;
    if report.interrupted {
        return Err(Error::Interrupted(
            "what was indexed so far is committed; run the same command again to go on".to_owned(),
        ));
    }
    Ok(Outcome::Success)
}

fn print_report(
    report: &IndexReport,
    args: &IndexArgs,
    seconds: f64,
    context: &Context,
) -> Result<()> {
    for message in &report.messages {
        term::warn(&format!("skipped {message}"));
    }
    if report.skipped > report.messages.len() as u64 {
        term::warn(&format!("and {} more", report.skipped - report.messages.len() as u64));
    }
    if args.prune && report.skipped > 0 {
        term::warn(
            "nothing was pruned, because records were skipped that the index may still hold",
        );
    }
    let rate = report.tokens as f64 / seconds.max(1e-9);
    if context.json {
        let mut value = serde_json::json!(report);
        value["seconds"] = seconds.into();
        value["tokens_per_second"] = rate.into();
        return term::print_json(&value);
    }
    let mut parts = vec![format!("{} added", thousands(report.added))];
    for (n, what) in [
        (report.updated, "updated"),
        (report.unchanged, "unchanged"),
        (report.pruned, "pruned"),
        (report.skipped, "skipped"),
    ] {
        if n > 0 {
            parts.push(format!("{} {what}", thousands(n)));
        }
    }
    say!(
        "{}: {} documents; {} rows, {} tokens in {seconds:.1} s ({rate:.0} tokens/s)",
        args.into.display(),
        parts.join(", "),
        thousands(report.rows),
        thousands(report.tokens),
    )?;
    if report.tokens_lost > 0 {
        term::warn(&format!(
            "{} rows are longer than the model takes and lost {} tokens; --chunk splits records",
            thousands(report.rows_truncated),
            thousands(report.tokens_lost)
        ));
    }
    Ok(())
}

/// Copies stdin to a temporary file.
fn spool_stdin() -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()
        .map_err(Error::io("create a file in", std::env::temp_dir()))?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file)
        .and_then(|_| file.flush())
        .map_err(Error::io("read", "<stdin>"))?;
    Ok(file)
}

/// Opens the inputs with the spooled file in the place of stdin.
fn open_spooled(inputs: &[PathBuf], spooled: &Path, read: &ReadOptions) -> Result<DocumentReader> {
    if inputs.len() > 1 {
        return Err(Error::usage(
            "--on-duplicate last takes files, or stdin alone, not both together",
        ));
    }
    let file = std::fs::File::open(spooled).map_err(Error::io("open", spooled))?;
    ingest::read_stream(file, "<stdin>", read)
}

/// Passes documents on and shows how far the reader is.
struct ByRef<'a>(&'a mut DocumentReader, &'a Progress);

impl Iterator for ByRef<'_> {
    type Item = Result<warpseek::ingest::Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.0.next();
        self.1.bar.set_position(self.0.progress().bytes_read);
        document
    }
}

/// The progress bar of an indexing run, over the bytes of the input.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(documents: &DocumentReader, quiet: bool) -> Self {
        let total = documents.progress().bytes_total;
        let template = match total {
            Some(_) => "[{bar:40}] {percent:>3}%  {msg}  ETA {eta}",
            None => "{spinner} {msg}",
        };
        Self { bar: term::bar(total, template, quiet) }
    }

    fn show(&self, report: &IndexReport, started: Instant) {
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        self.bar.set_message(format!(
            "{} rows, {:.0} rows/s, {:.0} tokens/s",
            thousands(report.rows + report.unchanged),
            report.rows as f64 / seconds,
            report.tokens as f64 / seconds
        ));
    }
}
