"""Giving back at once what an earlier incarnation of a slot was working on.

Nobody reports the end of a process that was killed: without this, its batches wait for their
heartbeat time-out. Ray starts a slot again only when the process before is gone, so the new one may
fail the attempts of the old one in its name; Temporal then schedules them again elsewhere. Who
removes a slot for good does the same, as no new one comes.
"""

from __future__ import annotations

import asyncio
import logging

from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.names import GENERATE_BATCH, RANK_WORKFLOW

log = logging.getLogger(__name__)

_RUNNING_RANKS = f"WorkflowType = '{RANK_WORKFLOW}' AND ExecutionStatus = 'Running'"
_AT_ONCE = 16
"""Workflows described at the same time: a run may have hundreds of ranks."""


async def give_back(client: Client, slot_name: str, own_identity: str | None = None) -> int:
    """Fail the batches that Temporal believes earlier incarnations of the slot to work on.

    Args:
        client: connected to the namespace of the runs.
        slot_name: ``<fleet>/slot-<n>``, what the identities of the slot's workers begin with.
        own_identity: identity of the present incarnation, whose work is left alone.

    Returns:
        how many batches were given back. Trouble with the server is logged: the heartbeat time-out
        does the same work later.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def of_rank(rank: WorkflowExecution) -> int:
        async with places:
            return await _fail_lost(client, rank, slot_name, own_identity)

    try:
        ranks = [rank async for rank in client.list_workflows(_RUNNING_RANKS)]
        given_back = sum(await asyncio.gather(*map(of_rank, ranks)))
    except RPCError as error:
        log.warning("batches of a lost engine wait for their time-out: %s", error.status)
        return 0
    if given_back:
        log.info("gave back %d batches of the engine that was %s before", given_back, slot_name)
    return given_back


async def _fail_lost(
    client: Client, rank: WorkflowExecution, slot_name: str, own_identity: str | None
) -> int:
    handle = client.get_workflow_handle(rank.id, run_id=rank.run_id)
    description = await handle.describe()
    given_back = 0
    for pending in description.raw_description.pending_activities:
        identity = pending.last_worker_identity
        if (
            pending.activity_type.name != GENERATE_BATCH
            or pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            or identity == own_identity
            or not identity.startswith(f"{slot_name}/")
        ):
            continue
        activity = client.get_async_activity_handle(
            workflow_id=rank.id, run_id=rank.run_id, activity_id=pending.activity_id
        )
        gone = RankflowError(ErrorType.ENGINE_GONE, f"the engine {identity} ended")
        try:
            await activity.fail(gone.as_application_error())
        except RPCError as error:
            log.info("batch %s of %s had ended: %s", pending.activity_id, rank.id, error.status)
        else:
            given_back += 1
    return given_back
