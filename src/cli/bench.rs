//! `warpseek bench`.

use super::args::number;
use super::context::{Context, Status};
use super::term::{self, HumanCount, bold, say};
use crate::bench::{self, MachineLimits, ModelRate, ScanRate, SearchData, SearchShape};
use crate::bert::embedder::Normalize;
use crate::compute::cpu::Tier;
use crate::engine::DEFAULT_MODEL;
use crate::error::{Error, Result};
use crate::topk::scanner::{GpuOptions, Scanner};
use crate::vectors::VectorFile;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Measure this machine, and the share of its limits that search, embedding and reranking reach.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Rows of the random matrix to search
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    rows: usize,
    /// Dimensions of its vectors
    #[arg(long, value_name = "N", default_value_t = 384)]
    dim: usize,
    /// Search these vectors instead (npy, fvecs, fbin, faiss)
    #[arg(long, value_name = "FILE", requires = "queries", conflicts_with_all = ["rows", "dim"])]
    vectors: Option<PathBuf>,
    /// Query vectors for --vectors
    #[arg(long, value_name = "FILE", requires = "vectors")]
    queries: Option<PathBuf>,
    /// Queries per batch; several sizes with commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 32, 256, 1024])]
    batch: Vec<usize>,
    /// Hits per query; several numbers with commas
    #[arg(short, long = "top-k", value_name = "N", value_delimiter = ',', default_values_t = [25])]
    k: Vec<usize>,
    /// Percentage of rows that pass a filter; several numbers with commas; 100 is no filter
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_values_t = [100])]
    pass: Vec<usize>,
    /// Search the rows themselves, as in an index without an int8 copy
    #[arg(long, alias = "no-prefilter")]
    no_sq8: bool,
    /// On a GPU, read the int8 copy for batches of more than 64 queries even if the rows are few
    #[arg(long, alias = "force-prefilter", conflicts_with = "no_sq8")]
    force_sq8: bool,
    /// Measure only the search, not the models
    #[arg(long)]
    search_only: bool,
    /// Measure only the models, not the search
    #[arg(long, conflicts_with = "search_only")]
    models_only: bool,
    /// Embedding model to measure [default: all-MiniLM-L6-v2, if present]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Reranker to measure [default: the best one present]
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Tokens of a text to embed, special tokens included
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = number(3..))]
    tokens: usize,
    /// Tokens of a query and a passage to score
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = number(15..))]
    pair_tokens: usize,
}

/// Rows to search for the time of one query: those of the corpus of papers in benchmark records.
const QUERY_ROWS: usize = 41_584;

pub(super) fn run(args: BenchArgs, context: &Context) -> Result<Status> {
    // A named model that is missing is refused before anything is measured.
    for name in args.model.iter().chain(args.reranker.iter().filter(|name| *name != "none")) {
        context.engine.models.find(name)?;
    }
    let mut scanner = context.engine.scanner();
    if let Some(info) = scanner.gpu_info().filter(|_| args.force_sq8) {
        let (row_bytes, int8_from) = (Some(info.row_bytes), Some(0));
        let kernels = context.engine.compute().gpu_kernels;
        let options = GpuOptions { row_bytes, int8_from, kernels, ..GpuOptions::default() };
        scanner = Scanner::cuda(info.ordinal, options)?;
    }
    let tier = context.engine.compute().tier;
    let limits = bench::limits(&scanner, tier)?;
    if !context.json {
        print_limits(&limits, tier)?;
    }
    let scans = if args.models_only { Vec::new() } else { search(&args, &scanner, &limits)? };
    if !context.json {
        print_scans(&scans, &scanner)?;
    }
    let models = !args.search_only;
    let name = args.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let embedder = match context.engine.models.find(name) {
        Ok(_) if models => Some(context.engine.embedder(name, Normalize::Always)?.0),
        _ => None,
    };
    let embedding = embedder.as_ref().map(|e| bench::embed(e, args.tokens)).transpose()?;
    let query_ms =
        embedder.as_ref().map(|e| bench::query_ms(e, &scanner, QUERY_ROWS)).transpose()?;
    let reranker = if models { context.engine.reranker(args.reranker.as_deref())? } else { None };
    let reranking =
        reranker.as_ref().map(|(_, r)| bench::rerank(r, args.pair_tokens)).transpose()?;
    if context.json {
        term::print_json(&json!({
            "threads": rayon::current_num_threads(),
            "tier": tier.name(),
            "device": scanner.device(),
            "limits": limits,
            "scan": scans,
            "embed": embedding,
            "query_ms": query_ms,
            "rerank": reranking,
        }))?;
        return Ok(Status::Success);
    }
    if !models {
        return Ok(Status::Success);
    }
    match (&embedder, &embedding) {
        (Some(embedder), Some(rate)) => {
            print_model("embedding", &embedder.precision(), rate, "a query of 12 tokens")?;
            let (ms, rows) = (query_ms.unwrap_or_default(), HumanCount(QUERY_ROWS as u64));
            say!("  hits       {ms:8.2} ms from its text to the best of {rows} rows")?;
        }
        _ => context.note(&format!(
            "embedding was not measured: `warpseek models pull {DEFAULT_MODEL}` downloads the model"
        )),
    }
    match (&reranker, &reranking) {
        (Some((name, _)), Some(rate)) => print_model("reranking", name, rate, "25 passages")?,
        _ => context.note("reranking was not measured: no reranker is present"),
    }
    Ok(Status::Success)
}

/// Measures the requested searches.
fn search(args: &BenchArgs, scanner: &Scanner, limits: &MachineLimits) -> Result<Vec<ScanRate>> {
    let data = match (&args.vectors, &args.queries) {
        (Some(vectors), Some(queries)) => {
            let (vectors, queries) =
                (VectorFile::open(vectors, None)?, VectorFile::open(queries, None)?);
            let (dim, query_dim) = (vectors.dim(), queries.dim());
            if dim != query_dim {
                return Err(Error::usage(format!(
                    "the vectors have {dim} dimensions, the queries {query_dim}"
                )));
            }
            SearchData::new(&vectors.read_all()?, queries.read_all()?, dim)?
        }
        _ => SearchData::random(args.rows, 1024, args.dim)?,
    };
    let mut scans = Vec::new();
    for &k in &args.k {
        for &percent in &args.pass {
            for &queries in &args.batch {
                let shape = SearchShape { queries, k, percent, sq8: !args.no_sq8 };
                scans.push(data.search(scanner, shape, limits)?);
            }
        }
    }
    Ok(scans)
}

fn print_limits(limits: &MachineLimits, tier: Tier) -> Result<()> {
    let tier = tier.name();
    say!("{}", bold(&format!("limits, {} threads", rayon::current_num_threads())))?;
    say!("  memory     {:8.1} GB/s read", limits.memory_bytes / 1e9)?;
    let products = |name: &str, rate: f64, gemm: f64, what: &str| {
        say!("  {name:10} {:8.1} billion products/s{what}", rate / 1e9)?;
        match rate > gemm {
            true => say!("             {:8.1} with loads and stores", gemm / 1e9),
            false => Ok(()),
        }
    };
    products("int8", limits.int8_products, limits.int8_gemm, &format!(" ({tier})"))?;
    if let (Some(rate), Some(gemm)) = (limits.bf16_products, limits.bf16_gemm) {
        products("bfloat16", rate, gemm, "")?;
    }
    say!("  float32    {:8.1} billion products/s", limits.f32_products / 1e9)?;
    if let Some(gpu) = &limits.gpu {
        say!("  GPU copy   {:8.1} GB/s read and written", gpu.copy_bytes / 1e9)?;
        say!("  GPU f16    {:8.1} billion products/s (mma.sync)", gpu.half_products / 1e9)?;
    }
    Ok(())
}

fn print_scans(scans: &[ScanRate], scanner: &Scanner) -> Result<()> {
    let Some(first) = scans.first() else { return Ok(()) };
    let (rows, device) = (HumanCount(first.rows as u64), scanner.device());
    say!("{}", bold(&format!("search, {rows} rows, {device}")))?;
    let kind = if first.gpu_seconds.is_some() { "f16" } else { "int8" };
    say!("  batch     k  pass %    queries/s   of memory   of {kind:4}    GPU us  rows in")?;
    for scan in scans {
        say!(
            "  {:5} {:5} {:7} {:12.0} {:9.0} % {:7.0} % {:>9}  {}",
            scan.shape.queries,
            scan.shape.k,
            scan.shape.percent,
            scan.queries_per_second,
            scan.memory_share * 100.0,
            scan.multiply_share * 100.0,
            scan.gpu_seconds.map_or("-".to_owned(), |s| format!("{:.1}", s * 1e6)),
            if scan.reads_bytes { "int8" } else { "f16" }
        )?;
    }
    Ok(())
}

fn print_model(what: &str, how: &str, rate: &ModelRate, one: &str) -> Result<()> {
    let tokens = |texts: f64| HumanCount((texts * rate.tokens as f64) as u64);
    let (many, encoded) = (rate.texts_per_second, rate.encoded_per_second);
    say!("{}", bold(&format!("{what}, {how}, texts of {} tokens", rate.tokens)))?;
    say!("  many       {many:8.0} texts/s, {} tokens/s", tokens(many))?;
    say!("  encoding   {encoded:8.0} texts/s, {} tokens/s, without tokenization", tokens(encoded))?;
    say!("  one search {:8.2} ms for {one}", rate.one_search_ms)?;
    for (what, share) in &rate.shares {
        say!("  {:4.1} %     {what}", share * 100.0)?;
    }
    Ok(())
}
