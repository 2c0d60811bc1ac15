"""Results hold every row exactly once, in input order, or the run is not finished."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import BatchRange
from rankflow.rows.finalize import finalize_run
from rankflow.rows.manifest import read_manifest
from rankflow.rows.plan import Plan, load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.progress import rank_progress
from rankflow.rows.results import list_runs, show_run, write_results
from rankflow.store import Store, open_store
from rankflow.store.base import Space
from rankflow.store.commits import Commit, try_commit
from rankflow.store.layout import manifest_key, success_key
from rankflow.store.local import LocalStore
from tests.rows.support import attempt, chat, finish, jsonl, spec


def planned(folder: Path, count: int = 20, **fields: Any) -> tuple[Store, Plan]:
    """A planned run of two ranks, four rows a batch, with one invalid row at line 3."""
    rows = [chat(f"id-{n}") for n in range(count)]
    rows[2]["url"] = "/nowhere"
    options: dict[str, Any] = {"ranks": 2, "batch": {"maxRows": 4}, "onInvalid": "record", **fields}
    asked = spec(folder, jsonl(rows), **options)
    plan_run(asked)
    store = open_store(asked.store)
    return store, load_plan(store, asked.run_id)


def finish_all(store: Store, plan: Plan) -> None:
    for rank in range(len(plan.ranks)):
        for part in plan.batches(rank):
            finish(store, plan, part)


def lines(store: Store, key: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.read(key).splitlines()]


def refused(store: Store, plan: Plan) -> str:
    """The message with which an inconsistent run is refused."""
    with pytest.raises(RankflowError) as caught:
        finalize_run(store, plan.run_id)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT
    assert read_manifest(store, plan.run_id) is None
    return str(caught.value)


def test_rows_come_out_in_input_order_each_once(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    result = finalize_run(store, plan.run_id)
    assert (result.rows, result.succeeded, result.failed) == (20, 19, 1)
    assert (result.prompt_tokens, result.completion_tokens) == (19 * 5, 19 * 3)
    output = [json.loads(line) for line in Path(result.output_uri).read_bytes().splitlines()]
    errors = [json.loads(line) for line in Path(result.errors_uri).read_bytes().splitlines()]
    assert [line["custom_id"] for line in output] == [f"id-{n}" for n in range(20) if n != 2]
    assert [line["custom_id"] for line in errors] == ["id-2"]
    assert set(output[0]) == {"id", "custom_id", "response", "error"}
    assert errors[0]["error"]["code"] == "unsupported_url"
    assert store.exists(success_key(plan.run_id))
    assert Path(result.manifest_uri).is_file()


def test_the_manifest_tells_where_each_rank_is(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    finalize_run(store, plan.run_id)
    manifest = read_manifest(store, plan.run_id)
    assert manifest is not None
    assert manifest.state == "completed"
    assert manifest.model_revisions == ["rev-1"]
    assert manifest.spec_hash == plan.spec_hash
    for number, part in enumerate(manifest.ranks):
        out = tmp_path / f"rank-{number}.jsonl"
        with out.open("wb") as stdout:
            write_results(store, plan.run_id, stdout, rank=number)
        ids = [json.loads(line)["custom_id"] for line in out.read_bytes().splitlines()]
        planned_rows = range(part.first_row, part.first_row + part.rows)
        assert ids == [f"id-{n}" for n in planned_rows if n != 2]


def test_a_finished_run_is_only_looked_up_and_its_markers_are_mended(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    first = finalize_run(store, plan.run_id)
    before = store.list("runs")
    assert finalize_run(store, plan.run_id, "batch_cancelled") == first
    store.delete(success_key(plan.run_id))
    store.delete(f"runs/{plan.run_id}/output.jsonl")
    assert finalize_run(store, plan.run_id) == first
    assert store.list("runs") == before


def test_racing_finalizers_agree_on_one_manifest(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(partial(finalize_run, store), [plan.run_id] * 4))
    assert all(result == results[0] for result in results)
    manifest = read_manifest(store, plan.run_id)
    assert manifest is not None
    folder = manifest.output.path.rpartition("/")[0]
    assert store.list(f"runs/{plan.run_id}/final") == [
        f"{folder}/errors.jsonl",
        f"{folder}/output.jsonl",
    ]


def test_a_missing_batch_is_refused_and_named(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    store.delete(f"runs/{plan.run_id}/commits/0001-000001.json")
    assert "1-1" in refused(store, plan)
    assert rank_progress(store, plan.run_id, 1).pending == [BatchRange(first=1, last=1)]


@pytest.mark.parametrize(
    "damage", ["changed", "row missing", "row twice", "foreign row", "wrong id"]
)
def test_an_attempt_that_does_not_hold_the_planned_rows_is_refused(
    tmp_path: Path, damage: str
) -> None:
    store, plan = planned(tmp_path)
    part = plan.batch(0, 0)
    own = list(part.row_range)
    if damage == "wrong id":
        other = plan.batch(1, 0)
        commit = attempt(store, plan, part, "damaged")
        data = store.read(commit.path).replace(b'"id-0"', b'"id-9"')
        store.put(commit.path, data)
        commit = recommitted(store, commit)
        assert other.rows == part.rows
    else:
        rows = {
            "changed": own,
            "row missing": own[:-1],
            "row twice": [*own, own[0]],
            "foreign row": own[:-1],
        }[damage]
        commit = attempt(store, plan, part, "damaged", rows)
        if damage == "changed":
            store.put(commit.path, store.read(commit.path).replace(b"answer", b"ANSWER"))
        if damage == "foreign row":
            line = store.read(commit.path).splitlines(keepends=True)[0]
            foreign = line.replace(b'"row":2', b'"row":19')
            store.put(commit.path, store.read(commit.path) + foreign)
            commit = recommitted(store, commit)
    try_commit(store, plan.run_id, 0, 0, commit)
    finish_all(store, plan)
    assert plan.run_id in refused(store, plan)


def recommitted(store: Store, commit: Commit) -> Commit:
    """The commit with the sha256 of the file as it is now."""
    digest = hashlib.sha256(store.read(commit.path)).hexdigest()
    return commit.model_copy(update={"sha256": digest})


@pytest.mark.parametrize(
    ("missing", "state"), [("batch_cancelled", "cancelled"), ("batch_expired", "expired")]
)
def test_a_run_that_ended_early_keeps_finished_rows_and_accounts_for_the_rest(
    tmp_path: Path, missing: Any, state: str
) -> None:
    store, plan = planned(tmp_path)
    finish(store, plan, plan.batch(0, 1))
    attempt(store, plan, plan.batch(0, 0), "killed", [0])
    attempt(store, plan, plan.batch(1, 0), "zombie", [11, 12])
    result = finalize_run(store, plan.run_id, missing)
    kept = [0, 4, 5, 6, 7, 11, 12]
    output = lines(store, f"runs/{plan.run_id}/output.jsonl")
    errors = lines(store, f"runs/{plan.run_id}/errors.jsonl")
    assert [line["custom_id"] for line in output] == [f"id-{n}" for n in kept]
    assert sorted(line["custom_id"] for line in output + errors) == sorted(
        f"id-{n}" for n in range(20)
    )
    codes = {line["custom_id"]: line["error"]["code"] for line in errors}
    assert codes.pop("id-2") == "unsupported_url"
    assert set(codes.values()) == {missing}
    assert (result.rows, result.succeeded, result.failed) == (20, 7, 13)
    shown = show_run(store, plan.run_id)
    assert (shown["state"], shown["missing"]) == (state, 12)


def test_progress_counts_commits_and_compresses_what_is_missing(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, count=80)
    for batch in (0, 1, 5):
        finish(store, plan, plan.batch(0, batch))
    progress = rank_progress(store, plan.run_id, 0)
    assert (progress.committed.batches, progress.committed.rows) == (3, 12)
    assert progress.committed.failed_rows == 1
    assert [(part.first, part.last) for part in progress.pending] == [(2, 4), (6, 9)]
    assert rank_progress(store, plan.run_id, 1).committed.rows == 0


def test_a_commit_of_another_plan_is_refused(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    commit = attempt(store, plan, plan.batch(0, 0), "t")
    try_commit(store, plan.run_id, 0, 0, commit.model_copy(update={"rows": 3}))
    with pytest.raises(RankflowError) as caught:
        rank_progress(store, plan.run_id, 0)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT


def test_more_ranks_than_rows_is_fine(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, count=3, ranks=7)
    finish_all(store, plan)
    assert finalize_run(store, plan.run_id).rows == 3
    assert rank_progress(store, plan.run_id, 0).pending == []


def test_results_of_an_unfinished_run_are_refused(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    with (
        (tmp_path / "out").open("wb") as stdout,
        pytest.raises(RankflowError, match="not finished") as caught,
    ):
        write_results(store, plan.run_id, stdout)
    # Nothing is wrong with its plan: nobody may be told to start over.
    assert caught.value.kind is ErrorType.NO_RESULTS
    with pytest.raises(RankflowError, match="is not in"):
        show_run(store, "nobody")


def test_a_rank_that_a_run_does_not_have_is_refused_with_those_it_has(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, ranks=3)
    finish_all(store, plan)
    finalize_run(store, plan.run_id)
    with (
        (tmp_path / "out").open("wb") as stdout,
        pytest.raises(RankflowError, match="no rank 3: its ranks are 0 to 2") as caught,
    ):
        write_results(store, plan.run_id, stdout, rank=3)
    assert caught.value.kind is ErrorType.NO_RESULTS


def test_parquet_results_have_text_and_usage_as_columns(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    finalize_run(store, plan.run_id)
    out = tmp_path / "out.parquet"
    with (tmp_path / "unused").open("wb") as stdout:
        write_results(store, plan.run_id, stdout, kind="parquet", out=out)
        table = pyarrow.parquet.read_table(out).to_pylist()
        assert len(table) == 19
        assert (table[0]["custom_id"], table[0]["text"]) == ("id-0", "answer 0")
        assert (table[0]["completion_tokens"], table[0]["status_code"]) == (3, 200)
        write_results(store, plan.run_id, stdout, kind="parquet", out=out, errors=True)
        assert pyarrow.parquet.read_table(out).to_pylist()[0]["error_code"] == "unsupported_url"
        with pytest.raises(RankflowError, match="--out"):
            write_results(store, plan.run_id, stdout, kind="parquet")


def test_runs_of_a_store_are_listed_with_their_state(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    assert list_runs(store) == [{"runId": "run-1", "state": "in_progress"}]
    finish_all(store, plan)
    finalize_run(store, plan.run_id)
    store.put("runs/half/plan/token/requests.jsonl", b"")
    assert list_runs(store) == [
        {"runId": "half", "state": "validating"},
        {"runId": "run-1", "state": "completed"},
    ]
    store.put(manifest_key("half"), b"{}")
    with pytest.raises(RankflowError, match="not a manifest"):
        list_runs(store)


def test_without_room_for_the_output_nothing_is_written_and_it_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    before = store.list("runs")
    free = 100

    def space(_: LocalStore) -> Space:
        return Space(free, total=1 << 30)

    monkeypatch.setattr(LocalStore, "space", space)
    with pytest.raises(RankflowError) as caught:
        finalize_run(store, plan.run_id)
    assert caught.value.kind is ErrorType.STORE_FULL
    assert caught.value.details is not None
    free = needed = caught.value.details["neededBytes"]
    assert store.list("runs") == before
    finalize_run(store, plan.run_id)
    manifest = read_manifest(store, plan.run_id)
    assert manifest is not None
    assert manifest.output.size + manifest.errors.size <= needed


def test_what_killed_processes_left_is_gone_when_the_run_is_finished(tmp_path: Path) -> None:
    store, plan = planned(tmp_path)
    finish_all(store, plan)
    folder = tmp_path / "store" / "runs" / plan.run_id
    left = [
        *(
            folder / name / ".tmp-0123456789abcdef"
            for name in ("", "commits", "attempts/0000-000000")
        ),
        folder / "plan/aaaa/requests.jsonl",
        folder / "plan/aaaa/.tmp-0123456789abcdef",
        folder / "final/bbbb/output.jsonl",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    attempts = store.list_appended(f"runs/{plan.run_id}/attempts")
    result = finalize_run(store, plan.run_id)
    assert [path for path in left if path.exists()] == []
    assert store.list_appended(f"runs/{plan.run_id}/attempts") == attempts
    assert len(Path(result.output_uri).read_bytes().splitlines()) == 19
    assert load_plan(store, plan.run_id).read_requests(plan.batch(0, 0))
