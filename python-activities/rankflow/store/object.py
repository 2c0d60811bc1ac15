"""A store in a bucket (S3, GCS, Azure, or in memory) through ``obstore``.

Credentials and endpoint come from the environment, as the cloud's own tools read them (``AWS_*``,
…). An object store cannot append, so an attempt file is a series of numbered segments.
"""

import contextlib
import hashlib
import re
import time
from collections.abc import Generator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store.base import (
    CHUNK_BYTES,
    Appender,
    Entries,
    Entry,
    Keys,
    MissingKey,
    Space,
    Store,
    Writer,
    check_key,
    unavailable,
)

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ObjectStore as Bucket
    from obstore.store import RetryConfig

RETRIES: "RetryConfig" = {
    # Some 6 s in all, for answers such as 503. What lasts longer is told and tried again above:
    # by the attempt, by Temporal, where people see it.
    "max_retries": 6,
    "retry_timeout": timedelta(minutes=1),
}
MAX_COPY_BYTES = 5 << 30
"""S3 copies no larger object in one request."""
_CONFLICT_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between tries: S3 may answer racing conditional puts with a 409, which asks for more."""
_FULL = re.compile(
    r"status code: 507|"
    r"<Code>(?:QuotaExceeded|XMinioAdminBucketQuotaExceeded|XMinioStorageFull|InsufficientStorage)<"
)
"""How servers say that there is no room: a 507, Ceph's and MinIO's codes. AWS has no such limit."""
_ANSWER = re.compile(r"status code: (\d+ [\w -]+):.*?<Code>(\w+)<", re.DOTALL)
"""Status and error code in the client's long account of a request that was refused."""


@contextlib.contextmanager
def _medium(key: str) -> Generator[None]:
    """Turn the client's errors into the store's."""
    try:
        yield
    except (BaseError, OSError, TimeoutError, ValueError) as error:
        raise _trouble(key, error) from error


def _trouble(key: str, error: Exception) -> RankflowError:
    text = str(error)
    # A bucket that is missing, or whose name is wrong, is more than a missing key.
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text:
        return MissingKey(key)
    answer = _ANSWER.search(text)
    reason = None if answer is None else f"{answer[1]} ({answer[2]})"
    return unavailable(key, error, reason=reason, full=_FULL.search(text) is not None)


class BucketStore(Store):
    """A bucket or a prefix of one. ``root`` is its address, e.g. ``s3://bucket/prefix``."""

    # A segment is one request of some 50 ms that costs money; a kill loses at most this much.
    flush_seconds = 5.0

    def __init__(self, root: str, bucket: "Bucket") -> None:
        super().__init__(root)
        self._bucket: Any = bucket

    def space(self) -> Space | None:
        return None

    def read(self, key: str) -> bytes:
        with _medium(key):
            return bytes(obstore.get(self._bucket, check_key(key)).bytes())

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        size = self.size(key)
        if size < offset + length:
            raise RankflowError(
                ErrorType.PLAN_CORRUPT,
                f"{key} ends before byte {offset + length}: it was cut since the plan was made",
            )
        with _medium(key):
            return bytes(obstore.get_range(self._bucket, key, start=offset, length=length))

    def size(self, key: str) -> int:
        with _medium(key):
            return obstore.head(self._bucket, check_key(key))["size"]

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except MissingKey:
            return False
        return True

    def list(self, prefix: str) -> Keys:
        with _medium(prefix):
            pages = obstore.list(self._bucket, prefix=check_key(prefix.rstrip("/")) + "/")
            return sorted(entry["path"] for page in pages for entry in page)

    def entries(self, prefix: str) -> Entries:
        with _medium(prefix):
            pages = obstore.list(self._bucket, prefix=check_key(prefix.rstrip("/")) + "/")
            found = [
                Entry(entry["path"], entry["size"], entry["last_modified"])
                for page in pages
                for entry in page
            ]
        return sorted(found, key=lambda entry: entry.key)

    def folders(self, prefix: str) -> Keys:
        with _medium(prefix):
            found = obstore.list_with_delimiter(self._bucket, prefix=check_key(prefix) + "/")
            return sorted(path.rpartition("/")[2] for path in found["common_prefixes"])

    def create(self, key: str, data: bytes) -> bool:
        check_key(key)
        for pause in (*_CONFLICT_PAUSES, None):
            try:
                obstore.put(self._bucket, key, data, mode="create", use_multipart=False)
            except (BaseError, OSError) as error:
                # The client calls a 409 and a 412 by one name, and repeats a put whose answer was
                # lost until it meets our own object. What is there tells which it was.
                with contextlib.suppress(MissingKey):
                    return self.read(key) == data
                conflict = isinstance(error, (AlreadyExistsError, PreconditionError))
                if pause is None or not conflict:
                    raise _trouble(key, error) from error
                time.sleep(pause)
            else:
                return True
        raise AssertionError("the last try returns or raises")

    def put(self, key: str, data: bytes) -> None:
        with _medium(key):
            obstore.put(self._bucket, check_key(key), data)

    def delete(self, key: str) -> None:
        with _medium(key), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._bucket, check_key(key))

    def sweep(self, prefix: str) -> None:
        # Uploads that were not completed are no objects; a lifecycle rule removes their parts.
        return

    def stream(self, key: str) -> Iterator[bytes]:
        with _medium(key):
            for chunk in obstore.get(self._bucket, check_key(key)).stream(
                min_chunk_size=CHUNK_BYTES
            ):
                yield bytes(chunk)

    def writer(self, key: str) -> Writer:
        with _medium(key):
            return _BucketWriter(key, obstore.open_writer(self._bucket, check_key(key)))

    def publish(self, source: str, key: str) -> None:
        if self.size(source) > MAX_COPY_BYTES:
            with self.writer(key) as writer:
                for chunk in self.stream(source):
                    writer.write(chunk)
                writer.commit()
            return
        with _medium(source):
            obstore.copy(self._bucket, check_key(source), check_key(key))

    def append(self, key: str) -> Appender:
        return _SegmentAppender(self, check_key(key))

    def list_appended(self, prefix: str) -> Keys:
        return sorted({key.rpartition("/")[0] for key in self.list(prefix)})

    def stream_appended(self, key: str) -> Iterator[bytes]:
        segments = self.list(key)
        if not segments:
            raise MissingKey(key)
        for segment in segments:
            yield from self.stream(segment)


class _BucketWriter(Writer):
    """A multipart upload: nothing is visible before it is completed."""

    def __init__(self, key: str, file: "WritableFile") -> None:
        self._key = key
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        with _medium(self._key):
            self._file.write(data)
        self._hash.update(data)
        self._size += len(data)

    def commit(self) -> None:
        with _medium(self._key):
            self._file.close()

    def discard(self) -> None:
        # An upload that is not closed never completes; a lifecycle rule removes its parts.
        return

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def size(self) -> int:
        return self._size


class _SegmentAppender(Appender):
    """Each flush is one create-only object ``<key>/<number, 6 digits>``."""

    def __init__(self, store: BucketStore, key: str) -> None:
        self.key = key
        self._store = store
        self._segment = 0
        self._pending: list[bytes] = []
        self._sending = b""
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> None:
        self._pending.append(data)
        self._hash.update(data)
        self._size += len(data)

    def flush(self) -> None:
        while self._sending or self._pending:
            # A segment whose put failed may be there all the same: it is put again as it was.
            if not self._sending:
                self._sending = b"".join(self._pending)
                self._pending.clear()
            if not self._store.create(f"{self.key}/{self._segment:06d}", self._sending):
                raise RankflowError(
                    ErrorType.LEASE_LOST, f"another attempt already writes {self.key}"
                )
            self._segment += 1
            self._sending = b""

    @property
    def broken(self) -> bool:
        return False

    def close(self) -> None:
        self.flush()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def size(self) -> int:
        return self._size
