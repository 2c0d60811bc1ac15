"""The Ray actor that watches one node, and how an engine keeps one beside it.

Each engine sees to it that its node has a sentinel, which leaves when the last engine has gone.
So a node is watched exactly while it has something to lose, wherever Ray places or restarts an
engine; and as an actor keeps a node from being idle, even one that takes no CPU, an empty node can
still be given back by an autoscaler.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any, cast

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import (
    DrainNodeReason,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rankflow.connection import TemporalTarget, connect
from rankflow.contracts.names import (
    RAY_NAMESPACE,
    cluster_workflow_id,
    fleet_of_actor,
    fleet_workflow_id,
    sentinel_actor_name,
)
from rankflow.logs import log_as_json
from rankflow.preemption.config import sources_of
from rankflow.preemption.sentinel import Sentinel
from rankflow.preemption.sources import Notice, RayDrain

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""How often an engine looks for its node's sentinel: one that crashed is back within this time."""
ANSWER_SECONDS = 60.0
"""A sentinel's process starts in seconds, on a crowded node in a minute."""
LOOK_SECONDS = 1.0
"""How often a sentinel looks whether an engine is left on its node."""
LONELY_SECONDS = 90.0
"""How long it waits for its first engine, which calls it within ``KEEP_SECONDS``."""
RETRY_SECONDS = 5.0
"""One that has just left with another engine, or could not be placed."""
GCS_SECONDS = 5.0
"""The head answers in a millisecond; one that does not is asked again."""


class SentinelActor:
    """Watches the node that it runs on. Wrapped by ``ray.remote`` in ``keep_sentinel``."""

    def __init__(self, cluster: str, temporal: dict[str, str]) -> None:
        """Start watching and return at once.

        Args:
            cluster: name of the Rankflow cluster, whose workflow is told too.
            temporal: ``address`` and ``namespace``; credentials come from this node's environment.
        """
        log_as_json("sentinel", cluster=cluster)
        self._engines: set[int] = set()
        self._started = time.monotonic()
        self._cluster = cluster
        self._temporal = TemporalTarget(**temporal)
        threading.Thread(target=self._serve, name="sentinel", daemon=True).start()

    def accompany(self, pid: int) -> None:
        """Stay as long as this engine's process lives, which is on the same node."""
        self._engines.add(pid)

    def _serve(self) -> None:
        try:
            asyncio.run(self._watch())
        except BaseException:
            log.exception("the sentinel ends")
        # Never restarted by Ray, which would look for another node: an engine asks for a new one.
        os._exit(0)

    async def _watch(self) -> None:
        node = _Node()
        sources = await asyncio.to_thread(sources_of, os.environ, ray.util.get_node_ip_address())
        sources.append(RayDrain(node.node_id, node.draining))
        log.info("watching for preemption: %s", ", ".join(source.kind for source in sources))
        sentinel = Sentinel(
            node.node_id,
            sources,
            cordon=node.cordon,
            workflows=lambda: self._workflows(node.is_head),
            client=lambda: connect(self._temporal),
        )
        watching = asyncio.create_task(sentinel.run())
        while self._needed():
            if (await asyncio.wait({watching}, timeout=LOOK_SECONDS))[0]:
                watching.result()

    def _workflows(self, is_head: bool) -> set[str]:
        """The cluster, and all fleets on it: those without engines here must not count on it.

        What is lost with the head is the cluster: there is nowhere to drain to.
        """
        if is_head:
            return {cluster_workflow_id(self._cluster)}
        actors = cast("list[dict[str, str]]", ray.util.list_named_actors(all_namespaces=True))
        names = [actor["name"] for actor in actors if actor["namespace"] == RAY_NAMESPACE]
        fleets = {fleet for name in names if (fleet := fleet_of_actor(name)) is not None}
        return {cluster_workflow_id(self._cluster), *map(fleet_workflow_id, fleets)}

    def _needed(self) -> bool:
        if not self._engines:
            return time.monotonic() - self._started < LONELY_SECONDS
        self._engines = {pid for pid in self._engines if _lives(pid)}
        return bool(self._engines)


class _Node:
    """This node as the head of its Ray cluster (the GCS) knows it; all calls block."""

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self.node_id: str = context.get_node_id()
        self._gcs = GcsClient(address=context.gcs_address)
        resources = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
        self.is_head = "node:__internal_head__" in resources.get(self.node_id, {})

    def draining(self) -> dict[str, int]:
        """Nodes that are drained, with their deadlines (epoch milliseconds, 0 for none)."""
        return self._gcs.get_draining_nodes(timeout=GCS_SECONDS)

    def cordon(self, notice: Notice) -> None:
        """Have Ray place nothing here any more. Raises when Ray does not take it."""
        if self.is_head:
            # A drained raylet ends itself as soon as it is idle, and takes the cluster with it.
            return
        accepted, reason = self._gcs.drain_node(
            self.node_id,
            DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            f"preempted: notice from {notice.source}",
            int(notice.deadline * 1000),
            timeout=GCS_SECONDS,
        )
        if not accepted:
            raise RuntimeError(reason)


def keep_sentinel(cluster: str, temporal: dict[str, str]) -> None:
    """Keep a sentinel on this engine's node; never returns, so run it in a thread.

    Args:
        cluster: name of the Rankflow cluster.
        temporal: ``address`` and ``namespace``.
    """
    node = ray.get_runtime_context().get_node_id()
    options: dict[str, Any] = {
        "name": sentinel_actor_name(node),
        "namespace": RAY_NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
    }
    while True:
        pause = KEEP_SECONDS
        try:
            actor: Any = ray.remote(SentinelActor).options(**options)
            sentinel = actor.remote(cluster, temporal)
            ray.get(sentinel.accompany.remote(os.getpid()), timeout=ANSWER_SECONDS)
        except (RayError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            log.warning("this node is not watched for preemption: %s", reason)
            pause = RETRY_SECONDS
        time.sleep(pause)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
