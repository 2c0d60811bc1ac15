"""How much one engine admits at once, over all the queues it polls: counted in rows, not batches.

Batches differ in size and thin out as their rows finish, so a fixed number of them leaves an engine
half empty at every end of one. Rows that wait behind those in decode are what keeps it full.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator

from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    WorkerTuner,
)

_RETRY_SECONDS = 0.05
MOST_BATCHES = 64
"""However small they are: each keeps a file open and heartbeats."""
ROWS_PER_SEQUENCE = 1.5
"""Most rows in work for each sequence that the engine decodes at once. The half that waits is for
the time in which the next batch is polled for, read and rendered."""
AHEAD_SECONDS = 2.0
"""That time, generously. No more rows wait than finish in it: where one takes half a minute,
another engine with an empty seat would have ended them before they begin here."""
PACE_SECONDS = 10.0
"""Over which it is looked how many rows finish."""
GROUPED_ROWS_PER_SEQUENCE = 2.5
"""The same where rows begin in groups: rows that are alike all end at once, and then a whole group
of as many as there are seats is to be there, beside the half that comes in meanwhile."""


def rows_wanted(max_num_seqs: int, grouped: bool = False) -> int:
    """Rows in work below which an engine takes another batch."""
    return round((GROUPED_ROWS_PER_SEQUENCE if grouped else ROWS_PER_SEQUENCE) * max_num_seqs)


class Admission:
    """Counts what is in work. Queues share the count but not the places that idle polls hold.

    A poll needs a place before it knows whether work will come, so with two queues one batch more
    than wanted can be admitted when both polls succeed at once.
    """

    def __init__(
        self, batches: int, rows: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Admit while fewer than ``batches`` are in work, or fewer than ``rows`` are unfinished."""
        self._batches = batches
        self._rows = self._seats = rows
        self._unfinished: list[Callable[[], int]] = []
        self._pace = Pace(clock)
        self._counted = 0
        """Rows of all batches so far, without those that left unfinished."""
        self._largest = 0
        """Rows of the largest batch so far."""
        self.working = 0
        self.holds = 0
        """While there are any, no poll is started: somebody has the engine for itself."""
        self.lock = threading.Lock()

    def want(self, rows: int, seats: int | None = None) -> None:
        """Admit while fewer than ``rows`` are unfinished, too: known once a model is loaded.

        With ``seats``, those above it only as fast as rows finish, see AHEAD_SECONDS.
        """
        with self.lock:
            self._rows, self._seats = rows, rows if seats is None else seats

    def hold(self) -> None:
        """Admit nothing more; polls that are out may still bring one batch a queue."""
        with self.lock:
            self.holds += 1

    def let_go(self) -> None:
        """Take one hold back."""
        with self.lock:
            self.holds -= 1

    @contextlib.contextmanager
    def counting(self, unfinished: Callable[[], int]) -> Generator[None]:
        """While this lasts a batch in work counts with its rows.

        Args:
            unfinished: how many rows of the batch have no answer yet; called from any thread.
        """
        with self.lock:
            self._unfinished.append(unfinished)
            self._counted += unfinished()
            self._largest = max(self._largest, unfinished())
        try:
            yield
        finally:
            with self.lock:
                self._unfinished.remove(unfinished)
                self._counted -= unfinished()

    def has_room(self, idle: int) -> bool:
        """Whether another batch may come, beside ``idle`` polls that are out. Needs the lock."""
        if self.holds > 0:
            return False
        taken = self.working + idle
        if taken < self._batches:
            return True
        # One that was admitted just now counts as the largest before it until its rows are known;
        # those of another run may be larger, so that never many come at once.
        unknown = self.working - len(self._unfinished)
        if taken >= MOST_BATCHES or idle > 0 or (unknown > 0 and self._largest == 0):
            return False
        known = sum(unfinished() for unfinished in self._unfinished)
        soon = self._pace.rows(self._counted - known, AHEAD_SECONDS)
        most = min(self._rows, self._seats + soon)
        return known + unknown * max(self._largest, self._rows // 4) < most

    def tuner(self) -> WorkerTuner:
        """Settings for the worker of one queue."""
        other = FixedSizeSlotSupplier(1)
        return WorkerTuner.create_composite(
            workflow_supplier=other,
            activity_supplier=_Places(self),
            local_activity_supplier=other,
            nexus_supplier=other,
        )


class Pace:
    """How fast rows finish."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen = deque[tuple[float, int]]()

    def rows(self, finished: int, seconds: float) -> int:
        """How many will finish in so many seconds, if they go on as lately.

        Args:
            finished: since the beginning; looked at often while the answer matters.
        """
        now = self._clock()
        if self._seen and now - self._seen[-1][0] >= PACE_SECONDS:
            # Nobody asked meanwhile, as there was no work: that time says nothing.
            self._seen.clear()
        while len(self._seen) > 1 and now - self._seen[1][0] >= PACE_SECONDS:
            self._seen.popleft()
        self._seen.append((now, finished))
        since, before = self._seen[0]
        return round((finished - before) / max(now - since, 1.0) * seconds)


class _Permit(SlotPermit):
    def __init__(self) -> None:
        self.used = False


class _Places(CustomSlotSupplier):
    """Places of one queue; called from the SDK's threads, hence the lock."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._idle = 0

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:

        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110
            await asyncio.sleep(_RETRY_SECONDS)
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        with self._admission.lock:
            if not self._admission.has_room(self._idle):
                return None
            self._idle += 1
            return _Permit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        permit = ctx.permit
        with self._admission.lock:
            if isinstance(permit, _Permit) and not permit.used:
                permit.used = True
                self._idle -= 1
                self._admission.working += 1

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        permit = ctx.permit
        with self._admission.lock:
            if isinstance(permit, _Permit) and permit.used:
                self._admission.working -= 1
            else:
                self._idle -= 1
