"""Requests begin in groups, and wait for nobody who does not come."""

from __future__ import annotations

from typing import Any

import pytest

from rankflow.engine.grouping import GROUPS, LONGEST_SECONDS, QUIET_SECONDS, Arrivals, Grouping

SEATS = 16
GROUP = SEATS // GROUPS


def test_a_group_begins_when_it_is_there() -> None:
    arrivals = Arrivals(8)
    gathers = [arrivals.gather(waiting, 0.01 * waiting) for waiting in (0, 1, 4, 7, 8, 20)]
    assert gathers == [False, True, True, True, False, False]


def test_fewer_begin_when_nobody_else_comes() -> None:
    arrivals = Arrivals(8)
    assert arrivals.gather(1, 10.0)
    assert arrivals.gather(2, 10.2)
    assert arrivals.gather(2, 10.2 + QUIET_SECONDS * 0.9)
    assert not arrivals.gather(2, 10.2 + QUIET_SECONDS)


def test_they_do_not_wait_for_ever_for_those_that_come_one_by_one() -> None:
    arrivals = Arrivals(100)
    pause = QUIET_SECONDS / 2
    gathers = [arrivals.gather(1 + step, step * pause) for step in range(50)]
    assert gathers.index(False) == round(LONGEST_SECONDS / pause)


def test_those_who_are_left_when_a_group_has_begun_gather_anew() -> None:
    arrivals = Arrivals(8)
    arrivals.gather(7, 0.0)
    assert not arrivals.gather(11, LONGEST_SECONDS)
    assert not arrivals.gather(3, LONGEST_SECONDS + QUIET_SECONDS)
    assert arrivals.gather(4, LONGEST_SECONDS + QUIET_SECONDS + 0.1)


class Older:
    """vLLM's scheduler, as far as it matters: who may run, up to 0.31."""

    limit = "max_num_running_reqs"
    budget = SEATS
    """Requests whose tokens a step has room for."""

    def __init__(self) -> None:
        setattr(self, self.limit, SEATS)
        self.running: list[None] = []
        self.waiting: list[None] = []

    def schedule(self) -> int:
        """How many may run in this step; so many do in it."""
        allowed = getattr(self, self.limit)
        most = min(allowed, len(self.running) + self.budget)
        while self.waiting and len(self.running) < most:
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
    assert may_run(running=0, waiting=GROUP) == SEATS
    # Nothing of it stays when a step is over.
    assert getattr(scheduler, scheduler.limit) == SEATS


def test_the_last_begin_although_they_are_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rankflow.engine.grouping.time.monotonic", lambda: now)
    scheduler = GroupedNewer()
    scheduler.running, scheduler.waiting = [None] * 3, [None]
    assert scheduler.schedule() == 3
    now += QUIET_SECONDS
    assert scheduler.schedule() == SEATS
    assert scheduler.waiting == []


def test_a_group_that_takes_more_than_a_step_begins_as_a_whole() -> None:
    scheduler = GroupedNewer()
    scheduler.budget = 1
    scheduler.running, scheduler.waiting = [None] * (SEATS - 2 * GROUP), [None] * 40
    for _ in range(2 * GROUP):
        scheduler.schedule()
    assert len(scheduler.running) == SEATS
    scheduler.running.pop()
    scheduler.schedule()
    assert len(scheduler.running) == SEATS - 1


def test_an_engine_whose_memory_is_full_begins_no_group() -> None:
    scheduler = GroupedNewer()
    scheduler.running, scheduler.waiting = [None] * (SEATS - GROUP), [None] * 40
    scheduler.budget = 0
    scheduler.schedule()
    scheduler.running.append(None)
    scheduler.budget = SEATS
    assert scheduler.schedule() == SEATS - GROUP + 1
