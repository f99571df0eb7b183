# Generated from python/src by `just stubs`.
"""
The Rust core of warpseek.
"""

from _typeshed import Incomplete, SupportsGetItem
from os import PathLike
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, final

__all__ = ["CrossEncoder", "Embedder", "Index", "PartIndexer", "Prompt", "Server", "Shard", "ShardFolder", "duplicate_ids", "get_num_threads", "list_files", "list_object", "listed_facts", "main", "open_remote", "record_at", "record_ids", "set_num_threads", "shard_list", "stop_requested", "version"]

@final
class CrossEncoder:
    """
    A cross-encoder.
    """
    def __new__(cls, /, model: str | None, settings: Incomplete) -> CrossEncoder:
        """
        Opens the reranker of this name, or the best one present.
        """
    def logits(self, /, pairs: SupportsGetItem[int, tuple[str, str]], progress: Any | None) -> Incomplete:
        """
        The logits of pairs of a query and a passage. `progress` gets the number of finished pairs.
        """
    @property
    def max_tokens(self, /) -> int:
        """
        Limit of a pair in tokens, special tokens included.
        """
    @property
    def name(self, /) -> str:
        """
        The model's name.
        """
    @property
    def sha256(self, /) -> str:
        """
        The sha256 of the weights.
        """

@final
class Embedder:
    """
    An embedding model.
    """
    def __new__(cls, /, model: str | None, truncate_dim: SupportsIndex | None, settings: Incomplete) -> Embedder:
        """
        Opens the model of this name, downloaded if it is not present. `truncate_dim` keeps the
        first dimensions of vectors.
        """
    def count_tokens(self, /, texts: SupportsGetItem[int, str]) -> list[int]:
        """
        The number of tokens of each text, without prompt and special tokens.
        """
    @property
    def dim(self, /) -> int:
        """
        Dimensions of a vector.
        """
    def embed(self, /, texts: SupportsGetItem[int, str], role: str, prompt: str | None, normalize: bool, progress: Any | None) -> tuple[Incomplete, Incomplete, Incomplete]:
        """
        Embeds texts: vectors `[n, dim]`, tokens and truncated tokens of each. `progress` gets the
        number of finished texts.
        """
    @property
    def max_tokens(self, /) -> int:
        """
        Limit of a text in tokens, special tokens included.
        """
    @property
    def name(self, /) -> str:
        """
        The model's name.
        """
    @property
    def precision(self, /) -> str:
        """
        The number format that passages are computed in.
        """
    def prompt(self, /, role: str) -> str:
        """
        The text in front of texts of a role, `query` or `passage`.
        """
    @property
    def sha256(self, /) -> str:
        """
        The sha256 of the weights.
        """
    @property
    def similarity(self, /) -> str:
        """
        The similarity that the model was trained for, `cosine` or `dot`.
        """

@final
class Index:
    """
    An index folder with the models that it needs. Threads may share it.
    """
    def __new__(cls, /, dir: str | PathLike[str], model: str | None, reranker: str | None, settings: Incomplete) -> Index:
        """
        Opens the index in a folder.
        """
    def add(self, /, records: Any, fields: Incomplete, vectors: Incomplete | None, normalize: bool, on_error: str, progress: Any | None) -> Any:
        """
        Adds records of an iterator. Returns the report.
        """
    def add_files(self, /, paths: SupportsGetItem[int, str | PathLike[str]], options: Incomplete, progress: Any | None) -> Any:
        """
        Adds the documents of files and folders. Returns the report.
        """
    def batch(self, /, files: Incomplete, options: Incomplete, progress: Any | None) -> Any:
        """
        Answers the queries of a file into a file. Returns the report.
        """
    def close(self, /) -> None:
        """
        Closes the index. Nothing is lost: every change is committed when its call returns.
        """
    def compact(self, /) -> Any:
        """
        Removes deleted rows from the files.
        """
    def compare(self, /, query: str, depth: SupportsIndex, show: SupportsIndex, options: Incomplete) -> Any:
        """
        Compares the retrieval order with the reranked one.
        """
    def contains(self, /, id: str) -> bool:
        """
        True if the index has a document or a row of this id.
        """
    def count(self, /, filter: str | None) -> int:
        """
        The number of live documents, or of live rows that pass a filter.
        """
    @staticmethod
    def create(dir: str | PathLike[str], model: str | None, dim: SupportsIndex | None, truncate_dim: SupportsIndex | None, embeds: bool, metric: str | None, chunking: tuple[SupportsIndex | None, SupportsIndex | None, bool], language: str | None, exist_ok: bool, reranker: str | None, settings: Incomplete) -> Index:
        """
        Creates an empty index of documents that a model embeds, or of vectors of `dim` dimensions,
        and opens it. Without a metric that of the model, or the inner product of given vectors.
        `truncate_dim` keeps the first dimensions of the model's vectors.
        """
    def delete(self, /, ids: SupportsGetItem[int, str], filter: str | None) -> int:
        """
        Deletes the documents of ids, and those that pass a filter. Returns their number.
        """
    @property
    def dim(self, /) -> int:
        """
        Dimensions of a vector.
        """
    def evaluate(self, /, queries: Any, qrels: Any, measures: SupportsGetItem[int, str], depth: SupportsIndex, rerank_depth: SupportsIndex, options: Incomplete, progress: Any | None) -> Any:
        """
        Evaluates the index on judged queries.
        """
    def fields(self, /) -> Any:
        """
        The metadata fields with the numbers of their values by type.
        """
    def get(self, /, ids: SupportsGetItem[int, str] | None, filter: str | None, offset: SupportsIndex, limit: SupportsIndex | None, with_vectors: bool) -> tuple[Any, Incomplete | None]:
        """
        Rows with their texts, and their vectors if asked for: those of ids, those that pass a
        filter, or all.
        """
    @staticmethod
    def import_langchain(folder: str | PathLike[str], index_name: str, into: str | PathLike[str], model: str | None, normalize: bool, language: str | None, metric: str | None, settings: Incomplete) -> Any:
        """
        Imports a store that LangChain saved into a new index.
        """
    @staticmethod
    def import_vectors(file: str | PathLike[str], into: str | PathLike[str], document_file: str | PathLike[str] | None, documents: Any | None, ids: SupportsGetItem[int, str] | None, fields: Incomplete, model: str | None, normalize: bool, language: str | None, metric: str | None, settings: Incomplete) -> Any:
        """
        Imports a vector file into a new index.
        """
    def mapped(self, /) -> Any:
        """
        The mapped rows, deleted ones included, as float16 `[n_rows, dim]`, without a copy.
        """
    @property
    def metric(self, /) -> str:
        """
        The metric by which the index ranks, `cosine` or `inner_product`.
        """
    @property
    def model_name(self, /) -> str | None:
        """
        The model's name; none for imported vectors.
        """
    def prompt(self, /, question: str, passage_tokens: SupportsIndex, template: str | None, options: Incomplete) -> tuple[Any, Prompt]:
        """
        Searches for a question and fills the prompt of a chat model with the hits.
        """
    def refresh(self, /) -> bool:
        """
        Takes up what other processes committed. True if anything was.
        """
    def rows(self, /, numbers: SupportsGetItem[int, SupportsIndex], with_vectors: bool) -> tuple[Any, Incomplete | None]:
        """
        Rows of these numbers with their texts, and their vectors if asked for.
        """
    def search(self, /, texts: SupportsGetItem[int, str] | None, vectors: Incomplete | None, options: Incomplete, with_vectors: bool) -> tuple[Any, Incomplete | None]:
        """
        Searches for texts, for vectors `[n, dim]`, or for vectors with their texts. Returns the
        results, and the vectors of all hits if asked for.
        """
    def search_bm25(self, /, text: str, k: SupportsIndex, filter: str | None) -> Any:
        """
        Searches by words, ranked by BM25.
        """
    def search_vectors(self, /, queries: Incomplete, k: SupportsIndex, filter: str | None) -> tuple[Incomplete, Incomplete]:
        """
        Scores `[n, k]` and row numbers `[n, k]` of query vectors `[n, dim]`.
        """
    def stats(self, /) -> Any:
        """
        Statistics and settings of the index.
        """
    def sync(self, /, progress: Any | None) -> Any:
        """
        Brings the index up to date with the files and folders that it has read. Returns the report.
        """
    def verify(self, /, sample: SupportsIndex) -> Any:
        """
        Checks the files, and that `sample` searches are exact. Returns the findings.
        """

@final
class PartIndexer:
    """
    The model of a process that makes shards, and how it reads and cuts texts.
    """
    def __new__(cls, /, model: tuple[str | None, SupportsIndex | None], chunks: tuple[SupportsIndex | None, SupportsIndex | None, bool], language: str | None, options: Incomplete, settings: Incomplete) -> PartIndexer:
        """
        Opens the model.
        """
    def index(self, /, dir: str | PathLike[str], key: str, part: str, progress: Any | None) -> tuple[Any, str | None]:
        """
        Indexes a part of the inputs into the shard at `dir`, in a run of this key. `progress` is
        called with the number of rows and of documents that were there. Returns the report, and the
        summary as JSON, None without any document.
        """

@final
class Prompt:
    """
    The prompt of a question: a conversation, and the passages in it.
    """
    def check(self, /, text: str, model: str) -> Any:
        """
        Checks the quotes of a text that a chat model wrote for this prompt.
        """
    @property
    def messages(self, /) -> Any:
        """
        The conversation: dicts with `role` and `content`.
        """
    def send(self, /, base_url: str | None, api_key: str | None, model: str | None, temperature: SupportsFloat | SupportsIndex, max_tokens: SupportsIndex, settings: Incomplete) -> Any:
        """
        Sends the prompt to a chat service and checks the answer.
        """

@final
class Server:
    """
    A server in this process, which stops with this object.
    """
    def __new__(cls, /, indexes: SupportsGetItem[int, tuple[str | None, str | PathLike[str]]], host: str, port: SupportsIndex, api_keys: SupportsGetItem[int, str], read_only: bool, model: str | None, reranker: str | None, settings: Incomplete, shards: Any | None) -> Server:
        """
        Serves the indexes in folders, each with its name or none for that of the folder. With
        `shards`, other processes hold those of the lists in the folders.
        """
    @property
    def is_running(self, /) -> bool:
        """
        True until the server has ended.
        """
    def stop(self, /) -> None:
        """
        Stops the server and waits for the requests in progress.
        """
    @property
    def url(self, /) -> str:
        """
        The server's address, such as `http://127.0.0.1:8080`.
        """

@final
class Shard:
    """
    A shard that this process holds.
    """
    def __new__(cls, /, path: str | PathLike[str], number: SupportsIndex, checksum: str, settings: Incomplete) -> Shard:
        """
        Opens the shard of a number in the list at `path`, which must have this checksum.
        """
    @property
    def device(self, /) -> str:
        """
        The device that scans it.
        """
    def fetch(self, /, what: str, numbers: SupportsGetItem[int, SupportsIndex]) -> bytes:
        """
        Reads of rows, as bytes: `rows` and `names` as JSON, `vectors` as half-precision values with
        their padding.
        """
    @property
    def n_rows(self, /) -> int:
        """
        The number of its rows.
        """
    def scan(self, /, queries: bytes, k: SupportsIndex, filters: SupportsGetItem[int, str], filter_of: SupportsGetItem[int, SupportsIndex | None]) -> tuple[bytes, bytes, bytes, list[int], list[list[tuple[int, str, int]]]]:
        """
        The first `k` rows of queries, float32 `[n, dim]` as bytes. `filter_of` has the filter of
        each query, by its place in `filters`.
        """

@final
class ShardFolder:
    """
    The folder of shards while they are made.
    """
    def __new__(cls, /, path: str | PathLike[str], restart: bool) -> ShardFolder:
        """
        Opens the folder at `path`, to go on with shards that were begun, or to begin anew.
        """
    def begin(self, /, names: SupportsGetItem[int, str]) -> None:
        """
        Records the names of the shards that will be made, and keeps them for later runs.
        """
    def check_same_settings(self, /, first: str, other: str) -> None:
        """
        Refuses a shard, by its summary, whose settings are not those of another one.
        """
    def close(self, /) -> None:
        """
        Gives up the lock.
        """
    def discard(self, /) -> None:
        """
        Removes what was begun, and begins anew.
        """
    def finish(self, /, shards: SupportsGetItem[int, str]) -> tuple[int, int, int]:
        """
        Writes the list of shards, by their summaries. Returns the numbers of rows and documents,
        and the generation.
        """
    def is_listed(self, /) -> bool:
        """
        True if the unfinished run has written its list already.
        """
    def name(self, /, number: SupportsIndex) -> str:
        """
        The name of the folder of a shard.
        """
    @staticmethod
    def precision(summary: str) -> str | None:
        """
        The number format in which a shard was embedded, by its summary.
        """

def duplicate_ids(lists: SupportsGetItem[int, bytes | bytearray]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """
    Pairs of places of records with the same id, each the number of a list of hashes and the place
    in it: the first place of the id, and a later one.
    """

def get_num_threads() -> int:
    """
    The number of compute threads of this process.
    """

def list_files(paths: SupportsGetItem[int, str | PathLike[str]], options: Incomplete, into: str | PathLike[str]) -> tuple[str, Any]:
    """
    Lists the files of inputs. `into` is the folder of the shards, whose parent is where relative
    names in ids start. Returns a JSON list of files, and a report of what was left out.
    """

def list_object(address: str, length: SupportsIndex, is_found: bool) -> str | None:
    """
    The file of an object of a store, as JSON. With `is_found` None stands for one of unknown type.
    """

def listed_facts(files: str) -> tuple[list[Incomplete], set[str], bytes]:
    """
    Facts about listed files, the columns in the names of folders that are texts, and the hashes of
    the names of the files that are documents themselves.
    """

def main(arguments: SupportsGetItem[int, str]) -> int:
    """
    Runs the command line, whose first argument is the program's name; returns the exit status.
    """

def open_remote(path: str | PathLike[str], shards: Any, model: str | None, reranker: str | None, settings: Incomplete) -> Index:
    """
    Opens the index whose shards other processes hold, by its list. `shards` asks them.
    """

def record_at(part: str, number: SupportsIndex, options: Incomplete) -> tuple[str, str]:
    """
    The id and the place of a record of the only file of a part.
    """

def record_ids(part: str, document_names: bytes, options: Incomplete) -> tuple[list[int], bytes]:
    """
    The number of records of each file of a part of the inputs, and the hashes of their ids.
    `document_names` has the hashes of the names of the files that are documents themselves.
    """

def set_num_threads(n: SupportsIndex) -> None:
    """
    Sets the number of compute threads, 1 to 1024, of this process. A server has its own.
    """

def shard_list(path: str | PathLike[str]) -> tuple[Path, str, list[tuple[str, int]]]:
    """
    The list of shards that a path names: its folder, its checksum, and the folder and rows of each
    shard.
    """

def stop_requested() -> bool:
    """
    True if the call of the core on this thread is to stop.
    """

def version() -> str:
    """
    The version of the library.
    """
