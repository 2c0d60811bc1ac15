"""Heartbeats of one attempt while it makes progress, and the reasons for it to let go."""

from __future__ import annotations

import time
from collections.abc import Mapping

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import BatchHeartbeat
from rankflow.engine.attempt import RowTotals
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Lease

QUIET_SECONDS = 30.0
"""Without progress for this long an attempt stops heartbeating; live engines step faster."""
STALLED_SECONDS = 120.0
"""Without progress for this long the engine counts as hung and the batch goes back."""


class Watch:
    """Watches one attempt; ``beat`` is called about once a second."""

    def __init__(self, host: EngineHost, lease: Lease, engine: str, rows: int) -> None:
        self._host = host
        self._lease = lease
        self._engine = engine
        self._rows = rows
        self._seen = -1
        self._since = time.monotonic()

    def touch(self) -> None:
        """Count something else than decoding as progress: a store call that returned."""
        self._since = time.monotonic()

    def beat(self, done: Mapping[int, RowTotals]) -> None:
        """Heartbeat if there is progress. Raises LEASE_LOST or ENGINE_GONE, both retryable."""
        self._lease.check()
        if self._host.dead:
            raise RankflowError(ErrorType.ENGINE_GONE, f"the engine {self._engine} died")
        if self._host.progress != self._seen:
            self._seen = self._host.progress
            self.touch()
        quiet = time.monotonic() - self._since
        if quiet > STALLED_SECONDS:
            raise RankflowError(
                ErrorType.ENGINE_GONE, f"the engine {self._engine} made no step for {quiet:.0f} s"
            )
        if quiet <= QUIET_SECONDS:
            completion = sum(totals.completion_tokens for totals in done.values())
            activity.heartbeat(
                BatchHeartbeat(
                    engine=self._engine,
                    rows_done=len(done),
                    rows=self._rows,
                    completion_tokens=completion,
                )
            )
