"""One attempt's file: finished rows are appended as they come and made durable soon after."""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import Appender, Store
from rankflow.store.attempt_lines import AttemptLine, RowCounts
from rankflow.store.layout import attempt_key

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""How long an attempt keeps finished rows for a bucket that cannot be reached, and goes on."""


class AttemptFile:
    """Use as an asynchronous context manager: what was added is durable after it."""

    def __init__(self, store: Store, key: str, appender: Appender) -> None:
        self.key = key
        self.rows: dict[int, RowCounts] = {}
        """Rows of this attempt so far, by row number."""
        self._store = store
        self._appender = appender
        self.trouble: str | None = None
        """Why finished rows are not durable yet; None when nothing stands in the way."""
        self._waiting: list[bytes] = []
        self._failing_since: float | None = None
        self._patient = True
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._flusher = asyncio.create_task(self._flush_until_closing())
        self._closer: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, store: Store, run_id: str, rank: int, batch: int, token: str
    ) -> AttemptFile:
        """Start the file. Raises LEASE_LOST when it is there, STORE_UNAVAILABLE, STORE_FULL."""
        key = attempt_key(run_id, rank, batch, token)
        return cls(store, key, await asyncio.to_thread(store.append, key))

    async def __aenter__(self) -> AttemptFile:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # An attempt that failed or was cancelled tries once more, and keeps nobody waiting.
        self._patient = error is None
        try:
            await self._closed()
        except RankflowError:
            if error is None:
                raise
            log.exception("the attempt file %s was not closed cleanly", self.key)

    def add(self, line: AttemptLine) -> None:
        """Record one finished row. Durable after the next flush. Raises like :meth:`check`."""
        self.keep(line.counts, line.encode())

    def keep(self, counts: RowCounts, data: bytes) -> None:
        """Record a row that an earlier attempt finished, its line as it is; see :meth:`add`."""
        self.check()
        self.rows[counts.row] = counts
        self._waiting.append(data)

    def check(self) -> None:
        """Raise what ended the flushes: STORE_UNAVAILABLE, STORE_FULL, LEASE_LOST."""
        if self._flusher.done():
            self._flusher.result()

    async def flush(self) -> None:
        """Wait until everything that was added is durable. Raises like :meth:`check`."""
        while True:
            self.check()
            # Shielded: the thread of a flush must not be left alone with the file.
            await asyncio.shield(asyncio.ensure_future(self._flush()))
            if self.trouble is None:
                return
            await asyncio.sleep(self._store.flush_seconds)

    async def finish(self) -> str:
        """Make the whole file durable, close it and return its hex sha256."""
        await self._closed()
        return self._appender.sha256

    async def _closed(self) -> None:
        # Shielded: a cancelled attempt keeps its finished rows for the next one to salvage, and the
        # thread of a flush that is under way must not race with another.
        if self._closer is None:
            self._closer = asyncio.create_task(self._close())
        await asyncio.shield(self._closer)

    async def _close(self) -> None:
        self._closing.set()
        try:
            await self._flusher
            await self._flush()
            while self.trouble is not None and self._patient:
                await asyncio.sleep(self._store.flush_seconds)
                await self._flush()
        finally:
            await asyncio.to_thread(self._appender.close)

    async def _flush_until_closing(self) -> None:
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), self._store.flush_seconds)
            except TimeoutError:
                await self._flush()

    async def _flush(self) -> None:
        """Make what was added durable, or note the trouble of a bucket that may come back."""
        async with self._writing:
            await self._write_out()

    async def _write_out(self) -> None:
        if not self._waiting and self.trouble is None:
            return
        lines, self._waiting = self._waiting, []
        try:
            await asyncio.to_thread(self._put, b"".join(lines))
        except RankflowError as error:
            now = time.monotonic()
            since = self._failing_since = self._failing_since or now
            passing = error.kind is ErrorType.STORE_UNAVAILABLE and not self._appender.broken
            if not passing or now - since > PATIENCE_SECONDS:
                raise
            log.warning("%s: %s", self.key, error)
            self.trouble = str(error)
        else:
            self.trouble = self._failing_since = None

    def _put(self, data: bytes) -> None:
        if data:
            self._appender.write(data)
        self._appender.flush()
