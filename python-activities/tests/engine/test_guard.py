"""No process of an engine outlives its actor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
