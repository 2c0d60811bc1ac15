"""Lets the requests of an engine begin in groups.

A step of vLLM that only decodes is replayed from a CUDA graph; one in which a request begins is
not, and took three to ten times as long where it was measured (``docs/benchmarks.md``). Begun one
by one, as others end, they make nearly every step such a step. Nobody waits for a single answer of
a batch, so requests wait for each other: until an eighth of the seats is free, and when the engine
is idle until as many have come as it has seats.
"""

from __future__ import annotations

import time
from typing import Any

GROUPS = 8
"""Of the seats of an engine: on average half a group of them is empty."""
QUIET_SECONDS = 1.0
"""An idle engine begins with what has come when nothing more came for so long. Longer than it takes
to read a batch: with a quarter of a second a third of the engines measured began with few rows."""
LONGEST_SECONDS = 3.0
"""An idle engine begins, whatever still comes."""


class Grouping:
    """Comes before vLLM's ``Scheduler`` in a class; lowers how many requests that lets run."""

    running: Any
    waiting: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Since vLLM 0.32 the number of requests that may run is apart from the number of seats.
        apart = hasattr(self, "max_num_active_reqs")
        self._limit = "max_num_active_reqs" if apart else "max_num_running_reqs"
        self._seats: int = getattr(self, self._limit)
        self._idle = Idle(self._seats)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; in most of them nothing begins."""
        running = len(self.running)
        if self._waits(running):
            setattr(self, self._limit, running)
        try:
            step = super().schedule(*args, **kwargs)  # pyright: ignore
        finally:
            setattr(self, self._limit, self._seats)
        if len(self.running) > 0:
            self._idle.end()
        return step

    def _waits(self, running: int) -> bool:
        if running == 0:
            return self._idle.waits(len(self.waiting), time.monotonic())
        return self._seats - running < max(1, self._seats // GROUPS)


class Idle:
    """How long an engine that has nothing to do waits for a full first batch."""

    def __init__(self, seats: int) -> None:
        self._seats = seats
        self._waiting = 0
        self._since: float | None = None
        self._last = 0.0

    def end(self) -> None:
        """It has something to do."""
        self._waiting, self._since = 0, None

    def waits(self, waiting: int, now: float) -> bool:
        """Whether it is to wait on.

        Args:
            waiting: requests that have come.
            now: seconds, of any steady clock.
        """
        if waiting > self._waiting:
            self._waiting, self._last = waiting, now
            self._since = now if self._since is None else self._since
        if waiting >= self._seats or self._since is None:
            return False
        return now - self._last < QUIET_SECONDS and now - self._since < LONGEST_SECONDS
