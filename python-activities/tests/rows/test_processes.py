"""Rows that are checked in several processes come out as if one had checked them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import RunSpec
from rankflow.rows import claims, processes
from rankflow.rows.planner import plan_run, validate_run
from rankflow.rows.problems import RowProblem
from rankflow.rows.processes import in_order, processes_for
from rankflow.store import open_store
from rankflow.store.layout import requests_key
from tests.rows.support import chat, model_folder, spec

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of few rows."""
    monkeypatch.setattr(claims, "_CHUNK_ROWS", 7)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes for any input."""
    monkeypatch.setattr(processes, "SIDE_BY_SIDE_BYTES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


def a_line(rng: random.Random, number: int) -> bytes:
    """A good row, mostly; ids come again, near and far."""
    rows: list[Any] = [
        chat(f"row-{number}"),
        chat(f"row-{number}", "long " * 5000),
        chat(f"row-{rng.randrange(number + 1)}"),
        chat(f"line-{number + rng.randrange(-3, 4)}"),
        chat(f"row-{rng.randrange(number + 1)}", stream=True),
        chat(f"row-{rng.randrange(number + 1)}", "long " * 5000),
        chat(None, model="another"),
        chat("k\udfff"),
        [number],
    ]
    row = rows[0] if rng.random() < 0.7 else rng.choice(rows)
    text = json.dumps(row).encode()
    return text[:-1] if rng.random() < 0.03 else text


def planned(asked: RunSpec) -> tuple[Any, bytes]:
    """Summary and requests of a plan."""
    summary = plan_run(asked)
    store = open_store(asked.store)
    token = json.loads(store.read(f"runs/{asked.run_id}/plan.json"))["token"]
    return summary, store.read(requests_key(asked.run_id, token))


def told(asked: RunSpec) -> Any:
    """All that is said of an input that is refused."""
    with pytest.raises(RankflowError) as caught:
        validate_run(asked)
    return str(caught.value), caught.value.details


@pytest.mark.parametrize("seed", range(5))
def test_plan_and_problems_are_those_of_one_process(
    tmp_path: Path, request: pytest.FixtureRequest, seed: int
) -> None:
    rng = random.Random(seed)
    data = b"\n".join(a_line(rng, number) for number in range(400))
    asked = spec(tmp_path, data, onInvalid="record")
    refusing = asked.model_copy(update={"on_invalid": "refuse"})
    alone = planned(asked), told(refusing)
    request.getfixturevalue("two")
    beside = asked.model_copy(update={"store": str(tmp_path / "beside")})
    assert (planned(beside), told(refusing)) == alone
    assert alone[0][0].invalid_rows > 20


def test_the_real_tokenizer_and_vllms_checks_are_in_every_process(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    constraint = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    rows = [
        chat(f"row-{n}", f"{n} " * n, **({"response_format": constraint} if n % 3 else {}))
        for n in range(60)
    ]
    rows[30] = chat("row-30", temperature=-1)
    data = b"\n".join(json.dumps(row).encode() for row in rows)
    model = {"model": str(model_folder())}
    asked = spec(tmp_path, data, model=model, onInvalid="record")
    alone = planned(asked)
    assert alone[0].invalid_rows == 1
    request.getfixturevalue("two")
    assert planned(asked.model_copy(update={"store": str(tmp_path / "beside")})) == alone


@pytest.mark.usefixtures("two")
def test_a_model_that_cannot_be_loaded_is_told_as_ever(tmp_path: Path) -> None:
    asked = spec(tmp_path, json.dumps(chat("a")).encode(), model={"model": "/no/such/model"})
    with pytest.raises(RankflowError) as caught:
        validate_run(asked)
    assert caught.value.kind is ErrorType.ENGINE_ARGUMENTS_INVALID


def test_results_come_in_order_from_as_many_processes() -> None:
    def check(number: int) -> tuple[int, int]:
        time.sleep(0.02 if number % 2 else 0.0)
        return number, os.getpid()

    found = list(in_order(check, iter(range(40)), 2))
    assert [number for number, _ in found] == list(range(40))
    workers = {pid for _, pid in found}
    assert len(workers) == 2 and os.getpid() not in workers


def test_when_processes_are_killed_the_rest_is_checked_here() -> None:
    def check(chunk: tuple[int, bytes]) -> tuple[int, bytes]:
        number, text = chunk
        if number in (17, 40) and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, text

    here = os.getpid()
    # Larger than what a pipe holds.
    chunks = [(number, bytes([number]) * 500_000) for number in range(60)]
    assert list(in_order(check, iter(chunks), 2)) == chunks


def test_one_that_is_killed_while_it_writes_holds_nobody_up() -> None:
    def check(number: int) -> tuple[int, int, bytes]:
        return number, os.getpid(), b"x" * 50_000_000

    here = os.getpid()
    found: list[int] = []
    for number, pid, _ in in_order(check, iter(range(40)), 2):
        found.append(number)
        if pid != here:
            # It has begun with the next one, whose result takes many reads.
            time.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
    assert found == list(range(40))


def test_what_a_check_raises_arrives() -> None:
    def check(number: int) -> int:
        raise RowProblem("code", "message")

    with pytest.raises(RowProblem, match="message") as caught:
        list(in_order(check, iter(range(3)), 2))
    assert caught.value.code == "code"


def test_processes_end_with_the_one_that_forked_them() -> None:
    script = (
        "import os, time\n"
        "from rankflow.rows.processes import in_order\n"
        "def check(n):\n"
        "    time.sleep(0.01)\n"
        "    return os.getpid()\n"
        "for pid in in_order(check, iter(range(10**9)), 2):\n"
        "    print(pid, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        workers = {int(parent.stdout.readline()) for _ in range(20)}
        assert len(workers) == 2
        parent.kill()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.1)
    pytest.fail("processes outlived the one that forked them")


def test_small_inputs_and_single_processors_need_no_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert processes_for(MIB, None) == 0
    assert processes_for(100 * MIB, 10) == 0
    assert processes_for(100 * MIB, None) == processes.MOST_PROCESSES
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert processes_for(100 * MIB, None) == 0
