"""Results: hits, comparisons, answers, evaluations, reports."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass
class Hit:
    """A row of an index, with its scores if a search found it.

    Attributes:
        id: Id of the row: that of its document, with ``#n`` where the document has several rows.
        doc_id: Id that relevance judgments name.
        title: Title, possibly empty.
        text: Text of the row.
        metadata: Metadata of the document.
        row: Number of the row; it stays until the index is compacted.
        rank: Rank in the final order, from 1.
        score: Inner product with the query (for :attr:`Index.metric` ``"cosine"`` the cosine), the
            fused score of a hybrid search, or the BM25 score of ``search_bm25``.
        dense_score: Inner product with the query, a part of the score of a hybrid search.
        bm25_score: BM25, a part of the score of a hybrid search; 0 without a word of the query.
        final_score: Value that orders the hits; ``None`` behind the reranked ones.
        retrieved_rank: Rank in the retrieval order, from 1.
        low: True for a hit that hardly answers the query: its probability of relevance is below
            0.001. Never true where no calibration applies.
        rerank_score: Sigmoid of the logit, 0..1, if the hit was reranked.
        rerank_logit: Output of the cross-encoder, if the hit was reranked.
        window: Byte range of the text's UTF-8 that the reranker's best window covers.
        tokens_lost: Tokens of the text that the embedder's limit cut off.
        document_range: Byte range of the row in its document's text.
        vector: float32 vector of the row, if it was asked for.
    """

    id: str
    doc_id: str
    title: str
    text: str
    metadata: dict[str, Any]
    row: int
    rank: int | None = None
    score: float | None = None
    dense_score: float | None = None
    bm25_score: float | None = None
    final_score: float | None = None
    retrieved_rank: int | None = None
    low: bool = False
    rerank_score: float | None = None
    rerank_logit: float | None = None
    window: list[int] | None = None
    tokens_lost: int = 0
    document_range: list[int] = field(default_factory=list)
    vector: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)


class Hits(Sequence[Hit]):
    """The hits of one query, best first.

    Attributes:
        took_ms: Milliseconds of each step; of all queries that were searched for together.
        warnings: Warnings, such as a truncated query or values that a filter did not compare.
        matched_rows: Rows that pass the filter.
        total_rows: Live rows of the index.
        reranker: Name of the reranker, if one was used.
        ordered_by: The score that orders the hits, their ``final_score``: ``"probability"``,
            ``"rerank"``, ``"blend"``, ``"cosine"``, ``"inner_product"``, ``"hybrid"``,
            ``"reciprocal_ranks"``, ``"bm25"``; with ``"diversity"`` it is out of order.
        below_min_score: Number of the first `k` hits whose ``final_score`` is below ``min_score``,
            which left them out, if it was given.
        not_reranked: Number of the first `k` hits that ``min_score`` left out because the reranker
            did not read them, if there are any.
    """

    def __init__(
        self,
        hits: Sequence[Hit],
        *,
        took_ms: Mapping[str, float] | None = None,
        warnings: Sequence[str] = (),
        matched_rows: int = 0,
        total_rows: int = 0,
        reranker: str | None = None,
        ordered_by: str | None = None,
        below_min_score: int | None = None,
        not_reranked: int | None = None,
    ) -> None:
        self._hits = list(hits)
        self.took_ms = dict(took_ms or {})
        self.warnings = list(warnings)
        self.matched_rows = matched_rows
        self.total_rows = total_rows
        self.reranker = reranker
        self.ordered_by = ordered_by
        self.below_min_score = below_min_score
        self.not_reranked = not_reranked

    @classmethod
    def _of(cls, result: dict[str, Any]) -> Hits:
        hits = [Hit(**hit) for hit in result.pop("hits")]
        return cls(hits, **result)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Hits: ...
    def __getitem__(self, index: int | slice) -> Hit | Hits:
        if isinstance(index, slice):
            return Hits(
                self._hits[index],
                took_ms=self.took_ms,
                warnings=self.warnings,
                matched_rows=self.matched_rows,
                total_rows=self.total_rows,
                reranker=self.reranker,
                ordered_by=self.ordered_by,
                below_min_score=self.below_min_score,
                not_reranked=self.not_reranked,
            )
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Hits, list)) and self._hits == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def ids(self) -> list[str]:
        """The ids of the hits."""
        return [hit.id for hit in self._hits]

    @property
    def texts(self) -> list[str]:
        """The texts of the hits."""
        return [hit.text for hit in self._hits]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Returns the hits as dicts, without vectors."""
        dicts = []
        for hit in self._hits:
            values = asdict(hit)
            del values["vector"]
            dicts.append(values)
        return dicts

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a data frame with a column for each attribute and each metadata field.

        A metadata field that has the name of an attribute gets the column ``metadata.<name>``.
        """
        import pandas

        columns = [name for name in Hit.__dataclass_fields__ if name not in ("vector", "metadata")]
        rows = []
        for values in self.to_dicts():
            metadata = values.pop("metadata")
            for name, value in metadata.items():
                values[f"metadata.{name}" if name in columns else name] = value
            rows.append(values)
        frame = pandas.DataFrame(rows)
        return frame if rows else pandas.DataFrame(columns=columns)

    def to_arrow(self) -> pyarrow.Table:
        """Returns an Arrow table; the metadata is a column of JSON text."""
        import json

        import pyarrow

        rows = self.to_dicts()
        for values in rows:
            values["metadata"] = json.dumps(values["metadata"], ensure_ascii=False)
        schema = pyarrow.schema(
            [
                ("id", pyarrow.string()),
                ("doc_id", pyarrow.string()),
                ("title", pyarrow.string()),
                ("text", pyarrow.string()),
                ("metadata", pyarrow.string()),
                ("row", pyarrow.int64()),
                ("rank", pyarrow.int64()),
                ("score", pyarrow.float32()),
                ("dense_score", pyarrow.float32()),
                ("bm25_score", pyarrow.float32()),
                ("final_score", pyarrow.float32()),
                ("retrieved_rank", pyarrow.int64()),
                ("low", pyarrow.bool_()),
                ("rerank_score", pyarrow.float32()),
                ("rerank_logit", pyarrow.float32()),
                ("window", pyarrow.list_(pyarrow.int64())),
                ("tokens_lost", pyarrow.int64()),
                ("document_range", pyarrow.list_(pyarrow.int64())),
            ]
        )
        return pyarrow.Table.from_pylist(rows, schema=schema)

    def __repr__(self) -> str:
        lines = [f"Hits({len(self)} of {self.matched_rows} rows)"]
        for hit in self._hits[:10]:
            score = "" if hit.score is None else f"{hit.score:.4f}  "
            lines.append(f"  {hit.rank or '-':>3}  {score}{hit.id}  {_short(_head(hit), 70)}")
        if len(self) > 10:
            lines.append(f"  ... and {len(self) - 10} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{hit.rank or ''}</td><td>{_number(hit.score)}</td>"
            f"<td>{_number(hit.rerank_score)}</td><td>{_cell(hit)}</td></tr>"
            for hit in self._hits
        )
        head = "<tr><th>#</th><th>score</th><th>rerank</th><th>passage</th></tr>"
        return f"<table>{head}{rows}</table>"


@dataclass
class Comparison:
    """Two rankings of one query: the retrieval order, and the reranked one.

    Without a reranker, the second ranking is that of a hybrid search.

    Attributes:
        before: First hits of the retrieval order.
        after: First hits of the second ranking.
        rank_map: Rank in the second ranking to rank in the retrieval order (``None`` if the row was
            not retrieved), for all compared rows: ``{1: 10, 2: 1}`` says that the first hit was
            the tenth.
        churn: ``kept``, ``first_changed``, ``kendall_tau`` and ``mean_move``.
        second: ``"reranked"`` or ``"hybrid"``.
        ordered_by: The score that orders the second ranking, as :attr:`Hits.ordered_by`.
    """

    query: str
    second: str
    before: list[Hit]
    after: list[Hit]
    rank_map: dict[int, int | None]
    churn: dict[str, Any]
    matched_rows: int
    total_rows: int
    took_ms: dict[str, float]
    warnings: list[str]
    reranker: str | None = None
    ordered_by: str | None = None

    @classmethod
    def _of(cls, result: dict[str, Any]) -> Comparison:
        before = [Hit(**hit) for hit in result.pop("before")]
        after = [Hit(**hit) for hit in result.pop("after")]
        moves = {move["rank"]: move["retrieved_rank"] for move in result.pop("rank_map")}
        return cls(before=before, after=after, rank_map=moves, **result)

    def __repr__(self) -> str:
        lines = [f"{self.query!r}: retrieved, and {self.second}"]
        for old, new in zip(self.before, self.after, strict=False):
            was = new.retrieved_rank or "-"
            lines.append(f"  {_short(_head(old), 44):46}| was #{was}: {_short(_head(new), 44)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        now = {hit.row: hit.rank for hit in self.after}
        rows = []
        for old, new in zip(self.before, self.after, strict=False):
            rank = now.get(old.row)
            where = "no longer shown" if rank is None else f"now #{rank}"
            rows.append(
                f"<tr><td><b>{old.rank}</b> <small>{where}</small><br>{_cell(old)}</td>"
                f"<td><b>{new.rank}</b> <small>{_moved(new)}</small><br>{_cell(new)}</td></tr>"
            )
        name, churn = html.escape(self.reranker or self.second), self.churn
        return (
            f"<p><b>{html.escape(self.query)}</b></p>"
            "<table style='table-layout:fixed;width:100%'>"
            f"<tr><th>retrieved</th><th>{html.escape(self.second)} <small>{name}</small></th></tr>"
            f"{''.join(rows)}</table>"
            f"<p><small>{churn['kept']} of {len(self.before)} kept; Kendall's tau "
            f"{churn['kendall_tau']:.2f}; mean move {churn['mean_move']:.1f} ranks</small></p>"
        )


@dataclass
class Answer:
    """An answer with checked quotes.

    Attributes:
        text: Text as the model wrote it.
        refused: True if it states that the passages do not hold the answer.
        sentences: Dicts with ``text``, ``supported`` and the quotes in ``citations``.
        citations: All quotes: ``quote``, ``cited``, ``status`` (``"found"``, ``"misattributed"`` or
            ``"absent"``), ``passage``, ``passage_id``, ``range``.
        hits: Passages that were given to the model, and those that did not fit.
        messages: Conversation that was sent.
        model: Name of the chat model.
        finish_reason: ``"stop"``, or ``"length"`` if the answer is cut; of a service.
        usage: Token counts, of a service.
        took_ms: Milliseconds until the first text, and until the end; of a service.
    """

    question: str
    text: str
    refused: bool
    sentences: list[dict[str, Any]]
    citations: list[dict[str, Any]]
    hits: Hits
    messages: list[dict[str, str]]
    model: str
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    took_ms: dict[str, float] = field(default_factory=dict)

    @property
    def supported(self) -> bool:
        """True if every sentence that states something has quotes that were found."""
        return all(sentence["supported"] for sentence in self.sentences)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        parts = []
        for sentence in self.sentences:
            text = html.escape(sentence["text"])
            mark = "" if sentence["supported"] else " <small><mark>[unsupported]</mark></small>"
            parts.append(f"{text}{mark}")
        passages = "".join(f"<li>{_cell(hit)}</li>" for hit in self.hits)
        return (
            f"<p><b>{html.escape(self.question)}</b></p><p>{' '.join(parts)}</p>"
            f"<details><summary>{len(self.hits)} passages</summary><ol>{passages}</ol></details>"
        )


@dataclass
class Evaluation:
    """Measures of the retrieval and of its reranking on judged queries.

    Attributes:
        systems: Dicts with ``name``, ``mean`` (measure to value), ``per_query``, ``latency_ms``
            and, for all but the first, ``reranker`` (name, depth, retriever weight) and
            ``against_first`` (difference, interval, p-values).
        reranker: Name of the reranker that ran, if any.
        rerankers: Dicts with ``name`` and ``sha256`` of all that ran.
        judged_queries: Queries with judgments.
        missing_queries: Judged queries without a text, which count 0.
        unjudged_queries: Queries without judgments, which were left out.
        judged_documents: Documents with a judgment.
        judged_documents_in_index: The number of them that the index holds.
        relevant_documents: Documents judged relevant.
        absent_documents: The number of these that the index does not hold.
        warnings: Messages about queries and documents that were left out or count 0.
        rows: Live rows of the index.
    """

    systems: list[dict[str, Any]]
    reranker: str | None
    rerankers: list[dict[str, str | None]]
    judged_queries: int
    missing_queries: int
    unjudged_queries: int
    judged_documents: int
    judged_documents_in_index: int
    relevant_documents: int
    absent_documents: int
    warnings: list[str]
    rows: int

    def __getitem__(self, system: int | str) -> dict[str, Any]:
        if isinstance(system, int):
            return self.systems[system]
        for entry in self.systems:
            if entry["name"] == system:
                return entry
        raise KeyError(f"no system {system!r}: {', '.join(s['name'] for s in self.systems)}")

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a data frame with a row for each system and a column for each measure."""
        import pandas

        means = [entry["mean"] for entry in self.systems]
        return pandas.DataFrame(means, index=[entry["name"] for entry in self.systems])

    def __repr__(self) -> str:
        lines = [f"Evaluation({self.judged_queries} queries)"]
        for entry in self.systems:
            values = "  ".join(f"{name} {value:.4f}" for name, value in entry["mean"].items())
            lines.append(f"  {entry['name']}: {values}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        names = list(self.systems[0]["mean"]) if self.systems else []
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        rows = "".join(
            f"<tr><td>{html.escape(entry['name'])}</td>"
            + "".join(f"<td>{entry['mean'][name]:.4f}</td>" for name in names)
            + "</tr>"
            for entry in self.systems
        )
        return f"<table><tr><th>{self.judged_queries} queries</th>{head}</tr>{rows}</table>"


@dataclass
class AddReport:
    """The effect of adding documents.

    Attributes:
        added: New documents.
        updated: Documents that replaced an older version.
        unchanged: Documents that the index had already, with the same content.
        pruned: Documents that were deleted because their inputs no longer hold them.
        duplicates: Records that a later one of the same id replaced.
        replaced_elsewhere: Documents that replaced one of the same id from another input.
        kept: Documents that `prune` kept because something of their files was skipped.
        skipped: Records that could not be used; `messages` says why of the first.
        left_out: What was left out, skipped records included, by reason: dicts of ``reason``,
            ``count``, the ``first`` names and the whole ``detail`` of the first.
        rows: Rows written.
        tokens: Tokens embedded.
        tokens_lost: Tokens beyond the model's limit, of `rows_truncated` rows.
        notes: First notes on the input, of `notes_total`: values that became null, columns that
            were left out.
        interrupted: True if the call was stopped before the end.
        dim: Dimensions of given vectors.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    pruned: int = 0
    kept: int = 0
    skipped: int = 0
    left_out: list[dict[str, Any]] = field(default_factory=list)
    duplicates: int = 0
    replaced_elsewhere: int = 0
    rows: int = 0
    tokens: int = 0
    tokens_lost: int = 0
    rows_truncated: int = 0
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    notes_total: int = 0
    interrupted: bool = False
    dim: int | None = None


@dataclass
class SyncReport(AddReport):
    """The effect of :meth:`warpseek.Index.sync`.

    Attributes:
        inputs: The recorded inputs of the index: files and folders.
        files_read: Files that were read because they were new or had changed.
        files_unchanged: Files that were not read.
    """

    inputs: list[str] = field(default_factory=list)
    files_read: int = 0
    files_unchanged: int = 0


def _head(hit: Hit) -> str:
    return hit.title or hit.text


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cell(hit: Hit) -> str:
    title = f"<b>{html.escape(hit.title)}</b> " if hit.title else ""
    text = html.escape(_short(hit.text, 300))
    return f"{title}<small>{html.escape(hit.id)}</small><br>{text}"


def _moved(hit: Hit) -> str:
    if hit.retrieved_rank is None or hit.rank is None:
        return "not retrieved"
    moved = hit.retrieved_rank - hit.rank
    if moved == 0:
        return "as retrieved"
    arrow = "&#9650;" if moved > 0 else "&#9660;"
    return f"{arrow}&nbsp;{abs(moved)}, was #{hit.retrieved_rank}"
