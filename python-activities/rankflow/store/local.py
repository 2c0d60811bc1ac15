"""A store in a local folder (or NFS mount), every write fsynced.

Objects appear whole: a temporary file in the same folder is written, fsynced, then linked
(create-only) or renamed (replace), and the folder is fsynced. ``obstore``'s local put makes no
fsync call, hence this module.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.roots import check_allowed, check_opened
from rankflow.store.base import (
    CHUNK_BYTES,
    Appender,
    Entries,
    Entry,
    Keys,
    Space,
    Store,
    Writer,
    check_key,
)
from rankflow.store.local_files import (
    TEMPORARY,
    LocalAppender,
    LocalWriter,
    make_folder,
    medium,
    sync_folder,
    write_all,
)


def _same_file(left: Path, right: Path) -> bool:
    """Whether two names are one file: NFS may repeat a link call and report EEXIST for our own."""
    try:
        return os.path.samestat(left.stat(), right.stat())
    except FileNotFoundError:
        return False


class LocalStore(Store):
    """A folder. ``root`` is its absolute path."""

    flush_seconds = 0.2

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.folder = root

    def path(self, key: str) -> Path:
        """Path of a key.

        Raises PLAN_CORRUPT for a key that would leave the folder, and PATH_REFUSED for one that is
        or lies behind a link to somewhere that is not allowed.
        """
        path = self.folder / check_key(key)
        check_allowed(str(path))
        return path

    def space(self) -> Space | None:
        with medium("its folder"):
            make_folder(self.folder)
            status = os.statvfs(self.folder)
        return Space(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)

    def read(self, key: str) -> bytes:
        with medium(key), self._opened(key) as file:
            return file.read()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with medium(key), self._opened(key) as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise RankflowError(
                ErrorType.PLAN_CORRUPT,
                f"{key} ends before byte {offset + length}: it was cut since the plan was made",
            )
        return data

    def _opened(self, key: str) -> BinaryIO:
        """A file to read. What its path leads to may have changed since it was looked at."""
        file = self.path(key).open("rb")
        try:
            check_opened(file.fileno())
        except BaseException:
            file.close()
            raise
        return file

    def size(self, key: str) -> int:
        with medium(key):
            return self.path(key).stat().st_size

    def exists(self, key: str) -> bool:
        with medium(key):
            return self.path(key).is_file()

    def list(self, prefix: str) -> Keys:
        base = self.path(prefix.rstrip("/"))
        found: list[str] = []
        with medium(prefix):
            for folder, _, names in os.walk(base, onerror=_raise_unless_missing):
                relative = Path(folder).relative_to(self.folder)
                found += [
                    (relative / name).as_posix() for name in names if not name.startswith(TEMPORARY)
                ]
        return sorted(found)

    def entries(self, prefix: str) -> Entries:
        found: Entries = []
        counted: set[tuple[int, int]] = set()
        with medium(prefix):
            for key in self.list(prefix):
                try:
                    status = self.path(key).stat()
                except FileNotFoundError:
                    continue
                # Published results are second names of the files that the manifest names.
                file = status.st_dev, status.st_ino
                size = 0 if file in counted else status.st_size
                counted.add(file)
                found.append(Entry(key, size, datetime.fromtimestamp(status.st_mtime, UTC)))
        return found

    def folders(self, prefix: str) -> Keys:
        base = self.path(prefix)
        with medium(prefix):
            return (
                sorted(entry.name for entry in base.iterdir() if entry.is_dir())
                if (base.is_dir())
                else []
            )

    def create(self, key: str, data: bytes) -> bool:
        target = self.path(key)
        with medium(key), self._temporary(target) as (temporary, descriptor):
            write_all(descriptor, data)
            os.fsync(descriptor)
            created = True
            try:
                os.link(temporary, target)
            except FileExistsError:
                created = _same_file(temporary, target)
            sync_folder(target.parent)
            return created

    def put(self, key: str, data: bytes) -> None:
        target = self.path(key)
        with medium(key), self._temporary(target) as (temporary, descriptor):
            write_all(descriptor, data)
            os.fsync(descriptor)
            temporary.replace(target)
            sync_folder(target.parent)

    def delete(self, key: str) -> None:
        target = self.path(key)
        with medium(key), contextlib.suppress(FileNotFoundError):
            target.unlink()
            sync_folder(target.parent)

    def remove_folder(self, prefix: str) -> None:
        super().remove_folder(prefix)
        # Folders, and half-written files that no listing shows.
        shutil.rmtree(self.path(prefix), ignore_errors=True)

    def remove_empty_folders(self, prefix: str) -> None:
        for folder, _, _ in os.walk(self.path(prefix), topdown=False):
            # Not empty, or gone already.
            with contextlib.suppress(OSError):
                Path(folder).rmdir()

    def sweep(self, prefix: str) -> None:
        with medium(prefix):
            for folder, _, names in os.walk(self.path(prefix), onerror=_raise_unless_missing):
                for name in names:
                    if name.startswith(TEMPORARY):
                        Path(folder, name).unlink(missing_ok=True)

    def stream(self, key: str) -> Iterator[bytes]:
        with medium(key), self._opened(key) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def writer(self, key: str) -> Writer:
        target = self.path(key)
        with medium(key):
            make_folder(target.parent)
            return LocalWriter(key, target)

    def publish(self, source: str, key: str) -> None:
        origin, target = self.path(source), self.path(key)
        temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        with medium(source):
            make_folder(target.parent)
            os.link(origin, temporary)
            temporary.replace(target)
            # Renaming one name of a file over another of its names does nothing (POSIX).
            temporary.unlink(missing_ok=True)
            sync_folder(target.parent)

    def append(self, key: str) -> Appender:
        return LocalAppender(key, self.path(key))

    def list_appended(self, prefix: str) -> Keys:
        return self.list(prefix)

    def stream_appended(self, key: str) -> Iterator[bytes]:
        return self.stream(key)

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Generator[tuple[Path, int]]:
        """A new file beside ``target``; its name is gone afterwards, whatever happened."""
        make_folder(target.parent)
        path = target.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            check_opened(descriptor)
            yield path, descriptor
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
