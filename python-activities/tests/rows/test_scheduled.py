"""Results of scheduled runs go where they are wanted, and only what is too old is removed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.finalize import finalize_run
from rankflow.rows.plan import load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.results import show_run
from rankflow.rows.retry import write_retry_input
from rankflow.rows.scheduled import Prune, Publish, prune, publish, size_of
from rankflow.store import Store, open_store
from rankflow.store.layout import removing_key, retry_link_key
from tests.rows.support import chat, finish, jsonl, spec

NOW = datetime(2030, 1, 10, 12, tzinfo=UTC)


def night(folder: Path, day: int, output: str | None = "{day}.jsonl", failing: bool = False) -> str:
    """A finished and published run of the schedule ``nightly``; returns its id."""
    rows = [chat("a"), chat("b") | ({"url": "/nowhere"} if failing else {})]
    run_id = f"nightly-2030-01-{day:02d}"
    asked = spec(folder, jsonl(rows), runId=run_id, onInvalid="record")
    plan_run(asked)
    store = open_store(asked.store)
    plan = load_plan(store, run_id)
    for part in plan.batches(0):
        finish(store, plan, part)
    finalize_run(store, run_id)
    publish(Publish.model_validate(asked_for(folder, day, output)))
    return run_id


def asked_for(folder: Path, day: int, output: str | None = None, **fields: Any) -> dict[str, Any]:
    to = {} if output is None else {"output": str(folder / "out" / output.format(day=day))}
    return {
        "store": str(folder / "store"),
        "schedule": "nightly",
        "runId": f"nightly-2030-01-{day:02d}",
        "nominal": f"2030-01-{day:02d}T02:00:00Z",
        **to,
        **fields,
    }


def pruned(folder: Path, day: int, **fields: Any) -> list[str]:
    return prune(Prune.model_validate(asked_for(folder, day, **fields)), NOW)["removed"]


def store_of(folder: Path) -> Store:
    return open_store(str(folder / "store"))


def test_results_are_copied_with_the_error_lines_beside_them(tmp_path: Path) -> None:
    night(tmp_path, 1, "{day}/answers.jsonl", failing=True)
    assert len((tmp_path / "out/1/answers.jsonl").read_bytes().splitlines()) == 1
    assert len((tmp_path / "out/1/answers.errors.jsonl").read_bytes().splitlines()) == 1


def test_a_run_without_results_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(RankflowError) as caught:
        publish(Publish.model_validate(asked_for(tmp_path, 1)))
    assert caught.value.kind is ErrorType.NO_RESULTS


def test_the_newest_runs_are_kept(tmp_path: Path) -> None:
    ids = [night(tmp_path, day) for day in range(1, 6)]
    assert pruned(tmp_path, 5, keepLast=2) == ids[:3]
    assert store_of(tmp_path).folders("runs") == ids[3:]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["4.jsonl", "5.jsonl"]
    assert pruned(tmp_path, 5, keepLast=2) == []


def test_runs_older_than_so_many_days_go(tmp_path: Path) -> None:
    ids = [night(tmp_path, day) for day in (1, 7, 8, 10)]
    assert pruned(tmp_path, 10, keepDays=3) == ids[:2]


def test_what_is_newer_than_the_run_itself_is_never_removed(tmp_path: Path) -> None:
    ids = [night(tmp_path, day) for day in (1, 2, 3, 4)]
    # A backfill of the second night comes late: by the days alone it and two newer ones were to go.
    assert pruned(tmp_path, 2, keepLast=1, keepDays=1) == ids[:1]
    assert store_of(tmp_path).folders("runs") == ids[1:]


def test_another_schedule_and_runs_by_hand_are_left_alone(tmp_path: Path) -> None:
    ids = [night(tmp_path, day) for day in (1, 2)]
    by_hand = spec(tmp_path, jsonl([chat("a")]), runId="nightly-2029-01-01")
    plan_run(by_hand)
    assert pruned(tmp_path, 2, keepLast=1) == ids[:1]
    assert store_of(tmp_path).folders("runs") == ["nightly-2029-01-01", ids[1]]


def test_a_run_that_another_one_retries_stays_until_that_one_is_gone(tmp_path: Path) -> None:
    ids = [night(tmp_path, day) for day in (1, 2)]
    store = store_of(tmp_path)
    # It links the run, whatever becomes of it.
    store.put(retry_link_key("retry"), json.dumps({"runId": ids[0]}).encode())
    told = prune(Prune.model_validate(asked_for(tmp_path, 2, keepLast=1)), NOW)
    assert told == {"removed": [], "kept": [{"runId": ids[0], "why": "retry retries it"}]}
    assert (tmp_path / "out/1.jsonl").is_file()
    assert show_run(store, ids[0])["state"] == "completed"
    # Nothing says any more that it is being removed.
    assert write_retry_input(store, ids[0], "another")["rows"] == 0
    store.remove_folder("runs/retry")
    assert pruned(tmp_path, 2, keepLast=1) == ids[:1]
    assert not (tmp_path / "out/1.jsonl").exists()


def test_a_retry_that_comes_while_a_run_goes_is_seen_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [night(tmp_path, day, failing=True) for day in (1, 2)]
    store = store_of(tmp_path)
    create, refused = store.create, list[ErrorType]()

    def marked(key: str, data: bytes) -> bool:
        created = create(key, data)
        if key == removing_key(ids[0]):
            with pytest.raises(RankflowError) as caught:
                write_retry_input(store, ids[0], "retry")
            refused.append(caught.value.kind)
        return created

    monkeypatch.setattr(store, "create", marked)
    assert pruned(tmp_path, 2, keepLast=1) == ids[:1]
    assert refused == [ErrorType.NO_RESULTS]
    assert not store.list("runs/retry")


@pytest.mark.parametrize("last", ["manifest.json", "_SUCCESS", "removing.json", "01-01.json"])
def test_what_was_broken_off_is_ended_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    ids = [night(tmp_path, day) for day in (1, 2)]
    store = store_of(tmp_path)

    def delete(key: str, whole: Callable[[str], None] = store.delete) -> None:
        if key.endswith(last):
            raise KeyboardInterrupt
        whole(key)

    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            pruned(tmp_path, 2, keepLast=1)
    assert pruned(tmp_path, 2, keepLast=1) == ids[:1]
    assert store.folders("runs") == ids[1:]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["2.jsonl"]


def test_a_copy_that_a_newer_run_replaced_stays(tmp_path: Path) -> None:
    for day in (1, 2):
        night(tmp_path, day, "latest.jsonl")
    assert len(pruned(tmp_path, 2, keepLast=1)) == 1
    assert (tmp_path / "out/latest.jsonl").is_file()


def test_the_size_of_an_input_tells_whether_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"abc")
    assert size_of(str(tmp_path / "there")) == 3
    assert size_of(str(tmp_path / "not-there")) is None
