"""What every store can do, whatever it is made of.

All calls block; asynchronous code goes through ``asyncio.to_thread``. Keys are relative, separated
by ``/``. Trouble with the medium is ``RankflowError(STORE_UNAVAILABLE)``, which is retryable; no
room is STORE_FULL, after which the workflow waits until there is some.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import ClassVar, Self

from rankflow.contracts.errors import ErrorType, RankflowError

CHUNK_BYTES = 1 << 20
"""Size of one piece of a streamed object."""

Keys = list[str]
"""Sorted store keys."""


class MissingKey(RankflowError):
    """The key is not in the store. Retryable: listings of network file systems may lag."""

    def __init__(self, key: str) -> None:
        super().__init__(ErrorType.STORE_UNAVAILABLE, f"nothing is stored at {key}")
        self.key = key


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says when a disk or a quota is used up."""


def unavailable(
    key: str, cause: Exception, *, reason: str | None = None, full: bool = False
) -> RankflowError:
    """The error for trouble with the medium, naming the key and the system's reason.

    STORE_FULL when the medium has no room, which the system's error number or ``full`` says; else
    STORE_UNAVAILABLE.
    """
    reason = reason or getattr(cause, "strerror", None) or str(cause).partition("\n")[0]
    if full or getattr(cause, "errno", None) in _FULL:
        return RankflowError(ErrorType.STORE_FULL, f"the store has no room for {key}: {reason}")
    return RankflowError(ErrorType.STORE_UNAVAILABLE, f"the store cannot serve {key}: {reason}")


def check_key(key: str) -> str:
    """Return the key, or refuse one that could leave the store or name nothing.

    Raises:
        RankflowError: PLAN_CORRUPT (not retryable): only a damaged plan or commit names such a key.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        raise RankflowError(ErrorType.PLAN_CORRUPT, f"refused store key {key!r}")
    return key


@dataclass(frozen=True)
class Space:
    """Room on the medium, in bytes: what may still be written, and the size of all of it."""

    free: int
    total: int


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int
    """Bytes that it takes by itself: a further name of a local file takes none."""
    modified: datetime
    """When it was last written, with its zone."""


Entries = list[Entry]
"""A listing, sorted by key."""


class Appender(ABC):
    """An attempt file that grows. Only what was flushed survives a crash; one thread at a time."""

    key: str

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Add bytes (whole lines) to what the next flush makes durable."""

    @abstractmethod
    def flush(self) -> None:
        """Make everything written so far durable. Does nothing when nothing was written since."""

    @property
    @abstractmethod
    def broken(self) -> bool:
        """Whether a flush that failed was the last: a file may hold half a line now.

        When not, what failed to be flushed is part of the next flush.
        """

    @abstractmethod
    def close(self) -> None:
        """Flush and let go of the file. May be called twice."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hex sha256 of everything written so far: of the whole file once flushed."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Writer(ABC):
    """A large object under construction. It becomes visible, whole, at ``commit``, not before."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Add bytes to the object."""

    @abstractmethod
    def commit(self) -> None:
        """Make the object durable and visible under its key."""

    @abstractmethod
    def discard(self) -> None:
        """Throw the object away; does nothing after ``commit``."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Hex sha256 of everything written so far."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.discard()


class Store(ABC):
    """One store. ``root`` is the address it was opened with."""

    flush_seconds: ClassVar[float]
    """How long finished rows may wait for a flush: near 0 where appending is cheap."""

    def __init__(self, root: str) -> None:
        self.root = root

    def uri(self, key: str) -> str:
        """Address of a key that users and other tools can open."""
        return f"{self.root.rstrip('/')}/{key}"

    @abstractmethod
    def space(self) -> Space | None:
        """How much room there is; None where nobody can tell, as in a bucket."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The whole object. Raises ``MissingKey``."""

    @abstractmethod
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``offset``.

        Raises ``MissingKey``, or PLAN_CORRUPT when the object is shorter than that.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Size of the object in bytes. Raises ``MissingKey``."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether an object is there."""

    @abstractmethod
    def list(self, prefix: str) -> Keys:
        """All keys below the folder ``prefix``, at any depth, sorted."""

    @abstractmethod
    def entries(self, prefix: str) -> Entries:
        """What ``list`` finds, with sizes and times; what goes meanwhile may be left out."""

    @abstractmethod
    def folders(self, prefix: str) -> Keys:
        """Names of the folders directly below the folder ``prefix``, sorted."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Put an object only if none is there; durable on return. False when one was there.

        A bucket cannot tell an equal object from its own put whose answer was lost: that is True,
        so racers put different data (a token of their own).
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Put an object, replacing any other at once and as a whole; durable on return."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when it is not there."""

    def remove_folder(self, prefix: str) -> None:
        """Remove everything below the folder ``prefix``; nothing happens when it is not there."""
        for key in self.list(prefix):
            self.delete(key)

    def remove_empty_folders(self, prefix: str) -> None:
        """Remove the folder ``prefix`` and those below it that hold nothing; a bucket has none."""
        return

    @abstractmethod
    def sweep(self, prefix: str) -> None:
        """Remove the half-written files that killed processes left below the folder ``prefix``.

        A writer that is still alive and loses its file to this gets ``MissingKey``.
        """

    @abstractmethod
    def stream(self, key: str) -> Iterator[bytes]:
        """The object in pieces of about ``CHUNK_BYTES``. Raises ``MissingKey``."""

    @abstractmethod
    def writer(self, key: str) -> Writer:
        """Start a large object; use as a context manager and end it with ``commit``."""

    @abstractmethod
    def publish(self, source: str, key: str) -> None:
        """Give ``key`` the content of ``source`` (link or server-side copy), replacing it."""

    @abstractmethod
    def append(self, key: str) -> Appender:
        """Start an attempt file. Raises LEASE_LOST when the key was already started by somebody."""

    @abstractmethod
    def list_appended(self, prefix: str) -> Keys:
        """Keys that ``append`` was called with, below the folder ``prefix``, sorted."""

    @abstractmethod
    def stream_appended(self, key: str) -> Iterator[bytes]:
        """The flushed content of an attempt file in pieces. Raises ``MissingKey``."""

    def read_attempt(self, key: str) -> bytes:
        """The flushed content of an attempt file. Raises ``MissingKey``."""
        return b"".join(self.stream_appended(key))
