//! Two rankings of one query side by side: what reranking (or hybrid search) changed.

use crate::error::Result;
use crate::search::{Hit, SearchOptions, SearchResult, Searcher, Timings};
use serde::Serialize;

/// Which two rankings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Second {
    /// The retrieval order against the reranked one.
    Reranked,
    /// The dense order against the hybrid one.
    Hybrid,
}

impl Second {
    /// The word for it in sentences: `reranked #1 was retrieved #10`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reranked => "reranked",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Where one row stands in both rankings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RankMove {
    /// The row's id.
    pub id: String,
    /// The row's number.
    pub row: u32,
    /// Its place in the second ranking, from 1.
    pub rank: usize,
    /// Its place in the retrieval order; none where it was not among the retrieved.
    pub retrieved_rank: Option<usize>,
}

/// How much changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Churn {
    /// Of the rows shown, how many are shown in both rankings.
    pub kept: usize,
    /// Whether another row is first.
    pub first_changed: bool,
    /// Kendall's tau-a over the rows that both rankings hold: 1 the same order, -1 reversed, 0 where
    /// fewer than two rows are held by both.
    pub kendall_tau: f64,
    /// The mean of |place before - place after| over those rows.
    pub mean_move: f64,
}

/// A comparison of two rankings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The query.
    pub query: String,
    /// What the second ranking is.
    pub second: Second,
    /// The reranker, where one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranker: Option<String>,
    /// The first rows of the retrieval order.
    pub before: Vec<Hit>,
    /// The first rows of the second ranking.
    pub after: Vec<Hit>,
    /// Every row of the second ranking with its place in the first.
    pub rank_map: Vec<RankMove>,
    /// How much changed.
    pub churn: Churn,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// Live rows of the index.
    pub total_rows: usize,
    /// Milliseconds of both searches together.
    pub took_ms: Timings,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Retrieves `depth` rows, orders them a second way and shows the first `show` of each ranking. The
/// second ranking is the reranker's where the searcher has one, else the hybrid search's.
///
/// # Errors
///
/// As [`Searcher::search`].
pub fn compare(
    searcher: &Searcher,
    query: &str,
    depth: usize,
    show: usize,
    options: &SearchOptions,
) -> Result<Comparison> {
    let searches = Searches::new(searcher.reranker.is_some(), depth, options);
    let after = searcher.search(query, &searches.after)?;
    let before = searches.before.map(|before| searcher.search(query, &before)).transpose()?;
    Ok(Comparison::new(query, before, after, show))
}

/// The searches that a comparison needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Searches {
    /// The first ranking; none where the second holds it too, as its retrieval order.
    pub before: Option<SearchOptions>,
    /// The second ranking.
    pub after: SearchOptions,
}

impl Searches {
    /// The searches that compare the order of `depth` retrieved rows with the reranker's, or where there is
    /// none, the dense order with the hybrid one.
    pub fn new(has_reranker: bool, depth: usize, options: &SearchOptions) -> Self {
        let plain = SearchOptions { k: depth, rerank_depth: None, ..options.clone() };
        if has_reranker {
            return Self {
                before: None,
                after: SearchOptions { rerank_depth: Some(depth), ..plain },
            };
        }
        Self {
            after: SearchOptions { hybrid: true, ..plain.clone() },
            before: Some(SearchOptions { hybrid: false, ..plain }),
        }
    }
}

impl Comparison {
    /// The comparison of two results for a query; without `before` its order is that in which the rows of
    /// `after` were retrieved.
    pub fn new(
        query: &str,
        before: Option<SearchResult>,
        mut after: SearchResult,
        show: usize,
    ) -> Self {
        let (second, before, took_ms) = match before {
            Some(before) => {
                let took = sum(before.took_ms, after.took_ms);
                (Second::Hybrid, before.hits, took)
            }
            None => {
                let mut before = after.hits.clone();
                before.sort_by_key(|h| h.retrieved_rank);
                for (i, hit) in before.iter_mut().enumerate() {
                    hit.rank = i + 1;
                    hit.final_score = Some(hit.score);
                }
                (Second::Reranked, before, after.took_ms)
            }
        };
        for hit in &mut after.hits {
            hit.retrieved_rank = before.iter().position(|b| b.row == hit.row).map(|i| i + 1);
        }
        let rank_map: Vec<RankMove> = after
            .hits
            .iter()
            .map(|hit| RankMove {
                id: hit.id.clone(),
                row: hit.row,
                rank: hit.rank,
                retrieved_rank: hit.retrieved_rank,
            })
            .collect();
        let churn = churn(&before, &rank_map, show);
        Self {
            query: query.to_owned(),
            second,
            reranker: after.reranker,
            before: before.into_iter().take(show).collect(),
            after: after.hits.into_iter().take(show).collect(),
            rank_map,
            churn,
            matched_rows: after.matched_rows,
            total_rows: after.total_rows,
            took_ms,
            warnings: after.warnings,
        }
    }
}

fn churn(before: &[Hit], rank_map: &[RankMove], show: usize) -> Churn {
    let shown = |m: &&RankMove| m.rank <= show && m.retrieved_rank.is_some_and(|r| r <= show);
    let both: Vec<(usize, usize)> =
        rank_map.iter().filter_map(|m| m.retrieved_rank.map(|r| (m.rank, r))).collect();
    let mut agreement = 0i64;
    for (i, a) in both.iter().enumerate() {
        // `both` is in the second ranking's order.
        agreement += both[i + 1..].iter().map(|b| if a.1 < b.1 { 1 } else { -1 }).sum::<i64>();
    }
    let pairs = both.len() * both.len().saturating_sub(1) / 2;
    let moves: usize = both.iter().map(|(a, b)| a.abs_diff(*b)).sum();
    Churn {
        kept: rank_map.iter().filter(shown).count(),
        first_changed: before.first().map(|h| h.row) != rank_map.first().map(|m| m.row),
        kendall_tau: if pairs == 0 { 0.0 } else { agreement as f64 / pairs as f64 },
        mean_move: if both.is_empty() { 0.0 } else { moves as f64 / both.len() as f64 },
    }
}

fn sum(a: Timings, b: Timings) -> Timings {
    Timings {
        embed: a.embed + b.embed,
        filter: a.filter + b.filter,
        scan: a.scan + b.scan,
        fuse: a.fuse + b.fuse,
        rerank: a.rerank + b.rerank,
        fetch: a.fetch + b.fetch,
        total: a.total + b.total,
    }
}
