"""A whole run on a real S3 server, planned, generated, assembled and read while faults happen."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from temporalio.exceptions import ApplicationError

from rankflow.contracts.errors import RETRYABLE, RankflowError
from rankflow.contracts.models import GenerateBatchInput, GenerateBatchResult, RunSpec
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.rows.finalize import finalize_run
from rankflow.rows.plan import load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.results import list_runs, show_run, write_results
from rankflow.store import open_store
from rankflow.store.commits import read_commit
from rankflow.store.layout import attempt_key
from tests.bucket_server import BucketServer, Fault
from tests.engine.conftest import attempt_environment, chat, simulated_model

T = TypeVar("T")
ROWS = 60
SEED = 20


def requests() -> bytes:
    return b"".join(json.dumps(chat(n)).encode() + b"\n" for n in range(ROWS))


def again(call: Callable[[], T]) -> T:
    """Call until it works, as Temporal does after a retryable error."""
    for _ in range(20):
        try:
            return call()
        except RankflowError as error:
            assert error.kind in RETRYABLE, error
    raise AssertionError("it never worked")


async def generate(engine: BatchActivities, given: GenerateBatchInput) -> GenerateBatchResult:
    """One batch, with as many attempts as it takes."""
    for attempt in range(1, 20):
        environment = attempt_environment(attempt, f"{given.rank}-{given.batch}")
        try:
            return await environment.run(engine.generate_batch, given)
        except ApplicationError as error:
            assert not error.non_retryable, error
    raise AssertionError("it never worked")


async def test_a_run_on_a_bucket_with_faults_answers_every_row_once(
    s3: str, server: BucketServer, tmp_path: Path
) -> None:
    # The input lies in the bucket, too.
    store = open_store(s3)
    store.put("inputs/requests.jsonl", requests())
    spec = RunSpec.model_validate(
        {
            "runId": "on-s3",
            "input": {"uri": f"{s3}/inputs/requests.jsonl"},
            "store": s3,
            "model": simulated_model().model_dump(by_alias=True, exclude_none=True),
            "ranks": 2,
            "batch": {"maxRows": 8},
        }
    )
    dice = random.Random(SEED)
    for _ in range(60):
        server.proxy.faults.append(
            Fault(
                dice.choice(["lose", "lose-answer", "status", "cut"]),
                method=dice.choice(["GET", "PUT", "PUT", "POST"]),
                path=dice.choice(["plan", "attempts", "commits", "final", "manifest", "requests"]),
                status=dice.choice([500, 503]),
            )
        )
    summary = again(lambda: plan_run(spec))
    assert summary.rows == ROWS
    assert again(lambda: plan_run(spec)) == summary
    plan = again(lambda: load_plan(store, "on-s3"))

    # An attempt that was killed: a segment that was flushed, and what it had not flushed is gone.
    host = EngineHost(lambda: SimulatedBackend(spec.model))
    host.start()
    await host.wait_loaded()
    engine = BatchActivities(host, Served("f/slot-0/0-1", plan.spec_hash), Contact())
    given = GenerateBatchInput(run_id="on-s3", store=s3, rank=0, batch=0, spec_hash=plan.spec_hash)
    donor = given.model_copy(update={"store": str(tmp_path)})
    plan_run(spec.model_copy(update={"store": str(tmp_path)}))
    await attempt_environment().run(engine.generate_batch, donor)
    folder = open_store(str(tmp_path))
    [done] = folder.list_appended("runs/on-s3/attempts")
    lines = folder.read_attempt(done).splitlines(keepends=True)
    killed = store.append(attempt_key("on-s3", 0, 0, "dead-1-1"))
    killed.write(b"".join(lines[:3]))
    again(killed.flush)
    killed.write(lines[3])

    for rank, entry in enumerate(plan.ranks):
        for batch in range(entry.batches):
            work = given.model_copy(update={"rank": rank, "batch": batch})
            await generate(engine, work)
    commit = again(lambda: read_commit(store, "on-s3", 0, 0))
    assert commit is not None
    kept = again(lambda: store.read_attempt(commit.path)).splitlines(keepends=True)
    assert set(lines[:3]) < set(kept)
    assert lines[3] not in kept
    result = again(lambda: finalize_run(store, "on-s3"))
    assert (result.rows, result.succeeded) == (ROWS, ROWS)
    assert result.output_uri == f"{s3}/runs/on-s3/output.jsonl"

    server.proxy.faults, met = [], sum(fault.times == 0 for fault in server.proxy.faults)
    assert met > 20, f"only {met} faults were met"
    out = io.BytesIO()
    write_results(store, "on-s3", out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"c{n}" for n in range(ROWS)]
    assert store.read("runs/on-s3/output.jsonl") == out.getvalue()
    assert show_run(store, "on-s3")["state"] == "completed"
    assert list_runs(store) == [{"runId": "on-s3", "state": "completed"}]
