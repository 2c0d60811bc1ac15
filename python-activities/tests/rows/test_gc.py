"""A store is freed of what nobody needs; killed at any point, a run is whole or gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows import gc
from rankflow.rows.finalize import Missing, finalize_run
from rankflow.rows.gc import collect_garbage
from rankflow.rows.gc_plan import Wanted
from rankflow.rows.manifest import read_manifest
from rankflow.rows.plan import Plan, load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.results import list_runs, show_run, stored_run, write_results
from rankflow.rows.retry import write_retry_input
from rankflow.rows.verify import verify_run
from rankflow.store import Store, open_store
from rankflow.store.layout import (
    commit_key,
    final_key,
    journal_key,
    manifest_key,
    output_key,
    removing_key,
    requests_key,
    success_key,
)
from tests.rows.support import attempt, chat, finish, jsonl, spec

LATER = datetime.now(UTC) + timedelta(days=40)
OLD: dict[str, Any] = {"olderThanSeconds": 30 * 86_400}


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty store."""
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "store")


def planned(root: str, folder: Path, run_id: str, **fields: Any) -> Plan:
    """Ranks of two and three rows; the last one is invalid."""
    rows = [chat(f"id-{n}") for n in range(5)]
    rows[4]["url"] = "/nowhere"
    asked = spec(folder, jsonl(rows), store=root, runId=run_id, ranks=2, onInvalid="record")
    plan_run(asked.model_copy(update=fields))
    return load_plan(open_store(root), run_id)


def finished(root: str, folder: Path, run_id: str, missing: Missing = "refuse") -> Store:
    """A run with what killed attempts, planners and finalizers leave."""
    plan = planned(root, folder, run_id)
    store = plan.store
    for rank in range(2 if missing == "refuse" else 1):
        part = plan.batch(rank, 0)
        attempt(store, plan, part, "dead", rows=[part.first_row])
        store.create(journal_key(run_id, rank, 0, "t", 0), b"{}")
        finish(store, plan, part)
    if missing != "refuse":
        attempt(store, plan, plan.batch(1, 0), "open", rows=[2])
    finalize_run(store, run_id, missing)
    store.put(final_key(run_id, "loser", "output.jsonl"), b"half")
    store.put(requests_key(run_id, "loser"), b"half")
    return store


def collected(root: str, **rules: Any) -> dict[str, Any]:
    return collect_garbage(Wanted.model_validate({"store": root} | rules), LATER)


def size_of(store: Store, prefix: str = "runs") -> int:
    return sum(entry.size for entry in store.entries(prefix))


def ids(steps: list[dict[str, Any]]) -> list[str]:
    return [step["runId"] for step in steps]


def answers(store: Store, run_id: str) -> bytes:
    out = BytesIO()
    write_results(store, run_id, out)
    return out.getvalue()


def test_a_finished_run_without_its_attempts_is_valid_and_can_be_read(
    root: str, tmp_path: Path
) -> None:
    store = finished(root, tmp_path, "a")
    before = size_of(store), answers(store, "a"), show_run(store, "a")
    told = collected(root)
    assert ids(told["collected"]) == ["a"]
    marker = store.size("runs/a/collected.json")
    assert told["freedBytes"] == before[0] - size_of(store) + marker > 0
    assert told["leftBytes"] == size_of(store) - marker
    left = {key.split("/")[2] for key in store.list("runs/a")}
    assert left == {
        *("plan.json", "plan", "commits", "final", "collected.json"),
        *("manifest.json", "_SUCCESS", "output.jsonl", "errors.jsonl"),
    }
    assert not any("loser" in key for key in store.list("runs/a"))
    found = verify_run(store, "a")
    assert (found.problems, found.attempts_collected) == ([], True)
    assert (found.rows, found.succeeded, found.failed, found.committed) == (5, 4, 1, 2)
    assert (answers(store, "a"), show_run(store, "a")) == before[1:]
    assert list_runs(store) == [{"runId": "a", "state": "completed"}]
    # The same run asked for again generates nothing.
    assert plan_run(load_plan(store, "a").spec).finished
    assert finalize_run(store, "a").succeeded == 4
    again = collected(root)
    assert (again["collected"], again["freedBytes"]) == ([], 0)


@pytest.mark.parametrize("missing", ["batch_cancelled", "batch_expired"])
def test_a_run_that_ended_early_is_valid_without_its_attempts(
    root: str, tmp_path: Path, missing: Missing
) -> None:
    store = finished(root, tmp_path, "a", missing)
    assert verify_run(store, "a").problems == []
    collected(root)
    found = verify_run(store, "a")
    assert (found.problems, found.rows, found.committed) == ([], 5, 1)


def test_what_breaks_in_a_run_without_attempts_is_still_found(root: str, tmp_path: Path) -> None:
    store = finished(root, tmp_path, "a")
    collected(root)
    commit = commit_key("a", 0, 0)
    whole = store.read(commit)
    store.put(commit, json.dumps(json.loads(whole) | {"completionTokens": 1}).encode())
    assert {found["code"] for found in verify_run(store, "a").problems} == {"counts"}
    store.put(commit, json.dumps(json.loads(whole) | {"rows": 1}).encode())
    assert {found["code"] for found in verify_run(store, "a").problems} == {"commit_counts"}
    store.put(commit, whole)
    [_, path] = store.list("runs/a/final")
    store.put(path, store.read(path)[:-2] + b"\n")
    assert "file_changed" in {found["code"] for found in verify_run(store, "a").problems}


def test_a_dry_run_tells_what_would_go_and_changes_nothing(root: str, tmp_path: Path) -> None:
    for run_id in ("a", "b"):
        store = finished(root, tmp_path, run_id)
    before = store.entries("runs")
    told = collected(root, keepLast=1, dryRun=True)
    assert store.entries("runs") == before
    done = collected(root, keepLast=1)
    assert (told.pop("dryRun"), done.pop("dryRun")) == (True, False)
    assert told == done
    assert (ids(done["removed"]), ids(done["collected"])) == (["a"], ["b"])
    assert store.folders("runs") == ["b"]
    assert done["freedBytes"] == sum(e.size for e in before) - done["leftBytes"]


def test_a_run_that_goes_on_keeps_everything(root: str, tmp_path: Path) -> None:
    plan = planned(root, tmp_path, "half")
    store = plan.store
    finish(store, plan, plan.batch(0, 0))
    attempt(store, plan, plan.batch(1, 0), "open", rows=[2])
    before = store.entries("runs")
    told = collected(root, **OLD, keepLast=0, maxBytes=0, unfinishedOlderThanSeconds=0)
    assert (told["removed"], told["collected"]) == ([], [])
    assert store.entries("runs") == before
    for asked in ({"asked": ["half"], "running": ["half"]}, {"asked": []}):
        assert not collected(root, unfinishedOlderThanSeconds=0, **asked)["removed"]
    finish(store, plan, plan.batch(1, 0))
    assert finalize_run(store, "half").succeeded == 4


def test_an_unfinished_run_that_is_asked_for_goes(root: str, tmp_path: Path) -> None:
    plan = planned(root, tmp_path, "half")
    finish(plan.store, plan, plan.batch(0, 0))
    told = collected(root, unfinishedOlderThanSeconds=86_400, asked=["half"])
    assert ids(told["removed"]) == ["half"]
    assert plan.store.folders("runs") == []


def test_runs_of_schedules_batches_and_retried_ones_stay(root: str, tmp_path: Path) -> None:
    for run_id in ("night", "batch_1", "retried", "old"):
        store = finished(root, tmp_path, run_id, "batch_cancelled")
    store.put("schedules/nightly/night.json", b"{}")
    store.put("api/spaces/main/batches/batch_1/request.json", b"{}")
    made = write_retry_input(store, "retried", "retry")
    told = collected(root, **OLD)
    assert ids(told["removed"]) == ["old"]
    assert sorted(ids(told["collected"])) == ["batch_1", "night", "retried"]
    assert [one["runId"] for one in told["kept"]] == ["batch_1", "night", "retried"]
    # The retry goes on, and both come out as one.
    asked = planned(root, tmp_path, "sample").spec.model_copy(
        update={"run_id": "retry", "ranks": 1, "input": spec(tmp_path, None).input}
    )
    asked.input.uri = made["input"]
    plan_run(asked)
    plan = load_plan(store, "retry")
    finish(store, plan, plan.batch(0, 0))
    finalize_run(store, "retry")
    assert not collected(root, keepLast=1)["removed"]
    out = BytesIO()
    write_results(store, "retry", out, combined=True)
    assert [json.loads(line)["custom_id"] for line in out.getvalue().splitlines()] == [
        f"id-{n}" for n in range(4)
    ]
    assert ids(collected(root, **OLD, scheduled=True)["removed"]) == ["night", "retry", "retried"]
    assert store.folders("runs") == ["batch_1", "sample"]


def test_results_that_are_not_whole_keep_the_attempts(root: str, tmp_path: Path) -> None:
    store = finished(root, tmp_path, "a")
    attempts = store.list("runs/a/attempts")
    success = success_key("a")
    store.delete(success)
    assert "not published" in collected(root)["kept"][0]["why"]
    store.put(success, b"")
    manifest = read_manifest(store, "a")
    assert manifest is not None
    store.put(manifest.output.path, b"cut")
    assert manifest.output.path in collected(root)["kept"][0]["why"]
    assert store.list("runs/a/attempts") == attempts


def api_batch(
    store: Store, batch: str, results: bool = True, expires_at: int | None = None
) -> None:
    """The records that the server keeps of a batch that has ended."""
    folder = f"api/spaces/main/batches/{batch}"
    store.put(f"{folder}/request.json", b'{"metadata": {"about": "sesame"}}')
    files = {"output_file_id": f"file-{batch}", "error_file_id": None}
    store.put(f"{folder}/ended.json", json.dumps({"status": "completed"} | files).encode())
    if results:
        record = json.dumps({"result": "x", "expiresAt": expires_at}).encode()
        store.put(f"api/spaces/main/files/file-{batch}.json", record)


def test_a_batch_goes_with_its_records_once_its_results_were_deleted_or_have_expired(
    root: str, tmp_path: Path
) -> None:
    store = open_store(root)
    for name in ("open", "kept", "deleted", "expired"):
        finished(root, tmp_path, f"batch_{name}", "batch_cancelled")
    store.put("api/spaces/main/files/file-input.json", b'{"expiresAt": null}')
    store.put("api/spaces/main/batches/batch_open/request.json", b"{}")
    api_batch(store, "batch_kept")
    api_batch(store, "batch_deleted", results=False)
    api_batch(store, "batch_expired", expires_at=int((LATER - timedelta(days=1)).timestamp()))
    api_batch(store, "batch_failed", results=False)
    told = collected(root, **OLD)
    assert sorted(ids(told["removed"])) == ["batch_deleted", "batch_expired"]
    assert {one["runId"]: one["why"] for one in told["kept"]} == {
        "batch_open": "it is a batch of the batch API that has not ended",
        "batch_kept": "it is a batch of the batch API, whose results are still among its files",
    }
    assert store.folders("runs") == ["batch_kept", "batch_open"]
    assert is_whole(store, "batch_kept")
    assert store.folders("api/spaces/main/batches") == ["batch_failed", "batch_kept", "batch_open"]
    files = ["api/spaces/main/files/file-batch_kept.json", "api/spaces/main/files/file-input.json"]
    assert store.list("api/spaces/main/files") == files

    rules = {"unfinishedOlderThanSeconds": 0, "asked": ["batch_failed", "batch_kept"]}
    told = collected(root, **OLD, **rules, batches=True)
    assert sorted(ids(told["removed"])) == ["batch_failed", "batch_kept"]
    assert store.folders("runs") == ["batch_open"]
    assert store.list("api") == ["api/spaces/main/batches/batch_open/request.json", files[1]]


class Killed(BaseException):
    """The process has ended here."""


class Killing:
    """Lets so many changes of a store happen and no more."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch, changes: int) -> None:
        self.left = changes
        for name in ("create", "put", "delete", "sweep"):
            patch.setattr(store, name, self._counted(getattr(store, name)))

    def _counted(self, change: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            return change(*arguments)

        return counted


def killed_after(root: str, changes: int, patch: pytest.MonkeyPatch, **rules: Any) -> bool:
    """Whether gc had more to do than so many changes."""
    # One at a time, so that the changes have an order.
    patch.setattr(gc, "_AT_ONCE", 1)
    with patch.context() as patched:
        Killing(open_store(root), patched, changes)
        try:
            collected(root, **rules)
        except Killed:
            return True
    return False


def steps(root: str) -> range:
    """After how many changes to kill: a try in a bucket takes seconds, so there not each."""
    return range(0, 60, 1 if "://" not in root else 5)


def is_whole(store: Store, run_id: str) -> bool:
    return not verify_run(store, run_id).problems and bool(answers(store, run_id))


def is_gone(store: Store, run_id: str) -> bool:
    for read in (show_run, answers):
        with pytest.raises(RankflowError) as caught:
            read(store, run_id)
        assert caught.value.kind is ErrorType.NO_RESULTS
    codes = [problem["code"] for problem in verify_run(store, run_id).problems]
    listed = [run["runId"] for run in list_runs(store)]
    return (codes, stored_run(store, run_id)) == (["unknown_run"], {}) and run_id not in listed


def test_killed_at_any_point_a_run_is_whole_or_gone_and_the_next_one_ends_it(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It stays, as its schedule's.
    finished(root, tmp_path, "b").put("schedules/nightly/b.json", b"{}")
    states: list[str] = []
    for changes in steps(root):
        store = finished(root, tmp_path, "a")
        went_on = killed_after(root, changes, monkeypatch, **OLD)
        states.append("whole" if store.exists(manifest_key("a")) else "gone")
        assert is_whole(store, "a") if states[-1] == "whole" else is_gone(store, "a"), changes
        assert is_whole(store, "b")
        collected(root, **OLD)
        assert store.list("runs/a") == []
        if not went_on:
            break
    else:
        pytest.fail("it never ended")
    assert states == sorted(states, reverse=True)
    assert {"whole", "gone"} <= set(states)


def test_killed_at_any_point_a_batch_is_never_told_without_its_results(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(root)
    for changes in steps(root):
        finished(root, tmp_path, "batch_1")
        api_batch(store, "batch_1")
        went_on = killed_after(root, changes, monkeypatch, **OLD, batches=True)
        if store.list("api/spaces/main/files"):
            assert is_whole(store, "batch_1"), changes
        collected(root, **OLD, batches=True)
        assert store.list("runs") == store.list("api/spaces/main/files") == []
        if not went_on:
            break
    else:
        pytest.fail("it never ended")
    collected(root, batches=True, unfinishedOlderThanSeconds=0, asked=["batch_1"])
    assert store.list("api") == []


def test_killed_while_attempts_go_a_run_is_valid(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in steps(root):
        store = finished(root, tmp_path, "a")
        went_on = killed_after(root, changes, monkeypatch)
        assert is_whole(store, "a"), changes
        collected(root)
        assert not store.list("runs/a/attempts")
        assert is_whole(store, "a")
        store.remove_folder("runs/a")
        if not went_on:
            return
    pytest.fail("it never ended")


def test_a_run_that_is_half_gone_is_not_planned_anew_before_it_is_gone(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(root, tmp_path, "a")
    assert killed_after(root, 4, monkeypatch, **OLD)
    with pytest.raises(RankflowError) as caught:
        planned(root, tmp_path, "a")
    assert (caught.value.kind, "rankflow gc" in str(caught.value)) == (
        ErrorType.STORE_UNAVAILABLE,
        True,
    )
    # Without any rule: what was begun is ended.
    assert ids(collected(root)["removed"]) == ["a"]
    plan = planned(root, tmp_path, "a")
    assert store.list("runs/a/commits") == []
    finish(store, plan, plan.batch(0, 0))


def test_a_removal_that_had_not_begun_is_forgotten(root: str, tmp_path: Path) -> None:
    store = finished(root, tmp_path, "a", "batch_cancelled")
    store.put(removing_key("a"), b"{}")
    with pytest.raises(RankflowError) as caught:
        write_retry_input(store, "a", "retry")
    assert caught.value.kind is ErrorType.NO_RESULTS
    assert store.list("runs/retry") == []
    collected(root)
    assert not store.exists(removing_key("a"))
    assert write_retry_input(store, "a", "retry")["rows"] > 0


def between(patch: pytest.MonkeyPatch, store: Store, act: Any) -> None:
    """Has something happen after a removal was decided, when its mark is made."""
    create = store.create

    def created(key: str, data: bytes) -> bool:
        won = create(key, data)
        if key == removing_key("a"):
            patch.undo()
            act()
        return won

    patch.setattr(store, "create", created)


def test_a_retry_that_comes_up_meanwhile_keeps_its_run(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(root, tmp_path, "a", "batch_cancelled")
    # It has linked, and looks for the mark a moment later.
    act = lambda: store.put("runs/retry/retry-of.json", b'{"runId": "a"}')  # noqa: E731
    between(monkeypatch, store, act)
    told = collected(root, **OLD)
    assert told["kept"] == [{"runId": "a", "why": "retry retries it"}]
    assert told["removed"] == []
    assert not store.exists(removing_key("a"))
    assert is_whole(store, "a")


def test_a_run_that_is_gone_on_with_meanwhile_stays(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(root, tmp_path, "a")
    store = plan.store
    finish(store, plan, plan.batch(0, 0))

    def act() -> None:
        finish(store, plan, plan.batch(1, 0))
        finalize_run(store, "a")

    between(monkeypatch, store, act)
    told = collected(root, unfinishedOlderThanSeconds=0, asked=["a"])
    assert (told["removed"], is_whole(store, "a")) == ([], True)


def test_two_at_the_same_time_agree(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(root, tmp_path, "a")
    finished(root, tmp_path, "b")
    told: list[dict[str, Any]] = []
    between(monkeypatch, store, lambda: told.append(collected(root, keepLast=1)))
    told.append(collected(root, keepLast=1))
    assert [ids(one["removed"]) for one in told] == [["a"], ["a"]]
    assert store.folders("runs") == ["b"]
    assert is_whole(store, "b")


def test_who_was_overtaken_deletes_nothing_of_a_new_run_of_the_same_id(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = finished(root, tmp_path, "a")

    def act() -> None:
        collected(root, **OLD)
        finished(root, tmp_path, "a")

    between(monkeypatch, store, act)
    collected(root, **OLD)
    assert is_whole(store, "a")
    # The same a moment later, when its manifest has gone.
    delete = store.delete

    def deleted(key: str) -> None:
        delete(key)
        if key == manifest_key("a"):
            monkeypatch.undo()
            act()

    monkeypatch.setattr(store, "delete", deleted)
    collected(root, **OLD)
    assert is_whole(store, "a")


def test_a_finalizer_whose_attempts_are_collected_under_it_finds_the_run_finished(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(root, tmp_path, "a")
    store = plan.store
    for rank in range(2):
        finish(store, plan, plan.batch(rank, 0))
    read = store.read_attempt

    def overtaken(key: str) -> bytes:
        monkeypatch.undo()
        finalize_run(store, "a")
        whole = read(key)
        collected(root)
        # As when some segments of it were read before.
        return whole[:-1]

    monkeypatch.setattr(store, "read_attempt", overtaken)
    assert finalize_run(store, "a").succeeded == 4
    assert is_whole(store, "a")


def test_an_attempt_that_is_still_written_harms_nobody(root: str, tmp_path: Path) -> None:
    store = finished(root, tmp_path, "a", "batch_cancelled")
    zombie = store.append("runs/a/attempts/0001-000000/zombie.jsonl")
    zombie.write(b"{}\n")
    zombie.flush()
    collected(root)
    zombie.write(b"{}\n")
    zombie.close()
    assert is_whole(store, "a")
    collected(root)
    assert not store.list("runs/a/attempts")


def test_foreign_folders_are_left_alone(root: str) -> None:
    store = open_store(root)
    store.put("runs/_not a run/file", b"x")
    told = collected(root, **OLD, unfinishedOlderThanSeconds=0, asked=[])
    assert (told["removed"], store.read("runs/_not a run/file")) == ([], b"x")


def test_people_still_find_the_results_where_they_were(tmp_path: Path) -> None:
    store = finished(str(tmp_path / "store"), tmp_path, "a")
    before = (tmp_path / "store" / output_key("a")).read_bytes()
    collected(str(tmp_path / "store"))
    assert (tmp_path / "store" / output_key("a")).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "store/runs/a").iterdir() if path.is_dir()) == [
        *("commits", "final", "plan"),
    ]
    assert store.folders("runs/a/plan") != []
