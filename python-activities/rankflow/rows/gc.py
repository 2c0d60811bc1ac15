"""Freeing a store of what nobody needs.

Attempts, journals and what killed planners and finalizers left go once a run is finished; whole
runs when there is a rule for them. Each step is safe to repeat, beside runs, readers and others of
its kind. A run that is removed is whole to its readers until its manifest goes (an unfinished one,
until the mark is there), and from then on it is gone: the mark, which comes first and goes last,
keeps a folder that still holds files from being taken for a run.
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.api_batches import api_batches, forget_batch
from rankflow.rows.gc_plan import ApiBatch, Decision, Step, StoredRun, Wanted, decide
from rankflow.rows.manifest import Manifest, read_manifest
from rankflow.rows.plan import load_plan
from rankflow.rows.retry import retried_run
from rankflow.store import MissingKey, Store, open_store
from rankflow.store.base import Entries
from rankflow.store.layout import (
    RUNS,
    SCHEDULES,
    all_attempts_prefix,
    all_journals_prefix,
    collected_key,
    fence_probes,
    finals_prefix,
    manifest_key,
    planner_prefix,
    planners_prefix,
    removing_key,
    retry_link_key,
    room_probe_key,
    run_prefix,
    success_key,
)

_AT_ONCE = 16
"""Objects deleted at once: a bucket answers in some 30 ms."""
_CHUNK = 256
"""Objects deleted between two looks whether the mark is still there."""


def collect_garbage(wanted: Wanted, now: datetime | None = None) -> dict[str, Any]:
    """Free a store, or say what would go.

    Returns:
        ``removed`` and ``collected`` runs with bytes and reasons, ``kept`` runs with reasons, and
        the bytes that are freed (``freedBytes``) and that all runs still take (``leftBytes``).

    Raises:
        RankflowError: STORE_UNAVAILABLE.
    """
    store = open_store(wanted.store)
    now = now or datetime.now(UTC)
    runs = survey(store, now)
    decision = decide(runs, wanted, now)
    if not wanted.dry_run:
        _carry_out(store, decision, {run.run_id: run for run in runs})
    freed = sum(step.bytes for step in (*decision.remove, *decision.collect))
    return {
        "dryRun": wanted.dry_run,
        "removed": [_shown(step) for step in decision.remove],
        "collected": [_shown(step) for step in decision.collect],
        "kept": [{"runId": run_id, "why": why} for run_id, why in sorted(decision.kept.items())],
        "freedBytes": freed,
        "leftBytes": decision.left,
    }


def _shown(step: Step) -> dict[str, Any]:
    return {"runId": step.run_id, "bytes": step.bytes, "why": step.why}


def survey(store: Store, now: datetime) -> list[StoredRun]:
    """Everything that a decision needs to know of the runs of a store."""
    schedules = {
        parts[-1].removesuffix(".json"): parts[1]
        for key in store.list(SCHEDULES)
        if len(parts := key.split("/")) == 3
    }
    # Before the runs: a batch that is made meanwhile has a run that is too young to go.
    batches = api_batches(store, now)
    folders = store.folders(RUNS)
    found = (look(store, run_id, schedules, batches) for run_id in folders)
    # A batch that failed before it had a run has records all the same.
    alone = (
        StoredRun(run_id, finished=False, modified=batch.modified, size=batch.size, batch=batch)
        for run_id, batch in batches.items()
        if run_id not in folders
    )
    return [*(run for run in found if run is not None), *alone]


def look(
    store: Store,
    run_id: str,
    schedules: Mapping[str, str] = MappingProxyType({}),
    batches: Mapping[str, ApiBatch] = MappingProxyType({}),
) -> StoredRun | None:
    """What a decision needs to know of a run; None when it has gone, or its folder is foreign."""
    try:
        entries = store.entries(run_prefix(run_id))
        return _look(store, run_id, entries, schedules, batches) if entries else None
    except MissingKey:
        # It has gone since.
        return None
    except RankflowError as error:
        if error.kind is not ErrorType.RUN_MISMATCH:
            raise
        return None


def _look(
    store: Store,
    run_id: str,
    entries: Entries,
    schedules: Mapping[str, str],
    batches: Mapping[str, ApiBatch],
) -> StoredRun:
    at = {entry.key: entry for entry in entries}
    finished = manifest_key(run_id) in at
    spare: Entries = []
    damaged = None
    try:
        manifest = read_manifest(store, run_id) if finished else None
    except RankflowError as error:
        if error.kind is not ErrorType.PLAN_CORRUPT:
            raise
        damaged = str(error)
    else:
        if manifest is not None:
            damaged = _damage(store, manifest, entries)
            spare = _spare(store, manifest, entries)
    return StoredRun(
        run_id=run_id,
        finished=finished,
        modified=_modified(run_id, entries),
        size=sum(entry.size for entry in entries),
        spare=sum(entry.size for entry in spare),
        spare_objects=len(spare),
        retry_of=retried_run(store, run_id) if retry_link_key(run_id) in at else None,
        schedule=schedules.get(run_id),
        batch=batches.get(run_id),
        removing=not finished and removing_key(run_id) in at,
        marked=finished and removing_key(run_id) in at,
        damaged=damaged,
    )


def _modified(run_id: str, entries: Entries) -> datetime:
    """When a run was finished; else when anything but the mark was written last."""
    times = {e.key: e.modified for e in entries if e.key != removing_key(run_id)}
    return times.get(manifest_key(run_id)) or max(times.values(), default=datetime.now(UTC))


def _damage(store: Store, manifest: Manifest, entries: Entries) -> str | None:
    """Why the attempts of a finished run may still be needed."""
    sizes = {entry.key: entry.size for entry in entries}
    if success_key(manifest.run_id) not in sizes:
        return "its results are not published yet"
    for file in (manifest.output, manifest.errors):
        # Of two names of a local file only one counts.
        there = file.path in sizes and file.size in (sizes[file.path], store.size(file.path))
        if not there:
            return f"{file.path} is not as its manifest says: see rankflow verify"
    return None


def _spare(store: Store, manifest: Manifest, entries: Entries) -> Entries:
    """What is needed no more of a finished run."""
    run_id = manifest.run_id
    try:
        planned = planner_prefix(run_id, load_plan(store, run_id).document.token)
    except RankflowError as error:
        if error.kind is not ErrorType.PLAN_CORRUPT:
            raise
        # Nobody knows which planner counts.
        planned = planners_prefix(run_id)
    needed = (f"{planned}/", manifest.output.path, manifest.errors.path)
    folders = (
        all_attempts_prefix(run_id),
        all_journals_prefix(run_id),
        planners_prefix(run_id),
        finals_prefix(run_id),
    )
    left = (*(f"{folder}/" for folder in folders), fence_probes(run_id), room_probe_key(run_id))
    return [
        entry
        for entry in entries
        if entry.key.startswith(left) and not entry.key.startswith(needed)
    ]


def _carry_out(store: Store, decision: Decision, known: dict[str, StoredRun]) -> None:
    """Do what was decided; a run that must stay after all is told among ``kept``."""
    going = {step.run_id for step in decision.remove}
    for step in list(decision.remove):
        try:
            reason = remove_run(store, known[step.run_id], known, going)
        except MissingKey:
            # Another one has removed its folder meanwhile.
            continue
        if reason is not None:
            going.discard(step.run_id)
            decision.remove.remove(step)
            decision.kept[step.run_id] = reason
            decision.left += step.bytes
    for run_id in decision.unmark:
        store.delete(removing_key(run_id))
    for step in decision.collect:
        collect_attempts(store, step.run_id)


def collect_attempts(store: Store, run_id: str) -> None:
    """Remove what is needed no more of a finished run, if it still is one."""
    manifest = read_manifest(store, run_id)
    if manifest is None:
        return
    entries = store.entries(run_prefix(run_id))
    if _damage(store, manifest, entries) is not None:
        return
    spare = [entry.key for entry in _spare(store, manifest, entries)]
    if any(key.startswith(f"{all_attempts_prefix(run_id)}/") for key in spare):
        # First: a check of the run must not take them for lost.
        created = store.create(collected_key(run_id), _mark())
        if created and not store.exists(manifest_key(run_id)):
            store.delete(collected_key(run_id))
            store.remove_empty_folders(run_prefix(run_id))
            return
    for chunk in _chunks(spare):
        _delete(store, chunk)
    for folder in (all_attempts_prefix, all_journals_prefix, planners_prefix, finals_prefix):
        store.remove_empty_folders(folder(run_id))


def remove_run(
    store: Store, run: StoredRun, known: dict[str, StoredRun], going: set[str]
) -> str | None:
    """Remove a run.

    Args:
        run: as it was when it was decided about.
        known: all runs that were there then.
        going: those of them that go.

    Returns:
        Why it stays after all, or None.
    """
    run_id, mark = run.run_id, removing_key(run.run_id)
    if not run.removing and (reason := _changed(store, run)):
        return reason
    own = _mark()
    if not store.create(mark, own):
        if store.exists(manifest_key(run_id)):
            # Whoever left it is dead, or will see that it is not his any more.
            store.put(mark, own)
        else:
            own = store.read(mark)
    if not run.removing:
        # A retry links first and then looks for the mark: one of the two sees the other.
        reason = _changed(store, run) or _retried(store, run_id, known, going)
        if reason is not None:
            if _is(store, mark, own):
                store.delete(mark)
            return reason
    if not _is(store, mark, own):
        return None
    if run.batch is not None and run.batch.state != "open":
        # Killed after this, it is a run like any other, and nothing names what is not there.
        forget_batch(store, run.batch)
    store.delete(manifest_key(run_id))
    keys = [entry.key for entry in store.entries(run_prefix(run_id)) if entry.key != mark]
    for chunk in _chunks(keys):
        # Who was overtaken must not delete what was written under the same names since.
        if not _is(store, mark, own):
            return None
        _delete(store, chunk)
    store.sweep(run_prefix(run_id))
    store.delete(mark)
    store.remove_empty_folders(run_prefix(run_id))
    return None


def _changed(store: Store, run: StoredRun) -> str | None:
    entries = store.entries(run_prefix(run.run_id))
    others = [entry for entry in entries if entry.key != removing_key(run.run_id)]
    # When nothing is left, another one has removed it.
    if not others or _modified(run.run_id, entries) == run.modified:
        return None
    return "somebody has gone on with it since it was looked at"


def _retried(store: Store, run_id: str, known: dict[str, StoredRun], going: set[str]) -> str | None:
    """That a run retries it which stays, or came up since it was decided about."""
    for other in store.folders(RUNS):
        link = known[other].retry_of if other in known else retried_run(store, other)
        if link == run_id and other not in going:
            return f"{other} retries it"
    return None


def _mark() -> bytes:
    """A mark that is equal to no other."""
    at = datetime.now(UTC).isoformat()
    return json.dumps({"version": 1, "at": at, "token": secrets.token_hex(8)}).encode()


def _is(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.read(key) == data
    except MissingKey:
        return False


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


def _delete(store: Store, keys: list[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        # Taking the answers raises what went wrong.
        list(pool.map(store.delete, keys))
