"""Index: creating, adding, searching, deleting."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest

import warpseek
from warpseek import Index

RECORDS = [
    {"id": "a", "text": "Cats sleep most of the day.", "year": 2019, "tags": ["pets", "sleep"]},
    {"id": "b", "text": "Dogs like to run.", "year": 2021, "tags": ["pets"]},
    {"id": "c", "text": "The engine of a car burns fuel.", "year": 2023, "tags": []},
]


@pytest.fixture
def small(tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "small")
    assert index.add(RECORDS).added == 3
    return index


def test_search_finds_texts_and_vectors_alike(
    demo: Index, corpus: list[dict[str, Any]], embedder: warpseek.Embedder
) -> None:
    query = "How do I merge a keyword hit list with a vector hit list?"
    hits = demo.search(query, 5, rerank=False)
    assert len(hits) == 5 and hits.total_rows == len(corpus) == len(demo)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert hits[0].title and hits[0].text and hits[0].doc_id == hits[0].id
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    by_vector = demo.search(embedder.encode_query(query), 5)
    assert by_vector.ids == hits.ids
    many = demo.search([query, "bread"], 5, rerank=False)
    assert many[0].ids == hits.ids and len(many) == 2
    assert demo.search(np.zeros((0, demo.dim), dtype=np.float32)) == [] == demo.search([])


def test_search_reranks_texts_unless_told_not_to(demo: Index) -> None:
    query = "Will my page climb in the results if I repeat the keyword fifty times?"
    reranked = demo.search(query, 3)
    assert reranked.reranker and reranked[0].rerank_score is not None
    assert reranked[0].id == "bm25-term-saturation"
    plain = demo.search(query, 3, rerank=False)
    assert plain.reranker is None and plain[0].rerank_logit is None
    vector = demo.vectors[plain[0].row].astype(np.float32)
    with_text = demo.search(vector, 3, text=query)
    assert with_text[0].rerank_score is not None
    with pytest.raises(warpseek.UsageError, match="text"):
        demo.search(vector, 3, rerank=True)


def test_search_vectors_is_the_exact_order(demo: Index) -> None:
    rows = demo.vectors.astype(np.float64)
    queries = np.random.default_rng(5).standard_normal((20, demo.dim)).astype(np.float32)
    scores, found = demo.search_vectors(queries, 7)
    assert scores.dtype == np.float32 and found.dtype == np.int64
    exact = queries.astype(np.float64) @ rows.T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :7]
    assert np.array_equal(found, order)
    assert np.allclose(scores, np.take_along_axis(exact, order, 1), rtol=1e-6)
    scores, found = demo.search_vectors(queries[:1], 200)
    assert (found[0, len(demo) :] == -1).all() and np.isneginf(scores[0, len(demo) :]).all()
    assert [hit.row for hit in demo.rows(found[0, :3])] == found[0, :3].tolist()


def test_mapped_vectors_are_read_only_and_outlive_the_index(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "v", model=None, dim=3)
    index.add([{"id": "a", "text": ""}], vectors=np.array([[1, 2, 3]], dtype=np.float32))
    rows = index.vectors
    assert rows.shape == (1, 3) and rows.dtype == np.float16 and not rows.flags.writeable
    assert not rows.flags.owndata
    index.close()
    del index
    assert rows.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 5


def test_filters_are_text_or_dicts(small: Index) -> None:
    assert small.search("animals", where="year > 2020", rerank=False).ids == ["b", "c"]
    hits = small.search("animals", where={"year": {"$gt": 2020}, "tags": {"$contains": "pets"}})
    assert hits.ids == ["b"] and hits.matched_rows == 1
    assert small.count() == 3 and small.count("year >= 2021") == 2
    _scores, rows = small.search_vectors(np.eye(384, dtype=np.float32)[:1], 3, where="year = 2019")
    assert (rows[0] >= 0).sum() == 1
    with pytest.raises(warpseek.UsageError, match="did you mean"):
        small.search("animals", where="yaer > 2020")


def test_upsert_delete_get_and_compact(small: Index) -> None:
    report = small.add([{**RECORDS[0], "text": "Lions sleep, too."}, RECORDS[1]])
    assert (report.updated, report.unchanged, len(small)) == (1, 1, 3)
    assert small.get("a")[0].text == "Lions sleep, too."
    assert [hit.id for hit in small.get(["c", "nobody", "a", "c"])] == ["c", "a"]
    assert [hit.id for hit in small.get(limit=1, offset=1)] == [small.get()[1].id]
    assert small.get("b", include_vectors=True)[0].vector.shape == (384,)
    assert "a" in small and "nobody" not in small and 7 not in small
    assert small.delete(["a", "nobody"]) == 1 and small.delete(where="year = 2023") == 1
    assert [hit.id for hit in small.get()] == ["b"]
    _scores, rows = small.search_vectors(np.ones((1, 384), dtype=np.float32), 3)
    assert (rows[0] >= 0).sum() == 1
    assert small.compact()["rows_after"] == 1 and len(small.vectors) == 1
    assert all(check["problem"] is None for check in small.verify(sample=10))
    with pytest.raises(warpseek.UsageError, match="ids or where"):
        small.delete()
    with pytest.raises(warpseek.UsageError, match="not both"):
        small.delete("b", where="year > 0")
    with pytest.raises(warpseek.UsageError, match="there is no row 5"):
        small.rows([5])


def test_options_of_a_search(demo: Index) -> None:
    query = "how are vectors compressed?"
    plain = demo.search(query, 10, rerank=False)
    least = plain[4].score
    assert demo.search(query, 10, rerank=False, min_score=least).ids == plain.ids[:5]
    reranked = demo.search(query, 10)
    final = [hit.final_score for hit in reranked]
    assert final == sorted(final, reverse=True) and reranked.ordered_by == "probability"
    some = demo.search(query, 10, min_score=final[3])
    assert some.ids == reranked.ids[:4] and some[:1].below_min_score == 6
    few = demo.search(query, 10, min_score=0.0, rerank_depth=7)
    assert len(few) == 7 and (few.below_min_score, few[:1].not_reranked) == (0, 3)
    assert demo.search("how do I bake bread?", 1)[0].low and not reranked[0].low
    assert demo.search(query, 10, rerank=False, mmr=1.0).ids == plain.ids
    assert demo.search(query, 10, rerank=False, mmr=0.3).ids != plain.ids
    fused = demo.search(query, 10, hybrid=True, rerank=False)
    assert fused[0].score >= plain[0].score
    assert fused[0].bm25_score > 0 and plain[0].dense_score is None
    same = next(hit for hit in demo.search(query, 100, rerank=False) if hit.id == fused[0].id)
    assert fused[0].dense_score == same.score
    least = fused[4].score
    found = demo.search(query, 10, hybrid=True, rerank=False, min_score=least)
    assert found.ids == fused.ids[:5]
    assert (found.below_min_score, found.ordered_by) == (5, "hybrid")
    ranks = demo.search(query, 10, hybrid=True, fusion="rrf", rerank=False)
    # Reciprocal ranks in two lists: at most 2 / 61.
    assert 1 / 61 <= ranks[0].score <= 2 / 61 and ranks.ids != fused.ids
    weighted = demo.search(query, 10, hybrid=True, fusion="weighted", rerank=False)
    assert weighted.ids == fused.ids
    assert demo.search(query, 2, include_vectors=True)[0].vector.shape == (demo.dim,)
    words = demo.search_bm25("vectors compressed", 5)
    assert words[0].score > words[-1].score and demo.search_bm25("zzzz") == warpseek.Hits([])
    wrong: list[dict[str, object]] = [
        {"mmr": 2.0},
        {"min_score": float("nan")},
        {"max_per_doc": 0},
        {"fusion": "rrf"},
        {"fusion": "sum", "hybrid": True},
    ]
    for kwargs in wrong:
        with pytest.raises(warpseek.UsageError):
            demo.search(query, 3, rerank=False, **kwargs)


def test_results_as_tables(demo: Index) -> None:
    hits = demo.search("quantization", 4)
    frame = hits.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame["id"].tolist() == hits.ids
    table = hits.to_arrow()
    assert isinstance(table, pyarrow.Table) and table["id"].to_pylist() == hits.ids
    assert hits[:0] == [] and warpseek.Hits([]).to_pandas().empty
    assert hits.ids[0] in hits._repr_html_() and hits.ids[0] in repr(hits)


def test_compare_maps_ranks(demo: Index) -> None:
    comparison = demo.compare("How do I merge two hit lists on different scales?", depth=25)
    assert sorted(comparison.rank_map) == list(range(1, 26))
    assert sorted(comparison.rank_map.values()) == list(range(1, 26))
    assert len(comparison.before) == len(comparison.after) == 3
    assert comparison.after[0].retrieved_rank == comparison.rank_map[1]
    assert (
        "retrieved" in comparison._repr_html_() and comparison.reranker in comparison._repr_html_()
    )


def test_answers_quotes_are_checked(demo: Index) -> None:
    seen: list[Any] = []

    def model(messages: list[dict[str, str]]) -> str:
        seen.extend(messages)
        return (
            'It hardly counts: "a curve that climbs steeply at first" [1]. '
            'It was "invented by a cat called Tom" [1].'
        )

    answer = demo.answer("Does the tenth repetition of a word count in BM25?", model, k=1)
    assert [m["role"] for m in seen] == ["system", "user"]
    assert [citation["status"] for citation in answer.citations] == ["found", "absent"]
    assert not answer.supported and answer.hits[0].id == answer.citations[0]["passage_id"]

    class ChatModel:
        model_name = "stand-in"

        def invoke(self, messages: list[tuple[str, str]]) -> Any:
            assert messages[0][0] == "system"
            return type("Message", (), {"content": [{"type": "text", "text": "No quote."}]})()

    assert demo.answer("Why?", ChatModel(), k=1).model == "stand-in"
    with pytest.raises(warpseek.UsageError, match="llm"):
        demo.answer("Why?", 7)
    with pytest.raises(warpseek.UsageError, match="no setting 'url'"):
        demo.answer("Why?", {"url": "http://localhost"})


def test_evaluate_measures_both_orders(demo: Index) -> None:
    root = Path(__file__).resolve().parents[2] / "examples/demo"
    report = demo.evaluate(root / "queries.jsonl", next((root / "qrels").glob("*.tsv")))
    assert report.judged_queries == 30
    assert report["retrieval"]["mean"]["ndcg@10"] > 0.7
    assert list(report.to_pandas().columns) == list(report[0]["mean"])
    here = demo.evaluate(
        {"q": "keyword repetition in BM25"}, {"q": {"bm25-term-saturation": 1}}, rerank=False
    )
    assert here[0]["mean"]["mrr@10"] == 1.0 and len(here.systems) == 1
    with pytest.raises(warpseek.UsageError, match="level"):
        demo.evaluate({"q": "x"}, {"q": {"d": "much"}})


def test_files_are_added_as_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.csv").write_text("id,text,price\n1,bread,2.5\n2,butter,3\n")
    index = Index.create(tmp_path / "index")
    assert index.add_files(tmp_path / "docs").added == 2
    assert index.get("1")[0].metadata == {"price": 2.5}
    (tmp_path / "docs" / "a.csv").write_text("id,text,price\n1,bread,2.5\n")
    assert index.add_files([tmp_path / "docs"], prune=True).pruned == 1
    with pytest.raises(warpseek.InputError, match="no such field"):
        index.add_files(tmp_path / "docs", text="body")
    (tmp_path / "docs" / "b.json").write_text("[1]")
    (tmp_path / "docs" / "c.csv").write_text("id;text\n3;jam\n")
    report = index.add_files(tmp_path / "docs")
    assert (report.added, report.unchanged, report.skipped) == (1, 1, 1)
    assert report.left_out[0]["count"] == 1 and "b.json" in report.left_out[0]["first"][0]
    left_out = index.add_files(tmp_path / "docs", globs="*.csv").left_out
    assert left_out[0]["reason"].startswith("named")
    with pytest.raises(warpseek.InputError, match="not a JSON object"):
        index.add_files(tmp_path / "docs", on_error="raise")
    with pytest.raises(warpseek.UsageError, match="--delimiter"):
        index.add_files(tmp_path / "docs", delimiter=";;")
    with pytest.raises(OSError, match="missing"):
        index.add_files(tmp_path / "missing.csv")


def test_sync_reads_only_files_that_have_changed(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("About bread.")
    (docs / "b.txt").write_text("About butter.")
    index = Index.create(tmp_path / "index")
    with pytest.raises(warpseek.UsageError, match="no recorded inputs"):
        index.sync()
    time.sleep(0.3)
    index.add_files(docs)
    index.add([{"id": "own", "text": "A record that no file holds."}])
    report = index.sync()
    assert isinstance(report, warpseek.SyncReport) and report.inputs == ["docs"]
    assert (report.files_read, report.files_unchanged, report.rows) == (0, 2, 0)
    (docs / "a.txt").write_text("About jam.")
    (docs / "b.txt").unlink()
    report = index.sync()
    assert (report.files_read, report.updated, report.pruned) == (1, 1, 1)
    assert sorted(hit.text for hit in index.search("about", 9, rerank=False)) == [
        "A record that no file holds.",
        "About jam.",
    ]
    docs.rename(tmp_path / "moved")
    with pytest.raises(warpseek.InputError, match="recorded input"):
        index.sync()
    assert len(index) == 2


def test_import_of_a_faiss_file(tmp_path: Path) -> None:
    header = b"IxFI" + (4).to_bytes(4, "little") + (2).to_bytes(8, "little")
    header += (1 << 20).to_bytes(8, "little") * 2 + b"\x01" + (0).to_bytes(4, "little")
    rows = np.eye(4, dtype="<f4")[:2]
    (tmp_path / "v.faiss").write_bytes(header + (8).to_bytes(8, "little") + rows.tobytes())
    index = Index.import_faiss(tmp_path / "v.faiss", tmp_path / "a", ids=["x", "y"])
    assert index.search(rows[1], 1).ids == ["y"] and index.model_name is None
    documents = [{"id": "p", "text": "one", "n": 1}, {"id": "q", "text": "two", "n": 2}]
    index = Index.import_faiss(tmp_path / "v.faiss", tmp_path / "b", documents=documents)
    assert index.search(rows[0], 1)[0].metadata == {"n": 1}
    with pytest.raises(warpseek.InputError, match="only 1 entries"):
        Index.import_faiss(tmp_path / "v.faiss", tmp_path / "c", documents=documents[:1])
    with pytest.raises(warpseek.UsageError, match="model="):
        index.search("text")


def test_an_empty_index_has_no_hits(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "empty")
    assert len(index) == 0 and index and len(index.search("anything")) == 0
    _scores, rows = index.search_vectors(np.zeros((2, 384), dtype=np.float32), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert index.vectors.shape == (0, 384) and index.get() == []


def test_create_and_open_tell_what_is_there(tmp_path: Path) -> None:
    Index.create(tmp_path / "i", model=None, dim=4)
    with pytest.raises(warpseek.UsageError, match="exist_ok=True"):
        Index.create(tmp_path / "i", model=None, dim=4)
    assert Index.create(tmp_path / "i", model=None, dim=4, exist_ok=True).dim == 4
    Index.open(tmp_path / "i").add([{"id": "a"}], vectors=np.eye(4, dtype=np.float32)[:1])
    with pytest.raises(warpseek.WarpseekError, match="made with 4 dimensions, not 5"):
        Index.create(tmp_path / "i", model=None, dim=5, exist_ok=True)
    with pytest.raises(FileNotFoundError, match="no index here") as caught:
        Index.open(tmp_path / "nothing")
    assert isinstance(caught.value, warpseek.IndexNotFoundError) and caught.value.exit_code == 8
    assert caught.value.file == str(tmp_path / "nothing")
    with pytest.raises(warpseek.UsageError, match="model=None needs dim="):
        Index.create(tmp_path / "j", model=None)
    index = Index.open(tmp_path / "i")
    index.close()
    with pytest.raises(warpseek.UsageError, match="the index is closed"):
        len(index)
    assert "closed" in repr(index)


def test_asyncio(small: Index) -> None:
    async def work() -> tuple[Any, Any]:
        found, report = await asyncio.gather(
            small.asearch("pets", 1), small.aadd([{"id": "d", "text": "Fish swim."}])
        )
        return found, report

    found, report = asyncio.run(work())
    assert len(found) == 1 and report.added == 1 and len(small) == 4


def test_another_object_sees_a_commit_after_refresh(small: Index) -> None:
    other = Index.open(small.path)
    small.add([{"id": "d", "text": "Fish swim."}])
    assert len(other) == 3 and other.refresh() and len(other) == 4 and not other.refresh()


def test_serve_answers_over_http(small: Index) -> None:
    import json
    import urllib.request

    with warpseek.serve(small) as server:
        request = urllib.request.Request(
            f"{server.url}/v1/search",
            json.dumps({"query": "pets", "k": 1}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            assert len(json.load(reply)["hits"]) == 1
        assert server.is_running
    assert not server.is_running
    with pytest.raises(warpseek.UsageError, match="api_keys"):
        warpseek.serve(small, host="0.0.0.0")


@pytest.mark.parametrize("store", ["2023-03-texts", "2024-01-changed", "current-texts"])
def test_import_of_a_store_that_langchain_saved(tmp_path: Path, store: str) -> None:
    import json

    folder = Path(__file__).resolve().parents[2] / "tests/golden/langchain" / store
    lines = (folder / "expected.jsonl").read_text().splitlines()
    expected = [json.loads(line) for line in lines]
    index = Index.import_langchain_faiss(folder, tmp_path / "index")
    hits = index.get()
    assert [(h.id, h.text, h.metadata) for h in hits] == [
        (e["id"], e["text"], e["metadata"]) for e in expected
    ]
    vector = np.array(expected[0]["vector"], dtype=np.float32)
    assert index.search(vector, 1).ids == [expected[0]["id"]]
    with pytest.raises(warpseek.WarpseekError, match=r"index.faiss"):
        Index.import_langchain_faiss(tmp_path, tmp_path / "other")


def test_a_language_makes_the_words_of_hybrid_searches(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", model=None, dim=2, language="de")
    records = [{"id": "a", "text": "Die H\u00e4user"}, {"id": "b", "text": "Der Garten"}]
    index.add(records, vectors=[[1.0, 0.0], [0.0, 1.0]])
    assert index.search_bm25("Haus").ids == ["a"]
    assert index.stats()["language"] == "de"
    assert Index.open(tmp_path / "index").search_bm25("G\u00e4rten").ids == ["b"]
    with pytest.raises(warpseek.UsageError, match="unknown language 'xx': choose from none"):
        Index.create(tmp_path / "other", model=None, dim=2, language="xx")
    with pytest.raises(warpseek.UsageError, match="the language de, not the language fr"):
        Index.create(tmp_path / "index", model=None, dim=2, language="fr", exist_ok=True)


def test_records_with_a_title_alone_are_embedded_and_counted(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index")
    report = index.add(
        [
            {"id": "a", "title": "A storm", "text": None},
            {"id": "b", "title": "Bread", "text": ""},
            {"id": "c", "title": "", "text": "Bread"},
        ]
    )
    assert report.added == 3
    assert report.notes == ["records, field 'text': 2 records have no text: its title stands alone"]
    hits = index.search("Bread", 2, rerank=False)
    assert sorted(hits.ids) == ["b", "c"] and hits[0].score == hits[1].score
    with pytest.raises(warpseek.InputError, match="record 1, field 'text'"):
        index.add([{"id": "d", "title": " ", "text": ""}])


def test_evaluate_refuses_an_index_without_judged_documents(small: Index) -> None:
    with pytest.raises(warpseek.InputError, match="0 of 2 judged documents are in the index"):
        small.evaluate({"q": "pets"}, {"q": {"far": 1, "farther": 0}})
    report = small.evaluate({"q": "pets"}, {"q": {"a": 1, "far": 1}, "r": {"b": 1}}, rerank=False)
    assert (report.judged_documents, report.judged_documents_in_index) == (3, 2)
    assert (report.missing_queries, report.reranker, report.rerankers) == (1, None, [])
    assert any("2 of 3 judged documents are in the index" in text for text in report.warnings)


def test_evaluate_and_serve_obey_the_reranker_of_the_index(small: Index) -> None:
    index = Index.open(small.path, reranker="none")
    report = index.evaluate({"q": "pets"}, {"q": {"a": 1}})
    assert [system["name"] for system in report.systems] == ["retrieval"]
    with pytest.raises(warpseek.ModelUnavailableError):
        index.search("pets", rerank=True)


def test_arrays_and_columns_of_texts_are_lists_of_queries(small: Index) -> None:
    texts = ["pets", "cars"]
    expected = [hits.ids for hits in small.search(texts, 1, rerank=False)]
    for queries in (np.array(texts), np.array(texts, dtype=object), pandas.Series(texts)):
        assert [hits.ids for hits in small.search(queries, 1, rerank=False)] == expected


@pytest.mark.parametrize(
    "kwargs",
    [
        {"k": 10**30},
        {"k": "3"},
        {"mmr": "x"},
        {"mmr": True},
        {"min_score": "high"},
        {"rerank": 0},
        {"hybrid": "yes"},
        {"rerank_depth": "3"},
        {"rerank": False, "rerank_depth": 3},
    ],
)
def test_arguments_of_other_types_are_named(small: Index, kwargs: dict[str, Any]) -> None:
    with pytest.raises(warpseek.UsageError) as caught:
        small.search("pets", **kwargs)
    assert any(name in str(caught.value) for name in kwargs)


def test_a_k_far_beyond_the_rows_is_refused(small: Index) -> None:
    for k in (2**17, 2**31):
        with pytest.raises(warpseek.UsageError, match="the index has 3 rows: lower k"):
            small.search_vectors(np.eye(384, dtype=np.float32)[:1], k)


def test_metric_decides_what_given_vectors_are_ranked_by(tmp_path: Path) -> None:
    rows = np.array([[3, 0], [0.8, 0.6], [0, 0]], dtype=np.float32)
    records = [{"id": id, "text": ""} for id in "abc"]
    query = np.array([1, 1], dtype=np.float32)
    products = Index.create(tmp_path / "products", model=None, dim=2)
    assert products.metric == products.stats()["metric"] == "inner_product"
    products.add(records, vectors=rows)
    assert products.search(query, 3).ids == ["a", "b", "c"]
    assert products.search(query, 3, min_score=2.0).ids == ["a"]
    scores, numbers = products.search_vectors(query[None], 3)
    assert numbers.tolist() == [[0, 1, 2]] and scores[0, 0] == 3.0
    cosines = Index.create(tmp_path / "cosines", model=None, dim=2, metric="cosine")
    assert cosines.metric == cosines.stats()["metric"] == "cosine"
    with pytest.raises(warpseek.InputError, match=r"vector 0: .*length 3.0000.*normalize=True"):
        cosines.add(records, vectors=rows)
    cosines.add(records[:2], vectors=rows[:2], normalize=True)
    assert cosines.search(query, 3).ids == ["b", "a"]
    # An index that is there keeps its metric, and another one is refused.
    for name in ("products", "cosines"):
        again = Index.create(tmp_path / name, model=None, dim=2, exist_ok=True)
        assert again.metric == {"products": "inner_product", "cosines": "cosine"}[name]
    with pytest.raises(warpseek.UsageError, match="'cosine', not the metric 'inner_product'"):
        Index.create(tmp_path / "cosines", model=None, dim=2, metric="inner_product", exist_ok=True)
    metric: Any = "euclidean"
    with pytest.raises(warpseek.UsageError, match="invalid metric 'euclidean'"):
        Index.create(tmp_path / "other", model=None, dim=2, metric=metric)
    with pytest.raises(warpseek.UsageError, match="leave metric out"):
        Index.create(tmp_path / "other", metric="inner_product")


def test_metric_of_an_import(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[3, 0], [0.8, 0.6]], dtype=np.float32))
    plain = Index.import_faiss(tmp_path / "v.npy", tmp_path / "plain", metric="inner_product")
    assert plain.metric == "inner_product"
    scaled = Index.import_faiss(tmp_path / "v.npy", tmp_path / "scaled", metric="cosine")
    assert scaled.metric == "cosine"
    assert np.allclose(np.linalg.norm(scaled.vectors.astype(float), axis=1), 1, atol=1e-3)
    with pytest.raises(warpseek.UsageError, match="normalize=True"):
        Index.import_faiss(
            tmp_path / "v.npy", tmp_path / "x", metric="inner_product", normalize=True
        )
