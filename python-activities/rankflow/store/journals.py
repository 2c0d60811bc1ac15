"""What attempts gave to their engines, told before an engine's death can hide it.

An engine that dies reports nothing. So an attempt writes down which rows it hands over before it
does, and how it ended unless its process ends first. Entries are small create-only objects, the
same on a disk and in a bucket, beside the attempts: those hold nothing but answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from pydantic import BaseModel, ConfigDict, ValidationError

from rankflow.store.base import MissingKey, Store
from rankflow.store.layout import journals_prefix, parse_journal_key

log = logging.getLogger(__name__)

_READERS = 16
"""Entries read at once; a quarantined batch has some dozens, and a bucket answers in 30 ms."""


class End(StrEnum):
    """How an attempt ended that outlived its engine, or did not need it any more."""

    RELEASED = "released"
    """Cancelled, drained, lease lost, no store, rows without an answer: nothing against a row."""
    DIED = "died"
    """The generating process ended under it."""
    HUNG = "hung"
    """The engine made no step for too long."""


class JournalEntry(BaseModel):
    """One entry; an attempt writes them one after the other."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    engine: str
    """``<fleet>/slot-<n>/<incarnation>``."""
    alone: bool
    """Whether the attempt has its engine for itself."""
    deaths: list[str] = []
    """Tokens of earlier attempts of the batch whose engine is known to have died under them."""
    handed: list[tuple[int, int]] | None = None
    """Rows that the engine gets now, as ranges with both ends; those before it are finished."""
    end: End | None = None
    left: bool = False
    """With ``released``: the engine had to leave, and gave its rows back."""


@dataclass(frozen=True)
class AttemptJournal:
    """What the entries of one attempt come to."""

    token: str
    engine: str
    alone: bool
    handed: frozenset[int]
    """The rows that the engine had last."""
    deaths: frozenset[str]
    end: End | None
    left: bool = False
    """Whether the engine had to leave: its rows were given back, for no fault of theirs."""


def as_ranges(rows: Iterable[int]) -> list[tuple[int, int]]:
    """Rows as ascending ranges, both ends included."""
    ranges: list[tuple[int, int]] = []
    for row in sorted(rows):
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1] = (ranges[-1][0], row)
        else:
            ranges.append((row, row))
    return ranges


def summed_up(token: str, entries: list[JournalEntry]) -> AttemptJournal:
    """One attempt's journal from its entries in order; at least one."""
    handed = [entry.handed for entry in entries if entry.handed is not None]
    return AttemptJournal(
        token=token,
        engine=entries[-1].engine,
        alone=entries[-1].alone,
        handed=frozenset(
            row for first, last in (handed[-1] if handed else []) for row in range(first, last + 1)
        ),
        deaths=frozenset(token for entry in entries for token in entry.deaths),
        end=next((entry.end for entry in entries if entry.end is not None), None),
        left=any(entry.left for entry in entries),
    )


def read_journals(store: Store, run_id: str, rank: int, batch: int) -> list[AttemptJournal]:
    """The journals of all attempts of a batch, in no particular order.

    An entry that cannot be understood is left out: it speaks for nobody's death.
    """
    keys: dict[str, list[str]] = {}
    for key in store.list(journals_prefix(run_id, rank, batch)):
        name = parse_journal_key(key)
        if name is not None:
            keys.setdefault(name[0], []).append(key)
    with ThreadPoolExecutor(_READERS) as pool:
        journals = pool.map(partial(_read, store), keys.keys(), keys.values())
        return [journal for journal in journals if journal is not None]


def _read(store: Store, token: str, keys: list[str]) -> AttemptJournal | None:
    entries = [entry for key in sorted(keys) if (entry := _entry(store, key)) is not None]
    return summed_up(token, entries) if entries else None


def _entry(store: Store, key: str) -> JournalEntry | None:
    try:
        return JournalEntry.model_validate_json(store.read(key))
    except (MissingKey, ValidationError):
        log.warning("%s is no journal entry", key)
        return None
