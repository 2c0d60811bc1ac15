"""The limit on batches holds over both queues; an idle queue takes nothing from it."""

from __future__ import annotations

from typing import Any, cast

from temporalio.worker import SlotMarkUsedContext, SlotPermit, SlotReleaseContext

from rankflow.engine.admission import Admission


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
