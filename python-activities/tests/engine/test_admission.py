"""Batches are admitted while rows are wanted, over both queues; an idle queue takes no place."""

from __future__ import annotations

import contextlib
from typing import Any, cast

from temporalio.worker import SlotMarkUsedContext, SlotPermit, SlotReleaseContext

from rankflow.engine.admission import MOST_BATCHES, PACE_SECONDS, Admission, Pace


def places(admission: Admission) -> Any:
    """The slot supplier of one queue."""
    tuner = cast("Any", admission.tuner())
    return tuner._get_activity_task_slot_supplier()


def use(supplier: Any, permit: SlotPermit) -> None:
    """Mark a permit as the SDK does when a task arrives."""
    context = type("Used", (), {"permit": permit, "slot_info": None})()
    supplier.mark_slot_used(cast("SlotMarkUsedContext", context))


def test_batches_of_one_queue_leave_fewer_places_to_the_other() -> None:
    admission = Admission(2)
    fleet, slot = places(admission), places(admission)
    idle = slot.try_reserve_slot(None)
    first = fleet.try_reserve_slot(None)
    use(fleet, first)
    second = fleet.try_reserve_slot(None)
    assert second is not None
    use(fleet, second)
    assert admission.working == 2
    assert fleet.try_reserve_slot(None) is None
    slot.release_slot(SlotReleaseContext(slot_info=None, permit=idle))
    assert slot.try_reserve_slot(None) is None
    fleet.release_slot(SlotReleaseContext(slot_info=None, permit=first))
    assert slot.try_reserve_slot(None) is not None


def admit(supplier: Any) -> bool:
    """Have a batch arrive if there is room for one."""
    permit = supplier.try_reserve_slot(None)
    if permit is not None:
        use(supplier, permit)
    return permit is not None


def test_batches_come_until_enough_rows_are_in_work_and_again_when_rows_finish() -> None:
    admission = Admission(1, rows=100)
    queue = places(admission)
    left = [60, 60]
    assert admit(queue)
    # How much came is not known yet.
    assert not admit(queue)
    with admission.counting(lambda: left[0]):
        assert admit(queue)
        with admission.counting(lambda: left[1]):
            assert not admit(queue)
            left[0] = 30
            assert admit(queue)


def test_batches_that_are_not_counted_yet_are_taken_for_as_large_as_the_largest() -> None:
    admission = Admission(1, rows=100)
    queue = places(admission)
    left = 30
    assert admit(queue)
    with admission.counting(lambda: left):
        # One after the other would leave an empty engine waiting for each to be read.
        assert [admit(queue) for _ in range(4)] == [True, True, True, False]
        left = 1
        assert admit(queue)
        assert not admit(queue)


def test_small_batches_are_bounded_in_number() -> None:
    admission = Admission(2, rows=1_000)
    queue = places(admission)
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_BATCHES):
            assert admit(queue)
            stack.enter_context(admission.counting(lambda: 1))
        assert not admit(queue)


def test_nothing_more_comes_while_a_batch_is_alone_however_few_rows_are_in_work() -> None:
    admission = Admission(2, rows=100)
    queue = places(admission)
    admission.hold()
    assert not admit(queue)
    admission.let_go()
    assert admit(queue)


def test_more_rows_than_seats_come_only_as_fast_as_rows_finish() -> None:
    now = 0.0
    admission = Admission(1, clock=lambda: now)
    admission.want(150, seats=100)
    queue = places(admission)
    left = [40, 40, 40, 40]
    with contextlib.ExitStack() as stack:
        for one in range(3):
            assert admit(queue)
            stack.enter_context(admission.counting(lambda one=one: left[one]))
        # All seats are taken, and nothing has finished: what is left is for other engines.
        assert not admit(queue)
        now = 5.0
        assert not admit(queue)
        # 10 rows in 10 s: 2 until the next batch is there, and 110 are in work.
        now, left[0] = 10.0, 30
        assert not admit(queue)
        # 30 more in a second.
        now, left[0] = 11.0, 0
        assert admit(queue)
        stack.enter_context(admission.counting(lambda: left[3]))
        assert not admit(queue)
        # Never more than are wanted, however fast they finish.
        now, left[1] = 11.5, 20
        admission.want(99, seats=95)
        assert not admit(queue)
        admission.want(150, seats=95)
        assert admit(queue)


def test_rows_that_leave_with_their_batch_have_not_finished() -> None:
    now = 0.0
    admission = Admission(1, clock=lambda: now)
    admission.want(150, seats=100)
    queue = places(admission)
    assert admit(queue)
    with admission.counting(lambda: 100):
        assert not admit(queue)
        now = 1.0
        with admission.counting(lambda: 100):
            pass
        assert not admit(queue)


def test_the_pace_is_that_of_the_last_seconds() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.rows(0, 2.0) == 0
    now = 5.0
    assert pace.rows(50, 2.0) == 20
    now = 10.0
    pace.rows(50, 2.0)
    now = 5.0 + PACE_SECONDS
    assert pace.rows(60, 2.0) == 2
    now += 1000.0
    assert pace.rows(60, 2.0) == 0


def test_many_rows_that_finish_in_an_instant_are_no_pace_of_thousands_a_second() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    pace.rows(0, 2.0)
    now = 0.001
    assert pace.rows(50, 2.0) == 100


def test_an_idle_time_does_not_slow_the_pace_of_what_comes_after_it() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for second in range(20):
        now = float(second)
        pace.rows(100 * second, 2.0)
    now += 600.0
    assert pace.rows(1900, 2.0) == 0
    now += 1.0
    assert pace.rows(2000, 2.0) == 200
