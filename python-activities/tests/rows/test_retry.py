"""Failed rows are run again by themselves, and both results come out as one."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import RunSpec
from rankflow.rows.finalize import finalize_run
from rankflow.rows.plan import load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.results import write_results
from rankflow.rows.retry import write_retry_input
from rankflow.store import Store, open_store
from tests.rows.support import chat, finish, jsonl, spec


def partly(folder: Path, batches: int) -> tuple[Store, RunSpec]:
    """A cancelled run of 12 rows, two ranks and six batches; row 3 is invalid."""
    rows = [chat(f"id-{n}", f"Name colour {n}.") for n in range(12)]
    rows[3] = chat("id-3") | {"url": "/nowhere"}
    asked = spec(folder, jsonl(rows), ranks=2, batch={"maxRows": 2}, onInvalid="record")
    plan_run(asked)
    store = open_store(asked.store)
    finish_batches(store, asked.run_id, batches)
    finalize_run(store, asked.run_id, "batch_cancelled")
    return store, asked


def finish_batches(store: Store, run_id: str, count: int) -> None:
    plan = load_plan(store, run_id)
    parts = [part for rank in range(len(plan.ranks)) for part in plan.batches(rank)]
    for part in parts[:count]:
        finish(store, plan, part)


def retried(store: Store, run_id: str, retry_id: str, batches: int) -> dict[str, Any]:
    """Retries a run; so many batches of the new run are finished, the others cancelled."""
    made = write_retry_input(store, run_id, retry_id)
    asked = {
        **made["spec"],
        "runId": retry_id,
        "input": {"uri": made["input"], "format": "openai"},
        "ranks": 1,
    }
    plan_run(RunSpec.model_validate(asked))
    finish_batches(store, retry_id, batches)
    finalize_run(store, retry_id, "batch_cancelled")
    return made


def ids(store: Store, run_id: str, **options: Any) -> list[str]:
    out = BytesIO()
    write_results(store, run_id, out, **options)
    return [json.loads(line)["custom_id"] for line in out.getvalue().splitlines()]


def test_only_failed_requests_are_run_again_under_their_ids(tmp_path: Path) -> None:
    store, asked = partly(tmp_path, 3)
    failed = ids(store, asked.run_id, errors=True)
    made = retried(store, asked.run_id, "again", 99)
    assert (made["rows"], made["invalid"]) == (len(failed) - 1, 1)
    assert ids(store, "again") == [name for name in failed if name != "id-3"]
    assert ids(store, "again", errors=True) == []


def test_the_combined_output_is_in_the_order_of_the_first_input(tmp_path: Path) -> None:
    store, asked = partly(tmp_path, 3)
    retried(store, asked.run_id, "again", 1)
    retried(store, "again", "and-again", 99)
    names = [f"id-{n}" for n in range(12) if n != 3]
    assert ids(store, "and-again", combined=True) == names
    assert ids(store, "and-again", combined=True, errors=True) == ["id-3"]
    halfway = ids(store, "again", combined=True)
    assert halfway == [name for name in names if name in halfway]
    assert len(halfway) + len(ids(store, "again", combined=True, errors=True)) == 12


def test_a_run_without_failures_has_nothing_to_run_again(tmp_path: Path) -> None:
    store, asked = partly(tmp_path, 6)
    made = write_retry_input(store, asked.run_id, "again")
    assert (made["rows"], made["invalid"]) == (0, 1)
    assert not store.list("runs/again")


def test_a_run_that_goes_on_is_not_retried(tmp_path: Path) -> None:
    asked = spec(tmp_path, jsonl([chat("a")]))
    plan_run(asked)
    with pytest.raises(RankflowError) as caught:
        write_retry_input(open_store(asked.store), asked.run_id, "again")
    assert caught.value.kind is ErrorType.NO_RESULTS


def test_results_that_are_not_those_of_the_failed_rows_are_refused(tmp_path: Path) -> None:
    store, asked = partly(tmp_path, 3)
    retried(store, asked.run_id, "again", 99)
    other = spec(tmp_path, jsonl([chat("x")]), name="other.jsonl", runId="other")
    plan_run(other)
    finish_batches(store, "other", 99)
    finalize_run(store, "other")
    store.put("runs/other/retry-of.json", json.dumps({"runId": asked.run_id}).encode())
    with pytest.raises(RankflowError) as caught:
        ids(store, "other", combined=True)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT
