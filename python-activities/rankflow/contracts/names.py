"""Every name that crosses a process boundary; the twin of ``src/contracts/names.ts``."""

from typing import Final

CONTROL_QUEUE: Final = "rankflow-control"
PYTHON_QUEUE: Final = "rankflow-python"
RAY_NAMESPACE: Final = "rankflow"

RANK_WORKFLOW: Final = "rankWorkflow"

PLAN_RUN: Final = "planRun"
RANK_PROGRESS: Final = "rankProgress"
FINALIZE_RUN: Final = "finalizeRun"
CHECK_STORE_ROOM: Final = "checkStoreRoom"
CHECK_ENGINE_ARGUMENTS: Final = "checkEngineArguments"
EXECUTE_FLEET_PLAN: Final = "executeFleetPlan"
GENERATE_BATCH: Final = "generateBatch"
CANARY: Final = "canary"


def fleet_queue(fleet: str, spec_hash: str) -> str:
    """Task queue that all engines of one fleet pull from."""
    return f"fleet-{fleet}-{spec_hash[:12]}"


def slot_queue(fleet: str, spec_hash: str, slot: int) -> str:
    """Queue of one slot, whatever its incarnation; used by rank affinity."""
    return f"{fleet_queue(fleet, spec_hash)}-slot-{slot}"


def engine_queue(fleet: str, spec_hash: str, slot: int, incarnation: str) -> str:
    """Queue of one incarnation of one engine (``<node id 8 chars>-<pid>``)."""
    return f"{slot_queue(fleet, spec_hash, slot)}-{incarnation}"


def engine_actor_name(fleet: str, spec_hash: str, slot: int) -> str:
    """Name of the detached Ray actor that is this slot, in ``RAY_NAMESPACE``."""
    return slot_queue(fleet, spec_hash, slot)
