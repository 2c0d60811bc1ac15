"""The input file: found, copied here when it is remote, measured and hashed."""

import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.roots import allowed_roots, check_allowed, check_opened
from rankflow.rows.problems import whole_input
from rankflow.store import MissingKey, open_store
from rankflow.store.base import CHUNK_BYTES


@dataclass(frozen=True)
class InputFile:
    """An input that lies on this machine."""

    uri: str
    path: Path
    size: int
    """Bytes."""
    sha256: str
    modified_ns: int

    def check_unchanged(self) -> None:
        """Raise INVALID_INPUT when the file was written to since it was hashed."""
        now = self.path.stat()
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified_ns):
            raise whole_input("input_changed", "the input was changed while it was read")


@contextmanager
def open_input(uri: str) -> Generator[InputFile]:
    """Make an input readable as a local file; a remote one is copied to a temporary file.

    Args:
        uri: an absolute path, a ``file://`` address, or an object of a bucket (``s3://``, …).

    Raises:
        RankflowError: INVALID_INPUT when it is missing, empty or unreadable; UNSUPPORTED_INPUT for
            an address of another kind; STORE_UNAVAILABLE when the bucket does not answer;
            PATH_REFUSED when it is below no allowed root.
    """
    address = urlparse(uri)
    if "://" not in uri or address.scheme == "file":
        path = Path(unquote(address.path) if address.scheme == "file" else uri)
        if not path.is_absolute():
            raise RankflowError(
                ErrorType.UNSUPPORTED_INPUT, f"the input {uri!r} is not an absolute path"
            )
        check_allowed(uri)
        with _held(uri, path) as held:
            yield _measure(uri, held)
        return
    with tempfile.TemporaryDirectory(prefix="rankflow-input-") as folder:
        path = Path(folder) / Path(address.path).name
        _download(uri, path)
        yield _measure(uri, path)


@contextmanager
def _held(uri: str, path: Path) -> Generator[Path]:
    """Where the input is read: where there are roots, by a name that stays the file it was."""
    if allowed_roots() is None or not Path("/proc/self/fd").is_dir():
        yield path
        return
    try:
        # Not waiting for somebody to write to a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        # What is wrong with it is said where it is measured.
        yield path
        return
    try:
        check_opened(descriptor)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _measure(uri: str, path: Path) -> InputFile:
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            raise whole_input("missing_input", f"the input {uri} is a folder, not a file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError as error:
        raise whole_input("missing_input", f"there is no input at {uri}") from error
    except OSError as error:
        raise whole_input(
            "unreadable_input", f"the input {uri} cannot be read: {error.strerror}"
        ) from error
    if status.st_size == 0:
        raise whole_input("empty_input", f"the input {uri} is empty")
    return InputFile(uri, path, status.st_size, digest.hexdigest(), status.st_mtime_ns)


def _download(uri: str, path: Path) -> None:
    root, _, name = uri.rpartition("/")
    if not name or root.endswith(":/"):
        raise RankflowError(ErrorType.UNSUPPORTED_INPUT, f"the input {uri!r} names no object")
    try:
        with path.open("wb") as file:
            for chunk in open_store(root).stream(name):
                file.write(chunk)
    except MissingKey as error:
        raise whole_input("missing_input", f"there is no input at {uri}") from error
    except OSError as error:
        raise RankflowError(
            ErrorType.STORE_UNAVAILABLE, f"{uri} cannot be copied here: {error.strerror}"
        ) from error
