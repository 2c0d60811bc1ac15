"""The Ray actor that is one slot of a fleet.

Ray runs only the constructor again when it restarts an actor, so the constructor starts
everything. It must not raise: that would leave the actor DEAD for good even with
``max_restarts=-1``. Trouble ends the process instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import ray
import uvloop

from rankflow.connection import TemporalTarget
from rankflow.contracts.models import FleetSpec
from rankflow.engine.fates import RayFates
from rankflow.engine.guard import guard_process_group
from rankflow.engine.host import backend_factory
from rankflow.engine.scratch import use_scratch
from rankflow.engine.service import EngineService
from rankflow.logs import log_as_json
from rankflow.metrics.endpoint import engine_endpoint
from rankflow.preemption.actor import keep_sentinel

log = logging.getLogger(__name__)


class EngineActor:
    """One incarnation of one slot. Wrapped by ``ray.remote`` where it is deployed."""

    def __init__(
        self,
        fleet: dict[str, Any],
        slot: int,
        temporal: dict[str, str],
        index: int | None = None,
    ) -> None:
        """Start the engine's thread and return at once.

        Args:
            fleet: a FleetSpec by alias, checked by the deployer.
            slot: which engine of the fleet this is.
            temporal: ``address`` and ``namespace``; credentials come from this node's environment.
            index: which ranks and which cores of its host it takes; by default its slot.
        """
        spec = FleetSpec.model_validate(fleet)
        node = ray.get_runtime_context().get_node_id()
        self._incarnation = f"{node[:8]}-{os.getpid()}"
        name = f"{spec.name}/slot-{slot}/{self._incarnation}"
        # In one file with what vLLM's processes say, in the order in which it happened.
        log_as_json("engine", sys.stdout, engine=name)
        scratch = use_scratch()
        if not guard_process_group(*([scratch] if scratch else [])):
            log.warning("nothing ends this engine's processes if the actor is killed")
        self._metrics = engine_endpoint(ray.util.get_node_ip_address())
        self._service = EngineService(
            spec,
            slot,
            self._incarnation,
            TemporalTarget(**temporal),
            backend_factory(spec.model, slot if index is None else index),
            RayFates,
            index=index,
            metrics=lambda: self._metrics.address,
        )
        self._loop = uvloop.new_event_loop()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._serve, name="temporal", daemon=True).start()
        watch = (spec.cluster.name, temporal)
        threading.Thread(target=keep_sentinel, args=watch, name="sentinel", daemon=True).start()

    def incarnation(self) -> str:
        """``<first 8 characters of the Ray node id>-<pid>``."""
        return self._incarnation

    def drain(self, seconds: float) -> bool:
        """Take no more batches and end those in work in ``seconds``; True when all have ended."""
        work = asyncio.run_coroutine_threadsafe(self._service.drain(seconds), self._loop)
        return work.result(timeout=seconds + 5)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        """Leave in order, in the seconds until somebody sends SIGKILL."""
        log.warning("SIGTERM: the batches in work go back")
        work = asyncio.run_coroutine_threadsafe(self._service.leave(), self._loop)
        work.add_done_callback(lambda _: os._exit(1))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._service.run())
        except BaseException:
            log.exception("the engine ends")
        finally:
            # Ray starts the slot again, on any node with room; the guard ends what is left behind.
            os._exit(1)
