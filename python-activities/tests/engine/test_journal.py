"""An attempt says what it hands over before it does, and how it ended unless its process dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine import journal as journal_module
from rankflow.engine import watch as watch_module
from rankflow.engine.backend import Answer, BackendTrouble
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.drain import Drain
from rankflow.engine.host import EngineHost
from rankflow.engine.journal import Journal
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.engine.suspicion import GROUP_ROWS, MAX_DEATHS
from rankflow.store.commits import read_commit
from rankflow.store.journals import AttemptJournal, End, JournalEntry, read_journals
from rankflow.store.layout import journal_key, journals_prefix
from rankflow.store.local import LocalStore
from rankflow.store.salvage import salvage
from tests.engine.conftest import (
    RUN,
    PlannedRun,
    StartEngine,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)


def planned(root: Path, rows: int = 4, **engine_args: Any) -> PlannedRun:
    """A batch of some rows."""
    return write_plan(root, [chat(n) for n in range(rows)], simulated_model(**engine_args))


def journal_of(run: PlannedRun) -> AttemptJournal:
    """The only journal of the batch."""
    (journal,) = read_journals(run.store, RUN, 0, 0)
    return journal


def remembered(run: PlannedRun, *entries: JournalEntry) -> None:
    """What an earlier attempt wrote of the batch."""
    for number, entry in enumerate(entries):
        key = journal_key(RUN, 0, 0, f"{entry.engine}-9-1", number)
        run.store.create(key, entry.model_dump_json(exclude_defaults=True).encode())


async def failure(run: PlannedRun, backend: SimulatedBackend, alone: bool = False) -> str:
    """Type of the error that an attempt raises."""
    engine = await start_engine(run, backend)
    given = run.given.model_copy(update={"alone": alone})
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(engine.generate_batch, given)
    return str(caught.value.type)


async def test_rows_are_journalled_before_the_engine_gets_one(tmp_path: Path) -> None:
    run = planned(tmp_path)
    seen: list[frozenset[int]] = []

    class Looking(SimulatedBackend):
        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            seen.append(journal_of(run).handed)
            return await super().answer(url, body, request_id)

    engine = await start_engine(run, Looking(run.model))
    await attempt_environment().run(engine.generate_batch, run.given)
    assert seen == [frozenset(range(4))] * 4
    assert journal_of(run).engine == "test/slot-0/0-1"


async def test_a_cancelled_attempt_says_so(tmp_path: Path, start: StartEngine) -> None:
    run = planned(tmp_path, hang_after_rows=1)
    engine = await start(run)
    environment = attempt_environment()
    task = asyncio.create_task(environment.run(engine.generate_batch, run.given))
    await asyncio.sleep(0.5)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal_of(run).end is End.RELEASED


async def test_an_attempt_of_an_engine_that_leaves_says_so_and_what_is_done(
    tmp_path: Path,
) -> None:
    run = planned(tmp_path, hang_after_rows=2)
    host = EngineHost(lambda: SimulatedBackend(run.model))
    host.start()
    await host.wait_loaded()
    engine = BatchActivities(host, Served("test/slot-0/0-1", run.given.spec_hash), Contact())
    environment = attempt_environment()
    beats: list[Any] = []
    environment.on_heartbeat = lambda *details: beats.extend(details)
    task = asyncio.create_task(environment.run(engine.generate_batch, run.given))
    await asyncio.sleep(0.5)
    assert beats[-1].rows_done == 0
    leaving = Drain(host)
    leaving.limit(0)

    async def ended() -> None:
        await asyncio.wait({task})

    await leaving.run([asyncio.create_task(ended())])
    with pytest.raises(ApplicationError) as caught:
        await task
    assert (caught.value.type, caught.value.non_retryable) == ("EngineGone", False)
    assert journal_of(run).end is End.RELEASED
    assert beats[-1].rows_done == 2


async def test_the_death_of_the_backend_is_told_as_one(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert await failure(run, SimulatedBackend(simulated_model(die_after_rows=2))) == "EngineGone"
    assert journal_of(run).end is End.DIED


async def test_an_engine_that_makes_no_step_is_told_as_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "STALLED_SECONDS", 0.5)
    run = planned(tmp_path)
    assert await failure(run, SimulatedBackend(simulated_model(hang_after_rows=2))) == "EngineGone"
    assert journal_of(run).end is End.HUNG


async def test_rows_without_an_answer_are_no_death(tmp_path: Path) -> None:
    run = planned(tmp_path)

    class Troubled(SimulatedBackend):
        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            raise BackendTrouble("vLLM answered 500 InternalServerError")

    assert await failure(run, Troubled(run.model)) == "EngineGone"
    assert journal_of(run).end is End.RELEASED


async def test_an_end_that_the_store_refuses_is_written_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.05)
    full = True

    class SometimesFull(LocalStore):
        def create(self, key: str, data: bytes) -> bool:
            if b"released" in data and full:
                raise RankflowError(ErrorType.STORE_UNAVAILABLE, "no space left on device")
            return super().create(key, data)

    store = SometimesFull(tmp_path)
    with pytest.raises(RankflowError, match="elsewhere"):
        async with Journal(store, RUN, 0, 0, "t-1-1", "f/slot-0/n-1", False) as journal:
            await journal.hand([1, 2])
            raise RankflowError(ErrorType.LEASE_LOST, "elsewhere")
    (seen,) = read_journals(store, RUN, 0, 0)
    assert seen.end is None
    full = False
    for _ in range(100):
        await asyncio.sleep(0.05)
        (seen,) = read_journals(store, RUN, 0, 0)
        if seen.end is not None:
            break
    assert seen.end is End.RELEASED


def lone_death(engine: str, row: int) -> JournalEntry:
    """An engine that had one row alone and died."""
    return JournalEntry(engine=engine, alone=True, deaths=[], handed=[(row, row)])


def witness(*engines: str) -> JournalEntry:
    """An attempt that found out that these died."""
    return JournalEntry(engine="w", alone=False, deaths=[f"{e}-9-1" for e in engines], end=None)


async def test_an_engine_that_dies_of_anything_accuses_no_row(tmp_path: Path) -> None:
    run = planned(tmp_path)
    remembered(run, lone_death("a", 2))
    remembered(run, witness("a"))

    class Broken(SimulatedBackend):
        async def probe(self, request_id: str) -> None:
            self._dead = True
            self._pass_fault_points()

    assert await failure(run, Broken(run.model), alone=True) == "EngineGone"
    (own,) = [j for j in read_journals(run.store, RUN, 0, 0) if j.token == "wf-1-1"]
    assert own.end is End.DIED
    assert own.handed == frozenset({0, 1, 3})
    healthy = await start_engine(run, SimulatedBackend(run.model))
    given = run.given.model_copy(update={"alone": True})
    result = await attempt_environment(2).run(healthy.generate_batch, given)
    assert (result.failed_rows, result.salvaged_rows, result.generated_rows) == (0, 3, 1)


async def test_what_one_group_finished_is_durable_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a bucket: nothing is flushed by itself while the batch is short.
    monkeypatch.setattr(LocalStore, "flush_seconds", 60.0)
    run = planned(tmp_path, rows=GROUP_ROWS + 1)
    durable: list[int] = []

    class Looking(SimulatedBackend):
        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            durable.append(len(salvage(run.store, RUN, 0, 0)))
            return await super().answer(url, body, request_id)

    engine = await start_engine(run, Looking(run.model))
    given = run.given.model_copy(update={"alone": True})
    await attempt_environment().run(engine.generate_batch, given)
    assert durable == [0] * GROUP_ROWS + [GROUP_ROWS]


async def test_a_row_that_the_engine_gave_back_is_not_accused_of_its_later_death(
    tmp_path: Path,
) -> None:
    run = planned(tmp_path)
    remembered(run, JournalEntry(engine="a", alone=True, handed=[(0, 3)]))
    remembered(run, witness("a"))

    class Troubled(SimulatedBackend):
        """Gives the first row back, and dies before the second."""

        async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
            self._dead = True
            raise BackendTrouble("vLLM answered 500 InternalServerError")

        async def probe(self, request_id: str) -> None:
            self._pass_fault_points()

    assert await failure(run, Troubled(run.model), alone=True) == "EngineGone"
    (own,) = [j for j in read_journals(run.store, RUN, 0, 0) if j.token == "wf-1-1"]
    assert (own.end, own.handed) == (End.DIED, frozenset())


async def test_a_batch_that_kills_too_many_engines_fails_and_no_row_does(tmp_path: Path) -> None:
    run = planned(tmp_path, rows=MAX_DEATHS + 1)
    for row in range(MAX_DEATHS):
        entry = lone_death(f"wf-{row}", row)
        run.store.create(journal_key(RUN, 0, 0, f"wf-{row}-1", 0), entry.model_dump_json().encode())
    found_out = JournalEntry(engine="w", alone=False, deaths=[f"wf-{n}-1" for n in range(64)])
    remembered(run, found_out)
    backend = SimulatedBackend(run.model)
    assert await failure(run, backend, alone=True) == "TooManyEngineDeaths"
    assert read_commit(run.store, RUN, 0, 0) is None
    assert backend.progress == 0


async def test_a_suspect_batch_is_refused_unless_it_is_alone(
    tmp_path: Path, start: StartEngine
) -> None:
    run = planned(tmp_path)
    for engine in ("a", "b"):
        remembered(run, JournalEntry(engine=engine, alone=False, handed=[(0, 3)]))
    remembered(run, witness("a", "b"))
    engine = await start(run)
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(engine.generate_batch, run.given)
    assert (caught.value.type, caught.value.non_retryable) == ("SuspectBatch", True)
    given = run.given.model_copy(update={"alone": True})
    result = await attempt_environment(2).run(engine.generate_batch, given)
    assert (result.generated_rows, result.failed_rows) == (4, 0)


async def test_a_committed_batch_has_no_use_for_an_end(tmp_path: Path, start: StartEngine) -> None:
    run = planned(tmp_path)
    engine = await start(run)
    await attempt_environment().run(engine.generate_batch, run.given)
    assert len(run.store.list(journals_prefix(RUN, 0, 0))) == 1
