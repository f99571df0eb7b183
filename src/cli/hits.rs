//! Hits as text: the score that orders them, title, place and excerpt.

use super::markdown::to_plain;
use super::passage_place::PassagePlace;
use super::term::{self, bold, decimal, dim, plain, say, signed};
use super::words::QueryWords;
use crate::error::Result;
use crate::indexing::base_of;
use crate::search::{self, Hit, OrderedBy, SearchOptions, Searcher};
use std::path::PathBuf;

/// Characters of an excerpt.
const EXCERPT: usize = 320;

/// Prints the hits of a search, in their order.
pub(super) struct HitPrinter<'a> {
    query: &'a str,
    words: QueryWords,
    /// The folder at which paths in ids start.
    base: Option<PathBuf>,
    retrieved_by: OrderedBy,
    /// The kind of the dense score, a part of that of a hybrid search.
    dense_by: OrderedBy,
    /// True to print whole passages.
    pub(super) full: bool,
    /// True to print the scores from which the order was computed.
    pub(super) explain: bool,
    n_printed: usize,
    told_low: bool,
    told_deeper: bool,
}

impl<'a> HitPrinter<'a> {
    /// Prints hits of `query`, which `searcher` found.
    pub(super) fn new(searcher: &Searcher, query: &'a str, options: &SearchOptions) -> Self {
        let manifest = searcher.index.manifest();
        Self {
            query,
            words: QueryWords::new(query, manifest.language()),
            base: base_of(searcher.index.dir()).ok(),
            retrieved_by: options.retrieved_by(manifest.metric),
            dense_by: manifest.metric.into(),
            full: false,
            explain: false,
            n_printed: 0,
            told_low: false,
            told_deeper: false,
        }
    }

    /// Prints the next hit.
    pub(super) fn print(&mut self, hit: &Hit) -> Result<()> {
        if hit.low && !self.told_low {
            self.told_low = true;
            let nothing =
                if self.n_printed == 0 { "nothing is close" } else { "nothing else is close" };
            say!("    {}", dim(nothing))?;
        }
        if hit.final_score.is_none() && !self.told_deeper {
            self.told_deeper = true;
            say!("    {}", dim("not reranked, in retrieval order:"))?;
        }
        self.n_printed += 1;
        let emphasis: fn(&str) -> String = if hit.low { dim } else { bold };
        let score = hit.final_score.map_or_else(|| "-".to_owned(), |score| decimal(score, 4));
        say!("{:>2}  {score:>6}  {}", hit.rank, emphasis(plain(title(hit)).trim()))?;
        let (text, offset) = self.text(hit);
        say!("    {}", self.place(hit, offset))?;
        if self.explain {
            say!("    {}", dim(&self.components(hit)))?;
        }
        let shown = |text: &str| match hit.low {
            true => text.lines().map(dim).collect::<Vec<_>>().join("\n"),
            false => self.words.marked(text, bold),
        };
        if self.full {
            return text.lines().try_for_each(|line| say!("    {}", shown(line)));
        }
        if text.trim().is_empty() { Ok(()) } else { say!("{}", shown(&term::wrap(&text, "    "))) }
    }

    /// The text to show, and its first byte in the passage.
    fn text(&self, hit: &Hit) -> (String, usize) {
        if self.full {
            return (plain(&hit.text), 0);
        }
        let range = search::excerpt(&hit.text, hit.window, self.query, EXCERPT);
        if !is_markdown(&hit.doc_id) {
            return (excerpt(&hit.text, hit.window, self.query), range.start);
        }
        // Rendered before it is cut, since an excerpt may begin or end inside a mark.
        let window = hit.window.and_then(|[start, end]| hit.text.get(start..end));
        let rendered = to_plain(window.unwrap_or(&hit.text));
        let title = hit.title.trim();
        let rest = rendered.trim_start().strip_prefix(title).filter(|_| !title.is_empty());
        (excerpt(rest.unwrap_or(&rendered), None, self.query), range.start)
    }

    /// File and line, as a link on terminals that show links, else the id.
    fn place(&self, hit: &Hit, offset: usize) -> String {
        let Some(base) = &self.base else { return dim(&plain(&hit.id)) };
        let PassagePlace { label, file } = PassagePlace::of(hit, offset, base);
        let label = dim(&plain(&label));
        file.map_or(label.clone(), |file| term::link(&file, &label))
    }

    /// The scores from which the order was computed.
    fn components(&self, hit: &Hit) -> String {
        let mut parts = vec![
            format!("id {}", plain(&hit.id)),
            format!("{} {}", self.retrieved_by.word(), decimal(hit.score, 4)),
        ];
        if let (Some(dense), Some(bm25)) = (hit.dense_score, hit.bm25_score) {
            parts.push(format!("{} {}", self.dense_by.word(), decimal(dense, 4)));
            parts.push(format!("{} {}", OrderedBy::Bm25.word(), decimal(bm25, 4)));
        }
        if let (Some(score), Some(logit)) = (hit.rerank_score, hit.rerank_logit) {
            parts.push(format!("rerank {} (logit {})", decimal(score, 4), signed(logit, 3)));
        }
        parts.extend(hit.retrieved_rank.map(|rank| format!("retrieved #{rank}")));
        if hit.tokens_lost > 0 {
            parts.push(format!("{} tokens beyond the embedder's limit", hit.tokens_lost));
        }
        parts.join("  ")
    }
}

/// Title of a hit; its id if it has none.
pub(super) fn title(hit: &Hit) -> &str {
    if hit.title.is_empty() { &hit.id } else { &hit.title }
}

/// The part of a passage to show, on one line, without characters that a terminal acts on.
pub(super) fn excerpt(text: &str, window: Option<[usize; 2]>, query: &str) -> String {
    let range = search::excerpt(text, window, query, EXCERPT);
    let words: Vec<&str> = text[range.clone()].split_whitespace().collect();
    let dots = |hidden: &str| if hidden.trim().is_empty() { "" } else { "..." };
    let (before, after) = (dots(&text[..range.start]), dots(&text[range.end..]));
    plain(format!("{before} {} {after}", words.join(" ")).trim())
}

/// True for the id of a Markdown file.
fn is_markdown(doc_id: &str) -> bool {
    let name = doc_id.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    [".md", ".markdown"].iter().any(|extension| name.ends_with(extension))
}
