"""A plan is written once, holds every row exactly once, and belongs to one run only."""

import json
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.canonical import spec_hash
from rankflow.rows.plan import find_plan, load_plan
from rankflow.rows.planner import estimate_bytes, plan_run, validate_run
from rankflow.store import open_store
from rankflow.store.layout import manifest_key, plan_key, rank_table_key
from tests.rows.support import REPOSITORY, chat, jsonl, problems, spec


def rows(count: int) -> bytes:
    return jsonl(chat(f"id-{n}", "word " * (n % 7 + 1)) for n in range(count))


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("ranks", [1, 3, 8])
@pytest.mark.parametrize("limits", [{"maxRows": 1}, {"maxRows": 7, "maxTokens": 60}, {}])
def test_every_row_is_in_exactly_one_batch_in_input_order(
    tmp_path: Path, count: int, ranks: int, limits: dict[str, int]
) -> None:
    asked = spec(tmp_path, rows(count), ranks=ranks, batch=limits)
    summary = plan_run(asked)
    plan = load_plan(open_store(asked.store), "run-1")
    ids: list[str] = []
    for rank in range(ranks):
        parts = plan.batches(rank)
        assert len(parts) == summary.batches[rank]
        assert sum(part.rows for part in parts) == summary.rows_per_rank[rank]
        for part in parts:
            assert part.first_row == len(ids)
            assert 0 < part.rows <= asked.batch.max_rows
            assert part.rows == 1 or part.tokens <= asked.batch.max_tokens
            ids += [request["custom_id"] for request in plan.read_requests(part)]
            assert plan.batch(rank, part.batch) == part
    assert ids == [f"id-{n}" for n in range(count)]
    assert summary.rows == sum(summary.rows_per_rank) == count
    assert max(summary.rows_per_rank) - min(summary.rows_per_rank) <= 1
    assert estimate_bytes(summary) > summary.input_bytes


@pytest.mark.parametrize(
    ("count", "ranks", "largest"),
    [
        (10, 1, 10),
        (160, 2, 16),
        (1600, 2, 50),
        (16_384, 1, 256),
        (20_000, 1, 313),
        (70_000, 1, 1024),
    ],
)
def test_a_rank_has_enough_batches_to_share_out_if_they_are_not_too_small(
    tmp_path: Path, count: int, ranks: int, largest: int
) -> None:
    asked = spec(tmp_path, rows(count), ranks=ranks)
    plan_run(asked)
    plan = load_plan(open_store(asked.store), "run-1")
    assert max(part.rows for part in plan.batches(0)) == largest


def test_validating_says_the_same_as_planning_and_writes_nothing(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(20), ranks=2)
    assert validate_run(asked) == plan_run(asked)
    assert validate_run(asked.model_copy(update={"store": "/nonexistent/store"})).rows == 20


def test_planning_again_returns_the_same_plan(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(20))
    first = plan_run(asked)
    store = open_store(asked.store)
    before = store.list("runs")
    assert plan_run(asked) == first
    assert store.list("runs") == before
    store.put(manifest_key("run-1"), b"{}")
    assert plan_run(asked).finished


def test_a_run_that_was_deleted_and_planned_anew_is_read_anew(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(3))
    plan_run(asked)
    store = open_store(asked.store)
    old = load_plan(store, "run-1")
    assert load_plan(store, "run-1") is old
    shutil.rmtree(Path(asked.store) / "runs" / "run-1")
    plan_run(spec(tmp_path, rows(4)))
    new = load_plan(store, "run-1")
    assert len(new.read_requests(new.batch(0, 0))) == 4


def test_a_planned_run_goes_on_when_its_input_is_gone(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(3))
    first = plan_run(asked)
    Path(asked.input.uri).unlink()
    assert plan_run(asked) == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ranks": 2}, "ranks: 1 → 2"),
        ({"sampling": {"temperature": 0.5}}, "sampling.temperature: none → 0.5"),
        ({"batch": {"maxRows": 9}}, "batch.maxRows: 1024 → 9"),
        ({"onInvalid": "record"}, 'onInvalid: "refuse" → "record"'),
        ({"model": {"model": "other", "backend": "simulated"}}, "model.model"),
        ({"input": {"limit": 2}}, "input.limit: none → 2"),
        ({"input": {"template": "secret {a}"}}, "input.template differs"),
    ],
)
def test_another_run_under_the_same_id_is_refused_and_told_apart(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    plan_run(spec(tmp_path, rows(3)))
    with pytest.raises(RankflowError) as caught:
        plan_run(spec(tmp_path, rows(3), **change))
    assert caught.value.kind is ErrorType.RUN_MISMATCH
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_engines_of_another_size_are_the_same_run(tmp_path: Path) -> None:
    model = {"model": "m", "backend": "simulated", "cpusPerEngine": 2}
    first = plan_run(spec(tmp_path, rows(3), model=model))
    again = spec(tmp_path, rows(3), model=model | {"cpusPerEngine": 1, "gpusPerEngine": 0.5})
    assert plan_run(again) == first
    assert load_plan(open_store(again.store), "run-1").spec_hash == spec_hash(again.model)


def test_other_content_under_the_same_id_is_refused(tmp_path: Path) -> None:
    plan_run(spec(tmp_path, rows(3)))
    with pytest.raises(RankflowError, match="sha256") as caught:
        plan_run(spec(tmp_path, rows(4)))
    assert caught.value.kind is ErrorType.RUN_MISMATCH


def test_the_same_content_elsewhere_is_the_same_run(tmp_path: Path) -> None:
    first = plan_run(spec(tmp_path, rows(3)))
    assert plan_run(spec(tmp_path, rows(3), "copy.jsonl")) == first


def test_racing_planners_agree_on_one_plan(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(50), ranks=2)
    with ThreadPoolExecutor(6) as pool:
        summaries = list(pool.map(plan_run, [asked] * 6))
    assert all(summary == summaries[0] for summary in summaries)
    store = open_store(asked.store)
    assert len([key for key in store.list("runs") if key.endswith("requests.jsonl")]) == 1


def test_a_refused_input_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(3) + b"broken\n")
    with pytest.raises(RankflowError):
        plan_run(asked)
    assert open_store(asked.store).list("runs") == []


def test_a_killed_planner_leaves_nothing_half_visible(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(20_000))
    text = json.dumps({"spec": asked.model_dump(by_alias=True, exclude_none=True)}).encode()
    command = [sys.executable, "-m", "rankflow.rows", "plan"]
    folder = REPOSITORY / "python-activities"
    rng = random.Random(3)
    for _ in range(4):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=folder, stdout=subprocess.PIPE)
        try:
            child.communicate(text, timeout=rng.uniform(0.5, 2.5))
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
        plan = find_plan(open_store(asked.store), "run-1")
        if plan is not None:
            assert sum(len(plan.read_requests(part)) for part in plan.batches(0)) == 20_000
    assert plan_run(asked).rows == 20_000


def test_a_changed_table_or_plan_is_refused(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(3))
    plan_run(asked)
    store = open_store(asked.store)
    plan = load_plan(store, "run-1")
    key = rank_table_key("run-1", plan.document.token, 0)
    store.put(key, store.read(key).replace(b"3", b"2"))
    with pytest.raises(RankflowError, match="changed") as caught:
        plan.batches(0)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT
    store.put(plan_key("run-1"), b"{}")
    with pytest.raises(RankflowError, match="not a plan"):
        find_plan(store, "run-1")


def test_a_batch_that_is_not_planned_is_refused(tmp_path: Path) -> None:
    asked = spec(tmp_path, rows(3))
    plan_run(asked)
    plan = load_plan(open_store(asked.store), "run-1")
    for rank, batch in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        with pytest.raises(RankflowError) as caught:
            plan.batch(rank, batch)
        assert caught.value.kind is ErrorType.PLAN_CORRUPT


def test_invalid_rows_can_be_recorded_as_errors_under_ids_of_their_own(tmp_path: Path) -> None:
    data = jsonl([chat("line-2"), chat("a"), chat("a"), chat(None), {**chat("b"), "url": "x"}])
    data = data.replace(json.dumps(chat("a")).encode(), b"broken", 1)
    asked = spec(tmp_path, data, onInvalid="record")
    summary = plan_run(asked)
    assert (summary.rows, summary.invalid_rows) == (5, 3)
    plan = load_plan(open_store(asked.store), "run-1")
    found = plan.read_requests(plan.batch(0, 0))
    assert [row["custom_id"] for row in found] == ["line-2", "line-2-invalid", "a", "line-4", "b"]
    assert [row.get("error", {}).get("code") for row in found] == [
        None,
        "invalid_json",
        None,
        "missing_custom_id",
        "unsupported_url",
    ]
    assert found[1]["error"]["line"] == 2
    assert len(problems(asked.model_copy(update={"on_invalid": "refuse"}))) == 3


def test_both_languages_give_a_model_the_same_hash(tmp_path: Path) -> None:
    model = {
        "model": "org/näme",
        "cpusPerEngine": 1,
        "gpusPerEngine": 0.25,
        "engineArgs": {"z": None, "a": [1.5, 2.0, {"b": True}], "é": 'quo"te'},
    }
    asked = spec(tmp_path, b"", model=model)
    script = (
        "import {specHash, ModelSpec} from './dist/contracts/index.js';"
        "import {readFileSync} from 'node:fs';"
        "console.log(specHash(ModelSpec.parse(JSON.parse(readFileSync(0, 'utf8')))))"
    )
    assert (REPOSITORY / "dist/contracts/index.js").is_file(), "build first: npm run build"
    done = subprocess.run(
        ["node", "--input-type=module", "-e", script],
        input=json.dumps(model),
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert spec_hash(asked.model) == done.stdout.strip()


def test_a_batch_without_a_plan_is_in_another_store(tmp_path: Path) -> None:
    with pytest.raises(RankflowError, match="finds no plan of run run-1 in the store") as caught:
        load_plan(open_store(str(tmp_path)), "run-1")
    assert caught.value.kind == ErrorType.STORE_NOT_SHARED
