"""An attempt's own journal: durable before the engine gets a row, and closed however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from types import TracebackType

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.watch import EngineDied, EngineHung
from rankflow.store import Store
from rankflow.store.journals import End, JournalEntry, as_ranges
from rankflow.store.layout import journal_key

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""How often an end that the store did not take is tried again: without it a death of this process
later on, for whatever reason, would count against the rows."""

_late: set[asyncio.Task[None]] = set()


class Journal:
    """Use as an asynchronous context manager around all that the attempt does with its engine.

    Without an end, whoever reads it later takes the attempt for one whose process died. An attempt
    that returned has committed its batch, and nobody reads the journals of a committed batch.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        rank: int,
        batch: int,
        token: str,
        engine: str,
        alone: bool,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """``leaving``: whether the engine takes no more work, and gives back what it has."""
        self._leaving = leaving
        self._store = store
        self._where = (run_id, rank, batch, token)
        self._engine = engine
        self._alone = alone
        self._entries = 0
        self._deaths: list[str] = []

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and (self._entries > 0 or self._deaths):
            end = End.RELEASED
            if isinstance(error, EngineDied):
                end = End.DIED
            elif isinstance(error, EngineHung):
                end = End.HUNG
            # Shielded: a cancelled attempt must say that it was cancelled.
            await asyncio.shield(asyncio.ensure_future(self._close(end)))

    def remember(self, deaths: Iterable[str]) -> None:
        """Tokens of earlier attempts whose engine died; written with the next entry, or the end."""
        self._deaths = sorted(deaths)

    async def hand(self, rows: Iterable[int]) -> None:
        """Say durably that the engine gets these rows now. Raises STORE_UNAVAILABLE, LEASE_LOST."""
        await self._write(handed=as_ranges(rows))

    async def _write(
        self, handed: list[tuple[int, int]] | None = None, end: End | None = None
    ) -> None:
        entry = JournalEntry(
            engine=self._engine,
            alone=self._alone,
            deaths=self._deaths,
            handed=handed,
            end=end,
            left=end is End.RELEASED and self._leaving(),
        )
        key = journal_key(*self._where, self._entries)
        # Also when it fails: a put whose answer was lost may be there.
        self._entries += 1
        data = entry.model_dump_json(exclude_defaults=True).encode()
        if not await asyncio.to_thread(self._store.create, key, data):
            raise RankflowError(ErrorType.LEASE_LOST, f"another attempt already writes {key}")
        self._deaths = []

    async def _close(self, end: End) -> None:
        try:
            await self._write(end=end)
        except RankflowError as error:
            log.warning("the end of %s is not written yet: %s", self._where[3], error)
            late = asyncio.create_task(self._close_later(end))
            _late.add(late)
            late.add_done_callback(_late.discard)

    async def _close_later(self, end: End) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(RankflowError):
                return await self._write(end=end)
