"""A workflow for tests: it has one activity of another worker called."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy


@activity.defn
async def greet(name: str) -> str:
    """Answer, or fail with the name in the error."""
    if name.startswith("bad"):
        raise ValueError(f"no greeting for {name}")
    return f"hello {name}"


@workflow.defn
class Asking:
    """Has somebody greeted."""

    @workflow.run
    async def run(self, name: str, queue: str) -> str:
        """Call the activity; what it fails with is tried twice, unless it is final."""
        return await workflow.execute_activity(
            greet,
            name,
            task_queue=queue,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
        )
