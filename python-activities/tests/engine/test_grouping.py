"""Requests begin in groups, and wait for nobody who does not come."""

from __future__ import annotations

from typing import Any

import pytest

from rankflow.engine.grouping import LONGEST_SECONDS, QUIET_SECONDS, Grouping, Idle

SEATS = 16


def test_an_idle_engine_begins_when_its_seats_are_taken() -> None:
    idle = Idle(SEATS)
    assert [idle.waits(waiting, 0.01 * waiting) for waiting in (1, 8, 15)] == [True, True, True]
    assert not idle.waits(SEATS, 0.2)


def test_it_begins_with_fewer_when_nobody_else_comes() -> None:
    idle = Idle(SEATS)
    assert idle.waits(1, 10.0)
    assert idle.waits(2, 10.2)
    assert idle.waits(2, 10.2 + QUIET_SECONDS * 0.9)
    assert not idle.waits(2, 10.2 + QUIET_SECONDS)


def test_it_does_not_wait_for_ever_for_those_that_come_one_by_one() -> None:
    idle = Idle(100)
    pause = QUIET_SECONDS / 2
    waited = [idle.waits(1 + step, step * pause) for step in range(50)]
    assert waited.index(False) == round(LONGEST_SECONDS / pause)


def test_it_waits_anew_after_it_had_something_to_do() -> None:
    idle = Idle(SEATS)
    idle.waits(3, 0.0)
    assert not idle.waits(3, 1.0)
    idle.end()
    assert idle.waits(1, 60.0)


class Older:
    """vLLM's scheduler, as far as it matters: who may run, up to 0.31."""

    limit = "max_num_running_reqs"

    def __init__(self) -> None:
        setattr(self, self.limit, SEATS)
        self.running: list[None] = []
        self.waiting: list[None] = []

    def schedule(self) -> int:
        """How many may run in this step; so many do in it."""
        allowed = getattr(self, self.limit)
        while self.waiting and len(self.running) < allowed:
            self.running.append(self.waiting.pop())
        return allowed


class Newer(Older):
    """The same since 0.32."""

    limit = "max_num_active_reqs"


class GroupedOlder(Grouping, Older):
    """As vLLM makes it of the class that is named."""


class GroupedNewer(Grouping, Newer):
    """The same for the newer one."""


@pytest.mark.parametrize("kind", [GroupedOlder, GroupedNewer])
def test_requests_begin_when_an_eighth_of_the_seats_is_free(kind: type[Older]) -> None:
    scheduler = kind()

    def may_run(running: int, waiting: int) -> Any:
        scheduler.running, scheduler.waiting = [None] * running, [None] * waiting
        return scheduler.schedule()

    assert may_run(running=16, waiting=9) == 16
    assert may_run(running=15, waiting=9) == 15
    assert may_run(running=14, waiting=9) == SEATS
    # Of an idle engine: while more comes, and when its seats are taken.
    assert may_run(running=0, waiting=1) == 0
    assert may_run(running=0, waiting=SEATS) == SEATS
    # Nothing of it stays when a step is over.
    assert getattr(scheduler, scheduler.limit) == SEATS


def test_requests_that_end_with_their_first_step_wait_for_each_other_each_time() -> None:
    scheduler = GroupedNewer()
    for _ in range(2):
        # Embeddings run within a step only.
        scheduler.running, scheduler.waiting = [], [None]
        assert scheduler.schedule() == 0
        scheduler.waiting = [None] * SEATS
        assert scheduler.schedule() == SEATS
