//! `warpseek sync`, and watching for `index --watch` and `sync --watch`.

use super::context::{Context, Status};
use super::run_summary::{counts, print_left_out, warn_of_truncation};
use super::term::{self, HumanCount, say};
use super::{extract, interrupt};
use crate::error::{Error, Result, escaped};
use crate::indexing::{self, SyncOptions, SyncReport, WatchEvents};
use crate::ingest::SkipTable;
use crate::store::{Index, IndexWriter};
use clap::Args;
use rayon::ThreadPool;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use warpseek_bert::embedder::Embedder;

/// Bring an index up to date with the files and folders that `index` has read.
///
/// Only files that have changed are read, with the options that `index` was given; documents of
/// files and records that are gone are deleted. Files whose size, times and inode number are the
/// same count as unchanged; `index` reads all. Of an input that is gone altogether, or cannot be
/// read, nothing is deleted; the others are read, and the exit status tells.
#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Keep running and sync after every change, until Ctrl+C
    #[arg(long)]
    watch: bool,
    /// Forget this recorded input instead; its documents stay
    #[arg(long, value_name = "INPUT", conflicts_with = "watch")]
    forget: Option<PathBuf>,
    /// Another copy of the index's embedding model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

impl SyncArgs {
    pub(super) fn is_long(&self) -> bool {
        self.watch
    }
}

pub(super) fn run(args: SyncArgs, context: &Context) -> Result<Status> {
    let dir = context.index_dir(args.dir.as_deref())?;
    if let Some(input) = &args.forget {
        let mut writer = IndexWriter::open(&dir)?;
        let result = indexing::forget_input(&mut writer, input, &indexing::base_of(&dir)?)?;
        let documents = match &result.above {
            None => "its documents stay".to_owned(),
            Some(above) => format!("'{above}', which is above it, decides about its documents"),
        };
        if context.json {
            term::print_json(&serde_json::json!(result))?;
        }
        let name = escaped(&result.forgotten);
        context.note(&format!("{name} is no longer a recorded input; {documents}"));
        return Ok(Status::Success);
    }
    if args.watch {
        return watch(&dir, None, args.model.as_deref(), context);
    }
    interrupt::install();
    let mut syncing = Syncing::new(None, args.model.as_deref(), context);
    let (report, seconds) = syncing.sync(&dir)?;
    syncing.print(&dir, &report, seconds)?;
    let mut errors = report.errors().into_iter();
    let first = if report.documents.interrupted { None } else { errors.next() };
    errors.for_each(|error| term::warn(&error.to_string()));
    if report.documents.interrupted {
        return Err(Error::Interrupted(
            "what was read so far is committed; run it again to continue".to_owned(),
        ));
    }
    first.map_or(Ok(Status::Success), Err)
}

/// Keeps the index in `dir` up to date until Ctrl+C, with an embedder that is open already or the
/// copy `model` of the index's own.
pub(super) fn watch(
    dir: &Path,
    embedder: Option<Arc<Embedder>>,
    model: Option<&str>,
    context: &Context,
) -> Result<Status> {
    interrupt::install();
    let syncing = Syncing::new(embedder, model, context);
    let mut watching = Watching { syncing, dir, begun: false };
    indexing::watch(dir, &mut watching)?;
    Ok(Status::Success)
}

/// State of `sync` from one run to the next.
struct Syncing<'a> {
    /// The index's embedder, once it was needed.
    embedder: Option<Arc<Embedder>>,
    /// The table of what was left out that was shown last.
    told: Option<SkipTable>,
    /// The warnings that were shown last, and the documents kept.
    warned: Vec<String>,
    kept: u64,
    model: Option<&'a str>,
    context: &'a Context,
}

impl<'a> Syncing<'a> {
    fn new(embedder: Option<Arc<Embedder>>, model: Option<&'a str>, context: &'a Context) -> Self {
        Self { embedder, told: None, warned: Vec::new(), kept: 0, model, context }
    }

    /// Brings the index up to date. Returns the time that took, in seconds, too.
    fn sync(&mut self, dir: &Path) -> Result<(SyncReport, f64)> {
        let started = Instant::now();
        let mut writer = IndexWriter::open(dir)?;
        let bar = self.context.bar(None, "{spinner} {msg}");
        let options = SyncOptions {
            extract: extract::options(),
            stop: Some(interrupt::flag()),
            ..SyncOptions::default()
        };
        let (known, model, context) = (&mut self.embedder, self.model, self.context);
        let mut embedder = || {
            if let Some(embedder) = &known {
                return Ok(Arc::clone(embedder));
            }
            let opened = context.engine.embedder_of(&Index::open(dir)?, model)?;
            let opened = opened.map(Arc::new).ok_or_else(|| {
                Error::usage(format!(
                    "{} was made without a model: name the one that made its vectors with --model",
                    dir.display()
                ))
            })?;
            Ok(Arc::clone(known.insert(opened)))
        };
        let mut progress = |report: &indexing::IndexReport| {
            bar.set_message(format!("{} rows", HumanCount(report.rows)));
            bar.tick();
            !interrupt::requested()
        };
        let report = indexing::sync(dir, &mut writer, &mut embedder, &options, &mut progress);
        bar.finish_and_clear();
        Ok((report?, started.elapsed().as_secs_f64()))
    }

    fn print(&mut self, dir: &Path, report: &SyncReport, seconds: f64) -> Result<()> {
        let SyncReport { files_read, files_unchanged, documents, .. } = report;
        term::warn_all(&documents.notes, documents.notes_total);
        // Those about inputs are told by the caller.
        let skipped = report.skipped_messages();
        for message in skipped.iter().filter(|message| !self.warned.contains(message)) {
            term::warn(&format!("skipped {message}"));
        }
        self.warned = skipped;
        let kept = std::mem::replace(&mut self.kept, documents.kept);
        if documents.kept > 0 && documents.kept != kept {
            term::warn(&format!(
                "kept {} documents of files that were skipped, in whole or in part",
                HumanCount(documents.kept)
            ));
        }
        if !self.context.quiet && self.told.as_ref() != Some(&documents.left_out) {
            print_left_out(&documents.left_out);
        }
        self.told = Some(documents.left_out.clone());
        if self.context.json {
            let mut value = serde_json::json!(report);
            let errors = report.errors();
            value["errors"] = errors.iter().map(Error::to_string).collect::<Vec<_>>().into();
            value["seconds"] = seconds.into();
            value["tokens_per_second"] = (documents.tokens as f64 / seconds.max(1e-9)).into();
            return term::print_json(&value);
        }
        say!(
            "{}: {} of {} files read; {} documents; {} rows in {seconds:.1} s",
            dir.display(),
            HumanCount(*files_read),
            HumanCount(files_read + files_unchanged),
            counts(documents),
            HumanCount(documents.rows),
        )?;
        warn_of_truncation(documents);
        Ok(())
    }
}

/// The program around [`indexing::watch`].
struct Watching<'a> {
    syncing: Syncing<'a>,
    dir: &'a Path,
    /// True after the first run.
    begun: bool,
}

impl WatchEvents for Watching<'_> {
    fn is_stopped(&self) -> bool {
        interrupt::requested()
    }

    fn sync(&mut self) -> Result<Vec<Error>> {
        let (report, seconds) = self.syncing.sync(self.dir)?;
        let is_new = self.syncing.told.as_ref() != Some(&report.documents.left_out);
        if report.has_changes() || is_new || !self.begun {
            self.syncing.print(self.dir, &report, seconds)?;
        }
        if !self.begun {
            self.syncing
                .context
                .note(&format!("watching {}; Ctrl+C ends it", report.inputs.join(", ")));
        }
        self.begun = true;
        Ok(report.errors())
    }

    fn warn(&mut self, error: &Error) {
        term::warn(&error.to_string());
    }
}

/// Keeps a served index up to date from a thread of its own, on half of the cores, until Ctrl+C.
///
/// # Errors
///
/// [`Error::Usage`] if the index has no recorded inputs or no model; the errors of the store.
pub(super) fn watch_in_background(
    name: &str,
    dir: &Path,
    embedder: Option<Arc<Embedder>>,
) -> Result<()> {
    let inputs = indexing::recorded_inputs(&Index::open(dir)?)?;
    let (Some(embedder), false) = (embedder, inputs.is_empty()) else {
        return Err(Error::usage(format!(
            "--watch: the index '{name}' has no recorded inputs; run `warpseek index FILES --into \
             {}` once more, which records them, or serve it without --watch",
            dir.display()
        )));
    };
    let n_threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .build()
        .map_err(|e| Error::io("start", "threads")(std::io::Error::other(e)))?;
    let mut serving = ServedIndex {
        name: name.to_owned(),
        dir: dir.to_path_buf(),
        embedder,
        threads,
        warned: Vec::new(),
    };
    std::thread::spawn(move || {
        let dir = serving.dir.clone();
        if let Err(e) = indexing::watch(&dir, &mut serving) {
            tracing::error!("index '{}' is no longer kept up to date: {e}", serving.name);
        }
    });
    Ok(())
}

/// A served index that is kept up to date.
struct ServedIndex {
    name: String,
    dir: PathBuf,
    embedder: Arc<Embedder>,
    threads: ThreadPool,
    /// The warnings of the last run about skipped records.
    warned: Vec<String>,
}

impl WatchEvents for ServedIndex {
    fn is_stopped(&self) -> bool {
        interrupt::requested()
    }

    fn sync(&mut self) -> Result<Vec<Error>> {
        let mut writer = IndexWriter::open(&self.dir)?;
        let options = SyncOptions {
            extract: extract::options(),
            stop: Some(interrupt::flag()),
            threads: Some(&self.threads),
        };
        let mut embedder = || Ok(Arc::clone(&self.embedder));
        let mut progress = |_: &indexing::IndexReport| !interrupt::requested();
        let report =
            indexing::sync(&self.dir, &mut writer, &mut embedder, &options, &mut progress)?;
        if report.has_changes() {
            tracing::info!(
                "index '{}': {} files read; {} documents",
                self.name,
                report.files_read,
                counts(&report.documents)
            );
        }
        let skipped = report.skipped_messages();
        for message in skipped.iter().filter(|message| !self.warned.contains(message)) {
            tracing::warn!("index '{}': skipped {message}", self.name);
        }
        self.warned = skipped;
        Ok(report.errors())
    }

    fn warn(&mut self, error: &Error) {
        tracing::warn!("index '{}' is not up to date: {error}", self.name);
    }
}
