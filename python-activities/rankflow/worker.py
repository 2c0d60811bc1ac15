"""``python -m rankflow.worker``: the Python control worker, on ``rankflow-python``.

It plans, counts, finalizes, checks engine arguments and deploys engines. Neither vLLM nor a Ray
driver ever lives in this process: both run in child processes that end with their task.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity
from temporalio.worker import Worker

from rankflow.connection import connect
from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    CheckEngineArgumentsInput,
    CheckEngineArgumentsResult,
    CheckStoreRoomInput,
    CheckStoreSharedInput,
    ExecuteFleetPlanInput,
    ExecuteFleetPlanResult,
    FinalizeRunInput,
    FinalizeRunResult,
    PlanRunInput,
    PlanSummary,
    RankProgress,
    RankProgressInput,
    StoreRoom,
    StoreSharedBy,
)
from rankflow.contracts.names import (
    CHECK_ENGINE_ARGUMENTS,
    CHECK_STORE_ROOM,
    CHECK_STORE_SHARED,
    EXECUTE_FLEET_PLAN,
    FINALIZE_RUN,
    PLAN_RUN,
    PYTHON_QUEUE,
    RANK_PROGRESS,
)
from rankflow.control.process import run_child
from rankflow.control.spare import Spare, can_be_spared
from rankflow.engine.predecessor import give_back
from rankflow.failures import activity_errors
from rankflow.logs import bound, log_as_json
from rankflow.metrics.endpoint import worker_endpoint
from rankflow.rows.progress import rank_progress
from rankflow.store import open_store
from rankflow.store.room import check_room

log = logging.getLogger(__name__)

MAX_ACTIVITIES = 8
"""Children at once: one that imports vLLM takes about 0.8 GB, so far fewer than the SDK's 100."""
GRACE = timedelta(seconds=20)
"""Time for running tasks at SIGTERM before they are cancelled and tried again elsewhere."""
METRICS_ADDRESS = "127.0.0.1:9465"
"""Where Prometheus finds this worker's metrics, unless the environment says otherwise."""
PROBLEMS_SHOWN = 200
"""Problems of an input that travel in the error: 200 lines stay far below the 2 MB of a payload."""


_spare = Spare()
"""For the next task that needs vLLM's import."""


class _Planned(BaseModel):
    """What ``python -m rankflow.rows plan`` writes."""

    summary: PlanSummary


def _fewer_problems(error: RankflowError) -> RankflowError:
    """The error with the first problems only; ``total`` keeps the number of all."""
    details = error.details or {}
    problems = details.get("problems")
    if not isinstance(problems, list):
        return error
    shortened = details | {"problems": problems[:PROBLEMS_SHOWN]}
    return RankflowError(error.kind, str(error), shortened)


@activity.defn(name=PLAN_RUN)
async def plan_run(given: PlanRunInput) -> PlanSummary:
    """Validate and plan a run; returns the plan that is there when there is one."""
    with activity_errors(), bound(run=given.spec.run_id):
        try:
            planned = await run_child(
                ["rankflow.rows", "plan"],
                given,
                _Planned,
                otherwise=ErrorType.STORE_UNAVAILABLE,
                beat=activity.heartbeat,
                spare=_spare if can_be_spared(given.spec.model) else None,
            )
        except RankflowError as error:
            # Mostly the error itself, which must not become its own cause: chains of causes travel.
            raise _fewer_problems(error) from None
        log.info("planned %d rows", planned.summary.rows)
        return planned.summary


@activity.defn(name=RANK_PROGRESS)
async def progress_of_rank(given: RankProgressInput) -> RankProgress:
    """Count the commits of a rank."""
    with activity_errors():
        store = open_store(given.store)
        return await asyncio.to_thread(rank_progress, store, given.run_id, given.rank)


@activity.defn(name=FINALIZE_RUN)
async def finalize_run(given: FinalizeRunInput) -> FinalizeRunResult:
    """Assemble the results in input order and publish them."""
    with activity_errors(), bound(run=given.run_id):
        result = await run_child(
            ["rankflow.rows", "finalize"],
            given,
            FinalizeRunResult,
            otherwise=ErrorType.STORE_UNAVAILABLE,
            beat=activity.heartbeat,
        )
        log.info("assembled the output")
        return result


@activity.defn(name=CHECK_STORE_ROOM)
async def check_store_room(given: CheckStoreRoomInput) -> StoreRoom:
    """Look whether a full store has room again.

    Temporal repeats this activity until it has, so here STORE_FULL is worth another try.
    """
    with activity_errors():
        store = open_store(given.store)
        try:
            free = await asyncio.to_thread(check_room, store, given.run_id, given.needed_bytes)
        except RankflowError as error:
            raise error.as_application_error(retryable=True) from error
        return StoreRoom(free_bytes=free)


@activity.defn(name=CHECK_STORE_SHARED)
async def check_store_shared(given: CheckStoreSharedInput) -> StoreSharedBy:
    """Let nodes and this host read in the store what each of them wrote there."""
    with activity_errors():
        return await run_child(
            ["rankflow.control", "check-store-shared"],
            given,
            StoreSharedBy,
            otherwise=ErrorType.CLUSTER_UNAVAILABLE,
            beat=activity.heartbeat,
        )


_good_arguments: dict[str, CheckEngineArgumentsResult] = {}
"""Specs that vLLM accepted since this worker started: an import of vLLM costs 13 s and more."""


@activity.defn(name=CHECK_ENGINE_ARGUMENTS)
async def check_engine_arguments(given: CheckEngineArgumentsInput) -> CheckEngineArgumentsResult:
    """Have vLLM check a model spec without starting an engine; one that it accepted stays good."""
    key = given.model_dump_json()
    if key in _good_arguments:
        return _good_arguments[key]
    with activity_errors():
        result = await run_child(
            ["rankflow.control", "check-engine-args"],
            given,
            CheckEngineArgumentsResult,
            otherwise=ErrorType.ENGINE_ARGUMENTS_INVALID,
            beat=activity.heartbeat,
            spare=_spare if can_be_spared(given.model) else None,
        )
    _good_arguments[key] = result
    return result


@activity.defn(name=EXECUTE_FLEET_PLAN)
async def execute_fleet_plan(given: ExecuteFleetPlanInput) -> ExecuteFleetPlanResult:
    """Create and kill engine actors; what was killed for good gives back its batches."""
    with activity_errors(), bound(fleet=given.fleet.name):
        result = await run_child(
            ["rankflow.control", "deploy"],
            given,
            ExecuteFleetPlanResult,
            otherwise=ErrorType.CLUSTER_UNAVAILABLE,
            beat=activity.heartbeat,
        )
        log.info(
            "started engines %s, stopped %s, restarted %s", given.start, given.stop, given.restart
        )
        for slot in given.stop:
            activity.heartbeat()
            await give_back(activity.client(), f"{given.fleet.name}/slot-{slot}")
        return result


ACTIVITIES = [
    plan_run,
    progress_of_rank,
    finalize_run,
    check_store_room,
    check_store_shared,
    check_engine_arguments,
    execute_fleet_plan,
]


async def serve() -> None:
    """Serve until SIGTERM or SIGINT, then let running activities finish for ``GRACE``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    client = await connect()
    worker = Worker(
        client,
        task_queue=PYTHON_QUEUE,
        activities=ACTIVITIES,
        max_concurrent_activities=MAX_ACTIVITIES,
        graceful_shutdown_timeout=GRACE,
    )
    async with worker:
        log.info("polling %s in namespace %s", PYTHON_QUEUE, client.namespace)
        await stop.wait()
        log.info("shutting down")
    await _spare.close()


def main() -> None:
    """Entry point."""
    log_as_json("python-worker")
    worker_endpoint(METRICS_ADDRESS)
    asyncio.run(serve())


if __name__ == "__main__":
    main()
