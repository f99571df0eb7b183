//! `warpseek export` and `import`.

use super::args::ReadArgs;
use super::context::{Context, Status};
use super::interrupt;
use super::term::{self, HumanCount, say};
use crate::engine::ImportTarget;
use crate::error::{Error, Result};
use crate::indexing::{
    Import, ImportReport, ImportedDocuments, Vectors, bare_documents, export_documents,
    export_vectors,
};
use crate::ingest::{self, ReadNotes};
use crate::store::{Index, IndexMetric, Language};
use crate::vectors::langchain::{self, DEFAULT_INDEX_NAME};
use crate::vectors::{VectorFile, VectorFormat};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Write the live rows of an index to files: vectors, and documents in the same order.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Index folder [default: .warpseek here or in a folder above, or the setting `index`]
    dir: Option<PathBuf>,
    /// File of vectors: .npy, .fvecs, .fbin or .faiss (an IndexFlatIP)
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// File of rows as jsonl: id, doc_id, title, text, metadata
    #[arg(long, value_name = "FILE", required_unless_present = "vectors")]
    documents: Option<PathBuf>,
    /// Format of the vectors [default: by file name]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<VectorFormat>,
}

pub(super) fn export(args: ExportArgs, context: &Context) -> Result<Status> {
    let format = |path: &PathBuf| VectorFormat::choose(args.format, path);
    let format = args.vectors.as_ref().map(format).transpose()?;
    let dir = context.index_dir(args.dir.as_deref())?;
    let outputs = args.vectors.iter().chain(&args.documents).map(PathBuf::as_path);
    term::check_outputs(&outputs.collect::<Vec<_>>(), &[], Some(&dir))?;
    let index = Index::open(&dir)?;
    interrupt::install();
    let go_on = || !interrupt::requested();
    if let (Some(path), Some(format)) = (&args.vectors, format) {
        export_vectors(&index, path, format, &go_on)?;
    }
    if let Some(path) = &args.documents {
        export_documents(&index, path, &go_on)?;
    }
    let (n, dim) = (index.live().count(), index.manifest().dim);
    context.report(&json!({ "rows": n, "dim": dim }), || {
        say!("{} rows of {dim} dimensions exported", HumanCount(n as u64))
    })
}

/// Make an index from existing vectors.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Vectors: .npy, .fvecs, .fbin or .faiss (an IndexFlat, also inside an IndexIDMap), or the
    /// folder of a FAISS store that LangChain saved, with its documents
    vectors: PathBuf,
    /// Index folder; created if it does not exist
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Format of the vectors [default: by file name]
    #[arg(long, value_name = "FORMAT", value_enum)]
    vector_format: Option<VectorFormat>,
    /// Documents in the order of the vectors, in any format that `index` reads
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    documents: Option<PathBuf>,
    /// Ids in the order of the vectors, one per line [default: those of an IndexIDMap, else 0, 1,
    /// 2, ...]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Name of the store in a folder that LangChain saved [default: index]
    #[arg(long, value_name = "NAME")]
    index_name: Option<String>,
    /// Model that made the vectors; needed to search by text
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Scale the vectors to unit length
    #[arg(long)]
    normalize: bool,
    /// Language of the lexical index that --hybrid searches: none, or a code such as de, fr, ja
    /// or zh [default: none, or that of the index]
    #[arg(long, value_name = "CODE")]
    language: Option<Language>,
    /// Metric of the index: the cosine, for which vectors are scaled to unit length, or the inner
    /// product of the vectors as they are [default: that of an existing index; else the cosine if
    /// all vectors have unit length and the model is compared by it]
    #[arg(long, value_name = "METRIC", value_enum)]
    metric: Option<IndexMetric>,
    #[command(flatten)]
    read: ReadArgs,
}

pub(super) fn import(mut args: ImportArgs, context: &Context) -> Result<Status> {
    if args.normalize && args.metric == Some(IndexMetric::InnerProduct) {
        return Err(Error::usage(
            "--normalize makes vectors for the cosine: leave it or --metric inner_product out",
        ));
    }
    args.normalize |= args.metric == Some(IndexMetric::Cosine);
    let (import, notes) = if args.vectors.is_dir() {
        langchain_store(&args)?
    } else {
        let vectors = VectorFile::open(&args.vectors, args.vector_format)?;
        if args.index_name.is_some() {
            return Err(Error::usage("--index-name is for a folder that LangChain saved"));
        }
        if vectors.id(0).is_some() && (args.documents.is_some() || args.ids.is_some()) {
            term::warn(
                "the ids in the FAISS index are not used: those of the documents or --ids are",
            );
        }
        let (documents, notes) = documents(&args, context.quiet)?;
        let vectors = Vectors::File(vectors);
        (Import { vectors, documents, normalize: args.normalize }, notes)
    };
    let (n_rows, dim) = (import.vectors.n_rows(), import.vectors.dim());
    if let Some(warning) = import.check()? {
        term::warn(&warning);
    }
    let (model, metric, is_unit) = (args.model.as_deref(), args.metric, import.is_unit()?);
    let (is_scaled, language) = (args.normalize, args.language);
    let target = ImportTarget { dim, model, metric, is_unit, is_scaled, language };
    let mut writer = context.engine.import_writer(&args.into, target)?;
    interrupt::install();
    let bar = context.bar(Some(n_rows as u64), "[{bar:40}] {pos}/{len} rows");
    let outcome = import.run(&mut writer, &mut |rows| {
        bar.set_position(rows as u64);
        !interrupt::requested()
    });
    bar.finish_and_clear();
    let texts: Vec<String> = notes.texts();
    term::warn_all(&texts, notes.total());
    let report = ImportReport { notes: texts, notes_total: notes.total(), ..outcome? };
    writer.keep();
    if report.not_unit > 0 && args.metric.is_none() {
        term::warn(&format!(
            "{} vectors are not of unit length: scores are inner products, not cosines; \
             --normalize scales them",
            HumanCount(report.not_unit)
        ));
    }
    context.report(&report, || {
        let replaced = match report.updated {
            0 => String::new(),
            n => format!(", {} updated (they replace rows of the same id)", HumanCount(n)),
        };
        let (into, rows, dim) = (args.into.display(), HumanCount(report.rows), report.dim);
        say!("{into}: {rows} rows of {dim} dimensions imported{replaced}")
    })
}

/// The import of a store that LangChain saved, and its notes.
fn langchain_store(args: &ImportArgs) -> Result<(Import, ReadNotes)> {
    let names = [
        (args.vector_format.is_some(), "--vector-format"),
        (args.documents.is_some(), "--documents"),
        (args.ids.is_some(), "--ids"),
    ];
    let given = names.iter().find(|(is_given, _)| *is_given).map(|(_, name)| *name);
    if let Some(name) = given.or(args.read.first_given()) {
        let folder = args.vectors.display();
        return Err(Error::usage(format!(
            "{name} is for a file of vectors, and {folder} is a folder, whose documents are \
             imported as LangChain saved them: leave it out, or name the .faiss file in it"
        )));
    }
    let name = args.index_name.as_deref().unwrap_or(DEFAULT_INDEX_NAME);
    let store = langchain::open(&args.vectors, name)?;
    let notes = store.notes.clone();
    Ok((Import::of_langchain(store, args.normalize), notes))
}

/// The documents of the import with the name of their file, if there are any, and their notes.
fn documents(
    args: &ImportArgs,
    quiet: bool,
) -> Result<(Option<(String, ImportedDocuments)>, ReadNotes)> {
    let Some(path) = args.documents.as_ref().or(args.ids.as_ref()) else {
        return Ok((None, ReadNotes::default()));
    };
    let name = path.display().to_string();
    if args.documents.is_none() {
        let documents = bare_documents(&name, &term::read_text(path)?)?.into_iter().map(Ok);
        return Ok((Some((name, Box::new(documents))), ReadNotes::default()));
    }
    let options = args.read.options(&args.into)?;
    let mut reader = ingest::open(std::slice::from_ref(path), &options)?;
    let notes = reader.notes().clone();
    let documents = std::iter::from_fn(move || {
        let document = reader.next();
        reader.take_decisions().iter().filter(|_| !quiet).for_each(|note| term::note(note));
        document
    });
    Ok((Some((name, Box::new(documents))), notes))
}
