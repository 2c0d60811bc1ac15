"""Coroutines that run on the event loop of another thread, many of them for one wake-up of it.

``asyncio.run_coroutine_threadsafe`` wakes the other thread for each call and is woken for each
result; with many small calls at once that is most of what they cost.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Outbox:
    """Callbacks for one event loop; those that come before it looks are run together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def put(self, callback: Callable[[], None]) -> None:
        """Have it called on the loop, in order. Any thread. Raises RuntimeError: it is closed."""
        with self._lock:
            if not self._waiting:
                self._loop.call_soon_threadsafe(self._run)
            self._waiting.append(callback)

    def _run(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for callback in waiting:
            # Not called here: one that raises must not keep the others from being called.
            self._loop.call_soon(callback)


class Crossing:
    """Runs coroutines on one loop for callers on others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._there = Outbox(loop)
        self._homes: dict[asyncio.AbstractEventLoop, Outbox] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start ``work`` over there; cancelling the future, which is the caller's, cancels it."""
        home = asyncio.get_running_loop()
        outbox = self._homes.get(home)
        if outbox is None:
            outbox = self._homes[home] = Outbox(home)
        future: asyncio.Future[T] = home.create_future()
        call = _Call(work, future, outbox)
        future.add_done_callback(partial(self._cancel, call))
        self._there.put(partial(call.start, self._loop))
        return future

    def _cancel(self, call: _Call, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            self._there.put(call.cancel)


class _Call:
    """One coroutine under way. Made and finished on the caller's loop, the rest is on the other."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], future: asyncio.Future[Any], home: Outbox
    ) -> None:
        self._work = work
        # What is logged or traced over there belongs to the caller.
        self._context = contextvars.copy_context()
        self._future = future
        self._home = home
        self._task: asyncio.Task[Any] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._work, context=self._context)
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._home.put(partial(self._finish, task))

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if self._future.done():
            # It was cancelled here; what came of it there is of no interest.
            if not task.cancelled():
                task.exception()
            return
        if task.cancelled():
            self._future.cancel()
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())
