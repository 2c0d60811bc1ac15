"""Nothing of an engine outlives its actor."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

_ENGINE_CORE = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(worker.pid, flush=True)
time.sleep(60)
"""
_ACTOR = f"""
import subprocess, sys, time
from rankflow.engine.guard import guard_process_group
assert guard_process_group()
subprocess.Popen([sys.executable, "-c", {_ENGINE_CORE!r}])
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("children_first", [False, True])
def test_killing_the_actor_ends_its_children_and_theirs(children_first: bool) -> None:
    """A Ray worker without its raylet kills its direct children first: the watcher must survive."""
    with subprocess.Popen([sys.executable, "-c", _ACTOR], stdout=subprocess.PIPE) as actor:
        assert actor.stdout is not None
        worker = int(actor.stdout.readline())
        assert _alive(worker)
        if children_first:
            for child in psutil.Process(actor.pid).children():
                child.kill()
        os.kill(actor.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while _alive(worker) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _alive(worker)


_WITH_MEMORY = """
import sys, time
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(create=True, size=1 << 20)
print(memory.name, flush=True)
time.sleep(60)
"""
_WITH_SEMAPHORE = """
import time
from multiprocessing import get_context
lock = get_context("spawn").Lock()
print("sem." + lock._semlock.name.removeprefix("/"), flush=True)
time.sleep(60)
"""
_ACTOR_OF_ONE = """
import subprocess, sys, time
from rankflow.engine.guard import guard_process_group
assert guard_process_group()
core = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(core.pid, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def _engine_with(core: str) -> Generator[tuple[subprocess.Popen[str], int, Path]]:
    """An actor, the pid of its child, which runs ``core``, and what that has in shared memory.

    Python's own process that removes shared memory is killed, as it is with a whole group.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _ACTOR_OF_ONE, core], stdout=subprocess.PIPE, text=True
    ) as actor:
        assert actor.stdout is not None
        said = {actor.stdout.readline().strip(), actor.stdout.readline().strip()}
        (pid,) = (int(word) for word in said if word.isdigit())
        (name,) = (word for word in said if not word.isdigit())
        for tracker in psutil.Process(pid).children():
            tracker.kill()
        file = Path("/dev/shm", name)
        assert file.exists()
        yield actor, pid, file


@pytest.mark.parametrize("core_first", [False, True])
@pytest.mark.parametrize("code", [_WITH_MEMORY, _WITH_SEMAPHORE])
def test_shared_memory_of_a_killed_engine_is_removed(code: str, core_first: bool) -> None:
    with _engine_with(code) as (actor, core, file):
        if core_first:
            # Longer than the watcher takes to look again: nobody has it when the actor ends.
            time.sleep(7)
            os.kill(core, signal.SIGKILL)
        actor.kill()
        deadline = time.monotonic() + 20
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not file.exists()


def test_shared_memory_that_another_process_uses_stays() -> None:
    with (
        _engine_with(_WITH_MEMORY) as (actor, core, file),
        file.open("r+b") as opened,
        mmap.mmap(opened.fileno(), 0),
    ):
        actor.kill()
        # Collected, so that its group is gone when its child is.
        actor.wait()
        deadline = time.monotonic() + 10
        while _alive(core) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        assert file.exists()
        file.unlink()
