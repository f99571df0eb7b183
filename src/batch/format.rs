//! Answers of a batch, and the formats of its finished file: jsonl, TREC run, parquet.

use crate::error::{Error, Result};
use crate::eval::run::rank_documents;
use crate::eval::run_scores;
use crate::eval::trec::RunWriter;
use crate::output::OutputFile;
use clap::ValueEnum;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// The answer to one query; a line of the jsonl output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The query's id.
    pub query_id: String,
    /// The hits, best first.
    pub hits: Vec<BatchHit>,
    /// The number of the first k hits that were left out, below the minimum score; none if that was
    /// not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_min_score: Option<usize>,
    /// The number of the first k hits that were left out because the reranker did not read them, so
    /// that they have no score to compare with the minimum; none if there are no such hits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_reranked: Option<usize>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// Warnings for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A hit of a [`BatchAnswer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchHit {
    /// The rank, from 1.
    pub rank: usize,
    /// The row's id.
    pub id: String,
    /// The document's id.
    pub doc_id: String,
    /// The inner product, or the fused score of a hybrid search.
    pub score: f32,
    /// The inner product, a part of the score of a hybrid search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_score: Option<f32>,
    /// BM25, a part of the score of a hybrid search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bm25_score: Option<f32>,
    /// The score that orders the hits: the rerank score, or `score` without reranking. None for
    /// hits below the rerank depth.
    pub final_score: Option<f32>,
    /// The rank in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// The sigmoid of the logit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The cross-encoder's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank_logit: Option<f32>,
    /// The title, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The format of the finished file of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchFormat {
    /// One JSON document per query and line
    #[value(alias = "ndjson")]
    Jsonl,
    /// A TREC run of documents, with scores that keep the order under trec_eval's own sorting
    #[value(alias = "run")]
    Trec,
    /// One row per hit
    Parquet,
}

impl BatchFormat {
    /// The format of a file's extension; jsonl if it names none.
    pub fn of_path(path: &Path) -> Self {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        Self::from_str(extension, false).unwrap_or(Self::Jsonl)
    }
}

/// The name of the system in a TREC run.
const RUN_TAG: &str = "warpseek";

/// Hits per parquet row group.
const ROW_GROUP: usize = 1 << 20;

const PARQUET_SCHEMA: &str = "message batch {
    required binary query_id (UTF8);
    required int32 rank;
    required binary id (UTF8);
    required binary doc_id (UTF8);
    required float score;
    required int32 retrieved_rank;
    optional float final_score;
    optional float rerank_score;
    optional float rerank_logit;
    optional float dense_score;
    optional float bm25_score;
}";

/// Writes answers to a TREC run or a parquet file, which appears when it is complete.
pub(super) fn convert(
    answers: impl Iterator<Item = Result<BatchAnswer>>,
    out: &Path,
    format: BatchFormat,
) -> Result<()> {
    let file = OutputFile::create(out)?;
    match format {
        BatchFormat::Parquet => write_parquet(answers, file, out)?,
        _ => write_trec(answers, file, out)?,
    }
    .finish()
}

fn write_trec<W: Write>(
    answers: impl Iterator<Item = Result<BatchAnswer>>,
    writer: W,
    out: &Path,
) -> Result<W> {
    let mut writer = RunWriter::new(writer, out, RUN_TAG)?;
    for answer in answers {
        let BatchAnswer { query_id, hits, .. } = answer?;
        let scores: Vec<Option<f32>> = hits.iter().map(|h| h.final_score).collect();
        let documents = hits.into_iter().map(|h| h.doc_id).zip(run_scores(&scores));
        writer.write_query(&query_id, &rank_documents(documents))?;
    }
    writer.finish()
}

fn write_parquet<W: Write + Send>(
    answers: impl Iterator<Item = Result<BatchAnswer>>,
    writer: W,
    out: &Path,
) -> Result<W> {
    let failed = |e: ParquetError| Error::io("write", out)(std::io::Error::other(e));
    let schema = Arc::new(parse_message_type(PARQUET_SCHEMA).map_err(failed)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by(format!("warpseek {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut writer =
        SerializedFileWriter::new(writer, schema, Arc::new(properties)).map_err(failed)?;
    let mut rows: Vec<(String, BatchHit)> = Vec::new();
    for answer in answers {
        let answer = answer?;
        rows.extend(answer.hits.into_iter().map(|hit| (answer.query_id.clone(), hit)));
        if rows.len() >= ROW_GROUP {
            write_row_group(&mut writer, &rows).map_err(failed)?;
            rows.clear();
        }
    }
    if !rows.is_empty() {
        write_row_group(&mut writer, &rows).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

fn write_row_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    rows: &[(String, BatchHit)],
) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    let text = |f: fn(&(String, BatchHit)) -> &str| -> Vec<ByteArray> {
        rows.iter().map(|r| ByteArray::from(f(r))).collect()
    };
    let number = |f: fn(&BatchHit) -> usize| -> Vec<i32> {
        rows.iter().map(|(_, hit)| i32::try_from(f(hit)).unwrap_or(i32::MAX)).collect()
    };
    let scores: Vec<f32> = rows.iter().map(|(_, hit)| hit.score).collect();
    write_column::<ByteArrayType, _>(&mut group, &text(|r| &r.0), None)?;
    write_column::<Int32Type, _>(&mut group, &number(|h| h.rank), None)?;
    write_column::<ByteArrayType, _>(&mut group, &text(|r| &r.1.id), None)?;
    write_column::<ByteArrayType, _>(&mut group, &text(|r| &r.1.doc_id), None)?;
    write_column::<FloatType, _>(&mut group, &scores, None)?;
    write_column::<Int32Type, _>(&mut group, &number(|h| h.retrieved_rank), None)?;
    let optional: [fn(&BatchHit) -> Option<f32>; 5] = [
        |h| h.final_score,
        |h| h.rerank_score,
        |h| h.rerank_logit,
        |h| h.dense_score,
        |h| h.bm25_score,
    ];
    for value in optional {
        let values: Vec<Option<f32>> = rows.iter().map(|(_, hit)| value(hit)).collect();
        let levels: Vec<i16> = values.iter().map(|v| i16::from(v.is_some())).collect();
        let present: Vec<f32> = values.into_iter().flatten().collect();
        write_column::<FloatType, _>(&mut group, &present, Some(&levels))?;
    }
    group.close()?;
    Ok(())
}

fn write_column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let mut column = group
        .next_column()?
        .ok_or_else(|| ParquetError::General("the schema has too few columns".to_owned()))?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}
