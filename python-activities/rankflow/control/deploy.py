"""Carries a fleet plan out in Ray: creates and kills engine actors. Runs in a process of its own.

A Ray driver ends its process when it loses the head for a minute, so it never lives in a worker.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

import rankflow
from rankflow.connection import temporal_target
from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    ClusterAddress,
    ExecuteFleetPlanInput,
    ExecuteFleetPlanResult,
    FleetSpec,
    ModelSpec,
)
from rankflow.contracts.names import NODE_ID_LABEL, RAY_NAMESPACE, engine_actor_name
from rankflow.engine.actor import EngineActor
from rankflow.engine.sharing import spans_devices
from rankflow.faults import inherited

DRAIN_SECONDS = 20.0
"""In which a removed engine ends its batches; rows that do not fit go back."""

REACH_SECONDS = 10.0
"""Time to open a connection to the head: generous for a distant network, short for a person."""


def python_path() -> str:
    """``PYTHONPATH`` of what runs on nodes.

    On another host this source may not be; its node then has its own, which Ray fills in there.
    """
    return f"{Path(rankflow.__file__).resolve().parent.parent}:${{PYTHONPATH}}"


def _check_reachable(address: str) -> None:
    """Raise CLUSTER_UNAVAILABLE at once where ``ray.init`` would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS):
            return
    except (OSError, ValueError) as error:
        raise RankflowError(
            ErrorType.CLUSTER_UNAVAILABLE, f"nothing answers at {address}: {error}"
        ) from error


def _own_address(address: str) -> dict[str, Any]:
    """On a cluster on the loopback a driver must say that it is there too.

    It looks for the raylet of its own host by address, and takes an outside one for its own.
    """
    host = address.rpartition(":")[0]
    return {"_node_ip_address": host} if host.startswith("127.") else {}


@contextlib.contextmanager
def connected(cluster: ClusterAddress) -> Generator[None]:
    """A driver connected to exactly this cluster. Raises CLUSTER_UNAVAILABLE (retryable)."""
    _check_reachable(cluster.address)
    try:
        ray.init(
            address=cluster.address,
            namespace=RAY_NAMESPACE,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **_own_address(cluster.address),
        )
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise RankflowError(
            ErrorType.CLUSTER_UNAVAILABLE, f"no Ray cluster at {cluster.address}: {reason}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _environment(spec: ModelSpec) -> dict[str, str]:
    """Variables to be set when the actor's Python starts. Readable by everyone: no secrets."""
    variables = {"PYTHONPATH": python_path(), "USE_TF": "0", **inherited()}
    # Ray runs workers at niceness 15: next to anything else that computes, an engine would starve.
    variables["RAY_worker_niceness"] = "0"
    if spec.gpus_per_engine == 0:
        # Ray sets OMP_NUM_THREADS=1 for actors of one CPU; vLLM binds its own threads instead.
        variables["OMP_NUM_THREADS"] = str(max(1, int(spec.cpus_per_engine)))
    return variables


def _group_name(name: str) -> str:
    return f"{name}-devices"


def _find_group(name: str) -> PlacementGroup | None:
    try:
        return ray.util.get_placement_group(_group_name(name))
    except ValueError:
        return None


def elsewhere(avoid: Sequence[str]) -> dict[str, str]:
    """Ray's selector of the nodes whose ids are not these; empty when any will do."""
    return {NODE_ID_LABEL: f"!in({','.join(avoid)})"} if avoid else {}


def devices_of(name: str, spec: ModelSpec, avoid: Sequence[str] = ()) -> PlacementGroup:
    """One bundle a worker of the engine; the actor and its CPUs share the first one.

    vLLM's Ray executor places its workers into the actor's group. PACK: one node if it has room,
    because the links inside a node are faster. None is on a node with one of the ids in ``avoid``.
    """
    workers = spec.tensor_parallel_size * spec.pipeline_parallel_size
    share = spec.gpus_per_engine / workers
    bundles = [{"GPU": share} for _ in range(workers)]
    bundles[0]["CPU"] = spec.cpus_per_engine
    selectors: dict[str, Any] = {}
    if avoid:
        selectors["bundle_label_selector"] = [elsewhere(avoid) for _ in bundles]
    return _find_group(name) or placement_group(
        bundles, strategy="PACK", name=_group_name(name), lifetime="detached", **selectors
    )


def start_engine(
    fleet: FleetSpec, slot: int, index: int, temporal: dict[str, str], avoid: Sequence[str] = ()
) -> None:
    """Create the detached, named actor of a slot unless it is there; does not wait for it.

    Ray never places it on a node with one of the ids in ``avoid``, not when it restarts it either.
    """
    spec = fleet.model
    name = engine_actor_name(fleet.name, fleet.spec_hash, slot)
    options: dict[str, Any] = {
        "name": name,
        "namespace": RAY_NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        # drain() waits for batches: other calls must not wait behind it.
        "max_concurrency": 4,
        "num_cpus": spec.cpus_per_engine,
        "num_gpus": spec.gpus_per_engine,
        "runtime_env": {"env_vars": _environment(spec)},
    }
    if avoid:
        options["label_selector"] = elsewhere(avoid)
    if spans_devices(spec):
        options["num_gpus"] = 0
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
            devices_of(name, spec, avoid),
            placement_group_bundle_index=0,
            placement_group_capture_child_tasks=True,
        )
    document = fleet.model_dump(by_alias=True, exclude_none=True)
    ray.remote(EngineActor).options(**options).remote(document, slot, temporal, index)


def _actor(fleet: FleetSpec, slot: int) -> Any:
    """The slot's actor, or None when Ray has none (any more)."""
    name = engine_actor_name(fleet.name, fleet.spec_hash, slot)
    try:
        return ray.get_actor(name, namespace=RAY_NAMESPACE)
    except ValueError:
        return None


def stop_engines(fleet: FleetSpec, slots: list[int], drained: list[int]) -> None:
    """Drain the engines side by side, but for those that are ``drained``; kill them for good."""
    actors = {slot: actor for slot in slots if (actor := _actor(fleet, slot)) is not None}
    busy = [actor for slot, actor in actors.items() if slot not in drained]
    drains = [actor.drain.remote(DRAIN_SECONDS) for actor in busy]
    if drains:
        # An engine that cannot answer (pending, hung, on a lost node) is killed all the same.
        ray.wait(drains, num_returns=len(drains), timeout=DRAIN_SECONDS + 5)
    for actor in actors.values():
        ray.kill(actor, no_restart=True)
    for slot in slots:
        group = _find_group(engine_actor_name(fleet.name, fleet.spec_hash, slot))
        if group is not None:
            remove_placement_group(group)


def restart_engines(fleet: FleetSpec, slots: list[int]) -> list[int]:
    """Kill hung engines so that Ray restarts them; returns the slots that had an actor."""
    found = [slot for slot in slots if _actor(fleet, slot) is not None]
    for slot in found:
        ray.kill(_actor(fleet, slot), no_restart=False)
    return found


def execute(given: ExecuteFleetPlanInput) -> ExecuteFleetPlanResult:
    """Carry the plan out; every step may be repeated without harm.

    Raises CLUSTER_UNAVAILABLE (retryable) when Ray cannot be reached.
    """
    fleet = given.fleet
    temporal = asdict(temporal_target())
    with connected(fleet.cluster):
        try:
            # First what replaces others: stopping may wait for a node that is gone.
            for slot, index in zip(given.start, given.indexes or given.start, strict=True):
                start_engine(fleet, slot, index, temporal, given.avoid or [])
            restarted = restart_engines(fleet, given.restart)
            stop_engines(fleet, given.stop, given.drained or [])
        except RayError as error:
            reason = str(error).partition("\n")[0]
            raise RankflowError(ErrorType.CLUSTER_UNAVAILABLE, reason) from error
    return ExecuteFleetPlanResult(started=given.start, stopped=given.stop, restarted=restarted)
