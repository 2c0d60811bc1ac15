"""Forked processes that check rows side by side: one has the interpreter's lock for itself."""

import ctypes
import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

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
    this process goes on by itself.
    """
    # What is there stays where it is: a collection in a child would copy most of it.
    gc.freeze()
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_settle,
        initargs=(check, os.getpid()),
    )
    under_way: deque[tuple[Chunk, Future[Result] | None]] = deque()
    try:
        for chunk in chunks:
            under_way.append((chunk, _begin(pool, chunk)))
            if len(under_way) > processes * _AHEAD:
                yield _end(check, *under_way.popleft())
        while under_way:
            yield _end(check, *under_way.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(pool: ProcessPoolExecutor, chunk: Any) -> Future[Any] | None:
    try:
        return pool.submit(_run, chunk)
    except BrokenProcessPool:
        return None


def _end(check: Callable[[Chunk], Result], chunk: Chunk, future: Future[Result] | None) -> Result:
    if future is not None:
        try:
            return future.result()
        except BrokenProcessPool as error:
            log.warning("rows are checked in one process from here on: %s", error)
    return check(chunk)


_check: Callable[[Any], Any]


def _settle(check: Callable[[Any], Any], parent: int) -> None:
    global _check
    _check = check
    # The threads of the tokenizer stayed behind, and are not needed.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Nobody else would end it when the one that forked it is killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _run(chunk: Any) -> Any:
    return _check(chunk)
