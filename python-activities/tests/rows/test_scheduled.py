"""Results of scheduled runs go where they are wanted, and only what is too old is removed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Place:
    """Where a test has its store and the copies of results; inputs are files in ``folder``."""

    root: str
    folder: Path

    @property
    def store(self) -> Store:
        return open_store(f"{self.root}/store")

    @property
    def copies(self) -> list[str]:
        return [key.removeprefix("out/") for key in open_store(self.root).list("out")]

    def rows(self, copy: str) -> int:
        return len(open_store(self.root).read(f"out/{copy}").splitlines())


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    root = request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path)
    return Place(root, tmp_path)


def night(place: Place, day: int, output: str | None = "{day}.jsonl", failing: bool = False) -> str:
    """A finished and published run of the schedule ``nightly``; returns its id."""
    rows = [chat("a"), chat("b") | ({"url": "/nowhere"} if failing else {})]
    run_id = f"nightly-2030-01-{day:02d}"
    to = f"{place.root}/store"
    asked = spec(place.folder, jsonl(rows), runId=run_id, onInvalid="record", store=to)
    plan_run(asked)
    plan = load_plan(place.store, run_id)
    for part in plan.batches(0):
        finish(place.store, plan, part)
    finalize_run(place.store, run_id)
    publish(Publish.model_validate(asked_for(place, day, output)))
    return run_id


def asked_for(place: Place, day: int, output: str | None = None, **fields: Any) -> dict[str, Any]:
    to = {} if output is None else {"output": f"{place.root}/out/{output.format(day=day)}"}
    return {
        "store": f"{place.root}/store",
        "schedule": "nightly",
        "runId": f"nightly-2030-01-{day:02d}",
        "nominal": f"2030-01-{day:02d}T02:00:00Z",
        **to,
        **fields,
    }


def pruned(place: Place, day: int, **fields: Any) -> list[str]:
    return prune(Prune.model_validate(asked_for(place, day, **fields)), NOW)["removed"]


def test_results_are_copied_with_the_error_lines_beside_them(place: Place) -> None:
    night(place, 1, "{day}/answers.jsonl", failing=True)
    assert place.copies == ["1/answers.errors.jsonl", "1/answers.jsonl"]
    assert [place.rows(copy) for copy in place.copies] == [1, 1]


def test_a_copy_is_replaced_by_that_of_another_run_with_the_same_address(place: Place) -> None:
    night(place, 1, "latest.jsonl", failing=True)
    night(place, 2, "latest.jsonl")
    assert place.rows("latest.jsonl") == 2


def test_a_run_without_results_is_not_published(place: Place) -> None:
    with pytest.raises(RankflowError) as caught:
        publish(Publish.model_validate(asked_for(place, 1)))
    assert caught.value.kind is ErrorType.NO_RESULTS


def test_the_newest_runs_are_kept(place: Place) -> None:
    ids = [night(place, day) for day in range(1, 6)]
    assert pruned(place, 5, keepLast=2) == ids[:3]
    assert place.store.folders("runs") == ids[3:]
    assert place.copies == ["4.jsonl", "5.jsonl"]
    assert pruned(place, 5, keepLast=2) == []


def test_runs_older_than_so_many_days_go(place: Place) -> None:
    ids = [night(place, day) for day in (1, 7, 8, 10)]
    assert pruned(place, 10, keepDays=3) == ids[:2]


def test_what_is_newer_than_the_run_itself_is_never_removed(place: Place) -> None:
    ids = [night(place, day) for day in (1, 2, 3, 4)]
    # A backfill of the second night comes late: by the days alone it and two newer ones were to go.
    assert pruned(place, 2, keepLast=1, keepDays=1) == ids[:1]
    assert place.store.folders("runs") == ids[1:]


def test_another_schedule_and_runs_by_hand_are_left_alone(place: Place) -> None:
    ids = [night(place, day) for day in (1, 2)]
    to = f"{place.root}/store"
    by_hand = spec(place.folder, jsonl([chat("a")]), runId="nightly-2029-01-01", store=to)
    plan_run(by_hand)
    assert pruned(place, 2, keepLast=1) == ids[:1]
    assert place.store.folders("runs") == ["nightly-2029-01-01", ids[1]]


def test_a_run_that_another_one_retries_stays_until_that_one_is_gone(place: Place) -> None:
    ids = [night(place, day) for day in (1, 2)]
    store = place.store
    # It links the run, whatever becomes of it.
    store.put(retry_link_key("retry"), json.dumps({"runId": ids[0]}).encode())
    told = prune(Prune.model_validate(asked_for(place, 2, keepLast=1)), NOW)
    assert told == {"removed": [], "kept": [{"runId": ids[0], "why": "retry retries it"}]}
    assert place.copies == ["1.jsonl", "2.jsonl"]
    assert show_run(store, ids[0])["state"] == "completed"
    # Nothing says any more that it is being removed.
    assert write_retry_input(store, ids[0], "another")["rows"] == 0
    store.remove_folder("runs/retry")
    assert pruned(place, 2, keepLast=1) == ids[:1]
    assert place.copies == ["2.jsonl"]


def test_a_retry_that_comes_while_a_run_goes_is_seen_or_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [night(place, day, failing=True) for day in (1, 2)]
    store = place.store
    create, refused = store.create, list[ErrorType]()

    def marked(key: str, data: bytes) -> bool:
        created = create(key, data)
        if key == removing_key(ids[0]):
            with pytest.raises(RankflowError) as caught:
                write_retry_input(store, ids[0], "retry")
            refused.append(caught.value.kind)
        return created

    monkeypatch.setattr(store, "create", marked)
    assert pruned(place, 2, keepLast=1) == ids[:1]
    assert refused == [ErrorType.NO_RESULTS]
    assert not store.list("runs/retry")


@pytest.mark.parametrize("last", ["manifest.json", "_SUCCESS", "removing.json", "01-01.json"])
def test_what_was_broken_off_is_ended_by_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    ids = [night(place, day) for day in (1, 2)]
    store = place.store

    def delete(key: str, whole: Callable[[str], None] = store.delete) -> None:
        if key.endswith(last):
            raise KeyboardInterrupt
        whole(key)

    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", delete)
        with pytest.raises(KeyboardInterrupt):
            pruned(place, 2, keepLast=1)
    assert pruned(place, 2, keepLast=1) == ids[:1]
    assert store.folders("runs") == ids[1:]
    assert place.copies == ["2.jsonl"]


def test_a_copy_that_a_newer_run_replaced_stays(place: Place) -> None:
    for day in (1, 2):
        night(place, day, "latest.jsonl")
    assert len(pruned(place, 2, keepLast=1)) == 1
    assert place.copies == ["latest.jsonl"]


def test_the_size_of_an_input_tells_whether_it_is_there(place: Place) -> None:
    open_store(place.root).put("in/there", b"abc")
    assert size_of(f"{place.root}/in/there") == 3
    assert size_of(f"{place.root}/in/not-there") is None
