"""What a batch promises: every row once, nothing paid for twice, refusals recorded."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from temporalio.exceptions import ApplicationError

from rankflow.contracts.models import BatchHeartbeat
from rankflow.engine import answering
from rankflow.engine.backend import Answer, BackendTrouble, ServerError
from rankflow.engine.lines import answered
from rankflow.engine.simulated import SimulatedBackend
from rankflow.store.attempt_lines import AttemptLine
from rankflow.store.commits import Commit, read_commit, try_commit
from rankflow.store.layout import attempt_key
from tests.engine.conftest import (
    RUN,
    PlannedRun,
    StartEngine,
    TroubledAtOneRow,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)


def committed_lines(run: PlannedRun) -> list[AttemptLine]:
    """Lines of the committed attempt, in row order."""
    commit = read_commit(run.store, RUN, 0, 0)
    assert commit is not None
    data = run.store.read_attempt(commit.path)
    lines = [msgspec.json.decode(line, type=AttemptLine) for line in data.splitlines()]
    return sorted(lines, key=lambda line: line.row)


def error_type(error: ApplicationError) -> str:
    """Type name of a Temporal error."""
    return str(error.type)


async def test_every_row_is_answered_once_and_committed(tmp_path: Path, start: StartEngine) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(20)], simulated_model())
    engine = await start(run)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    lines = committed_lines(run)
    assert [line.output["custom_id"] for line in lines] == [f"c{n}" for n in range(20)]
    assert (result.rows, result.generated_rows, result.salvaged_rows) == (20, 20, 0)
    assert result.completion_tokens == sum(line.completion_tokens for line in lines)
    assert not result.already_committed


async def test_a_committed_batch_is_not_generated_again(tmp_path: Path, start: StartEngine) -> None:
    run = write_plan(tmp_path, [chat(1)], simulated_model())
    engine = await start(run)
    await attempt_environment(1).run(engine.generate_batch, run.given)
    before = run.store.list("runs")
    again = await attempt_environment(2).run(engine.generate_batch, run.given)
    assert again.already_committed
    assert again.generated_rows == 0
    assert run.store.list("runs") == before


async def test_a_retry_takes_over_finished_rows_byte_for_byte(
    tmp_path: Path, start: StartEngine
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(4)], simulated_model())
    kept = answered(2, "c2", Answer(200, {"choices": ["kept"]}, 3, 5), "earlier").encode()
    with run.store.append(attempt_key(RUN, 0, 0, "wf-1-1")) as earlier:
        earlier.write(kept + b'{"row":3,"torn')
    engine = await start(run)
    result = await attempt_environment(2).run(engine.generate_batch, run.given)
    assert (result.salvaged_rows, result.generated_rows) == (1, 3)
    commit = read_commit(run.store, RUN, 0, 0)
    assert commit is not None
    assert kept in run.store.read_attempt(commit.path)


async def test_recorded_errors_become_error_lines_without_generation(
    tmp_path: Path, start: StartEngine
) -> None:
    bad = {"custom_id": "bad", "error": {"code": "invalid_json", "message": "no", "line": 2}}
    run = write_plan(tmp_path, [chat(0), bad], simulated_model())
    engine = await start(run)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    line = committed_lines(run)[1]
    assert result.failed_rows == 1
    assert line.failed
    assert line.output["error"] == bad["error"]
    assert line.output["response"] is None


async def test_a_refused_request_is_an_error_line_and_not_a_failure(
    tmp_path: Path, start: StartEngine
) -> None:
    model = simulated_model()
    model.max_model_len = 20
    long = chat(1)
    long["body"]["messages"][0]["content"] = "x" * 500
    run = write_plan(tmp_path, [chat(0), long], model)
    engine = await start(run)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    line = committed_lines(run)[1]
    assert result.failed_rows == 1
    assert line.output["response"]["status_code"] == 400


async def test_trouble_of_one_row_is_never_its_final_error(tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())

    engine = await start_engine(run, TroubledAtOneRow(run.model))
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment(1).run(engine.generate_batch, run.given)
    assert error_type(caught.value) == "EngineGone"
    assert not caught.value.non_retryable
    assert read_commit(run.store, RUN, 0, 0) is None
    healthy = await start_engine(run, SimulatedBackend(run.model))
    result = await attempt_environment(2).run(healthy.generate_batch, run.given)
    assert (result.salvaged_rows, result.generated_rows) == (2, 1)


class Failing(SimulatedBackend):
    """Answers row 1 with a 5xx, a number of times or without end."""

    times = 1 << 30
    broken = False

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        if request_id.endswith("-1") and self.times > 0:
            self.times -= 1
            error = {"message": "not servable", "type": "InternalServerError", "code": 500}
            raise ServerError(Answer(500, {"error": error}, 0, 0), "vLLM answered 500")
        return await super().answer(url, body, request_id)

    async def probe(self, request_id: str) -> None:
        if self.broken:
            raise BackendTrouble("the probe was refused")
        await super().probe(request_id)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SERVER_ERROR_PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("no_pauses")
async def test_a_row_that_a_healthy_engine_cannot_serve_becomes_an_error_line(
    tmp_path: Path,
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())
    engine = await start_engine(run, Failing(run.model))
    result = await attempt_environment().run(engine.generate_batch, run.given)
    assert (result.rows, result.failed_rows) == (3, 1)
    response = committed_lines(run)[1].output["response"]
    assert response["status_code"] == 500
    assert response["body"]["error"]["message"] == "not servable"


@pytest.mark.usefixtures("no_pauses")
async def test_a_passing_server_error_costs_no_row(tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())
    backend = Failing(run.model)
    backend.times = 2
    engine = await start_engine(run, backend)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    assert (result.generated_rows, result.failed_rows) == (3, 0)


@pytest.mark.usefixtures("no_pauses")
async def test_a_server_error_of_a_broken_engine_is_no_row_s_fault(tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())
    backend = Failing(run.model)
    backend.broken = True
    engine = await start_engine(run, backend)
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(engine.generate_batch, run.given)
    assert error_type(caught.value) == "EngineGone"
    assert read_commit(run.store, RUN, 0, 0) is None


async def test_rows_finished_before_the_engine_died_survive(
    tmp_path: Path, start: StartEngine
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(10)], simulated_model(die_after_rows=4))
    engine = await start(run)
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment(1).run(engine.generate_batch, run.given)
    assert error_type(caught.value) == "EngineGone"
    healthy = await start_engine(run, SimulatedBackend(simulated_model()))
    result = await attempt_environment(2).run(healthy.generate_batch, run.given)
    assert result.salvaged_rows == 4


async def test_rows_finished_before_a_cancellation_survive(
    tmp_path: Path, start: StartEngine
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(10)], simulated_model(hang_after_rows=4))
    engine = await start(run)
    environment = attempt_environment(1)
    task = asyncio.create_task(environment.run(engine.generate_batch, run.given))
    await asyncio.sleep(0.5)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    healthy = await start_engine(run, SimulatedBackend(simulated_model()))
    result = await attempt_environment(2).run(healthy.generate_batch, run.given)
    assert result.salvaged_rows == 4


async def test_the_loser_of_a_commit_race_gives_way(tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(1)], simulated_model())
    zombie = Commit(
        token="zombie", path="p", sha256="s", rows=1, failed_rows=0, prompt_tokens=7,
        completion_tokens=8, engine="other",
    )  # fmt: skip

    class Slow(SimulatedBackend):
        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            answer = await super().answer(url, body, request_id)
            try_commit(run.store, RUN, 0, 0, zombie)
            return answer

    engine = await start_engine(run, Slow(run.model))
    result = await attempt_environment().run(engine.generate_batch, run.given)
    assert result.already_committed
    assert (result.engine, result.completion_tokens) == ("other", 8)


async def test_an_engine_of_another_model_refuses_the_batch_for_good(
    tmp_path: Path, start: StartEngine
) -> None:
    run = write_plan(tmp_path, [chat(1)], simulated_model())
    engine = await start(run)
    other = run.given.model_copy(update={"spec_hash": "f" * 64})
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(engine.generate_batch, other)
    assert error_type(caught.value) == "ModelMismatch"
    assert caught.value.non_retryable


async def test_heartbeats_count_and_carry_no_prompt(tmp_path: Path, start: StartEngine) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model(tokens_per_second=4))
    engine = await start(run)
    environment = attempt_environment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.extend(details)
    await environment.run(engine.generate_batch, run.given)
    assert len(beats) >= 2
    assert all(isinstance(beat, BatchHeartbeat) for beat in beats)
    assert "question" not in json.dumps([beat.model_dump() for beat in beats])


async def test_heartbeats_go_on_while_the_engine_holds_up_its_loop(tmp_path: Path) -> None:
    blocked: list[tuple[float, float]] = []

    class Busy(SimulatedBackend):
        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            began = time.monotonic()
            time.sleep(4)  # noqa: ASYNC251 -- as a long step of an engine does
            blocked.append((began, time.monotonic()))
            return await super().answer(url, body, request_id)

    run = write_plan(tmp_path, [chat(1)], simulated_model())
    engine = await start_engine(run, Busy(run.model))
    environment = attempt_environment()
    beats: list[float] = []
    environment.on_heartbeat = lambda *_details: beats.append(time.monotonic())
    await environment.run(engine.generate_batch, run.given)
    ((began, ended),) = blocked
    assert len([beat for beat in beats if began < beat < ended]) >= 2
