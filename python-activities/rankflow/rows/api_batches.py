"""The records of the batch API, which its server writes, as far as freeing a store needs them."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rankflow.rows.gc_plan import ApiBatch
from rankflow.store import MissingKey, Store
from rankflow.store.layout import API_SPACES


def api_batches(store: Store, now: datetime) -> dict[str, ApiBatch]:
    """The batches of all namespaces, by their ids, which are those of their runs."""
    return {
        batch: _look(store, space, batch, now)
        for space in store.folders(API_SPACES)
        for batch in store.folders(_batches(space))
    }


def forget_batch(store: Store, batch: ApiBatch) -> None:
    """Remove what the API tells of a batch; what says that it has ended, last."""
    for key in batch.results:
        store.delete(key)
    ended = _ended(batch.folder)
    for key in [key for key in store.list(batch.folder) if key != ended]:
        store.delete(key)
    store.delete(ended)
    store.remove_empty_folders(batch.folder)


def _look(store: Store, space: str, batch: str, now: datetime) -> ApiBatch:
    folder = f"{_batches(space)}/{batch}"
    entries = store.entries(folder)
    modified = max((entry.modified for entry in entries), default=now)
    size = sum(entry.size for entry in entries)
    ended = _record(store, _ended(folder))
    if ended is None:
        return ApiBatch("open", folder, (), modified, size)
    listed = list(_results(store, space, ended))
    live = any(not _expired(store, key, now) for key in listed)
    return ApiBatch("listed" if live else "released", folder, tuple(listed), modified, size)


def _results(store: Store, space: str, ended: dict[str, Any]) -> Iterator[str]:
    """Keys of the records of its result files that are there."""
    for field in ("output_file_id", "error_file_id"):
        file = ended.get(field)
        if file is not None and store.exists(key := f"{API_SPACES}/{space}/files/{file}.json"):
            yield key


def _expired(store: Store, key: str, now: datetime) -> bool:
    """Whether the server only has to sweep it. What cannot be read has not expired."""
    at = (_record(store, key) or {}).get("expiresAt")
    return isinstance(at, int) and now.timestamp() >= at


def _record(store: Store, key: str) -> dict[str, Any] | None:
    """A record; None for one that is not there, or is damaged."""
    try:
        record = json.loads(store.read(key))
    except (MissingKey, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _ended(folder: str) -> str:
    return f"{folder}/ended.json"


def _batches(space: str) -> str:
    return f"{API_SPACES}/{space}/batches"
