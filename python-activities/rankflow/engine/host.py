"""The backend on a thread and loop of its own, so that a busy engine starves no heartbeat."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import uvloop

from rankflow import garbage
from rankflow.contracts.models import ModelSpec
from rankflow.engine.backend import Answer, Backend, BackendDead, BackendTrouble, ModelFacts
from rankflow.engine.crossing import Crossing

log = logging.getLogger(__name__)

BackendFactory = Callable[[], Backend]

RATE_SECONDS = 30.0
"""The pace of an engine is that of its last answers, over this time."""


class GivenBack(NamedTuple):
    """Requests that were ended so that another engine answers them."""

    waiting: int
    """Before a token of them was there: nothing is lost."""
    cut: int
    """While they were being decoded: their tokens are lost."""


def backend_factory(spec: ModelSpec, slot: int) -> BackendFactory:
    """How to make the backend that a spec asks for; called on the engine's thread."""

    def vllm() -> Backend:
        from rankflow.engine.environment import check_model_folder, prepare_environment
        from rankflow.engine.prefork import fork_from_server, forks, start_server

        check_model_folder(spec)
        prepare_environment(spec, slot)
        if forks(spec):
            start_server()
            fork_from_server()
        # Imports vLLM: many seconds, and only after the environment is set.
        from rankflow.engine.adapter import VllmBackend

        return VllmBackend(spec)

    def simulated() -> Backend:
        from rankflow.engine.simulated import SimulatedBackend

        return SimulatedBackend(spec)

    return simulated if spec.backend == "simulated" else vllm


class EngineHost:
    """Runs one backend. All methods but ``start`` may be called from any other event loop."""

    def __init__(self, factory: BackendFactory) -> None:
        self._factory = factory
        self._backend: Backend | None = None
        self._loop = uvloop.new_event_loop()
        self._crossing = Crossing(self._loop)
        self._answers = 0
        self._answered_at: deque[float] = deque()
        self._open: dict[str, asyncio.Future[Answer]] = {}
        self._given_back: set[str] = set()
        self.closed = False
        """Set it to begin no more requests: this engine is about to leave."""
        self._loaded_at = 0.0
        self.load_seconds = 0.0
        """Imports and the model, together."""
        self.import_seconds = 0.0
        self.facts: ModelFacts | None = None
        self.load_error: BaseException | None = None

    def start(self) -> None:
        """Start the thread and begin to load; returns at once."""
        threading.Thread(target=self._run, name="engine", daemon=True).start()

    @property
    def progress(self) -> int:
        """Grows with every engine step and every answer."""
        return self._answers + (self._backend.progress if self._backend is not None else 0)

    @property
    def dead(self) -> bool:
        """Whether the backend is gone for good."""
        return self._backend is not None and self._backend.dead

    @property
    def load_ended(self) -> bool:
        """Whether loading succeeded or failed."""
        return self.facts is not None or self.load_error is not None

    async def wait_loaded(self, tick: Callable[[], None] | None = None) -> ModelFacts:
        """Wait for the model, calling ``tick`` about twice a second; raises what loading raised."""
        while not self.load_ended:
            if tick is not None:
                tick()
            await asyncio.sleep(0.5)
        if self.facts is None:
            raise self.load_error or RuntimeError("loading ended without a result")
        return self.facts

    async def wait_dead(self) -> None:
        """Wait until the backend is gone for good."""
        while not self.dead:  # noqa: ASYNC110 -- vLLM gives no event when EngineCore ends
            await asyncio.sleep(1.0)

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """See :meth:`Backend.answer`; cancelling the caller aborts the request in the backend.

        Raises BackendTrouble for a request that is given back.
        """
        if self.closed:
            raise BackendTrouble("the engine leaves and begins no more rows")
        future = self._crossing.run(self._loaded().answer(url, body, request_id))
        self._open[request_id] = future
        try:
            answer = await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if request_id in self._given_back and (task is None or task.cancelling() == 0):
                raise BackendTrouble("the engine leaves and gave the row back") from None
            raise
        finally:
            self._open.pop(request_id, None)
            self._given_back.discard(request_id)
        self._answers += 1
        self._answered_at.append(time.monotonic())
        self._forget_old_answers()
        return answer

    async def give_back(self, *, waiting_only: bool) -> GivenBack:
        """End the requests that have no token yet, or all. Raises BackendDead without a model."""
        decoding = await self._crossing.run(self._loaded().decoding())
        ids = [key for key in self._open if key not in self._given_back]
        ended = [key for key in ids if not waiting_only or key not in decoding]
        for key in ended:
            self._given_back.add(key)
            self._open[key].cancel()
        cut = sum(key in decoding for key in ended)
        return GivenBack(len(ended) - cut, cut)

    async def decode_seconds(self) -> float:
        """About how long a request is decoded: those in decode by those answered in a second.

        Little's law; infinite when nothing was answered lately. Raises BackendDead without a model.
        """
        decoding = len(await self._crossing.run(self._loaded().decoding()))
        self._forget_old_answers()
        if not self._answered_at:
            return 0.0 if decoding == 0 else math.inf
        seconds = min(RATE_SECONDS, max(time.monotonic() - self._loaded_at, 0.001))
        return decoding * seconds / len(self._answered_at)

    def _forget_old_answers(self) -> None:
        now = time.monotonic()
        while self._answered_at and now - self._answered_at[0] > RATE_SECONDS:
            self._answered_at.popleft()

    async def probe(self, request_id: str) -> None:
        """See :meth:`Backend.probe`."""
        await self._crossing.run(self._loaded().probe(request_id))

    def shutdown(self) -> None:
        """End the backend's processes."""
        if self._backend is not None:
            try:
                self._backend.shutdown()
            except Exception:
                log.exception("the backend did not shut down cleanly")

    def _loaded(self) -> Backend:
        if self._backend is None or self.facts is None:
            raise BackendDead("no model is loaded")
        return self._backend

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        load = self._loop.create_task(self._load())
        self._loop.run_forever()
        load.cancel()

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            with garbage.put_off():
                self._backend = self._factory()
                self.import_seconds = time.monotonic() - started
                facts = await self._backend.load()
        except BaseException as error:
            log.exception("loading the model failed")
            self.load_error = error
            return
        self._loaded_at = time.monotonic()
        self.load_seconds = self._loaded_at - started
        self.facts = facts
