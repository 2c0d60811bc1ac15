"""A request that kills its engine each time becomes one error row, and every other row is answered.

Each attempt runs in an engine process of its own that really dies, or hangs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rankflow.engine.suspicion import LONE_DEATHS, SUSPECT_DEATHS
from rankflow.store.attempt_lines import AttemptLine
from rankflow.store.commits import read_commit
from tests.engine.conftest import RUN, PlannedRun, chat, simulated_model, write_plan
from tests.engine.process import run_attempt

MOST_ATTEMPTS = 30


class Attempts:
    """Attempts one after the other, as Temporal and the rank's workflow make them."""

    def __init__(self, run: PlannedRun, faults: dict[str, Any], stalled: float = 60.0) -> None:
        self.deaths = 0
        self.refusals: list[str] = []
        self._run = run
        self._faults = faults
        self._stalled = stalled

    def until_committed(self) -> None:
        """Try until the batch is committed; fails when it never is."""
        alone = False
        for number in range(1, MOST_ATTEMPTS):
            outcome = run_attempt(self._run.given.store, number, alone, self._faults, self._stalled)
            if outcome.killed:
                self.deaths += 1
            elif outcome.error is None:
                return
            else:
                self.refusals.append(outcome.error)
                alone = alone or outcome.error == "SuspectBatch"
        pytest.fail(f"not committed after {MOST_ATTEMPTS} attempts")


def poisoned(rows: int, poison: set[int], root: Path, **engine_args: Any) -> PlannedRun:
    """A batch of some rows with the word arsenic."""
    lines = [chat(number) for number in range(rows)]
    for number in poison:
        lines[number]["body"]["messages"][0]["content"] = f"arsenic {number}"
    return write_plan(root, lines, simulated_model(tokens_per_second=1e6, **engine_args))


def failed_rows(run: PlannedRun) -> dict[int, dict[str, Any]]:
    """Failed rows of the committed batch; every row is in it once."""
    commit = read_commit(run.store, RUN, 0, 0)
    assert commit is not None
    data = run.store.read_attempt(commit.path)
    lines = [msgspec.json.decode(line, type=AttemptLine) for line in data.splitlines()]
    assert sorted(line.row for line in lines) == list(range(commit.rows))
    assert "arsenic" not in json.dumps([line.output for line in lines if line.failed])
    return {line.row: line.output for line in lines if line.failed}


@pytest.mark.parametrize("poison", [set[int](), {0}, {37}, {5, 6}, {3, 20, 39}])
def test_each_poison_row_is_one_error_row_and_the_others_are_answered(
    tmp_path: Path, poison: set[int]
) -> None:
    run = poisoned(40, poison, tmp_path)
    attempts = Attempts(run, {"poison": "arsenic"})
    attempts.until_committed()
    failed = failed_rows(run)
    assert set(failed) == poison
    assert {output["error"]["code"] for output in failed.values()} <= {"engine_died"}
    assert {output["custom_id"] for output in failed.values()} == {f"c{row}" for row in poison}
    groups = len({row // 16 for row in poison})
    most = SUSPECT_DEATHS + groups + LONE_DEATHS * len(poison) if poison else 0
    assert attempts.deaths == most
    assert attempts.refusals == (["SuspectBatch"] if poison else [])


def test_a_batch_of_one_poison_row_ends_too(tmp_path: Path) -> None:
    run = poisoned(1, {0}, tmp_path)
    attempts = Attempts(run, {"poison": "arsenic"})
    attempts.until_committed()
    assert set(failed_rows(run)) == {0}
    assert attempts.deaths == SUSPECT_DEATHS + LONE_DEATHS


def test_a_row_that_hangs_its_engine_is_found_as_one_that_kills_it(tmp_path: Path) -> None:
    run = poisoned(20, {13}, tmp_path)
    attempts = Attempts(run, {"poison": "arsenic", "poison_hangs": True}, stalled=1.5)
    attempts.until_committed()
    assert set(failed_rows(run)) == {13}
    assert attempts.deaths == 0
    # Two ordinary attempts, the refusal, its group and twice the row alone.
    assert attempts.refusals == ["EngineGone"] * 2 + ["SuspectBatch"] + ["EngineGone"] * 3
