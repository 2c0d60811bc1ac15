"""How many batches one engine admits at once, over all the queues it polls."""

from __future__ import annotations

import asyncio
import threading

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


class Admission:
    """Counts the batches in work. Queues share the count but not the places that idle polls hold.

    A poll needs a place before it knows whether work will come, so with two queues one batch more
    than the limit can be admitted when both polls succeed at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.working = 0
        self.holds = 0
        """While there are any, no poll is started: somebody has the engine for itself."""
        self.lock = threading.Lock()

    def hold(self) -> None:
        """Admit nothing more; polls that are out may still bring one batch a queue."""
        with self.lock:
            self.holds += 1

    def let_go(self) -> None:
        """Take one hold back."""
        with self.lock:
            self.holds -= 1

    def tuner(self) -> WorkerTuner:
        """Settings for the worker of one queue."""
        other = FixedSizeSlotSupplier(1)
        return WorkerTuner.create_composite(
            workflow_supplier=other,
            activity_supplier=_Places(self),
            local_activity_supplier=other,
            nexus_supplier=other,
        )


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
            admission = self._admission
            if admission.holds > 0 or admission.working + self._idle >= admission.limit:
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
