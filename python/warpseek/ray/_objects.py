"""Inputs in object stores, through pyarrow's file systems, which Ray Data reads them with."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from warpseek import _warpseek
from warpseek.errors import IndexIOError, InputError, UsageError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

# Folders that tables with a log have.
_TABLES = frozenset({"_delta_log", ".hoodie"})


def is_address(name: str) -> bool:
    """True for ``s3://bucket/key`` and the like."""
    return _ADDRESS.match(name) is not None


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from pyarrow import fs
    except ImportError:
        raise UsageError(f"{address}: object stores need pyarrow: pip install pyarrow") from None
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(address)
    except ValueError as error:
        raise UsageError(f"{address}: {error}") from None
    except OSError as error:
        raise IndexIOError(f"{address}: {error}", exit_code=8, file=address) from None
    return found


def listed(address: str, left_out: list[str]) -> list[dict[str, Any]]:
    """The files at an address, in the order of their names. Appends others to `left_out`."""
    from pyarrow import fs

    if re.match(r"[^/]+//[^/?]*@", address):
        raise UsageError(
            "an address with a key or password would come into ids and messages: give them by the "
            "environment, or by a profile of the store's tools"
        )
    system, path = _opened(address)
    try:
        kind = system.get_file_info(path).type
        if kind == fs.FileType.NotFound:
            raise IndexIOError(f"{address}: not found", exit_code=8, file=address)
        is_found = kind == fs.FileType.Directory
        selector = fs.FileSelector(path, recursive=True) if is_found else [path]
        infos = system.get_file_info(selector)
    except OSError as error:
        if isinstance(error, IndexIOError):
            raise
        raise IndexIOError(f"{address}: {error}", exit_code=8, file=address) from None
    for info in infos:
        folders = info.path[len(path) :].split("/")
        if not _TABLES.isdisjoint(folders) or info.path.endswith(".metadata.json"):
            raise InputError(
                f"{address}: this is a table with a log of its files (Delta, Hudi or Iceberg), and "
                "its files alone have rows that were deleted: export the table first",
                file=address,
            )
    files = []
    base = address.partition("?")[0]
    for info in sorted(infos, key=lambda info: info.path.split("/")):
        below = info.path[len(path) :]
        if info.type != fs.FileType.File or "/." in f"/{below.lstrip('/')}":
            continue
        name = base.rstrip("/") + "/" + below.lstrip("/") if below else base
        file = _warpseek.list_object(name, info.size, is_found)
        if file is None or (is_found and info.size == 0):
            left_out.append(name)
            continue
        version = info.mtime_ns if info.mtime_ns is not None else 0
        # Names in addresses would have to be quoted: the store of the input opens its paths.
        found = {"store": address, "path_in_store": info.path, "version": version}
        files.append({**json.loads(file), **found})
    if not files:
        raise InputError(f"{address}: no file of a known type", file=address)
    return files


@contextlib.contextmanager
def local_copies(part: dict[str, Any]) -> Iterator[str]:
    """The part as JSON, with files of object stores copied to this machine meanwhile."""
    with contextlib.ExitStack() as stack:
        files = []
        for number, file in enumerate(part["files"]):
            if "store" in file:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="warpseek-"))
                path = os.path.join(folder, f"{number}")
                _copy(file, path)
                file = {**file, "path": path}
            files.append(file)
        yield json.dumps({**part, "files": files})


def _copy(file: dict[str, Any], path: str) -> None:
    """Copies a file of a store."""
    system, _ = _opened(file["store"])
    name = file["name"]
    try:
        with (
            system.open_input_stream(file["path_in_store"], compression=None) as stream,
            open(path, "wb") as copy,
        ):
            while block := stream.read(8 << 20):
                copy.write(block)
    except OSError as error:
        raise IndexIOError(f"{name}: {error}", exit_code=8, file=name) from None
