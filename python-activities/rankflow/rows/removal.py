"""Whether a run is gone although files of it are still there: `rankflow gc` is removing it."""

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import Store
from rankflow.store.layout import manifest_key, removing_key


def is_removed(store: Store, run_id: str) -> bool:
    """Whether a run without a manifest is gone. With one it is whole, whatever was begun."""
    return store.exists(removing_key(run_id)) and not store.exists(manifest_key(run_id))


def refuse_removed(store: Store, run_id: str) -> None:
    """Raise STORE_UNAVAILABLE while the run of this id is being removed: then it can be new."""
    if is_removed(store, run_id):
        raise RankflowError(
            ErrorType.STORE_UNAVAILABLE,
            f"the run {run_id} is being removed: `rankflow gc` ends what it began",
        )
