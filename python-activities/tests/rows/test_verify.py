"""A finished run that was checked is whole: whatever is broken in its files is found and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankflow.rows.finalize import Missing, finalize_run
from rankflow.rows.manifest import Manifest, read_manifest
from rankflow.rows.plan import Plan, load_plan
from rankflow.rows.planner import plan_run
from rankflow.rows.verification import Verification
from rankflow.rows.verify import verify_run
from rankflow.store import Store, open_store
from rankflow.store.commits import read_commit
from rankflow.store.layout import (
    commit_key,
    errors_key,
    manifest_key,
    output_key,
    plan_key,
    rank_table_key,
    success_key,
)
from tests.rows.support import attempt, chat, finish, jsonl, spec

RUN = "run-1"


def planned(root: str, folder: Path) -> tuple[Store, Plan]:
    """Two ranks, four rows a batch; one row is invalid, and another repeats an id."""
    rows = [chat(f"id-{n}") for n in range(20)]
    rows[2]["url"] = "/nowhere"
    rows[9]["custom_id"] = "id-4"
    asked = spec(folder, jsonl(rows), store=root, ranks=2, batch={"maxRows": 4}, onInvalid="record")
    plan_run(asked)
    store = open_store(root)
    return store, load_plan(store, RUN)


def finished(root: str, folder: Path, missing: Missing = "refuse") -> Store:
    """A run that was assembled; one that ended early has one commit and one open attempt."""
    store, plan = planned(root, folder)
    if missing == "refuse":
        for rank in range(len(plan.ranks)):
            for part in plan.batches(rank):
                finish(store, plan, part)
    else:
        finish(store, plan, plan.batch(0, 0))
        attempt(store, plan, plan.batch(1, 0), "open", rows=[10, 11])
    finalize_run(store, RUN, missing)
    return store


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty store."""
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "store")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one completed run."""
    return finished(str(tmp_path / "store"), tmp_path)


def codes(found: Verification) -> set[str]:
    return {problem["code"] for problem in found.problems}


def manifest_of(store: Store) -> Manifest:
    manifest = read_manifest(store, RUN)
    assert manifest is not None
    return manifest


def change_manifest(store: Store, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(store.read(manifest_key(RUN)))
    change(document)
    store.put(manifest_key(RUN), json.dumps(document).encode())


def rewrite_output(store: Store, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the lines of the output as a wrong assembly would: hashes and sizes fit."""
    path = manifest_of(store).output.path
    data = b"".join(change(store.read(path).splitlines(keepends=True)))
    store.put(path, data)
    store.put(output_key(RUN), data)

    def fit(document: dict[str, Any]) -> None:
        document["output"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

    change_manifest(store, fit)


def change_commit(store: Store, **fields: Any) -> None:
    key = commit_key(RUN, 0, 0)
    store.put(key, json.dumps(json.loads(store.read(key)) | fields).encode())


def test_a_whole_run_is_valid_and_counted(root: str, tmp_path: Path) -> None:
    found = verify_run(finished(root, tmp_path), RUN)
    assert found.problems == []
    assert found.as_json() == {
        "runId": RUN,
        "valid": True,
        "state": "completed",
        "rows": 20,
        "succeeded": 18,
        "failed": 2,
        "batches": 6,
        "committed": 6,
        "attemptsCollected": False,
        "totalProblems": 0,
        "problems": [],
    }


@pytest.mark.parametrize("missing", ["batch_cancelled", "batch_expired"])
def test_a_run_that_ended_early_is_valid_with_what_it_had(
    root: str, tmp_path: Path, missing: Missing
) -> None:
    found = verify_run(finished(root, tmp_path, missing), RUN)
    assert found.problems == []
    assert (found.rows, found.succeeded, found.failed) == (20, 5, 15)
    assert (found.batches, found.committed) == (6, 1)


def test_a_run_without_manifest_or_without_anything_is_not_valid(tmp_path: Path) -> None:
    store, _ = planned(str(tmp_path / "store"), tmp_path)
    assert codes(verify_run(store, RUN)) == {"manifest_missing"}
    assert codes(verify_run(store, "never-heard-of")) == {"unknown_run"}


def cut(key: Callable[[Store], str]) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        store.put(key(store), store.read(key(store))[:-1])

    return change


def flip(key: Callable[[Store], str]) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        data = bytearray(store.read(key(store)))
        data[len(data) // 2] ^= 1
        store.put(key(store), bytes(data))

    return change


def remove(key: Callable[[Store], str]) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        store.delete(key(store))

    return change


def attempt_of(store: Store) -> str:
    commit = read_commit(store, RUN, 0, 0)
    assert commit is not None
    return commit.path


def manifest_says(**fields: Any) -> Callable[[Store], None]:
    def change(store: Store) -> None:
        change_manifest(store, lambda document: document.update(fields))

    return change


def output(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Store], None]:
    return lambda store: rewrite_output(store, change)


def commit_says(**fields: Any) -> Callable[[Store], None]:
    return lambda store: change_commit(store, **fields)


def shift_rank(store: Store) -> None:
    change_manifest(store, lambda document: document["ranks"][1].update(outputOffset=1))


def another_answer(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b"answer 0", b"answer 1"), *lines[1:]]


def unknown_id(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"id-0"', b'"id-x"'), *lines[1:]]


def table(store: Store) -> str:
    return rank_table_key(RUN, load_plan(store, RUN).document.token, 1)


def requests(store: Store) -> str:
    return load_plan(store, RUN).requests_key


BREAKS: list[tuple[str, Callable[[Store], None], set[str]]] = [
    ("manifest cut", cut(lambda _: manifest_key(RUN)), {"manifest_corrupt"}),
    ("manifest gone", remove(lambda _: manifest_key(RUN)), {"manifest_missing"}),
    ("manifest of another plan", manifest_says(specHash="0" * 64), {"manifest_mismatch"}),
    ("manifest counts rows", manifest_says(succeeded=17), {"counts"}),
    ("manifest counts tokens", manifest_says(completionTokens=1), {"counts"}),
    ("manifest shifts a rank", shift_rank, {"rank_ranges"}),
    ("output gone", remove(lambda s: manifest_of(s).output.path), {"file_missing"}),
    ("published output gone", remove(lambda _: output_key(RUN)), {"file_missing"}),
    ("success marker gone", remove(lambda _: success_key(RUN)), {"file_missing"}),
    ("published errors cut", cut(lambda _: errors_key(RUN)), {"file_size", "file_changed"}),
    ("row missing", output(lambda lines: lines[1:]), {"rows_missing"}),
    ("row twice", output(lambda lines: [lines[0], *lines]), {"rows_repeated"}),
    ("row unknown", output(unknown_id), {"rows_missing", "rows_unknown"}),
    ("rows swapped", output(lambda lines: [lines[1], lines[0], *lines[2:]]), {"rows_order"}),
    ("answer exchanged", output(another_answer), {"answer_changed"}),
    ("attempt gone", remove(attempt_of), {"attempt_missing"}),
    ("attempt changed", flip(attempt_of), {"attempt_changed"}),
    ("commit gone", remove(lambda _: commit_key(RUN, 1, 2)), {"commit_missing"}),
    ("commit cut", cut(lambda _: commit_key(RUN, 1, 2)), {"commit_corrupt"}),
    ("commit counts", commit_says(promptTokens=1), {"commit_counts"}),
    ("plan gone", remove(lambda _: plan_key(RUN)), {"plan_missing"}),
    ("plan cut", cut(lambda _: plan_key(RUN)), {"plan_corrupt"}),
    ("table changed", flip(table), {"plan_corrupt"}),
    ("requests changed", flip(requests), {"requests_changed"}),
]


@pytest.mark.parametrize(
    ("change", "expected"), [(c, e) for _, c, e in BREAKS], ids=[name for name, _, _ in BREAKS]
)
def test_each_break_is_found_and_nothing_else_is_claimed(
    store: Store, change: Callable[[Store], None], expected: set[str]
) -> None:
    assert verify_run(store, RUN).problems == []
    change(store)
    assert codes(verify_run(store, RUN)) == expected


def test_an_output_that_rotted_shows_in_all_its_names(store: Store) -> None:
    # The published name is the same file on a file system.
    flip(lambda s: manifest_of(s).output.path)(store)
    assert "file_changed" in codes(verify_run(store, RUN))


def test_a_commit_that_nobody_planned_is_found(store: Store) -> None:
    store.put(commit_key(RUN, 7, 0), store.read(commit_key(RUN, 0, 0)))
    assert codes(verify_run(store, RUN)) == {"commit_unplanned"}


def test_all_problems_are_told_at_once(store: Store) -> None:
    for name in ("success marker gone", "attempt changed", "manifest counts rows"):
        next(change for known, change, _ in BREAKS if known == name)(store)
    assert codes(verify_run(store, RUN)) == {"file_missing", "attempt_changed", "counts"}


def test_problems_name_rows_and_never_what_was_asked(store: Store) -> None:
    for _, change, _ in BREAKS[10:13]:
        change(store)
    text = json.dumps(verify_run(store, RUN).as_json())
    assert "id-" in text
    assert "colour" not in text
