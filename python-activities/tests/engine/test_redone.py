"""Rows that engines got more than once, by the journals of a batch's attempts."""

from __future__ import annotations

from rankflow.engine.redone import Redone, redone
from rankflow.store.journals import AttemptJournal, End

TOKENS = {0: 10, 1: 20, 2: 30}


def journal(*rows: int, left: bool = False) -> AttemptJournal:
    """An attempt that gave these rows to its engine."""
    return AttemptJournal("t", "e", False, frozenset(rows), frozenset(), End.RELEASED, left)


def test_a_batch_of_one_attempt_redid_nothing() -> None:
    assert redone([], [0, 1, 2], TOKENS) == Redone(0, 0, 0)


def test_what_an_earlier_attempt_finished_is_not_redone() -> None:
    # The first one answered row 0, the last one the others.
    assert redone([journal(0, 1, 2)], [1, 2], TOKENS) == Redone(2, 50, 0)


def test_each_time_too_many_counts_also_between_lost_attempts() -> None:
    # Row 2 was answered by the second of three, row 1 by the third.
    assert redone([journal(1, 2), journal(1, 2)], [1], TOKENS) == Redone(3, 70, 0)


def test_what_engines_gave_back_as_they_left_is_told_apart() -> None:
    earlier = [journal(0, 1, 2, left=True), journal(1)]
    assert redone(earlier, [1], TOKENS) == Redone(2, 40, 20)
