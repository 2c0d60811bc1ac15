"""An engine that leaves: what fits is finished, the rest goes back, and little is decoded twice."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from rankflow.contracts.models import DrainInput, GenerateBatchResult
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.drain import MARGIN_SECONDS, Drain, DrainActivity
from rankflow.engine.host import EngineHost, GivenBack
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.store.salvage import salvage
from tests.engine.conftest import RUN, attempt_environment, chat, simulated_model, write_plan

ROWS = 40
Attempt = asyncio.Task[GenerateBatchResult]


class Scene:
    """A batch of 40 rows, 1 to 4 tokens each, and engines that decode four rows side by side.

    ``pace``: tokens a second of one engine, for all its rows together.
    """

    def __init__(self, root: Path, pace: float = 20) -> None:
        self.ledger = root / "ledger"
        self.model = simulated_model(tokens_per_second=pace, ledger=str(self.ledger))
        self.model.max_num_seqs = 4
        self.run = write_plan(root / "store", [chat(n) for n in range(ROWS)], self.model)

    async def engine(self) -> EngineHost:
        """A fresh engine, loaded."""
        host = EngineHost(lambda: SimulatedBackend(self.model))
        host.start()
        await host.wait_loaded()
        return host

    def attempt(self, host: EngineHost, number: int = 1) -> Attempt:
        """Start an attempt of the batch."""
        served = Served("test/slot-0/0-1", self.run.given.spec_hash)
        engine = BatchActivities(host, served, Contact())
        work = attempt_environment(number).run(engine.generate_batch, self.run.given)
        return asyncio.create_task(work)

    def finished(self) -> int:
        """Rows in the attempt files."""
        return len(salvage(self.run.store, RUN, 0, 0))

    def tokens(self) -> tuple[int, int]:
        """Tokens that were decoded, and those of the finished rows."""
        lines = [line for file in self.ledger.iterdir() for line in file.read_bytes().splitlines()]
        rows = salvage(self.run.store, RUN, 0, 0).values()
        return (
            sum(json.loads(line).get("decoded", 0) for line in lines),
            sum(row.counts.completion_tokens for row in rows),
        )


async def drain(host: EngineHost, attempt: Attempt, seconds: float) -> GivenBack:
    """Drain an engine while the attempt is its only work."""

    async def ended() -> None:
        await asyncio.wait({attempt})

    leaving = Drain(host)
    leaving.limit(seconds)
    return await asyncio.wait_for(leaving.run([asyncio.create_task(ended())]), 30)


async def until(scene: Scene, rows: int) -> None:
    """Wait for this many finished rows."""
    while scene.finished() < rows:  # noqa: ASYNC110 -- rows show in files
        await asyncio.sleep(0.02)


async def test_with_time_enough_a_batch_is_finished_and_nothing_goes_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    host = await scene.engine()
    attempt = scene.attempt(host)
    await until(scene, 4)
    assert await drain(host, attempt, MARGIN_SECONDS + 60) == (0, 0)
    assert (await attempt).generated_rows == ROWS


async def test_rows_that_would_not_fit_are_not_begun_and_those_begun_are_finished(
    tmp_path: Path,
) -> None:
    # A row takes at most 1.6 s, and none is begun in about the last 2 s.
    scene = Scene(tmp_path, pace=10)
    host = await scene.engine()
    attempt = scene.attempt(host)
    await until(scene, 4)
    given_back = await drain(host, attempt, MARGIN_SECONDS + 4)
    with pytest.raises(ApplicationError) as raised:
        await attempt
    assert raised.value.type == "EngineGone"
    assert not raised.value.non_retryable
    assert given_back.cut == 0
    assert given_back.waiting == ROWS - scene.finished() > 0
    decoded, kept = scene.tokens()
    assert decoded == kept
    again = await scene.attempt(await scene.engine(), 2)
    assert (again.salvaged_rows, again.generated_rows) == (
        ROWS - given_back.waiting,
        given_back.waiting,
    )
    # None of them had a token yet, but the journals do not know that: so much at most.
    assert again.redone is not None
    assert again.redone.rows == given_back.waiting
    assert again.redone.left_tokens == again.redone.tokens > 0


async def test_without_notice_time_finished_rows_are_kept_and_the_batch_is_tried_again_at_once(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path)
    host = await scene.engine()
    attempt = scene.attempt(host)
    await until(scene, 4)
    started = time.monotonic()
    given_back = await drain(host, attempt, 0)
    assert time.monotonic() - started < 1
    assert given_back.cut == 4
    assert given_back.waiting + given_back.cut == ROWS - scene.finished()
    with pytest.raises(ApplicationError) as raised:
        await attempt
    delay = raised.value.next_retry_delay
    assert delay is not None
    assert delay.total_seconds() < 0.1
    again = await scene.attempt(await scene.engine(), 2)
    assert again.salvaged_rows + again.generated_rows == ROWS
    assert again.salvaged_rows >= 4


async def test_a_batch_that_comes_after_the_end_goes_back_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    host = await scene.engine()
    host.closed = True
    with pytest.raises(ApplicationError) as raised:
        await scene.attempt(host)
    assert raised.value.type == "EngineGone"
    assert scene.finished() == 0


async def test_a_cancelled_row_is_cancelled_and_not_given_back(tmp_path: Path) -> None:
    host = await Scene(tmp_path).engine()
    row = chat(1)
    task = asyncio.create_task(host.answer(row["url"], row["body"], "a"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await host.give_back(waiting_only=False) == (0, 0)


async def test_the_activity_heartbeats_until_the_earliest_deadline(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    host = await scene.engine()
    attempt = scene.attempt(host)
    await until(scene, 4)
    leaving = Drain(host)
    running: list[asyncio.Future[GivenBack]] = []

    def begin(seconds: float) -> asyncio.Future[GivenBack]:
        leaving.limit(seconds)
        if not running:

            async def ended() -> None:
                await asyncio.wait({attempt})

            running.append(asyncio.create_task(leaving.run([asyncio.create_task(ended())])))
        return running[0]

    engine = DrainActivity(Served("test/slot-0/0-1", "hash"), begin)
    beats: list[object] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)

    def given(seconds: float) -> DrainInput:
        return DrainInput(spec_hash="hash", deadline=int((time.time() + seconds) * 1000))

    late = asyncio.create_task(environment.run(engine.drain, given(3600)))
    await asyncio.sleep(1.5)
    early = await ActivityEnvironment().run(engine.drain, given(0))
    assert (await late).cut_rows == early.cut_rows == 4
    assert beats
    assert attempt.exception() is not None


async def test_an_engine_of_another_model_refuses_to_be_drained() -> None:
    engine = DrainActivity(Served("test/slot-0/0-1", "hash"), lambda _: asyncio.Future())
    with pytest.raises(ApplicationError) as raised:
        await ActivityEnvironment().run(engine.drain, DrainInput(spec_hash="other", deadline=0))
    assert raised.value.type == "ModelMismatch"
