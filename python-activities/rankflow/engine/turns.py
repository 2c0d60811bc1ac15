"""Whose turn it is on an engine: batches side by side, or a suspect one alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.admission import Admission

LOOK_SECONDS = 0.5


class Turns:
    """All attempts of one engine share it, on one event loop."""

    def __init__(self, admission: Admission | None = None) -> None:
        """``admission``: of the engine's queues, so that nothing is pulled while one is alone."""
        self._admission = admission or Admission(1)
        self._together = 0
        self._alone: list[object] = []
        """Those who have the engine for themselves, or wait for it, in the order they came."""

    @contextlib.asynccontextmanager
    async def take(
        self, alone: bool, waiting: Callable[[], None], unfinished: Callable[[], int]
    ) -> AsyncGenerator[None]:
        """Wait for a turn and hold it.

        ``unfinished`` tells the rows that the batch still has to do, see :class:`Admission`.

        Side by side it is had at once, or never: raises ENGINE_GONE (retryable) while a batch is
        alone or waits to be, so that the batch goes to another engine. To be alone is to wait for
        all others to finish, calling ``waiting`` about twice a second; suspects take turns.
        """
        if alone:
            async with self._by_itself(waiting):
                yield
            return
        if self._alone:
            raise RankflowError(
                ErrorType.ENGINE_GONE,
                "the engine is kept free for a batch that killed others",
                retry_at_once=True,
            )
        self._together += 1
        try:
            with self._admission.counting(unfinished):
                yield
        finally:
            self._together -= 1

    @contextlib.asynccontextmanager
    async def _by_itself(self, waiting: Callable[[], None]) -> AsyncGenerator[None]:
        me = object()
        self._alone.append(me)
        self._admission.hold()
        try:
            while self._together > 0 or self._alone[0] is not me:
                waiting()
                await asyncio.sleep(LOOK_SECONDS)
            yield
        finally:
            self._admission.let_go()
            self._alone.remove(me)
