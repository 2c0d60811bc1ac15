"""Lets the requests of an engine begin in groups.

A step of vLLM that only decodes is replayed from a CUDA graph; one in which a request begins is
not, and took three to ten times as long where it was measured (``docs/benchmarks.md``). Begun one
by one, as others end, they make nearly every step such a step. Nobody waits for a single answer of
a batch, so requests wait for each other: until an eighth of the seats is free, and as many have
come.
"""

from __future__ import annotations

import time
from typing import Any

GROUPS = 8
"""Of the seats of an engine: on average half a group of them is empty."""
QUIET_SECONDS = 0.25
"""Fewer than a group begin when nothing more came for so long: at the end of the work, and when
there is little of it."""
LONGEST_SECONDS = 2.0
"""Fewer than a group begin after so long, whatever still comes."""


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
        self._group = max(1, self._seats // GROUPS)
        self._arrivals = Arrivals(self._group)
        self._beginning = False

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step; in most of them nothing begins."""
        running = len(self.running)
        gathering = self._arrivals.gather(len(self.waiting), time.monotonic())
        free = self._seats - running
        begins = self._beginning or (free >= self._group and not gathering)
        if not begins:
            setattr(self, self._limit, running)
        try:
            return super().schedule(*args, **kwargs)  # pyright: ignore
        finally:
            setattr(self, self._limit, self._seats)
            # A group with more tokens than a step may have begins over several.
            begun = running < len(self.running) < self._seats
            self._beginning = begins and begun and len(self.waiting) > 0


class Arrivals:
    """Those that have come and wait, as long as they are fewer than a group."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._waiting = 0
        self._since = self._last = 0.0

    def gather(self, waiting: int, now: float) -> bool:
        """Whether more of them are to be waited for. To be called at each step.

        Args:
            waiting: requests that have not begun.
            now: seconds, of any steady clock.
        """
        if waiting > self._waiting:
            self._last = now
            if self._waiting == 0:
                self._since = now
        elif waiting < self._waiting:
            # Some began: the others gather anew.
            self._since = now
        self._waiting = waiting
        if waiting == 0 or waiting >= self._group:
            return False
        return now - self._last < QUIET_SECONDS and now - self._since < LONGEST_SECONDS
