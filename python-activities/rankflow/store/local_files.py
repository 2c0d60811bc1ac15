"""Durable writing of local files: what a local store's writers are made of."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from types import TracebackType

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.roots import check_opened
from rankflow.store.base import CHUNK_BYTES, Appender, MissingKey, Writer, unavailable

TEMPORARY = ".tmp-"
"""Start of the names of files that are not whole yet."""


class medium:
    """Turns the system's errors into the store's: full disk, no permission, missing file, …"""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise MissingKey(self._key) from error
        if isinstance(error, OSError):
            raise unavailable(self._key, error) from error


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably: each new entry is fsynced in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes; the system may take fewer at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class LocalWriter(Writer):
    """A temporary file that is renamed to its key when it is whole."""

    def __init__(self, key: str, target: Path) -> None:
        self._key = key
        self._target = target
        self._temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        self._file = self._temporary.open("xb", buffering=CHUNK_BYTES)
        try:
            check_opened(self._file.fileno())
        except BaseException:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            raise
        self._hash = hashlib.sha256()
        self._size = 0
        self._committed = False

    def write(self, data: bytes) -> None:
        with medium(self._key):
            self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def commit(self) -> None:
        with medium(self._key):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(self._target)
            sync_folder(self._target.parent)
        self._committed = True

    def discard(self) -> None:
        if not self._committed:
            # On a full disk close fails again, at flushing its buffer; the file goes anyway.
            with contextlib.suppress(OSError):
                self._file.close()
            with medium(self._key):
                self._temporary.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def size(self) -> int:
        return self._size


class LocalAppender(Appender):
    """A new file opened for appending; a flush is one write and one fsync."""

    def __init__(self, key: str, target: Path) -> None:
        self.key = key
        self._hash = hashlib.sha256()
        self._size = 0
        self._pending: list[bytes] = []
        self._broken = False
        with medium(key):
            make_folder(target.parent)
            try:
                self._descriptor = os.open(
                    target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666
                )
            except FileExistsError as error:
                raise RankflowError(
                    ErrorType.LEASE_LOST, f"another attempt already writes {key}"
                ) from error
            try:
                check_opened(self._descriptor)
            except BaseException:
                os.close(self._descriptor)
                target.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._hash.update(data)
        self._size += len(data)

    def flush(self) -> None:
        if self._broken:
            raise unavailable(self.key, OSError("an earlier flush failed"))
        if not self._pending:
            return
        with medium(self.key):
            # A failed write may leave half a line: this attempt can never be committed, nothing is
            # added to it any more, and salvage leaves that line out.
            self._broken = True
            write_all(self._descriptor, b"".join(self._pending))
            os.fsync(self._descriptor)
        self._broken = False
        self._pending.clear()

    @property
    def broken(self) -> bool:
        return self._broken

    def close(self) -> None:
        if self._descriptor < 0:
            return
        try:
            if not self._broken:
                self.flush()
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def size(self) -> int:
        return self._size
