"""Runs of a schedule: results copied to where they are wanted, and removed when they are too old.

Each run that has results leaves a small record below ``schedules/<name>/`` of its store.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.gc import look, remove_run
from rankflow.rows.manifest import read_manifest
from rankflow.store import MissingKey, Store, open_store
from rankflow.store.layout import (
    schedule_prefix,
    schedule_record_key,
)


class Record(BaseModel):
    """One run of a schedule."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    run_id: str
    nominal: datetime
    """When it was due, whenever it was started."""
    published: list[str] = []
    """Addresses of the copies of its results."""


class Publish(BaseModel):
    """Input of ``publish``: one start of a schedule, whose run has results."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    store: str
    schedule: str
    run_id: str
    nominal: datetime
    output: str | None = None


class Prune(Publish):
    """Input of ``prune``."""

    keep_last: int | None = None
    keep_days: int | None = None


def split(uri: str) -> tuple[Store, str]:
    """The folder of an address, as a store, and the name in it. Raises UNSUPPORTED_INPUT."""
    root, _, name = uri.rpartition("/")
    if not name or root.endswith(":/") or name in (".", ".."):
        raise RankflowError(ErrorType.UNSUPPORTED_INPUT, f"{uri!r} names no file")
    return open_store(root or "/"), name


def size_of(uri: str) -> int | None:
    """Size of an input in bytes; None when it is not there."""
    store, name = split(uri)
    try:
        return store.size(name)
    except MissingKey:
        return None


def errors_uri(output: str) -> str:
    """Where the error lines go: beside the answers."""
    folder, _, name = output.rpartition("/")
    stem = name.rpartition(".")[0] or name
    return f"{folder}/{stem}.errors.jsonl"


def publish(wanted: Publish) -> dict[str, str]:
    """Copy the results of a run to ``output``, if there is one, and leave its record.

    Safe to repeat. Returns the addresses of the copies. Raises NO_RESULTS.
    """
    store = open_store(wanted.store)
    manifest = read_manifest(store, wanted.run_id)
    if manifest is None:
        raise RankflowError(ErrorType.NO_RESULTS, f"the run {wanted.run_id} is not finished")
    copies: dict[str, str] = {}
    if wanted.output is not None:
        _copy(store, manifest.output.path, wanted.output)
        copies["publishedUri"] = wanted.output
        if manifest.failed > 0:
            _copy(store, manifest.errors.path, errors_uri(wanted.output))
            copies["publishedErrorsUri"] = errors_uri(wanted.output)
    record = Record(run_id=wanted.run_id, nominal=wanted.nominal, published=list(copies.values()))
    # A second trigger for the same date finds the same run: the time that it is for stays.
    store.create(
        schedule_record_key(wanted.schedule, wanted.run_id),
        record.model_dump_json(by_alias=True).encode(),
    )
    return copies


def _copy(store: Store, key: str, uri: str) -> None:
    target, name = split(uri)
    with target.writer(name) as writer:
        for chunk in store.stream(key):
            writer.write(chunk)
        writer.commit()


def too_old(records: Iterable[Record], wanted: Prune, now: datetime) -> list[Record]:
    """Records whose outputs are to go, the oldest first: never those from ``nominal`` on."""
    by_age = sorted(records, key=lambda record: record.nominal, reverse=True)
    keep_last = len(by_age) if wanted.keep_last is None else wanted.keep_last
    gone = [
        record
        for place, record in enumerate(by_age)
        if place >= keep_last
        or (
            wanted.keep_days is not None and record.nominal < now - timedelta(days=wanted.keep_days)
        )
    ]
    older = [record for record in gone if record.nominal < wanted.nominal]
    return [record for record in reversed(older) if record.run_id != wanted.run_id]


def prune(wanted: Prune, now: datetime | None = None) -> dict[str, Any]:
    """Remove runs that are too old, with the copies of their results.

    Safe to repeat: a record goes last. A run that another one retries stays, with its record, until
    that one is gone. Returns ``removed``, the ids of the runs that went, and ``kept``, those that
    were to go and stay, each with the reason.
    """
    store = open_store(wanted.store)
    records = _records(store, wanted.schedule)
    gone: list[Record] = []
    kept: list[dict[str, str]] = []
    for record in too_old(records, wanted, now or datetime.now(UTC)):
        reason = _remove(store, record.run_id)
        if reason is None:
            gone.append(record)
        else:
            kept.append({"runId": record.run_id, "why": reason})
    ids = {record.run_id for record in gone}
    needed = {uri for record in records if record.run_id not in ids for uri in record.published}
    for record in gone:
        for uri in record.published:
            if uri not in needed:
                target, name = split(uri)
                target.delete(name)
        store.delete(schedule_record_key(wanted.schedule, record.run_id))
    return {"removed": [record.run_id for record in gone], "kept": kept}


def _remove(store: Store, run_id: str) -> str | None:
    """Remove a run as gc does; returns why it stays, or None."""
    run = look(store, run_id)
    if run is None:
        return None
    try:
        return remove_run(store, run, {run_id: run}, set())
    except MissingKey:
        # Another one has removed its folder meanwhile.
        return None


def _records(store: Store, schedule: str) -> list[Record]:
    found: list[Record] = []
    for key in store.list(schedule_prefix(schedule)):
        try:
            found.append(Record.model_validate_json(store.read(key)))
        except ValidationError as error:
            raise RankflowError(ErrorType.PLAN_CORRUPT, f"{key} is no record of a run") from error
    return found
