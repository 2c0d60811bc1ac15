"""One attempt's file: finished rows are appended as they come and made durable soon after."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import NamedTuple

from rankflow.contracts.errors import RankflowError
from rankflow.store import Appender, Store
from rankflow.store.layout import attempt_key
from rankflow.store.salvage import AttemptLine

log = logging.getLogger(__name__)


class RowTotals(NamedTuple):
    """What one finished row counts for."""

    failed: bool
    prompt_tokens: int
    completion_tokens: int


class AttemptFile:
    """Use as an asynchronous context manager: what was added is durable after it."""

    def __init__(self, store: Store, key: str, appender: Appender) -> None:
        self.key = key
        self.rows: dict[int, RowTotals] = {}
        """Rows of this attempt so far, by row number."""
        self._store = store
        self._appender = appender
        self._waiting: list[bytes] = []
        self._closing = asyncio.Event()
        self._flusher = asyncio.create_task(self._flush_until_closing())

    @classmethod
    async def start(
        cls, store: Store, run_id: str, rank: int, batch: int, token: str
    ) -> AttemptFile:
        """Start the file. Raises LEASE_LOST when it exists already, STORE_UNAVAILABLE."""
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
        try:
            # Shielded: a cancelled attempt keeps its finished rows for the next one to salvage.
            await asyncio.shield(asyncio.ensure_future(self._close()))
        except RankflowError:
            if error is None:
                raise
            log.exception("the attempt file %s was not closed cleanly", self.key)

    def add(self, line: AttemptLine, data: bytes | None = None) -> None:
        """Record one finished row; ``data`` are the bytes of a salvaged line, kept as they are.

        Durable after the next flush. Raises what a flush in the background raised:
        STORE_UNAVAILABLE.
        """
        if self._flusher.done():
            self._flusher.result()
        self.rows[line.row] = RowTotals(line.failed, line.prompt_tokens, line.completion_tokens)
        self._waiting.append(data if data is not None else line.encode())

    async def finish(self) -> str:
        """Make the whole file durable, close it and return its hex sha256."""
        await self._close()
        return self._appender.sha256

    async def _close(self) -> None:
        # Not cancelled: the thread of a flush that is under way would race with the last write.
        self._closing.set()
        await self._flusher
        await asyncio.to_thread(self._put, self._take())
        await asyncio.to_thread(self._appender.close)

    async def _flush_until_closing(self) -> None:
        while not self._closing.is_set():
            try:
                await asyncio.wait_for(self._closing.wait(), self._store.flush_seconds)
            except TimeoutError:
                if self._waiting:
                    await asyncio.to_thread(self._put, self._take())

    def _take(self) -> bytes:
        lines, self._waiting = self._waiting, []
        return b"".join(lines)

    def _put(self, data: bytes) -> None:
        if data:
            self._appender.write(data)
            self._appender.flush()
