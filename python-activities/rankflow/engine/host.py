"""The backend on a thread and loop of its own, so that a busy engine starves no heartbeat."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rankflow.contracts.models import ModelSpec
from rankflow.engine.backend import Answer, Backend, BackendDead, ModelFacts

log = logging.getLogger(__name__)
T = TypeVar("T")

BackendFactory = Callable[[], Backend]


def backend_factory(spec: ModelSpec, slot: int) -> BackendFactory:
    """How to make the backend that a spec asks for; called on the engine's thread."""

    def vllm() -> Backend:
        from rankflow.engine.environment import check_model_folder, prepare_environment

        check_model_folder(spec)
        prepare_environment(spec, slot)
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
        self._loop = asyncio.new_event_loop()
        self._answers = 0
        self.load_seconds = 0.0
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
        """See :meth:`Backend.answer`; cancelling the caller aborts the request in the backend."""
        answer = await self._across(self._loaded().answer(url, body, request_id))
        self._answers += 1
        return answer

    async def probe(self, request_id: str) -> None:
        """See :meth:`Backend.probe`."""
        await self._across(self._loaded().probe(request_id))

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

    async def _across(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        load = self._loop.create_task(self._load())
        self._loop.run_forever()
        load.cancel()

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            self._backend = self._factory()
            facts = await self._backend.load()
        except BaseException as error:
            log.exception("loading the model failed")
            self.load_error = error
            return
        self.load_seconds = time.monotonic() - started
        self.facts = facts
