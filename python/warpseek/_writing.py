"""What an index is told to store: records, files, changes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from warpseek import _warpseek
from warpseek import records as _records
from warpseek._arguments import (
    Field,
    Metadata,
    Path,
    Where,
    field_names,
    ids_of,
    on_error_of,
)
from warpseek._arrays import as_vectors
from warpseek._progress import Progress
from warpseek.errors import UsageError
from warpseek.filters import to_filter
from warpseek.results import AddReport, SyncReport

OnError = Literal["raise", "skip"]


class Writing:
    """The part of :class:`warpseek.Index` that writes."""

    _core: _warpseek.Index

    def add(
        self,
        records: Any,
        *,
        vectors: Any = None,
        id: Field = None,
        text: Field = None,
        title: Field = None,
        metadata: Metadata = None,
        normalize: bool = False,
        on_error: OnError = "raise",
        show_progress_bar: bool | None = None,
    ) -> AddReport:
        """Adds records, embedded by the index's model or with their vectors.

        A record whose id the index has replaces the old document. A record that is there with the
        same content is not embedded again, so that a run that was interrupted goes on where it
        stopped.

        Args:
            records: Dicts, a pandas or polars data frame, an Arrow table, a Hugging Face dataset,
                an iterator of dicts, or of tuples ``(id, text, title, metadata)``.
            vectors: Float array ``[n, dim]`` in the order of the records, stored as given in half
                precision. Texts may be empty then, and nothing is embedded.
            id: Field with the id, or a function of a record. By default the first of ``id``,
                ``_id``, ``doc_id``, ``docid``, ``docno``, ``pid``; `text` and `title` likewise.
            text: Field with the text, or a function of a record.
            title: Field with the title, or a function of a record.
            metadata: Fields to keep as metadata, or a function of a record that returns a dict; by
                default all other fields. Dates become ISO 8601 text, decimals text with all digits,
                NaN and infinity null, which the report notes. All else is kept exactly.
            normalize: True to scale `vectors` to unit length, which an index whose :attr:`metric`
                is the cosine needs.
            on_error: ``"raise"`` stops at a record that cannot be used, after the records before it
                were committed; ``"skip"`` counts it and goes on.
            show_progress_bar: See :meth:`warpseek.Embedder.encode`.

        Raises:
            InputError: For a record that cannot be used, with its number and field.
            IndexLockedError: If another process writes to the index.
        """
        on_error_of(on_error)
        if normalize and vectors is None:
            raise UsageError("normalize is for vectors: the index's model makes unit vectors")
        rows_, total = _records.read(records)
        parts = {"id": id, "text": text, "title": title}
        if callable(metadata) or any(callable(part) for part in parts.values()):
            kept = metadata if callable(metadata) else None
            rows_ = _records.made(rows_, parts, kept)
            id, text, title = (f"{r}()" if callable(p) else p for r, p in parts.items())
            names = field_names(id, text, title, None if callable(metadata) else metadata)
        else:
            names = field_names(id, text, title, metadata)
        array = None if vectors is None else as_vectors(vectors, "vectors", self._core.dim)
        with Progress(show_progress_bar, total, "records") as progress:
            report = self._core.add(rows_, names, array, normalize, on_error, progress.callback)
        return AddReport(**report)

    def add_files(
        self,
        paths: Path | Sequence[Path],
        *,
        id: str | None = None,
        text: str | None = None,
        title: str | None = None,
        metadata: Sequence[str] | None = None,
        on_error: OnError | None = None,
        prune: bool = False,
        delimiter: str | None = None,
        globs: str | Sequence[str] = (),
        ignore_files: bool = True,
        show_progress_bar: bool | None = None,
    ) -> AddReport:
        """Adds the documents of files and folders, as ``warpseek index`` does.

        Args:
            paths: Files (jsonl, json, csv, tsv, parquet, txt, md, html, rst, org, tex, source code,
                ipynb, eml, pdf, docx, pptx, xlsx, odt, epub) and folders.
            id: Field with the id; `text`, `title` and `metadata` likewise.
            on_error: See :meth:`add`. By default a bad file or record raises if the file is named
                itself, and is skipped below folders; the report's `left_out` counts it.
            prune: True to delete the documents that came from these inputs and are no longer in
                them. Those of files that were skipped are kept.
            delimiter: Delimiter of csv and tsv files; by default it is detected.
            globs: Patterns of files of folders to read, as in ``.gitignore``; with ``!`` in front,
                of files to leave out.
            ignore_files: False to read what ``.gitignore``, ``.ignore`` and ``.warpseekignore``
                name, and folders of tools such as ``node_modules``.
        """
        if on_error is not None:
            on_error_of(on_error)
        given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        names = field_names(id, text, title, metadata)
        with Progress(show_progress_bar, None, "documents") as progress:
            options = {
                "fields": names,
                "on_error": on_error,
                "prune": prune,
                "delimiter": delimiter,
                "globs": [globs] if isinstance(globs, str) else list(globs),
                "no_ignore": not ignore_files,
            }
            report = self._core.add_files(
                [os.fspath(path) for path in given], options, progress.callback
            )
        return AddReport(**report)

    def sync(self, *, show_progress_bar: bool | None = None) -> SyncReport:
        """Brings the index up to date with the files and folders that it has read.

        :meth:`add_files` and ``warpseek index`` record their inputs with the options of reading.
        Only files that have changed since are read, and documents of files and records that are
        gone are deleted. Files whose size and times are the same count as unchanged.

        Raises:
            UsageError: No input is recorded.
            InputError: A recorded input is gone or has an error; the others are up to date.
        """
        with Progress(show_progress_bar, None, "documents") as progress:
            report = self._core.sync(progress.callback)
        return SyncReport(**report)

    def delete(self, ids: str | Iterable[str] | None = None, *, where: Where = None) -> int:
        """Deletes the documents of ids, or those that pass a filter; returns their number.

        An id of no document is a ``doc_id``, and deletes all documents that share it. Ids that the
        index does not have are passed over.
        """
        if ids is None and where is None:
            raise UsageError('delete needs ids or where; where="id IS NOT NULL" deletes all')
        if ids is not None and where is not None:
            raise UsageError("delete takes ids or where, not both: get(ids, where=) finds both")
        return self._core.delete(ids_of(ids), to_filter(where))

    def compact(self) -> dict[str, Any]:
        """Removes deleted rows from the files; rows get new numbers."""
        return self._core.compact()
