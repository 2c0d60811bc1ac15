"""On notice the node is cordoned and every workflow on its cluster is told, whatever is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from rankflow.contracts.models import PreemptionNotice
from rankflow.contracts.names import PREEMPTION_NOTICE_SIGNAL
from rankflow.preemption.http import Trouble
from rankflow.preemption.sentinel import Sentinel
from rankflow.preemption.sources import Kind, Notice
from tests.temporal import temporal_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODE = "f" * 56


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """One server for all tests of this file."""
    async with temporal_server() as environment:
        yield environment


class Scripted:
    """A source that says what the test sets."""

    kind: ClassVar[Kind] = "file"
    seconds: ClassVar[float] = 0.05

    def __init__(self) -> None:
        self.says: Notice | None = None
        self.troubles = 0

    def poll(self) -> Notice | None:
        """What was set, after as much trouble as was set."""
        if self.troubles > 0:
            self.troubles -= 1
            raise Trouble("no answer")
        return self.says


class World:
    """What a sentinel acts on: a Ray that takes a cordon at the second try, and real workflows."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.source = Scripted()
        self.cordons: list[float] = []
        self.workflows: set[str] = set()
        self.refusals = 1
        self.away = 0

    async def start(self, workflow: str) -> None:
        """Start a workflow that nobody serves: its history keeps the signals."""
        await self.client.start_workflow("any", id=workflow, task_queue="nobody")
        self.workflows.add(workflow)

    def sentinel(self) -> Sentinel:
        """The sentinel of this world."""
        return Sentinel(
            NODE,
            [self.source],
            cordon=self._cordon,
            workflows=lambda: set(self.workflows),
            client=self._connect,
        )

    async def signals(self, workflow: str) -> list[PreemptionNotice]:
        """The notices that a workflow was sent."""
        history = await self.client.get_workflow_handle(workflow).fetch_history()
        sent = [
            event.workflow_execution_signaled_event_attributes
            for event in history.events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]
        assert {signal.signal_name for signal in sent} <= {PREEMPTION_NOTICE_SIGNAL}
        data: list[Any] = [json.loads(signal.input.payloads[0].data) for signal in sent]
        return [PreemptionNotice.model_validate(one) for one in data]

    def _cordon(self, notice: Notice) -> None:
        if self.refusals > 0:
            self.refusals -= 1
            raise RuntimeError("the GCS is away")
        self.cordons.append(notice.deadline)

    async def _connect(self) -> Client:
        if self.away > 0:
            self.away -= 1
            raise RuntimeError("connection refused")
        return self.client


async def eventually(check: Callable[[], Any], seconds: float = 15) -> None:
    """Wait until the check (a coroutine function or not) holds."""
    deadline = time.monotonic() + seconds
    while True:
        holds = check()
        if asyncio.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


async def test_a_notice_cordons_the_node_and_reaches_every_workflow_once(
    temporal: WorkflowEnvironment,
) -> None:
    world = World(temporal.client)
    await world.start("fleet/once")
    await world.start("cluster/once")
    world.workflows.add("fleet/that-is-gone")
    world.away = 1
    world.source.troubles = 3
    watching = asyncio.create_task(world.sentinel().run())
    await asyncio.sleep(0.5)
    assert world.cordons == []
    deadline = time.time() + 120
    world.source.says = Notice("file", deadline)

    async def told() -> bool:
        return all([await world.signals(one) for one in ("fleet/once", "cluster/once")])

    await eventually(told)
    await eventually(lambda: world.cordons == [deadline])
    # A fleet that comes later must not count on the node either.
    await world.start("fleet/late")
    await eventually(lambda: world.signals("fleet/late"))
    await asyncio.sleep(2.5)
    expected = PreemptionNotice(node_id=NODE, source="file", deadline=int(deadline * 1000))
    for workflow in ("fleet/once", "cluster/once", "fleet/late"):
        assert await world.signals(workflow) == [expected]
    assert world.cordons == [deadline]
    watching.cancel()


async def test_only_a_sooner_deadline_is_told_again(temporal: WorkflowEnvironment) -> None:
    world = World(temporal.client)
    await world.start("fleet/sooner")
    now = time.time()
    world.source.says = Notice("file", now + 100)
    watching = asyncio.create_task(world.sentinel().run())
    await eventually(lambda: world.signals("fleet/sooner"))
    world.source.says = Notice("file", now + 200)
    await asyncio.sleep(1.5)
    world.source.says = Notice("file", now + 20)

    async def deadlines() -> list[int]:
        return [round(one.deadline / 1000 - now) for one in await world.signals("fleet/sooner")]

    async def told_twice() -> bool:
        return await deadlines() == [100, 20]

    await eventually(told_twice)
    await eventually(lambda: [round(at - now) for at in world.cordons] == [100, 20])
    watching.cancel()
