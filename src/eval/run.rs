//! Runs: the ranked documents of each query, and the files that hold them.

use super::table::{MAX_LINE, TableLayout, VALUE, read_rows};
use crate::error::{Error, Place, Result};
use indexmap::IndexMap;
use indexmap::map::Entry;
use std::cmp::Ordering;
use std::io::Read;
use std::path::Path;
use warpseek_ingest::lines::Lines;

/// Document ids and scores, best first.
pub type Ranking = Vec<(String, f64)>;

/// The ranked documents of each query.
///
/// Queries are iterated in the order in which they were added or first appeared in the file.
#[derive(Debug, Clone, Default)]
pub struct Run {
    rankings: IndexMap<String, Ranking>,
    /// The name of the file, empty if there is none.
    name: String,
}

/// The greatest rank that is read: up to here ranks are exact as 32-bit floats.
const MAX_RANK: u32 = 1 << 24;

/// Advice for a table of ranks that seem to be scores.
const SCORES_HINT: &str =
    "for scores begin the file with the line 'query-id<tab>corpus-id<tab>score'";

const SCORES: TableLayout = TableLayout {
    by_tab: true,
    columns: &["query", "document", "score"],
    fields: [0, 1, 2],
    headers: &["score"],
    needs_header: true,
};

const RANKS: TableLayout = TableLayout {
    columns: &["query", "document", "rank"],
    headers: &["rank"],
    needs_header: false,
    ..SCORES
};

/// The rank and the tag of a TREC run say nothing that the score does not.
const TREC: TableLayout = TableLayout {
    by_tab: false,
    columns: &["query", "Q0", "document", "rank", "score", "tag"],
    fields: [0, 2, 4],
    headers: &[],
    needs_header: false,
};

static LAYOUTS: [TableLayout; 3] = [SCORES, RANKS, TREC];

impl Run {
    /// A run without queries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a run file, plain or gzip.
    ///
    /// The first line decides the format:
    ///
    /// - six columns between any white space: a TREC run (`query Q0 document rank score tag`);
    /// - three tab-separated columns under a header whose last name is `score`: query, document,
    ///   score (higher is better);
    /// - three tab-separated columns without a header, or with one whose last name is `rank`:
    ///   query, document, rank from 1, the layout of MS MARCO runs. The score kept is the negated
    ///   rank.
    ///
    /// As in trec_eval, the rank column of a TREC run is ignored: documents are ordered by score
    /// descending, compared as 32-bit floats, then by the bytes of the document id descending.
    /// The lines of a query need not be adjacent. A document that occurs twice for a query is kept
    /// twice; measures and the writer use its first rank only.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read. [`Error::Input`] with file and line for none of
    /// the formats, a wrong number of columns, an empty id, a score that is not a finite number, a
    /// rank that is not an integer from 1 to 2^24 or occurs twice for a query, a line over 64 KiB,
    /// invalid UTF-8, a damaged gzip stream, or a file without a ranked document.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_lines(Lines::open(path, MAX_LINE)?, &path.display().to_string())
    }

    /// Reads a run as [`Run::read`] does, from any reader; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// As [`Run::read`].
    pub fn from_reader(reader: impl Read, file: &str) -> Result<Self> {
        Self::from_lines(Lines::new(reader, file, MAX_LINE)?, file)
    }

    /// Adds the ranking of one query, best document first; the order is kept.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the run already has a ranking of this query.
    pub fn insert(&mut self, query: impl Into<String>, ranking: Ranking) -> Result<()> {
        match self.rankings.entry(query.into()) {
            Entry::Vacant(slot) => {
                slot.insert(ranking);
                Ok(())
            }
            Entry::Occupied(slot) => Err(Error::usage(format!(
                "query '{}' is in the run twice: give each query a unique id",
                slot.key()
            ))),
        }
    }

    /// The name of the file that it was read from, for messages.
    pub(super) fn name(&self) -> &str {
        if self.name.is_empty() { "the given ranking" } else { &self.name }
    }

    /// The ranked documents of one query.
    pub fn get(&self, query: &str) -> Option<&[(String, f64)]> {
        self.rankings.get(query).map(Vec::as_slice)
    }

    /// All queries and their ranked documents.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[(String, f64)])> {
        self.rankings.iter().map(|(query, ranking)| (query.as_str(), ranking.as_slice()))
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.rankings.len()
    }

    /// True if the run has no query.
    pub fn is_empty(&self) -> bool {
        self.rankings.is_empty()
    }

    fn from_lines(lines: Lines<'_>, file: &str) -> Result<Self> {
        let mut run = Self { name: file.to_owned(), ..Self::default() };
        let layout = read_rows(lines, &LAYOUTS, "ranked document", |row| {
            let score = if *row.layout == RANKS { rank(row.value) } else { score(row.value) };
            let found = (row.document.to_owned(), score.map_err(|reason| (VALUE, reason))?);
            match run.rankings.get_mut(row.query) {
                Some(ranking) => ranking.push(found),
                None => drop(run.rankings.insert(row.query.to_owned(), vec![found])),
            }
            Ok(())
        })?;
        for (query, ranking) in &mut run.rankings {
            ranking.sort_by(trec_order);
            let twice = ranking.windows(2).find(|pair| pair[0].1 == pair[1].1);
            if let Some(pair) = twice.filter(|_| *layout == RANKS) {
                let rank = -pair[0].1;
                let reason = format!("rank {rank} occurs twice for query '{query}': {SCORES_HINT}");
                return Err(Error::input(Place::file(file), reason));
            }
        }
        Ok(run)
    }
}

/// Turns row hits, best first, into a ranking of documents.
///
/// A document has the rank of its first row and the maximum score of its rows. With rows in final
/// order that is the first row's own score.
pub fn rank_documents<D: Into<String>>(rows: impl IntoIterator<Item = (D, f64)>) -> Ranking {
    let mut best: IndexMap<String, f64> = IndexMap::new();
    for (document, score) in rows {
        let slot = best.entry(document.into()).or_insert(score);
        *slot = slot.max(score);
    }
    best.into_iter().collect()
}

fn score(value: &str) -> Result<f64, String> {
    value
        .parse()
        .ok()
        .filter(|score| f64::is_finite(*score))
        .ok_or_else(|| format!("invalid score '{value}': write a finite decimal number"))
}

/// The score of a rank: the negated rank.
fn rank(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(rank) if (1..=MAX_RANK).contains(&rank) => Ok(-f64::from(rank)),
        _ => Err(format!(
            "invalid rank '{value}': write an integer from 1 to {MAX_RANK}; {SCORES_HINT}"
        )),
    }
}

/// trec_eval's order: score descending as 32-bit floats, then document id descending.
fn trec_order(left: &(String, f64), right: &(String, f64)) -> Ordering {
    let by_score = (right.1 as f32).partial_cmp(&(left.1 as f32)).unwrap_or(Ordering::Equal);
    by_score.then_with(|| right.0.cmp(&left.0))
}
