"""A small planned run in a store, a simulated engine, and an attempt as Temporal would start it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from rankflow.contracts.models import (
    BatchLimits,
    GenerateBatchInput,
    InputSpec,
    ModelSpec,
    PlanSummary,
    RunSpec,
)
from rankflow.engine.backend import Answer, Backend, BackendTrouble
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.rows.canonical import spec_hash
from rankflow.rows.plan import PLAN_VERSION, PlanDocument, RankEntry
from rankflow.store import Store, open_store
from rankflow.store.layout import plan_key, rank_table_key, requests_key

RUN = "run-under-test"
_PLAN_TOKEN = "0" * 16


def chat(number: int) -> dict[str, Any]:
    """A chat request line."""
    body = {"messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 4}
    return {
        "custom_id": f"c{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


class TroubledAtOneRow(SimulatedBackend):
    """Answers all rows but row 1, for which it has a server error each time."""

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        if request_id.endswith("-1"):
            raise BackendTrouble("vLLM answered 500 InternalServerError")
        return await super().answer(url, body, request_id)


@dataclass(frozen=True)
class PlannedRun:
    """One rank, one batch, in a store of its own."""

    store: Store
    model: ModelSpec
    given: GenerateBatchInput


def write_plan(root: Path | str, lines: list[dict[str, Any]], model: ModelSpec) -> PlannedRun:
    """Write requests, a table of one batch and the plan, as planning does."""
    store = open_store(str(root))
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    table = json.dumps([[0, len(data), 0, len(lines), 100]]).encode()
    store.put(requests_key(RUN, _PLAN_TOKEN), data)
    store.put(rank_table_key(RUN, _PLAN_TOKEN, 0), table)
    spec = RunSpec(
        run_id=RUN,
        input=InputSpec(uri="/input.jsonl"),
        store=str(root),
        model=model,
        batch=BatchLimits(),
    )
    document = PlanDocument(
        version=PLAN_VERSION,
        token=_PLAN_TOKEN,
        spec=spec,
        spec_hash=spec_hash(model),
        requests_sha256=hashlib.sha256(data).hexdigest(),
        summary=PlanSummary(
            run_id=RUN,
            rows=len(lines),
            invalid_rows=0,
            prompt_tokens=0,
            max_output_tokens=0,
            input_bytes=len(data),
            input_sha256="0" * 64,
            batches=[1],
            rows_per_rank=[len(lines)],
            finished=False,
        ),
        ranks=[
            RankEntry(
                first_row=0,
                rows=len(lines),
                batches=1,
                table_sha256=hashlib.sha256(table).hexdigest(),
            )
        ],
    )
    store.create(plan_key(RUN), document.model_dump_json(by_alias=True, exclude_none=True).encode())
    given = GenerateBatchInput(
        run_id=RUN, store=str(root), rank=0, batch=0, spec_hash=document.spec_hash
    )
    return PlannedRun(store, model, given)


def simulated_model(**engine_args: Any) -> ModelSpec:
    """A model spec of the simulated backend."""
    return ModelSpec(model="stand-in", backend="simulated", engine_args=engine_args)


def attempt_environment(attempt: int = 1, activity_id: str = "1") -> ActivityEnvironment:
    """Activity context of one attempt of one workflow run."""
    environment = ActivityEnvironment()
    environment.info = replace(
        environment.info,
        workflow_run_id="wf",
        activity_id=activity_id,
        attempt=attempt,
        heartbeat_timeout=timedelta(seconds=30),
    )
    return environment


StartEngine = Callable[[PlannedRun], Awaitable[BatchActivities]]


async def start_engine(run: PlannedRun, backend: Backend) -> BatchActivities:
    """An engine that serves the run's model with the given backend."""
    host = EngineHost(lambda: backend)
    host.start()
    await host.wait_loaded()
    return BatchActivities(host, Served("test/slot-0/0-1", run.given.spec_hash), Contact())


@pytest.fixture
async def start() -> AsyncIterator[StartEngine]:
    """Starts simulated engines."""

    async def simulated(run: PlannedRun) -> BatchActivities:
        return await start_engine(run, SimulatedBackend(run.model))

    yield simulated
