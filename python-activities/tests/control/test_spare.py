"""The child that is started ahead does the next task, once, and leaves when nobody needs it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

from rankflow.contracts.errors import ErrorType
from rankflow.contracts.models import CheckEngineArgumentsInput, ModelSpec
from rankflow.control.process import run_child
from rankflow.control.spare import Spare, can_be_spared, import_aside, wait_until_idle
from tests.control import spared

PACKAGES = Path(__file__).parents[2]
"""Where ``rankflow`` and ``tests`` lie: a script outside does not find them by itself."""
SPARED = "tests.control.spared"
"""Like the spare child, without vLLM's import; its task answers with its process id."""


async def ask(spare: Spare) -> spared.Who:
    """Run the task."""
    given = CheckEngineArgumentsInput(model=ModelSpec(model="m"))
    return await run_child(
        ["tests.control.who", "answer"],
        given,
        spared.Who,
        otherwise=ErrorType.STORE_UNAVAILABLE,
        beat=lambda: None,
        spare=spare,
    )


async def imported(spare: Spare) -> None:
    """Wait until the child ahead could take a task."""
    for _ in range(200):
        task = spare._imported  # pyright: ignore[reportPrivateUsage]
        if task is not None and task.done():
            return
        await asyncio.sleep(0.05)
    pytest.fail("the child ahead never said that it is ready")


async def test_the_second_task_runs_in_the_child_that_was_started_ahead() -> None:
    spare = Spare(SPARED)
    try:
        first = await ask(spare)
        await imported(spare)
        second = await ask(spare)
        await imported(spare)
        third = await ask(spare)
        assert not first.ahead
        assert second.ahead and third.ahead
        assert second.pid != third.pid
        assert second.argument == "answer" and second.model == "m"
    finally:
        await spare.close()


async def test_a_child_that_nobody_uses_ends_some_time_after_its_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankflow.control.spare.IDLE_SECONDS", 0.1)
    importing, ready = Spare("tests.control.never_ready"), Spare(SPARED)
    try:
        await importing.prepare()
        await ready.prepare()
        child = ready._child  # pyright: ignore[reportPrivateUsage]
        assert child is not None
        assert await asyncio.wait_for(child.wait(), 30) == -signal.SIGKILL
        # The other one still waits for processors.
        waiting = importing._child  # pyright: ignore[reportPrivateUsage]
        assert waiting is not None and waiting.returncode is None
    finally:
        await importing.close()
        await ready.close()


async def test_no_task_waits_for_the_import_of_the_child_ahead() -> None:
    spare = Spare("tests.control.never_ready")
    try:
        await spare.prepare()
        assert not (await ask(spare)).ahead
    finally:
        await spare.close()


async def test_a_child_ahead_that_died_is_not_missed() -> None:
    spare = Spare(SPARED)
    try:
        await spare.prepare()
        await imported(spare)
        child = spare._child  # pyright: ignore[reportPrivateUsage]
        assert child is not None
        child.kill()
        await child.wait()
        assert not (await ask(spare)).ahead
    finally:
        await spare.close()


async def test_a_spare_child_ends_with_its_worker(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        "import asyncio, os\n"
        "from rankflow.control.spare import Spare\n"
        "async def main():\n"
        f"    spare = Spare({SPARED!r})\n"
        "    await spare.prepare()\n"
        "    print(spare._child.pid, flush=True)\n"
        "    os._exit(0)\n"
        "asyncio.run(main())\n"
    )
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(PACKAGES)},
    )
    out, _ = await worker.communicate()
    for _ in range(100):
        if not is_alive(int(out)):
            return
        await asyncio.sleep(0.1)
    pytest.fail("the child outlived its worker")


def test_the_import_takes_no_time_from_others_and_the_task_has_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankflow.control.spare.IDLE_PROCESSORS", 0.0)
    import_aside("tests.control.imported_aside")
    from tests.control import imported_aside

    assert imported_aside.policy == os.SCHED_IDLE
    assert imported_aside.thread != os.getpid()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert not imported_aside.collecting
    assert gc.isenabled()


def test_the_import_waits_until_engines_leave_it_processors() -> None:
    # Half of a processor over a hundredth of a second is 0.005 s.
    looks = iter([10.0, 10.001, 10.005, 10.009, 10.015, 99.0])
    wait_until_idle(lambda: next(looks), pause=0.01)
    assert list(looks) == [99.0]
    # Where nobody can tell it does not wait.
    assert wait_until_idle(lambda: None)


def test_the_import_is_given_up_with_the_worker_that_wanted_it() -> None:
    left = iter([True, True, False, False])
    assert not wait_until_idle(lambda: 1.0, lambda: next(left), pause=0.01)
    assert list(left) == []


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z" and pid != os.getpid()


def test_what_the_import_reads_must_not_come_after_it() -> None:
    assert can_be_spared(ModelSpec(model="m"))
    assert not can_be_spared(ModelSpec(model="m", endpoint="https://hub.example"))
    assert not can_be_spared(ModelSpec(model="m", backend="simulated"))
