//! Groups of arguments that several commands share.

use super::context::Context;
use super::extract;
use super::term;
use crate::engine::OpenOptions;
use crate::error::{Error, Result, shell_quoted};
use crate::indexing::{self, InputSettings};
use crate::ingest::{self, HeaderRule, ReadOptions};
use crate::queries::{Query, QueryOptions, QueryReader};
use crate::search::{DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, Fusion, SearchOptions, Searcher};
use crate::store::filter::Filter;
use crate::store::passage;
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use std::ops::RangeBounds;
use std::path::Path;
use std::time::Duration;

/// Options of the retrieval.
#[derive(Debug, Clone, Args)]
pub(super) struct RetrieveArgs {
    /// Metadata filter in SQL: "published >= '2023' AND primary_category IN ('cs.CL')"
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// Combine the dense and the lexical (BM25) ranking
    #[arg(long)]
    pub(super) hybrid: bool,
    /// Combination of --hybrid: the weighted sum of the scores, or reciprocal rank fusion
    #[arg(long, value_name = "KIND", value_enum, default_value_t, requires = "hybrid")]
    fusion: Fusion,
    /// Diversify by maximal marginal relevance (MMR)
    #[arg(long)]
    mmr: bool,
    /// Weight of relevance against diversity in MMR, 0 to 1; implies --mmr [default: 0.5]
    #[arg(long, value_name = "LAMBDA")]
    mmr_lambda: Option<f32>,
    /// Maximum number of rows per document
    #[arg(long, value_name = "N")]
    max_per_doc: Option<usize>,
}

/// The embedding model of queries.
#[derive(Debug, Clone, Args)]
pub(super) struct EmbedderArg {
    /// Embedding model to use instead of the one that the index names
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
}

/// Options of the reranking.
#[derive(Debug, Clone, Args)]
pub(super) struct RerankingArgs {
    /// Retrieved rows to rerank; 0 keeps the retrieval order [default: 50, or k if larger]
    #[arg(long, value_name = "N")]
    pub(super) rerank_depth: Option<usize>,
    /// Share of the retrieval score in the final score, 0 to 1 [default: the reranker's
    /// calibration, or its own share]
    #[arg(long, value_name = "W")]
    pub(super) retriever_weight: Option<f32>,
    /// Keep the retrieval order
    #[arg(long, conflicts_with_all = ["rerank_depth", "retriever_weight"])]
    no_rerank: bool,
    /// Reranker: a listed name, a hub id, a folder, or none [default: the best one present]
    #[arg(long, value_name = "MODEL")]
    pub(super) reranker: Option<String>,
}

/// Options of reading documents.
#[derive(Debug, Clone, Args)]
pub(super) struct ReadArgs {
    /// Format of every input [default: by file name; stdin: jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Field with the id
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// Field with the text
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Field with the title
    #[arg(long, value_name = "NAME")]
    title_field: Option<String>,
    /// Fields to keep as metadata [default: all others]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    metadata_fields: Option<Vec<String>>,
    /// The first line of csv and tsv files is a record, not a header
    #[arg(long)]
    no_header: bool,
    /// Delimiter of csv and tsv files: a character, or tab [default: tab for tsv; for csv the one
    /// of , ; tab | that makes the first lines a table]
    #[arg(long, value_name = "CHAR", value_parser = ingest::parse_delimiter)]
    delimiter: Option<u8>,
    /// Maximum size of a record, in bytes after decompression
    #[arg(long, value_name = "BYTES", default_value_t = ingest::DEFAULT_MAX_RECORD_BYTES)]
    max_record_bytes: u64,
    /// Files of folders to read, or with ! in front to leave out, as in .gitignore: '*.md',
    /// '!drafts/'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    glob: Vec<String>,
    /// Read what .gitignore, .ignore and .warpseekignore name, and folders such as node_modules
    #[arg(long)]
    no_ignore: bool,
    /// Time for reading one PDF, Office or EPUB file
    #[arg(long, value_name = "SECONDS", default_value_t = EXTRACT_SECONDS,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    extract_seconds: u64,
}

/// The default of `--extract-seconds`.
const EXTRACT_SECONDS: u64 = 60;

/// Options of reading a file of queries, or of other texts that are not stored.
#[derive(Debug, Clone, Args)]
pub(super) struct QueryFileArgs {
    /// Field with the text [default: text, query, question or another known name]
    #[arg(long, value_name = "NAME", visible_alias = "text-field")]
    query_field: Option<String>,
    /// Field with the id [default: _id, id, qid, query_id or another known name; else numbers]
    #[arg(long, value_name = "NAME")]
    id_field: Option<String>,
    /// The first line of csv and tsv is a record [default: a header if it has a known name]
    #[arg(long)]
    no_header: bool,
    /// Maximum size of a record, in bytes after decompression [default: 16777216]
    #[arg(long, value_name = "BYTES")]
    max_record_bytes: Option<u64>,
}

impl QueryFileArgs {
    /// Opens a file and notes the decision about its header and fields. `noun` is the word for one
    /// of its texts in messages.
    pub(super) fn open(
        &self,
        path: &Path,
        noun: &'static str,
        context: &Context,
    ) -> Result<QueryReader> {
        let options = QueryOptions {
            id_field: self.id_field.clone(),
            text_field: self.query_field.clone(),
            header: header_rule(self.no_header),
            max_record_bytes: self.max_record_bytes.unwrap_or(ingest::DEFAULT_MAX_RECORD_BYTES),
            noun,
        };
        let reader = QueryReader::open(path, &options)?;
        if let Some(note) = reader.note() {
            context.note(&format!("{}: {note}", reader.name()));
        }
        Ok(reader)
    }

    /// Refuses the options where there is no file; `option` names it.
    pub(super) fn refuse_without(&self, option: &str) -> Result<()> {
        let names = [
            (self.query_field.is_some(), "--query-field"),
            (self.id_field.is_some(), "--id-field"),
            (self.no_header, "--no-header"),
            (self.max_record_bytes.is_some(), "--max-record-bytes"),
        ];
        match names.iter().find(|(is_given, _)| *is_given) {
            Some((_, name)) => Err(Error::usage(format!("{name} is for {option}"))),
            None => Ok(()),
        }
    }
}

fn header_rule(no_header: bool) -> HeaderRule {
    if no_header { HeaderRule::Absent } else { HeaderRule::Auto }
}

impl RetrieveArgs {
    /// The options of a search for `k` hits without reranking.
    pub(super) fn options(&self, k: usize) -> Result<SearchOptions> {
        if k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        Ok(SearchOptions {
            k,
            filter: self.filter.as_deref().map(Filter::parse).transpose()?,
            hybrid: self.hybrid,
            fusion: self.fusion,
            mmr: self.mmr_lambda.or(self.mmr.then_some(DEFAULT_MMR_LAMBDA)),
            max_per_doc: self.max_per_doc,
            ..SearchOptions::default()
        })
    }
}

impl RerankingArgs {
    /// The models to open an index with; `model` is the embedding model.
    pub(super) fn open<'a>(&'a self, model: Option<&'a str>) -> OpenOptions<'a> {
        let reranker = self.reranker.as_deref();
        OpenOptions { model, rerank: !self.is_declined(), reranker }
    }

    /// Sets how `searcher` reranks `k` hits. Notes if there is no reranker and none was requested.
    pub(super) fn apply(
        &self,
        options: &mut SearchOptions,
        searcher: &Searcher,
        context: &Context,
    ) -> Result<()> {
        options.retriever_weight = self.retriever_weight;
        if self.is_declined() {
            return Ok(());
        }
        if searcher.reranker.is_some() {
            options.rerank_depth = Some(self.depth(options.k));
            return Ok(());
        }
        if self.rerank_depth.is_some() {
            searcher.require_reranker()?;
        }
        context.note_missing_reranker(self.reranker.as_deref(), "showing the retrieval order");
        Ok(())
    }

    /// True if an option requests reranking.
    pub(super) fn is_requested(&self) -> bool {
        let any = self.rerank_depth.is_some() || self.retriever_weight.is_some();
        (any || self.reranker.is_some()) && !self.is_declined()
    }

    /// The requested rerank depth, else the default for `k` hits.
    pub(super) fn depth(&self, k: usize) -> usize {
        self.rerank_depth.unwrap_or(DEFAULT_RERANK_DEPTH.max(k))
    }

    /// True if an option declines reranking.
    pub(super) fn is_declined(&self) -> bool {
        self.no_rerank || self.rerank_depth == Some(0)
    }
}

impl ReadArgs {
    /// The options of reading for the index in `into`. Reading is strict.
    pub(super) fn options(&self, into: &Path) -> Result<ReadOptions> {
        let settings = InputSettings { strict: true, ..self.settings() };
        settings.read_options(&indexing::base_of(into)?, extract::options())
    }

    /// The settings of reading, without those about errors.
    pub(super) fn settings(&self) -> InputSettings {
        InputSettings {
            format: self.format.clone(),
            id_field: self.id_field.clone(),
            text_field: self.text_field.clone(),
            title_field: self.title_field.clone(),
            metadata_fields: self.metadata_fields.clone(),
            no_header: self.no_header,
            delimiter: self.delimiter,
            max_record_bytes: self.max_record_bytes,
            globs: self.glob.clone(),
            no_ignore: self.no_ignore,
            extract_seconds: self.extract_seconds,
            ..InputSettings::default()
        }
    }

    /// The name of an option that was given, if any.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let has_limit = self.max_record_bytes != ingest::DEFAULT_MAX_RECORD_BYTES;
        let names = [
            (self.format.is_some(), "--format"),
            (self.id_field.is_some(), "--id-field"),
            (self.text_field.is_some(), "--text-field"),
            (self.title_field.is_some(), "--title-field"),
            (self.metadata_fields.is_some(), "--metadata-fields"),
            (self.no_header, "--no-header"),
            (self.delimiter.is_some(), "--delimiter"),
            (has_limit, "--max-record-bytes"),
            (!self.glob.is_empty(), "--glob"),
            (self.no_ignore, "--no-ignore"),
            (self.extract_seconds != EXTRACT_SECONDS, "--extract-seconds"),
        ];
        names.iter().find(|(is_given, _)| *is_given).map(|(_, name)| *name)
    }
}

/// The options of `index` with which an input is read in this way.
pub(super) fn options_of(settings: &InputSettings) -> Vec<String> {
    let InputSettings {
        format,
        id_field,
        text_field,
        title_field,
        metadata_fields,
        no_header,
        delimiter,
        max_record_bytes,
        globs,
        no_ignore,
        extract_seconds,
        on_error,
        strict,
        keep_last,
    } = settings;
    let default = InputSettings::default();
    let with_value =
        |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let flag = |name: &str, is_given: bool| is_given.then(|| name.to_owned());
    let limit =
        (*max_record_bytes != default.max_record_bytes).then(|| max_record_bytes.to_string());
    let seconds =
        (*extract_seconds != default.extract_seconds).then(|| extract_seconds.to_string());
    let delimiter = delimiter.map(|byte| match byte {
        b'\t' => "tab".to_owned(),
        byte => shell_quoted(&char::from(byte).to_string()),
    });
    let on_error = on_error.and_then(|action| action.to_possible_value());
    let options = [
        with_value("--format", format.clone()),
        with_value("--id-field", id_field.as_deref().map(shell_quoted)),
        with_value("--text-field", text_field.as_deref().map(shell_quoted)),
        with_value("--title-field", title_field.as_deref().map(shell_quoted)),
        with_value(
            "--metadata-fields",
            metadata_fields.as_ref().map(|names| shell_quoted(&names.join(","))),
        ),
        flag("--no-header", *no_header),
        with_value("--delimiter", delimiter),
        with_value("--max-record-bytes", limit),
        flag("--no-ignore", *no_ignore),
        with_value("--extract-seconds", seconds),
        with_value("--on-error", on_error.map(|action| action.get_name().to_owned())),
        flag("--strict", *strict),
        flag("--on-duplicate last", *keep_last),
    ];
    let globs = globs.iter().map(|glob| format!("--glob {}", shell_quoted(glob)));
    options.into_iter().flatten().chain(globs).collect()
}

/// Parser of a number in a range.
pub(super) fn number(range: impl RangeBounds<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// Parser of a time with its unit: `300ms`, `1.5s`; at most an hour.
pub(super) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, per_second) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e3),
        None => (text.strip_suffix('s').unwrap_or_default(), 1.0),
    };
    let seconds = number.trim().parse::<f64>().ok().map(|n| n / per_second);
    let seconds = seconds.filter(|seconds| (0.0..=3600.0).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| "write a time such as 300ms or 1.5s, at most an hour".to_owned())?;
    Ok(Duration::from_secs_f64(seconds))
}

/// A query from the command line; `-` reads it from stdin.
pub(super) fn read_query(query: &str) -> Result<String> {
    let text = match query {
        "-" => term::read_text(Path::new("-"))?,
        _ => query.to_owned(),
    };
    match text.trim() {
        "" => Err(Error::usage("the query is empty: write what to search for")),
        text => Ok(text.to_owned()),
    }
}

/// A line of a query file as a passage to embed or rerank: with its title in front if it has one.
pub(super) fn passage_of(query: &Query) -> String {
    passage(&query.title, &query.text, !query.title.is_empty())
}
