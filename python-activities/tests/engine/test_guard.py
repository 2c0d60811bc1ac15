"""No process of an engine outlives its actor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_ACTOR = """
import subprocess, sys, time
from rankflow.engine.guard import guard_process_group
assert guard_process_group() is not None
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return status.rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_killing_the_actor_ends_its_children() -> None:
    with subprocess.Popen([sys.executable, "-c", _ACTOR], stdout=subprocess.PIPE) as actor:
        assert actor.stdout is not None
        child = int(actor.stdout.readline())
        assert _alive(child)
        os.kill(actor.pid, signal.SIGKILL)
        actor.wait()
        deadline = time.monotonic() + 5
        while _alive(child) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _alive(child)
