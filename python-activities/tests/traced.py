"""``python -m tests.traced``: an activity of a workflow that is traced, and of one that is not."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from rankflow.connection import connect, temporal_target

QUEUE = "traced"


@activity.defn
async def answer(name: str) -> str:
    """Stands for a batch."""
    return name


@workflow.defn(sandboxed=False)
class Asking:
    """Stands for a rank."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Ask once."""
        return await workflow.execute_activity(
            answer, name, start_to_close_timeout=timedelta(seconds=20)
        )


async def main() -> None:
    """Start both, as a person who is traced and as one who is not."""
    client = await connect()
    target = temporal_target()
    plain = await Client.connect(target.address, namespace=target.namespace)
    async with Worker(client, task_queue=QUEUE, workflows=[Asking], activities=[answer]):
        for name, one in (("traced", client), ("plain", plain)):
            await one.execute_workflow(Asking.run, name, id=name, task_queue=QUEUE)
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.force_flush(timeout_millis=3_000)


if __name__ == "__main__":
    asyncio.run(main())
