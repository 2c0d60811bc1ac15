"""A batch on a disk that fills up and is emptied: run by its test on a small disk of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from temporalio.exceptions import ApplicationError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.simulated import SimulatedBackend
from rankflow.store.commits import read_commit
from rankflow.store.room import check_room
from tests.engine.conftest import (
    RUN,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)

ROWS = 24


async def scenario(disk: Path) -> None:
    """Fill the disk while rows are generated, fail, make room, and go on."""
    run = write_plan(disk, [chat(n) for n in range(ROWS)], simulated_model(tokens_per_second=25))
    engine = await start_engine(run, SimulatedBackend(run.model))
    attempt = asyncio.create_task(attempt_environment(1).run(engine.generate_batch, run.given))
    await asyncio.sleep(1.0)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            print("the disk is full")
    try:
        await attempt
        raise AssertionError("the attempt did not notice the full disk")
    except ApplicationError as error:
        assert (error.type, error.non_retryable) == (ErrorType.STORE_FULL, True), error
    assert read_commit(run.store, RUN, 0, 0) is None
    try:
        check_room(run.store, RUN)
        raise AssertionError("a full disk was said to have room")
    except RankflowError as error:
        assert error.kind is ErrorType.STORE_FULL, error
    filler.unlink()
    free = check_room(run.store, RUN)
    assert free is not None
    assert free > 3 << 20
    assert not (disk / "runs" / RUN / "room-probe").exists()
    result = await attempt_environment(1, "2").run(engine.generate_batch, run.given)
    assert 0 < result.salvaged_rows < ROWS
    assert result.salvaged_rows + result.generated_rows == ROWS
    commit = read_commit(run.store, RUN, 0, 0)
    assert commit is not None
    assert run.store.read_attempt(commit.path).count(b"\n") == ROWS
    print(f"{result.salvaged_rows} of {ROWS} rows salvaged")


if __name__ == "__main__":
    asyncio.run(scenario(Path(sys.argv[1])))
