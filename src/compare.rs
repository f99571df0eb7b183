//! Comparison of two rankings of one query: the effect of reranking, or of hybrid search.

use crate::error::Result;
use crate::search::{
    DirectSteps, Hit, OrderedBy, QueryInput, SearchOptions, SearchResult, SearchSteps, Searcher,
    Timings, run_direct, search,
};
use serde::Serialize;

/// The second ranking of a comparison; the first is the retrieval order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Second {
    /// The reranked order.
    Reranked,
    /// The order of a hybrid search; the first is then the dense order.
    Hybrid,
}

impl Second {
    /// The name in sentences such as `reranked #1 was retrieved #10`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reranked => "reranked",
            Self::Hybrid => "hybrid",
        }
    }
}

/// The ranks of one row in both rankings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RankMove {
    /// The row's id.
    pub id: String,
    /// The row's number.
    pub row: u32,
    /// Rank in the second ranking, from 1.
    pub rank: usize,
    /// Rank in the retrieval order, from 1; `None` if the row was not retrieved.
    pub retrieved_rank: Option<usize>,
}

/// The differences between two rankings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Churn {
    /// The number of shown rows that both rankings show.
    pub kept: usize,
    /// True if another row is first.
    pub first_changed: bool,
    /// Kendall's tau-a over the rows that both rankings hold: 1 for the same order, -1 for the
    /// reversed order, 0 for fewer than two common rows.
    pub kendall_tau: f64,
    /// The mean of |rank before - rank after| over those rows.
    pub mean_move: f64,
}

/// A comparison of two rankings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The query.
    pub query: String,
    /// The kind of the second ranking.
    pub second: Second,
    /// The reranker's name, if one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranker: Option<String>,
    /// The score that orders the second ranking.
    pub ordered_by: OrderedBy,
    /// The first rows of the retrieval order.
    pub before: Vec<Hit>,
    /// The first rows of the second ranking.
    pub after: Vec<Hit>,
    /// Every row of the second ranking with its rank in the first.
    pub rank_map: Vec<RankMove>,
    /// The differences between the rankings.
    pub churn: Churn,
    /// The number of rows that pass the filter.
    pub matched_rows: usize,
    /// The number of live rows of the index.
    pub total_rows: usize,
    /// Milliseconds of both searches together.
    pub took_ms: Timings,
    /// Notes for the user, such as a truncated query.
    pub warnings: Vec<String>,
}

/// Retrieves `depth` rows, orders them a second way and shows the first `show` rows of each
/// ranking. The second ranking is the reranker's if the searcher has one, else the hybrid search's.
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
    run_direct(compare_with(&DirectSteps::new(searcher), query, (depth, show), options))
}

/// As [`compare`], by the given steps.
pub(crate) async fn compare_with<S: SearchSteps>(
    steps: &S,
    query: &str,
    (depth, show): (usize, usize),
    options: &SearchOptions,
) -> Result<Comparison, S::Error> {
    let input = QueryInput { text: query, ..QueryInput::default() };
    let plain = SearchOptions {
        k: depth,
        rerank_depth: None,
        rerank_budget: None,
        min_score: None,
        ..options.clone()
    };
    let (before, after) = if steps.searcher().reranker.is_some() {
        (None, SearchOptions { rerank_depth: Some(depth), ..plain })
    } else {
        let dense = SearchOptions { hybrid: false, ..plain.clone() };
        let before = search(steps, input, &dense).await?;
        (Some(before), SearchOptions { hybrid: true, ..plain })
    };
    let after = search(steps, input, &after).await?;
    Ok(Comparison::new(query, before, after, show))
}

impl Comparison {
    /// Compares two results for a query. Without `before`, the first ranking is the order in which
    /// the rows of `after` were retrieved.
    fn new(
        query: &str,
        before: Option<SearchResult>,
        mut after: SearchResult,
        show: usize,
    ) -> Self {
        let mut took_ms = after.took_ms;
        let (second, before) = match before {
            Some(before) => {
                took_ms += before.took_ms;
                (Second::Hybrid, before.hits)
            }
            None => {
                let mut before = after.hits.clone();
                before.sort_by_key(|h| h.retrieved_rank);
                for (hit, rank) in before.iter_mut().zip(1..) {
                    hit.rank = rank;
                    hit.final_score = Some(hit.score);
                    hit.low = false;
                }
                (Second::Reranked, before)
            }
        };
        let mut rank_map = Vec::with_capacity(after.hits.len());
        for hit in &mut after.hits {
            let retrieved_rank = before.iter().position(|b| b.row == hit.row).map(|i| i + 1);
            hit.retrieved_rank = retrieved_rank;
            let (id, row, rank) = (hit.id.clone(), hit.row, hit.rank);
            rank_map.push(RankMove { id, row, rank, retrieved_rank });
        }
        let churn = churn(&before, &rank_map, show);
        Self {
            query: query.to_owned(),
            second,
            reranker: after.reranker,
            ordered_by: after.ordered_by,
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
