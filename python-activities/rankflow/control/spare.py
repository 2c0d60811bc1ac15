"""A child process that has imported vLLM already and waits for its task.

The import takes 13 to 30 seconds, longer than all else that a warm run does before its first row.
So after one task that needed it the next child is started ahead; one that nobody uses for
``IDLE_SECONDS`` ends, as it holds about 0.8 GB.

``python -m rankflow.control.spare`` imports, says so with a line, then reads one line, the
arguments of ``python -m`` as a JSON array, and becomes that; the rest of stdin is the task's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rankflow import garbage
from rankflow.contracts.models import ModelSpec

IDLE_SECONDS = 600.0
IDLE_PROCESSORS = 0.5
"""So much of the host's processors must be idle before the import begins. At the lowest priority it
takes 1 to 2 % from engines that compute on all of them, and then it takes as long as they do."""
_ENVIRONMENT = {
    "USE_TF": "0",
    "TOKENIZERS_PARALLELISM": "true",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
_READY = b"\nready\n"


def can_be_spared(spec: ModelSpec) -> bool:
    """Whether a task on this spec may run in a process that imported vLLM before it knew it.

    Hub address and token are read at import.
    """
    return spec.backend == "vllm" and spec.endpoint is None and spec.credentials is None


class Spare:
    """At most one child ahead. Its methods are called on one event loop."""

    def __init__(self, module: str = "rankflow.control.spare") -> None:
        """``module`` is what the child runs until it gets its task; another one in tests."""
        self._module = module
        self._child: asyncio.subprocess.Process | None = None
        self._imported: asyncio.Task[bytes] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def take(self) -> asyncio.subprocess.Process | None:
        """The child, now the caller's own; its first line of input is its arguments.

        None while it still imports: not every task needs vLLM, and one that does is as fast alone.
        """
        if self._child is None or self._imported is None or not self._imported.done():
            return None
        return self._let_go()

    def _let_go(self) -> asyncio.subprocess.Process | None:
        for one in (self._expiry, self._imported):
            if one is not None:
                one.cancel()
        child, self._child = self._child, None
        return child if child is not None and child.returncode is None else None

    async def prepare(self) -> None:
        """Start a child ahead unless there is one."""
        if self._child is not None and self._child.returncode is None:
            return
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT | os.environ,
            start_new_session=True,
        )
        assert self._child.stdout is not None
        self._imported = asyncio.create_task(self._child.stdout.readuntil(_READY))
        self._imported.add_done_callback(self._count_down)

    def _count_down(self, imported: asyncio.Task[bytes]) -> None:
        # Not before: until processors are idle it waits, and holds little.
        failed = imported.cancelled() or imported.exception() is not None
        # Nor for a child that was taken when it had just said that it is ready.
        if self._child is not None and self._imported is imported and not failed:
            self._expiry = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end)

    async def close(self) -> None:
        """End the child that waits, if there is one, and wait until it has."""
        child = self._child
        self._end()
        if child is not None:
            await child.wait()

    def _end(self) -> None:
        child = self._let_go()
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def wait_and_become() -> None:
    """Wait for a task and become it. Returns when stdin ends: the worker is gone."""
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    line = sys.stdin.buffer.readline()
    if line:
        module, *sys.argv[1:] = json.loads(line)
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def import_aside(module: str) -> None:
    """Import a module once processors are idle, in the time that no other process wants of them.

    Engines of the same host load or generate now. Only the thread that imports stands back: a
    process that does cannot step forward again, and the task is worth as much as any other. When
    the process that started this one ends meanwhile, nothing is imported.
    """
    parent = os.getppid()

    def work() -> None:
        # Where it cannot be had, the import is as important as all else.
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if wait_until_idle(_idle_seconds, lambda: os.getppid() == parent):
            with garbage.put_off():
                importlib.import_module(module)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def wait_until_idle(
    idle_seconds: Callable[[], float | None],
    wanted: Callable[[], bool] = lambda: True,
    pause: float = 2.0,
) -> bool:
    """Return when processors were idle enough over a pause, or when that is not wanted any more.

    Args:
        idle_seconds: what they have been idle so far, together; None where nobody can tell.
        wanted: whether somebody waits for it, which is what is returned then.
        pause: seconds between two looks.
    """
    before = idle_seconds()
    while before is not None and wanted():
        time.sleep(pause)
        now = idle_seconds()
        if now is None or now - before >= IDLE_PROCESSORS * pause:
            break
        before = now
    return wanted()


def _idle_seconds() -> float | None:
    try:
        # cpu user nice system idle iowait ...
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
    except (OSError, ValueError):
        return None
    # Some sandboxes show nothing but zeros.
    return sum(ticks[3:5]) / os.sysconf("SC_CLK_TCK") if any(ticks) else None


def main() -> None:
    """Import vLLM, then wait."""
    import_aside("rankflow.rows.openai")
    wait_and_become()


if __name__ == "__main__":
    main()
