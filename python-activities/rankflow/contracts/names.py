"""Every name that crosses a process boundary; the twin of ``src/contracts/names.ts``."""

import re
from typing import Final

CONTROL_QUEUE: Final = "rankflow-control"
PYTHON_QUEUE: Final = "rankflow-python"
RAY_NAMESPACE: Final = "rankflow"
NODE_ID_LABEL: Final = "ray.io/node-id"

RANK_WORKFLOW: Final = "rankWorkflow"

PLAN_RUN: Final = "planRun"
RANK_PROGRESS: Final = "rankProgress"
FINALIZE_RUN: Final = "finalizeRun"
CHECK_STORE_ROOM: Final = "checkStoreRoom"
CHECK_STORE_SHARED: Final = "checkStoreShared"
CHECK_ENGINE_ARGUMENTS: Final = "checkEngineArguments"
EXECUTE_FLEET_PLAN: Final = "executeFleetPlan"
GENERATE_BATCH: Final = "generateBatch"
CANARY: Final = "canary"
DRAIN: Final = "drain"

PREEMPTION_NOTICE_SIGNAL: Final = "preemptionNotice"


def fleet_queue(fleet: str, spec_hash: str) -> str:
    """Task queue that all engines of one fleet pull from."""
    return f"fleet-{fleet}-{spec_hash[:12]}"


def slot_queue(fleet: str, spec_hash: str, index: int) -> str:
    """Queue of the engine with this index, whatever its incarnation; used by rank affinity.

    An engine that replaces another has its index, else that of its slot.
    """
    return f"{fleet_queue(fleet, spec_hash)}-slot-{index}"


def engine_queue(fleet: str, spec_hash: str, slot: int, incarnation: str) -> str:
    """Queue of one incarnation of one engine (``<node id 8 chars>-<pid>``)."""
    return f"{slot_queue(fleet, spec_hash, slot)}-{incarnation}"


def engine_actor_name(fleet: str, spec_hash: str, slot: int) -> str:
    """Name of the detached Ray actor that is this slot, in ``RAY_NAMESPACE``."""
    return slot_queue(fleet, spec_hash, slot)


_ENGINE_ACTOR = re.compile(r"fleet-(.+)-[0-9a-f]{12}-slot-\d+")


def fleet_of_actor(name: str) -> str | None:
    """Fleet of the engine with this actor name, or None when it is no engine."""
    match = _ENGINE_ACTOR.fullmatch(name)
    return None if match is None else match[1]


def sentinel_actor_name(node_id: str) -> str:
    """Name of the detached Ray actor that watches one node, in ``RAY_NAMESPACE``."""
    return f"sentinel-{node_id}"


def cluster_workflow_id(name: str) -> str:
    """Workflow of a cluster."""
    return f"cluster/{name}"


def fleet_workflow_id(name: str) -> str:
    """Workflow of a fleet."""
    return f"fleet/{name}"
