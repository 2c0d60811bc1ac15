"""A real Temporal server: what a killed engine worked on is scheduled again at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from rankflow.contracts.names import GENERATE_BATCH, RANK_WORKFLOW
from rankflow.engine.predecessor import give_back
from tests.temporal import temporal_server

OLD, QUEUE = "fleet/slot-1/aaaaaaaa-1", "engines"


@workflow.defn(name=RANK_WORKFLOW)
class OneBatch:
    """A rank with one batch, whose time-out is far away."""

    @workflow.run
    async def run(self) -> int:
        """The number of the attempt that answered."""
        return await workflow.execute_activity(
            GENERATE_BATCH,
            result_type=int,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=timedelta(minutes=30),
        )


@activity.defn(name=GENERATE_BATCH)
async def lost_once() -> int:
    """Like a killed engine, the first attempt never says anything again."""
    attempt = activity.info().attempt
    if attempt == 1:
        await asyncio.Event().wait()
    return attempt


@pytest.fixture
async def server() -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server() as environment:
        yield environment


async def _until_started(rank: WorkflowHandle[OneBatch, int]) -> None:
    async with asyncio.timeout(30):
        while True:
            pending = (await rank.describe()).raw_description.pending_activities
            if pending and pending[0].last_worker_identity == OLD:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("successor", ["fleet/slot-1/b-2", None])
async def test_batches_of_a_killed_engine_are_tried_again_without_waiting_for_their_time_out(
    server: WorkflowEnvironment, successor: str | None
) -> None:
    async with Worker(
        server.client,
        task_queue=QUEUE,
        identity=OLD,
        workflows=[OneBatch],
        activities=[lost_once],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        rank = await server.client.start_workflow(OneBatch.run, id="run/r/rank-0", task_queue=QUEUE)
        await _until_started(rank)
        async with asyncio.timeout(30):
            assert await give_back(server.client, "fleet/slot-11", "fleet/slot-11/b-2") == 0
            assert await give_back(server.client, "fleet/slot-1", OLD) == 0
            # Visibility may lag behind.
            while await give_back(server.client, "fleet/slot-1", successor) == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert await rank.result() == 2
