//! Runs: what a system answered to each query, and the files that say so.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::lines::{Lines, MAX_TABLE_LINE, space_columns, tab_columns};

/// Document ids and scores, best first.
pub type Ranking = Vec<(String, f64)>;

/// The ranked documents of each query.
///
/// Queries are iterated in the order in which they were added or first appeared in the file.
#[derive(Debug, Clone, Default)]
pub struct Run {
    queries: Vec<(String, Ranking)>,
    by_query: HashMap<String, usize>,
}

/// The greatest rank that is read: up to here ranks are exact as 32-bit floats.
const MAX_RANK: u32 = 1 << 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `query Q0 document rank score tag`, any white space between.
    Trec,
    /// `query <tab> document <tab> score`, under a header.
    Scores,
    /// `query <tab> document <tab> rank`.
    Ranks,
}

impl Run {
    /// A run without answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a run file, plain or gzip.
    ///
    /// The first line tells the format:
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
    /// The lines of a query need not stand together. A document that comes twice for a query is
    /// kept twice; measures and the writer look at its first place only.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read. [`Error::Input`] with file and line for none of
    /// the formats, a wrong number of columns, an empty id, a score that is no finite number, a
    /// rank that is no integer from 1 to 2^24 or comes twice for a query, a line over 64 KiB,
    /// invalid UTF-8, a damaged gzip stream, or a file without an answer.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_lines(Lines::open(path.as_ref(), MAX_TABLE_LINE)?)
    }

    /// Reads a run as [`Run::read`] does, from any reader; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// As [`Run::read`].
    pub fn from_reader(reader: impl Read, file: &str) -> Result<Self> {
        Self::from_lines(Lines::new(reader, file, MAX_TABLE_LINE)?)
    }

    /// Adds the answer to one query, best document first; the order given is the order kept.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the run has an answer to this query already.
    pub fn insert(&mut self, query: impl Into<String>, ranking: Ranking) -> Result<()> {
        let query = query.into();
        if self.by_query.contains_key(&query) {
            return Err(Error::usage(format!(
                "query '{query}' is in the run twice: give each query an id of its own"
            )));
        }
        self.slot(&query).extend(ranking);
        Ok(())
    }

    /// The ranked documents of one query.
    pub fn get(&self, query: &str) -> Option<&[(String, f64)]> {
        let &at = self.by_query.get(query)?;
        self.queries.get(at).map(|(_, ranking)| ranking.as_slice())
    }

    /// All queries and their ranked documents.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[(String, f64)])> {
        self.queries.iter().map(|(query, ranking)| (query.as_str(), ranking.as_slice()))
    }

    /// How many queries the run has.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether the run has no query.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    fn from_lines(mut lines: Lines<'_>) -> Result<Self> {
        let mut run = Self::new();
        let mut known_format = None;
        while let Some(line) = lines.next()? {
            let format = match known_format {
                Some(format) => format,
                None => {
                    let Some((format, header)) = Format::of(line) else {
                        let reason = not_a_run(line);
                        return Err(lines.error(reason));
                    };
                    known_format = Some(format);
                    if header {
                        continue;
                    }
                    format
                }
            };
            // The row borrows the line, and an error needs the reader: outcome first, error then.
            let outcome = format.row(line).map(|(query, document, score)| {
                run.slot(query).push((document.to_owned(), score));
            });
            match outcome {
                Ok(()) => {}
                Err((Some(field), reason)) => return Err(lines.field_error(field, reason)),
                Err((None, reason)) => return Err(lines.error(reason)),
            }
        }
        if run.is_empty() {
            return Err(lines.file_error("the file holds no answer"));
        }
        for (query, ranking) in &mut run.queries {
            ranking.sort_by(trec_order);
            let twice = ranking.windows(2).find(|pair| pair[0].1 == pair[1].1);
            if let (Some(Format::Ranks), Some(pair)) = (known_format, twice) {
                return Err(lines.file_error(rank_twice(query, -pair[0].1)));
            }
        }
        Ok(run)
    }

    fn slot(&mut self, query: &str) -> &mut Ranking {
        let at = match self.by_query.get(query) {
            Some(&at) => at,
            None => {
                self.by_query.insert(query.to_owned(), self.queries.len());
                self.queries.push((query.to_owned(), Ranking::new()));
                self.queries.len() - 1
            }
        };
        &mut self.queries[at].1
    }
}

/// Turns row hits, best first, into a ranking of documents.
///
/// A document stands where its first row stood and scores the maximum over its rows. With rows in
/// final order that is the first row's own score.
pub fn rank_documents<D: Into<String>>(rows: impl IntoIterator<Item = (D, f64)>) -> Ranking {
    let mut ranking = Ranking::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (document, score) in rows {
        let document = document.into();
        match places.get(&document).and_then(|&place| ranking.get_mut(place)) {
            Some((_, best)) => *best = best.max(score),
            None => {
                places.insert(document.clone(), ranking.len());
                ranking.push((document, score));
            }
        }
    }
    ranking
}

/// What is wrong with a line, and in which field, if in one.
type RowError = (Option<&'static str>, String);

impl Format {
    /// The format of a first line, and whether that line is a header.
    fn of(line: &str) -> Option<(Self, bool)> {
        if let Some([_, _, last]) = tab_columns(line) {
            return Some(match last.to_ascii_lowercase().as_str() {
                "score" => (Self::Scores, true),
                "rank" => (Self::Ranks, true),
                _ => (Self::Ranks, false),
            });
        }
        space_columns::<6>(line).map(|_| (Self::Trec, false))
    }

    fn row(self, line: &str) -> Result<(&str, &str, f64), RowError> {
        let row = match self {
            Self::Trec => space_columns(line).map(|[query, _, document, _, score, _]| {
                // The rank and the tag say nothing that the score does not.
                [query, document, score]
            }),
            Self::Scores | Self::Ranks => tab_columns(line),
        };
        let Some([query, document, value]) = row else {
            return Err((None, self.wrong_count(line)));
        };
        for (id, name) in [(query, "query"), (document, "document")] {
            if id.is_empty() {
                return Err((Some(name), "the id is empty".to_owned()));
            }
        }
        if self == Self::Ranks {
            return match value.parse() {
                Ok(rank) if (1..=MAX_RANK).contains(&rank) => {
                    Ok((query, document, -f64::from(rank)))
                }
                _ => Err((Some("rank"), not_a_rank(value))),
            };
        }
        match value.parse() {
            Ok(score) if f64::is_finite(score) => Ok((query, document, score)),
            _ => Err((
                Some("score"),
                format!("'{value}' is no score: write a finite decimal number"),
            )),
        }
    }

    fn wrong_count(self, line: &str) -> String {
        match self {
            Self::Trec => format!(
                "expected 6 columns (query, Q0, document, rank, score, tag) as on the first line, \
                 found {}",
                line.split_ascii_whitespace().count()
            ),
            Self::Scores | Self::Ranks => format!(
                "expected 3 tab-separated columns as on the first line, found {}",
                line.split('\t').count()
            ),
        }
    }
}

/// trec_eval's order: score descending as 32-bit floats, then document id descending.
fn trec_order(left: &(String, f64), right: &(String, f64)) -> Ordering {
    let by_score = (right.1 as f32).partial_cmp(&(left.1 as f32)).unwrap_or(Ordering::Equal);
    by_score.then_with(|| right.0.cmp(&left.0))
}

fn not_a_run(line: &str) -> String {
    format!(
        "no run: expected 6 columns (query, Q0, document, rank, score, tag) or 3 tab-separated \
         columns (query, document, rank), found {} by white space and {} by tab",
        line.split_ascii_whitespace().count(),
        line.split('\t').count()
    )
}

fn not_a_rank(value: &str) -> String {
    format!(
        "'{value}' is no rank from 1 to {MAX_RANK}: for scores begin the file with the line \
         'query-id<tab>corpus-id<tab>score'"
    )
}

fn rank_twice(query: &str, rank: f64) -> String {
    format!(
        "rank {rank} comes twice for query '{query}': for scores begin the file with the line \
         'query-id<tab>corpus-id<tab>score'"
    )
}
