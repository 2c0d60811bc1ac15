"""A line of a log is JSON that names the run, rank, batch and engine it is about."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankflow.engine.simulated import SimulatedBackend
from rankflow.logs import JsonLines, bound, log_as_json
from tests.engine.conftest import (
    RUN,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)

PROMPT = "a-prompt-that-nobody-may-see"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged while a test lasts, everything included."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonLines("engine", engine="small/slot-0/abc-1"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def parsed(text: io.StringIO) -> list[dict[str, Any]]:
    """The lines, each of which has to be JSON."""
    return [json.loads(line) for line in text.getvalue().splitlines()]


async def test_fields_that_are_bound_are_in_tasks_and_threads_too(lines: io.StringIO) -> None:
    log = logging.getLogger("test")

    async def in_a_task() -> None:
        await asyncio.to_thread(log.warning, "from %s", "a thread")

    with bound(run="r1"), bound(rank=3):
        await asyncio.create_task(in_a_task())
    log.info("outside")
    inside, outside = [line for line in parsed(lines) if line["logger"] == "test"]
    assert inside["msg"] == "from a thread"
    assert (inside["level"], inside["run"], inside["rank"]) == (40, "r1", 3)
    assert (inside["name"], inside["engine"]) == ("engine", "small/slot-0/abc-1")
    assert (outside["level"], "run" in outside) == (30, False)


def test_an_exception_stays_on_one_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("test").exception("it failed")
    (line,) = parsed(lines)
    assert (line["level"], line["msg"]) == (50, "it failed")
    assert "ValueError: first" in line["err"]["stack"]


def test_what_the_temporal_sdk_says_of_an_activity_names_its_run(lines: io.StringIO) -> None:
    log = logging.getLogger("temporalio.activity")
    log.warning("failed", extra={"temporal_activity": {"workflow_id": "run/r1/rank-2"}})
    log.warning("failed", extra={"temporal_activity": {"workflow_id": "fleet/small"}})
    of_rank, of_fleet = parsed(lines)
    assert (of_rank["run"], of_rank["rank"]) == ("r1", 2)
    assert "run" not in of_fleet


async def test_every_line_about_a_batch_names_it_and_none_holds_a_prompt(
    lines: io.StringIO, tmp_path: Path
) -> None:
    secret, refused = chat(0), chat(1)
    secret["body"]["messages"][0]["content"] = PROMPT
    refused["body"]["messages"][0]["content"] = PROMPT * 2000
    run = write_plan(tmp_path, [secret, refused], simulated_model())
    engine = await start_engine(run, SimulatedBackend(run.model))
    result = await attempt_environment(2).run(engine.generate_batch, run.given)
    assert result.failed_rows == 1
    said = [line for line in parsed(lines) if line["logger"] == "rankflow.engine.batch"]
    assert [line["msg"].rpartition(", in ")[0] for line in said] == [
        "committed 2 rows, 2 of them generated here"
    ]
    names = {name: said[0][name] for name in ("run", "rank", "batch", "attempt")}
    assert names == {"run": RUN, "rank": 0, "batch": 0, "attempt": 2}
    assert PROMPT not in lines.getvalue()


def test_a_process_logs_to_the_stream_that_it_is_given() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    text = io.StringIO()
    try:
        log_as_json("python-worker", text)
        logging.getLogger("test").info("hello")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert [line["name"] for line in parsed(text)] == ["python-worker"]
