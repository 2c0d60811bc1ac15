"""Heartbeats of one attempt while it makes progress, and the reasons for it to let go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import BatchHeartbeat
from rankflow.engine.attempt import AttemptFile
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Lease

TICK_SECONDS = 1.0
"""How often an attempt heartbeats; the SDK throttles to 0.8 of the heartbeat time-out."""
QUIET_SECONDS = 30.0
"""Without progress for this long an attempt stops heartbeating; live engines step faster."""
STALLED_SECONDS = 80.0
"""Without progress for this long the engine counts as hung and the batch goes back. Before the
heartbeat time-out (1 minute) that begins after ``QUIET_SECONDS``: the attempt has to say so itself,
as a time-out says nothing about the engine. After what the canary allows (1 minute)."""
STORE_SECONDS = 900.0
"""A call to the store that takes longer hangs, as a mount does that lost its server: another node
may do better. Longer than an attempt's own patience with a bucket."""

T = TypeVar("T")


class EngineDied(RankflowError):
    """ENGINE_GONE: the generating process ended, this one goes on."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorType.ENGINE_GONE, message)


class EngineHung(RankflowError):
    """ENGINE_GONE: the engine makes no step."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorType.ENGINE_GONE, message)


class Watch:
    """Watches one attempt; ``beat`` is called about once a second."""

    def __init__(self, host: EngineHost, lease: Lease, engine: str) -> None:
        self._host = host
        self._lease = lease
        self._engine = engine
        self.rows = 0
        """Rows of the batch, once they are known."""
        self.attempt: AttemptFile | None = None
        """The attempt's file, once it was started."""
        self._seen = -1
        self._since = time.monotonic()

    def unfinished(self) -> int:
        """Rows of the batch that have no answer yet. Any thread may ask."""
        return self.rows - (len(self.attempt.rows) if self.attempt is not None else 0)

    async def through_store(self, call: Awaitable[T]) -> T:
        """Wait for the store, heartbeating: a slow store is no reason to take the batch away.

        The engine need not step meanwhile, nor is there anything to give up: before the first
        request nothing was paid for, and after the last one all of it was.

        Raises STORE_UNAVAILABLE when the call does not return, and what the call raises.
        """
        task = asyncio.ensure_future(call)
        started = time.monotonic()
        while not (await asyncio.wait({task}, timeout=TICK_SECONDS))[0]:
            waited = time.monotonic() - started
            if waited > STORE_SECONDS:
                raise RankflowError(
                    ErrorType.STORE_UNAVAILABLE, f"the store has not answered for {waited:.0f} s"
                )
            self.say()
        self._since = time.monotonic()
        self._lease.renew()
        return task.result()

    def beat(self) -> None:
        """Heartbeat if there is progress. Raises LEASE_LOST, EngineDied or EngineHung."""
        self._lease.check()
        if self._host.dead:
            raise EngineDied(f"the engine {self._engine} died")
        if self._host.progress != self._seen:
            self._seen = self._host.progress
            self._since = time.monotonic()
        quiet = time.monotonic() - self._since
        if quiet > STALLED_SECONDS:
            raise EngineHung(f"the engine {self._engine} made no step for {quiet:.0f} s")
        if quiet <= QUIET_SECONDS:
            self.say()

    def say(self) -> None:
        """Heartbeat what is done."""
        attempt = self.attempt
        done = attempt.rows if attempt is not None else {}
        activity.heartbeat(
            BatchHeartbeat(
                engine=self._engine,
                rows_done=len(done),
                rows=self.rows,
                completion_tokens=sum(totals.completion_tokens for totals in done.values()),
                trouble=attempt.trouble if attempt is not None else None,
            )
        )
