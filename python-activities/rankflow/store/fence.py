"""Whether a store keeps what exactly-once rests on: of two creates of a key, the first wins."""

import secrets

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store.base import Store
from rankflow.store.layout import fence_probe_key


def require_fence(store: Store, run_id: str) -> None:
    """Refuse a store that overwrites what was to be created only: two attempts could both commit.

    Some servers that speak S3 take a conditional put and ignore its condition.

    Raises:
        RankflowError: UNSUPPORTED_STORE, which is final; STORE_UNAVAILABLE, STORE_FULL.
    """
    # A key of its own: a planner beside this one must not be taken for the store.
    key = fence_probe_key(run_id, secrets.token_hex(8))
    try:
        store.create(key, b"first")
        if store.create(key, b"second"):
            raise RankflowError(
                ErrorType.UNSUPPORTED_STORE,
                f"{store.root} ignores conditional puts (If-None-Match): a run would not be safe",
            )
    finally:
        store.delete(key)
