"""What a store that is slow, broken or full costs a batch: time, and no row that was finished."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import BatchHeartbeat
from rankflow.engine import answering, batch, watch, work
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.store import local_files
from rankflow.store import object as bucket
from rankflow.store.commits import read_commit
from rankflow.store.object import BucketStore
from tests.bucket_server import BucketServer, Fault
from tests.engine.conftest import (
    RUN,
    StartEngine,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)

SLOW_SECONDS = 1.2


def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and heartbeat 20 times a second."""
    for module in (watch, answering):
        monkeypatch.setattr(module, "TICK_SECONDS", 0.05)


def open_files(folder: Path) -> list[Path]:
    """The files of a folder that this process holds open."""
    held = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return [file for file in map(Path.readlink, held) if file.is_relative_to(folder)]


def slowed(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call from a store that takes its time."""

    def slow(*args: Any, **named: Any) -> Any:
        time.sleep(SLOW_SECONDS)
        return call(*args, **named)

    return slow


@pytest.mark.parametrize("slow", ["load_plan", "salvage", "fsync", "try_commit"])
async def test_heartbeats_go_on_while_the_store_is_slow(
    tmp_path: Path, start: StartEngine, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())
    engine = await start(run)
    quick_ticks(monkeypatch)
    monkeypatch.setattr(Contact, "age", 0.0)
    if slow == "fsync":
        monkeypatch.setattr(os, "fsync", slowed(os.fsync))
    else:
        module = batch if slow == "load_plan" else work
        monkeypatch.setattr(module, slow, slowed(getattr(module, slow)))
    environment = attempt_environment()
    # As short a time-out as a slow call is long: a lease that counts the waiting would be lost.
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=1))
    beats = [time.monotonic()]
    environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
    result = await environment.run(engine.generate_batch, run.given)
    beats.append(time.monotonic())
    assert beats[-1] - beats[0] > SLOW_SECONDS
    assert max(after - before for before, after in pairwise(beats)) < 0.6
    assert result.generated_rows == 3


async def test_a_store_that_never_answers_is_given_up(
    tmp_path: Path, start: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_plan(tmp_path, [chat(1)], simulated_model())
    engine = await start(run)
    quick_ticks(monkeypatch)
    monkeypatch.setattr(watch, "STORE_SECONDS", 0.3)
    monkeypatch.setattr(batch, "load_plan", slowed(batch.load_plan))
    with pytest.raises(ApplicationError, match="has not answered") as caught:
        await attempt_environment().run(engine.generate_batch, run.given)
    assert (caught.value.type, caught.value.non_retryable) == ("StoreUnavailable", False)


async def test_a_look_for_other_attempts_that_fails_ends_no_attempt(
    tmp_path: Path, start: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model(tokens_per_second=6))
    engine = await start(run)
    looks: list[None] = []

    def away(*_: object) -> bool:
        looks.append(None)
        raise RankflowError(ErrorType.STORE_UNAVAILABLE, "the store cannot be listed")

    monkeypatch.setattr(answering, "SUPERSEDED_SECONDS", 0.05)
    monkeypatch.setattr(answering, "superseded", away)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    assert len(looks) > 1
    assert result.generated_rows == 3


@pytest.mark.parametrize(
    ("code", "kind", "final"),
    [
        (errno.EIO, "StoreUnavailable", False),
        (errno.EROFS, "StoreUnavailable", False),
        (errno.ESTALE, "StoreUnavailable", False),
        (errno.ENOSPC, "StoreFull", True),
        (errno.EDQUOT, "StoreFull", True),
    ],
)
async def test_a_write_that_fails_costs_no_row_that_was_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: str, final: bool
) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(12)], simulated_model(tokens_per_second=12))
    engine = await start_engine(run, SimulatedBackend(run.model))
    write_all = local_files.write_all
    flushes: list[None] = []

    def breaks(descriptor: int, data: bytes) -> None:
        flushes.append(None)
        if len(flushes) < 3:
            write_all(descriptor, data)
            return
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(local_files, "write_all", breaks)
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment(1).run(engine.generate_batch, run.given)
    assert (caught.value.type, caught.value.non_retryable) == (kind, final)
    assert open_files(tmp_path) == []
    assert read_commit(run.store, RUN, 0, 0) is None
    monkeypatch.setattr(local_files, "write_all", write_all)
    healthy = await start_engine(run, SimulatedBackend(simulated_model()))
    # A workflow that paused schedules another activity, which has a name of its own.
    result = await attempt_environment(1, "2").run(healthy.generate_batch, run.given)
    assert result.salvaged_rows >= 2
    assert result.salvaged_rows + result.generated_rows == 12


async def test_a_bucket_that_is_away_for_a_while_costs_no_attempt(
    s3: str, server: BucketServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bucket.RETRIES, "max_retries", 0)
    monkeypatch.setattr(BucketStore, "flush_seconds", 0.1)
    quick_ticks(monkeypatch)
    run = write_plan(s3, [chat(n) for n in range(12)], simulated_model(tokens_per_second=15))
    engine = await start_engine(run, SimulatedBackend(run.model))
    away = [
        Fault("status", path="/attempts/", times=8),
        Fault("status", method="GET", path="/attempts/", times=3),
        Fault("lose-answer", path="/attempts/", times=2),
    ]
    server.proxy.faults += away
    environment = attempt_environment()
    beats: list[BatchHeartbeat] = []
    environment.on_heartbeat = beats.append
    result = await environment.run(engine.generate_batch, run.given)
    assert [fault.times for fault in away] == [0, 0, 0]
    assert (result.generated_rows, result.salvaged_rows) == (12, 0)
    troubles = {beat.trouble for beat in beats if beat.trouble is not None}
    assert any("503" in trouble and "/attempts/" in trouble for trouble in troubles)
    assert beats[-1].trouble is None


async def test_a_batch_cut_off_from_its_bucket_goes_back_in_the_end(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bucket.RETRIES, "max_retries", 0)
    monkeypatch.setattr(BucketStore, "flush_seconds", 0.1)
    monkeypatch.setattr("rankflow.engine.attempt.PATIENCE_SECONDS", 0.5)
    run = write_plan(s3, [chat(n) for n in range(3)], simulated_model())
    engine = await start_engine(run, SimulatedBackend(run.model))
    server.proxy.faults.append(Fault("status", path="/attempts/", times=999))
    with pytest.raises(ApplicationError, match="503") as caught:
        await attempt_environment().run(engine.generate_batch, run.given)
    assert (caught.value.type, caught.value.non_retryable) == ("StoreUnavailable", False)


def test_a_disk_that_is_really_full_is_gone_on_with_when_it_has_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    scenario = f"{sys.executable} -m tests.engine.full_disk {disk}"
    script = f"mount -t tmpfs -o size=4m none {disk} && exec {scenario}"
    done = subprocess.run(
        [*namespace, "sh", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "salvaged" in done.stdout
