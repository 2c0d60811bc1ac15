"""An engine leaves in good order: it pulls no more, finishes what fits, and gives the rest back.

Rows that cannot be finished in time are best not begun: their tokens would be generated twice. So
when the time left comes near to what decoding a row takes, rows without a token go back; those in
decode go on; shortly before the deadline what is left goes back too. Finished rows are in the
store by then, and the batches are tried again elsewhere at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import DrainInput, DrainResult
from rankflow.contracts.names import DRAIN
from rankflow.engine.backend import BackendDead
from rankflow.engine.batch import Served
from rankflow.engine.counts import count_given_back
from rankflow.engine.host import EngineHost, GivenBack
from rankflow.failures import activity_errors

log = logging.getLogger(__name__)

MARGIN_SECONDS = 5.0
"""Everything is given back this long before the deadline: a bucket takes a second or two for the
last rows, Temporal less, and no cloud keeps its deadline to the second."""
SPREAD = 2.0
"""Rows are begun while this many times the mean time in decode is left: most of them will fit."""
TICK_SECONDS = 0.5
"""Rows that were still being rendered at one look are given back at the next."""


class Drain:
    """Ends the work of one engine by a deadline. Of several deadlines the earliest counts."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._until = math.inf
        self._waiting = 0
        self._cut = 0

    def limit(self, seconds: float) -> None:
        """Say how many seconds are left from now; negative when the deadline has passed."""
        self._until = min(self._until, time.monotonic() + max(0.0, seconds - MARGIN_SECONDS))

    async def run(self, shutdowns: Collection[asyncio.Task[None]]) -> GivenBack:
        """Wait until all batches have ended, giving back rows as time runs out.

        ``shutdowns``: one for each worker of batches; each ends when its last batch has.
        """
        pending = set(shutdowns)
        while pending:
            with contextlib.suppress(BackendDead):
                await self._give_back()
            left = self._until - time.monotonic()
            pause = max(0.05, min(TICK_SECONDS, left)) if left > 0 else TICK_SECONDS
            _, pending = await asyncio.wait(pending, timeout=pause)
        return GivenBack(self._waiting, self._cut)

    async def _give_back(self) -> None:
        left = self._until - time.monotonic()
        if left > 0 and not self._host.closed:
            self._host.closed = left <= SPREAD * await self._host.decode_seconds()
        if left <= 0:
            self._host.closed = True
        if self._host.closed:
            waiting, cut = await self._host.give_back(waiting_only=left > 0)
            count_given_back(waiting, cut)
            self._waiting += waiting
            self._cut += cut


class DrainActivity:
    """The ``drain`` activity on the engine's own queue; register ``drain`` with a worker."""

    def __init__(self, served: Served, begin: Callable[[float], asyncio.Future[GivenBack]]) -> None:
        """``begin``: starts draining, or hastens it, with the seconds left until the deadline."""
        self._served = served
        self._begin = begin

    @activity.defn(name=DRAIN)
    async def drain(self, given: DrainInput) -> DrainResult:
        """Drain the engine; returns when its last batch has ended, heartbeating until then.

        Cancelling it does not stop the drain: the node goes all the same. Raises (as a Temporal
        error) MODEL_MISMATCH, which is final.
        """
        started = time.monotonic()
        with activity_errors():
            if given.spec_hash != self._served.spec_hash:
                raise RankflowError(
                    ErrorType.MODEL_MISMATCH,
                    f"the engine {self._served.name} serves {self._served.spec_hash[:12]}, "
                    f"not {given.spec_hash[:12]}",
                )
            ended = self._begin(given.deadline / 1000 - time.time())
            while not (await asyncio.wait({ended}, timeout=1.0))[0]:
                activity.heartbeat()
            waiting, cut = ended.result()
            return DrainResult(
                engine=self._served.name,
                waiting_rows=waiting,
                cut_rows=cut,
                seconds=time.monotonic() - started,
            )
