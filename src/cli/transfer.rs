//! `warpseek export` and `import`.

use super::context::Context;
use super::index::ReadArgs;
use super::term::{self, say, thousands};
use super::{Outcome, interrupt};
use clap::Args;
use serde_json::{Map, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use warpseek::chunk::{Chunk, Chunking};
use warpseek::embed::{Normalize, normalize};
use warpseek::error::{Error, Place, Result};
use warpseek::ingest::{self, Document, TextKind};
use warpseek::output::OutputFile;
use warpseek::store::{Index, IndexManifest, IndexWriter, MAX_DIM};
use warpseek::vectors::{Metric, VectorFile, VectorFormat, VectorWriter};

/// Write the live rows of an index to files: vectors, and documents in the same order.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The index folder
    dir: PathBuf,
    /// The file of vectors: .npy, .fvecs, .fbin or .faiss (an IndexFlatIP)
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// The file of rows as jsonl: id, doc_id, title, text, metadata
    #[arg(long, value_name = "FILE", required_unless_present = "vectors")]
    documents: Option<PathBuf>,
    /// The format of the vectors [default: by file name]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Rows that are fetched together.
const WINDOW: usize = 1024;

pub(super) fn export(args: ExportArgs, context: &Context) -> Result<Outcome> {
    let vector_format = match &args.vectors {
        Some(path) => Some(VectorFormat::choose(args.format.as_deref(), path)?),
        None => None,
    };
    let outputs: Vec<&Path> =
        args.vectors.as_deref().into_iter().chain(args.documents.as_deref()).collect();
    term::check_outputs(&outputs, &[], Some(&args.dir))?;
    let index = Index::open(&args.dir)?;
    let matrix = index.matrix()?;
    let mut rows = Vec::new();
    index.live().collect_range(0..index.n_rows(), &mut rows);
    interrupt::install();
    let stop = || Error::Interrupted("the file was not written".to_owned());
    if let (Some(path), Some(format)) = (&args.vectors, vector_format) {
        let mut writer = VectorWriter::create(path, format, matrix.dim())?;
        for &row in &rows {
            let row = matrix.row(row as usize).unwrap_or_default();
            let vector: Vec<f32> = row.iter().take(matrix.dim()).map(|v| v.to_f32()).collect();
            writer.push(&vector)?;
            if interrupt::asked() {
                return Err(stop());
            }
        }
        writer.finish()?;
    }
    if let Some(path) = &args.documents {
        let mut out = OutputFile::create(path)?;
        for window in rows.chunks(WINDOW) {
            for row in index.rows(window)? {
                let line = json!({
                    "id": row.id,
                    "doc_id": row.doc_id,
                    "title": row.title,
                    "text": row.text,
                    "metadata": row.metadata,
                });
                out.put(format!("{line}\n").as_bytes())?;
            }
            if interrupt::asked() {
                return Err(stop());
            }
        }
        out.finish()?;
    }
    let n = rows.len() as u64;
    if context.json {
        term::print_json(&json!({ "rows": n, "dim": matrix.dim() }))?;
    } else {
        say!("{} rows of {} dimensions exported", thousands(n), matrix.dim())?;
    }
    Ok(Outcome::Success)
}

/// Make an index from existing vectors.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The vectors: .npy, .fvecs, .fbin or .faiss (an IndexFlat)
    vectors: PathBuf,
    /// The index folder; made where it does not exist
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// The format of the vectors [default: by file name]
    #[arg(long = "vector-format", value_name = "FORMAT")]
    vector_format: Option<String>,
    /// Documents in the order of the vectors, in any format that `index` reads
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    documents: Option<PathBuf>,
    /// Ids in the order of the vectors, one a line [default: 0, 1, 2, ...]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// The model that the vectors come from, so that texts can be searched for
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Scale the vectors to unit length
    #[arg(long)]
    normalize: bool,
    #[command(flatten)]
    read: ReadArgs,
}

/// Rows of an import that are committed together.
const COMMIT_ROWS: usize = 65_536;

pub(super) fn import(args: ImportArgs, context: &Context) -> Result<Outcome> {
    let name = args.vectors.display().to_string();
    let format = VectorFormat::choose(args.vector_format.as_deref(), &args.vectors)?;
    let file = VectorFile::open(&args.vectors, Some(format))?;
    if file.metric() == Some(Metric::L2) && !args.normalize {
        return Err(Error::usage(format!(
            "{name}: the index compares by L2 distance, warpseek by inner product: say --normalize to \
             scale the vectors to unit length, which makes the two orders the same for unit queries"
        )));
    }
    if file.dim() > MAX_DIM {
        return Err(Error::input(
            Place::file(name),
            format!("{} dimensions; at most {MAX_DIM} are supported", file.dim()),
        ));
    }
    let mut documents = Documents::open(&args)?;
    let stamp = match &args.model {
        Some(model) => {
            let (embedder, stamp) = context.embedder(model, Normalize::Always)?;
            if embedder.dim() != file.dim() {
                return Err(Error::usage(format!(
                    "the vectors have {} dimensions, {model} makes {}",
                    file.dim(),
                    embedder.dim()
                )));
            }
            Some(stamp)
        }
        None => None,
    };
    let manifest = IndexManifest::new(file.dim(), stamp, Chunking::default());
    let mut writer = IndexWriter::open_or_create(&args.into, &manifest)?;
    interrupt::install();
    let bar = term::bar(Some(file.n_rows() as u64), "[{bar:40}] {pos}/{len} rows", context.quiet);
    let mut seen = HashSet::new();
    let (mut not_unit, mut updated) = (0u64, 0u64);
    let mut vector = vec![0f32; file.dim()];
    for row in 0..file.n_rows() {
        let document = documents.next(row)?;
        if !seen.insert(document.id.clone()) {
            return Err(Error::input(
                document.place,
                format!("the id '{}' comes twice: make ids unique", document.id),
            ));
        }
        file.read(row, &mut vector)?;
        // Checked before scaling, which would turn an infinity into something else.
        if let Some(at) = vector.iter().position(|v| !v.is_finite()) {
            return Err(Error::input(
                Place::record(name, format!("vector {row}")),
                format!("component {at} is {}; vectors must be finite", vector[at]),
            ));
        }
        let norm = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        if args.normalize && norm == 0.0 {
            return Err(Error::input(
                Place::record(name, format!("vector {row}")),
                "it is all zeros: it has no direction, and cannot be scaled to unit length",
            ));
        }
        if args.normalize {
            normalize(&mut vector);
        }
        let norm = if args.normalize { 1.0 } else { norm };
        not_unit += u64::from((norm - 1.0).abs() > 0.01);
        let chunk = Chunk { range: 0..document.text.len(), tokens: 0, tokens_lost: 0 };
        let place = Place::record(name.clone(), format!("vector {row}"));
        updated += u64::from(writer.find(&document.id)?.is_some());
        writer.put(Document { place, ..document }, vec![chunk], &vector)?;
        if writer.n_pending_rows() >= COMMIT_ROWS {
            writer.commit()?;
            bar.set_position(row as u64);
        }
        if interrupt::asked() {
            return Err(Error::Interrupted(
                "what was committed stays; run the same command again to import all".to_owned(),
            ));
        }
    }
    documents.finish(file.n_rows())?;
    writer.commit()?;
    bar.finish_and_clear();
    if not_unit > 0 {
        term::warn(&format!(
            "{} vectors are not of unit length: scores are inner products, not cosines; --normalize \
             scales them",
            thousands(not_unit)
        ));
    }
    let n = file.n_rows() as u64;
    if context.json {
        term::print_json(&json!({
            "rows": n,
            "added": n - updated,
            "updated": updated,
            "dim": file.dim(),
        }))?;
    } else {
        let into = args.into.display();
        let replaced = match updated {
            0 => String::new(),
            _ => format!(", {} updated (they replace rows of the same id)", thousands(updated)),
        };
        say!("{into}: {} rows of {} dimensions imported{replaced}", thousands(n), file.dim())?;
    }
    Ok(Outcome::Success)
}

/// The documents that belong to imported vectors.
enum Documents {
    Records { file: String, reader: Box<ingest::DocumentReader> },
    Ids { file: String, lines: std::vec::IntoIter<(String, Place)> },
    Numbers,
}

impl Documents {
    fn open(args: &ImportArgs) -> Result<Self> {
        if let Some(path) = &args.documents {
            let reader = ingest::open(std::slice::from_ref(path), &args.read.options()?)?;
            return Ok(Self::Records {
                file: path.display().to_string(),
                reader: Box::new(reader),
            });
        }
        if let Some(path) = &args.ids {
            let file = path.display().to_string();
            let mut lines = Vec::new();
            for (i, line) in term::read_text(path)?.lines().enumerate() {
                let place = Place::record(file.clone(), format!("line {}", i + 1));
                ingest::check_id(line.trim(), &place)?;
                lines.push((line.trim().to_owned(), place));
            }
            return Ok(Self::Ids { file, lines: lines.into_iter() });
        }
        Ok(Self::Numbers)
    }

    fn next(&mut self, row: usize) -> Result<Document> {
        let too_few = |file: &str| {
            Error::input(
                Place::file(file),
                format!("it ends after {row} entries, and there are more vectors: they must match"),
            )
        };
        match self {
            Self::Records { file, reader } => reader.next().unwrap_or_else(|| Err(too_few(file))),
            Self::Ids { file, lines } => {
                let (id, place) = lines.next().ok_or_else(|| too_few(file))?;
                Ok(bare_document(id, place))
            }
            Self::Numbers => Ok(bare_document(row.to_string(), Place::default())),
        }
    }

    fn finish(&mut self, n: usize) -> Result<()> {
        let (file, more) = match self {
            Self::Records { file, reader } => (file, reader.next().is_some()),
            Self::Ids { file, lines } => (file, lines.next().is_some()),
            Self::Numbers => return Ok(()),
        };
        if !more {
            return Ok(());
        }
        Err(Error::input(
            Place::file(file.as_str()),
            format!("it has more entries than there are vectors ({n}): they must match"),
        ))
    }
}

fn bare_document(id: String, place: Place) -> Document {
    Document {
        doc_id: id.clone(),
        id,
        title: String::new(),
        text: String::new(),
        embed_title: false,
        metadata: Map::new(),
        kind: TextKind::Record,
        place,
    }
}
