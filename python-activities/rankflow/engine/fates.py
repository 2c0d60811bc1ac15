"""What became of other engines' processes: Ray's word, asked from inside an engine's own actor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from rankflow.contracts.names import RAY_NAMESPACE, engine_actor_name
from rankflow.engine.suspicion import Fate

log = logging.getLogger(__name__)

AskFates = Callable[[Collection[str]], Awaitable[dict[str, Fate]]]
"""From names ``<fleet>/slot-<n>/<incarnation>`` to fates; an engine that is left out is UNKNOWN."""

ASK_SECONDS = 15.0
"""Longest time for all questions; an attempt that gets no answer goes on without suspicion."""
ANSWER_SECONDS = 5.0
"""Time for one actor to say which incarnation it is: it may be busy importing vLLM."""


async def nobody_knows(engines: Collection[str]) -> dict[str, Fate]:
    """For engines that are no actors of Ray's."""
    return dict.fromkeys(engines, Fate.UNKNOWN)


def fate_of(
    engine: str, own: str, alive_nodes: Collection[str], present: Callable[[str], str | None]
) -> Fate:
    """What became of an engine.

    Args:
        own: name of the engine that asks.
        alive_nodes: first 8 characters of the ids of Ray's nodes that are alive.
        present: from ``<fleet>/slot-<n>`` to the incarnation that runs there, None if unknown.
    """
    slot, _, incarnation = engine.rpartition("/")
    if engine == own:
        return Fate.ALIVE
    if incarnation.partition("-")[0] not in alive_nodes:
        return Fate.LOST
    if slot == own.rpartition("/")[0]:
        # Ray runs one process of an actor at a time, and that is this one.
        return Fate.DIED
    running = present(slot)
    if running is None:
        return Fate.UNKNOWN
    return Fate.ALIVE if running == incarnation else Fate.DIED


class RayFates:
    """Asks the cluster that this process, an actor, belongs to."""

    def __init__(self, own: str, spec_hash: str) -> None:
        """``own``: name of this engine; ``spec_hash``: of the model that all of them serve."""
        self._own = own
        self._spec_hash = spec_hash

    async def __call__(self, engines: Collection[str]) -> dict[str, Fate]:
        """Fates of engines of this cluster. Whatever goes wrong, the answer is UNKNOWN."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._ask, engines), ASK_SECONDS)
        except Exception as error:
            log.warning("Ray does not say what became of %d engines: %r", len(engines), error)
            return await nobody_knows(engines)

    def _ask(self, engines: Collection[str]) -> dict[str, Fate]:
        import ray

        alive = {str(node["NodeID"])[:8] for node in ray.nodes() if node["Alive"]}
        return {engine: fate_of(engine, self._own, alive, self._present) for engine in engines}

    def _present(self, slot: str) -> str | None:
        """Which incarnation runs in a slot; None when its actor does not say."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        fleet, _, number = slot.rpartition("/slot-")
        try:
            name = engine_actor_name(fleet, self._spec_hash, int(number))
            actor: Any = ray.get_actor(name, namespace=RAY_NAMESPACE)
            return str(ray.get(actor.incarnation.remote(), timeout=ANSWER_SECONDS))
        except (ValueError, GetTimeoutError, RayActorError):
            return None
