"""Whether a store has room: asked before much is written, and again and again while it is full."""

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store.base import Store
from rankflow.store.layout import room_probe_key

RESERVE_BYTES = 64 << 20
"""Free space without which a full store stays full: about what the batches in flight write."""
RESERVE_SHARE = 0.05
"""On a small medium the reserve is this share of it."""
PROBE_BYTES = 1 << 20
"""A quota shows only when something is written: this much, so that a few freed bytes are none."""


def require_room(store: Store, needed: int) -> None:
    """Refuse work that would write more than there is room for, before it writes any of it.

    Raises:
        RankflowError: STORE_FULL with ``neededBytes``; STORE_UNAVAILABLE.
    """
    space = store.space()
    if space is not None and space.free < needed:
        raise RankflowError(
            ErrorType.STORE_FULL,
            f"{_shown(needed)} are needed and {_shown(space.free)} are free in {store.root}",
            {"neededBytes": needed},
        )


def check_room(store: Store, run_id: str, needed: int | None = None) -> int | None:
    """Make sure that a store which was full has room again; returns the free bytes if known.

    Args:
        needed: bytes that are to be free; without it, or above it, a small reserve.

    Raises:
        RankflowError: STORE_FULL, STORE_UNAVAILABLE.
    """
    space = store.space()
    if space is not None:
        reserve = min(RESERVE_BYTES, int(space.total * RESERVE_SHARE))
        require_room(store, max(needed or 0, reserve))
    # One key a run: a worker that is killed in between leaves one small file, not many.
    key = room_probe_key(run_id)
    try:
        store.put(key, bytes(PROBE_BYTES))
    finally:
        store.delete(key)
    return None if space is None else space.free


def _shown(size: int) -> str:
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{size} B"
