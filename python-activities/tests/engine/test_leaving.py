"""Whole engines on a real Temporal server: one leaves, another goes on with its batch at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from rankflow.connection import TemporalTarget
from rankflow.contracts.models import ClusterAddress, DrainInput, FleetSpec
from rankflow.contracts.names import DRAIN, GENERATE_BATCH, engine_queue, fleet_queue, slot_queue
from rankflow.engine.service import EngineService
from rankflow.engine.simulated import SimulatedBackend
from rankflow.store.salvage import salvage
from tests.engine.conftest import RUN, PlannedRun, chat, simulated_model, write_plan
from tests.temporal import temporal_server

ROWS = 40
FLEET = "leaving"
WORKFLOWS = "workflows"


@workflow.defn(name="call", sandboxed=False)
class Call:
    """One activity, retried after a long time unless its error says otherwise."""

    @workflow.run
    async def run(self, name: str, queue: str, given: dict[str, Any]) -> dict[str, Any]:
        """The activity's result."""
        return await workflow.execute_activity(
            name,
            given,
            task_queue=queue,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=20)),
            result_type=dict,
        )


class Engines:
    """Engines of one fleet in this process, on one server."""

    def __init__(self, client: Client, address: str, run: PlannedRun) -> None:
        self.client = client
        self.run = run
        self.spec_hash = run.given.spec_hash
        self._target = TemporalTarget(address, client.namespace)
        self._running: list[asyncio.Task[None]] = []
        self._calls = 0

    def start(self, slot: int, index: int | None = None) -> None:
        """Start an engine whose incarnation is ``engine-<slot>``."""
        fleet = FleetSpec(
            name=FLEET,
            cluster=ClusterAddress(name="c", address="127.0.0.1:1", dashboard_url="http://x"),
            model=self.run.model,
            spec_hash=self.spec_hash,
            engines=2,
        )
        service = EngineService(
            fleet,
            slot,
            f"engine-{slot}",
            self._target,
            lambda: SimulatedBackend(self.run.model),
            index=index,
        )
        self._running.append(asyncio.create_task(service.run()))

    async def call(self, name: str, queue: str, given: Any) -> WorkflowHandle[Any, dict[str, Any]]:
        """Start an activity."""
        self._calls += 1
        document = given.model_dump(by_alias=True, exclude_none=True)
        return await self.client.start_workflow(
            Call.run, args=[name, queue, document], id=f"call-{self._calls}", task_queue=WORKFLOWS
        )

    async def generate(self, queue: str | None = None) -> WorkflowHandle[Any, dict[str, Any]]:
        """Start the batch."""
        return await self.call(
            GENERATE_BATCH, queue or fleet_queue(FLEET, self.spec_hash), self.run.given
        )

    async def drain(self, slot: int, seconds: float) -> dict[str, Any]:
        """Drain an engine; returns when it has given back its work."""
        deadline = int((time.time() + seconds) * 1000)
        queue = engine_queue(FLEET, self.spec_hash, slot, f"engine-{slot}")
        given = DrainInput(spec_hash=self.spec_hash, deadline=deadline)
        return await (await self.call(DRAIN, queue, given)).result()

    def finished(self) -> int:
        """Rows in the attempt files of the batch."""
        return len(salvage(self.run.store, RUN, 0, 0))

    def stop(self) -> None:
        """End all engines as a lost process would."""
        for task in self._running:
            task.cancel()


class Taken(NamedTuple):
    """Who took the last attempt of a call, and when (epoch seconds)."""

    by: str
    at: float


async def taken(handle: WorkflowHandle[Any, Any]) -> Taken:
    """The last attempt of a call that has ended."""
    history = await handle.fetch_history()
    (event,) = [
        event
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
    ]
    at = event.event_time.ToNanoseconds() / 1e9
    return Taken(event.activity_task_started_event_attributes.identity, at)


@asynccontextmanager
async def engines(root: Path) -> AsyncGenerator[Engines]:
    """A server, a batch of 40 rows that takes one engine about ten seconds, and no engine yet."""
    model = simulated_model(tokens_per_second=10)
    model.max_num_seqs = 4
    run = write_plan(root, [chat(n) for n in range(ROWS)], model)
    async with temporal_server() as environment:
        client = environment.client
        address = client.service_client.config.target_host
        here = Engines(client, address, run)
        async with Worker(client, task_queue=WORKFLOWS, workflows=[Call]):
            try:
                yield here
            finally:
                here.stop()


async def test_the_batch_of_an_engine_that_leaves_is_finished_elsewhere_at_once(
    tmp_path: Path,
) -> None:
    async with engines(tmp_path) as here:
        here.start(0)
        batch = await here.generate()
        while here.finished() < 4:  # noqa: ASYNC110 -- rows show in files
            await asyncio.sleep(0.05)
        # It replaces the other: it serves the same ranks.
        here.start(2, index=0)
        await asyncio.sleep(1.0)
        drained = await here.drain(0, 0)
        left = time.time()
        assert drained["seconds"] < 2
        kept = ROWS - drained["waitingRows"] - drained["cutRows"]
        assert kept == here.finished()
        result = await asyncio.wait_for(batch.result(), 60)
        assert result["engine"] == f"{FLEET}/slot-2/engine-2"
        assert (result["salvagedRows"], result["attempt"]) == (kept, 2)
        # The server's timers are good to a second.
        assert (await taken(batch)).at < left + 3

        for queue in (None, None, None, slot_queue(FLEET, here.spec_hash, 0)):
            again = await here.generate(queue)
            assert (await asyncio.wait_for(again.result(), 30))["alreadyCommitted"]
            assert (await taken(again)).by == f"{FLEET}/slot-2/engine-2"
