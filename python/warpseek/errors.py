"""Exceptions: one tree under :class:`WarpseekError`."""

from __future__ import annotations


class WarpseekError(Exception):
    """Base of all exceptions of warpseek.

    Attributes:
        exit_code: Exit status of the command line for this error.
        file: File or folder that the error is about, if any.
        record: Record of the input that it is about, such as ``line 17``, if any.
        field: Field of that record, if any.
    """

    exit_code: int = 1

    def __init__(
        self,
        message: str = "",
        *,
        exit_code: int | None = None,
        file: str | None = None,
        record: str | None = None,
        field: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code
        self.file = file
        self.record = record
        self.field = field
        if isinstance(self, OSError):
            # Set by name: the tree's other branches have no such attributes.
            for name, value in (("errno", errno), ("filename", file)):
                setattr(self, name, value)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[object, ...]:
        state = {"exit_code": self.exit_code, **self.__dict__}
        if isinstance(self, OSError):
            state.update({name: getattr(self, name) for name in ("errno", "filename")})
        return (type(self), (str(self),), state)


class UsageError(WarpseekError, ValueError):
    """An invalid argument."""

    exit_code = 2


class ModelUnavailableError(WarpseekError, LookupError):
    """A model that is not present and cannot be fetched, or that is unusable."""

    exit_code = 3


class DeviceError(WarpseekError, RuntimeError):
    """A compute device that cannot be used, or that failed."""

    exit_code = 4


class CorruptIndexError(WarpseekError):
    """An index with damaged files."""

    exit_code = 5


class RemoteError(WarpseekError, ConnectionError):
    """A failure of a remote service."""

    exit_code = 6


class InputError(WarpseekError, ValueError):
    """A record of the input that cannot be used."""

    exit_code = 7


class IndexIOError(WarpseekError, OSError):
    """A file that cannot be read or written."""

    exit_code = 8


class IndexNotFoundError(IndexIOError, FileNotFoundError):
    """No index where one was expected."""


class IndexLockedError(IndexIOError):
    """An index that another process writes to."""
