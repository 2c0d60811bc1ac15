"""Forked processes that check rows side by side: one has the interpreter's lock for itself."""

import contextlib
import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)

SIDE_BY_SIDE_BYTES = 4 * 1024 * 1024
"""Inputs below it are checked before processes would be there."""
MOST_PROCESSES = 8
"""More wait for the one that reads, writes and compares ids."""
_AHEAD = 3
"""Chunks under way for each process."""
_FEW_ROWS = 2048
_PR_SET_PDEATHSIG = 1

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def processes_for(size: int, limit: int | None) -> int:
    """How many processes check an input of so many bytes and, if limited, rows; 0 for none."""
    if size < SIDE_BY_SIDE_BYTES or (limit is not None and limit < _FEW_ROWS):
        return 0
    if sys.platform != "linux":
        return 0
    processors = len(os.sched_getaffinity(0))
    return 0 if processors == 1 else min(MOST_PROCESSES, processors)


def in_order(
    check: Callable[[Chunk], Result], chunks: Iterable[Chunk], processes: int
) -> Iterator[Result]:
    """``map(check, chunks)``, side by side in processes that are forked from this one, now.

    What ``check`` has loaded they have too. When one of them is killed, for want of memory say,
    its chunks are checked here. No result is None.
    """
    # What is there stays where it is: a collection in a child would copy most of it.
    gc.freeze()
    children = _Children(check, processes)
    threads = ThreadPoolExecutor(processes)
    under_way: deque[tuple[Chunk, Future[Result | None]]] = deque()

    def end(chunk: Chunk, asked: Future[Result | None]) -> Result:
        found = asked.result()
        return check(chunk) if found is None else found

    try:
        for chunk in chunks:
            under_way.append((chunk, threads.submit(children.ask, chunk)))
            if len(under_way) > processes * _AHEAD:
                yield end(*under_way.popleft())
        while under_way:
            yield end(*under_way.popleft())
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        # A thread that waits for one of them is let go.
        children.kill()
        threads.shutdown()


class _Children(Generic[Chunk, Result]):
    """Each has a pipe of its own, whose far end nobody else holds: when one ends, that shows.

    With one pipe for all, as executors have it, one that is killed while it writes blocks all.
    """

    def __init__(self, check: Callable[[Chunk], Result], count: int) -> None:
        fork = multiprocessing.get_context("fork")
        self._free: SimpleQueue[Connection | None] = SimpleQueue()
        self._processes: list[BaseProcess] = []
        for _ in range(count):
            here, there = fork.Pipe()
            child = fork.Process(target=_serve, args=(check, there, os.getpid()), daemon=True)
            child.start()
            there.close()
            self._processes.append(child)
            self._free.put(here)

    def ask(self, chunk: Chunk) -> Result | None:
        """What a child says of a chunk; None when it died of it, or raised. Any thread."""
        link = self._free.get()
        usable: Connection | None = None
        try:
            if link is not None:
                link.send(chunk)
                found = link.recv()
                usable = link
                return found
        except (EOFError, OSError):
            log.warning("a process that checks rows is gone: its part is checked in another")
        finally:
            # Also in the place of one that is gone: who comes next must not wait for it.
            self._free.put(usable)
        return None

    def kill(self) -> None:
        for child in self._processes:
            child.kill()
        for child in self._processes:
            child.join()


def _serve(check: Callable[[Any], Any], link: Connection, parent: int) -> None:
    # The threads of the tokenizer stayed behind, and are not needed.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Nobody else would end it when the one that forked it is killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            chunk = link.recv()
            try:
                found = check(chunk)
            except Exception:
                # Not every error can be sent: it is raised where the chunk is checked again.
                found = None
            link.send(found)
