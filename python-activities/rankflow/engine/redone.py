"""What of a batch was generated twice, and why: told by the journals of its attempts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rankflow.store.journals import AttemptJournal


@dataclass(frozen=True)
class Redone:
    """Sums over the rows of a batch; rows and tokens count once for each time too many.

    An engine that got a row may have begun it or not when it was lost: so much at most was
    generated in vain.
    """

    rows: int
    tokens: int
    left_tokens: int
    """Of the tokens: rows given back by engines that had to leave, as a preempted one has."""


def redone(
    earlier: Iterable[AttemptJournal],
    given_here: Collection[int],
    completion_tokens: Mapping[int, int],
) -> Redone:
    """Count what was given to an engine more than once.

    Args:
        earlier: journals of the attempts before the one that commits.
        given_here: rows that the committing attempt gave to its engine.
        completion_tokens: by row, as answered in the end.
    """
    given = dict.fromkeys(given_here, 1)
    left: dict[int, int] = {}
    for journal in earlier:
        for row in journal.handed:
            given[row] = given.get(row, 0) + 1
            left[row] = left.get(row, 0) + journal.left
    # The last one answered it, whether that was here or before.
    again = {row: times - 1 for row, times in given.items() if times > 1}
    return Redone(
        rows=sum(again.values()),
        tokens=sum(times * completion_tokens.get(row, 0) for row, times in again.items()),
        left_tokens=sum(
            min(times, left.get(row, 0)) * completion_tokens.get(row, 0)
            for row, times in again.items()
        ),
    )
