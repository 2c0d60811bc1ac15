"""Data-parallel ranks: each has a share of the rows and takes it to one engine, batch by batch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import ray
from engines import Row


@ray.remote(num_cpus=0)
class DPRank:
    """Rank ``rank``. Computes nothing itself: it waits for its engine."""

    def __init__(self, rank: int, engines: list[Any], batch_rows: int) -> None:
        """``engines`` are all of them; the rank takes its own by number."""
        self._rank = rank
        self._engine = engines[rank % len(engines)]
        self._batch_rows = batch_rows

    def run(self, rows: list[Row]) -> list[tuple[str, int]]:
        """Answer the rank's rows, in order. Raises what its engine raises, and nothing is kept."""
        answers: list[tuple[str, int]] = []
        for first in range(0, len(rows), self._batch_rows):
            bodies = [row["body"] for row in rows[first : first + self._batch_rows]]
            # Blocking: the next batch is not sent before this one is answered.
            answers += ray.get(self._engine.generate.remote(bodies))
            print(f"rank {self._rank}: {len(answers)} of {len(rows)} rows", flush=True)
        return answers


def shares(rows: list[Row], ranks: int) -> list[list[Row]]:
    """Cut the rows into one contiguous share a rank; their sizes differ by one at most."""
    bounds = [rank * len(rows) // ranks for rank in range(ranks + 1)]
    return [rows[first:last] for first, last in pairwise(bounds)]
