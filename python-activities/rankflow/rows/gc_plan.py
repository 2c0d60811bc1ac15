"""What of a store may go: a pure function of what is there and of what its owner asks for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GRACE = timedelta(hours=1)
"""A finished run stays so long in any case: its results are still being copied, read, recorded."""


Retries = dict[str | None, list[str]]
"""The runs that retry a run, by its id."""


class Wanted(BaseModel):
    """Input of ``gc``. Without a rule for whole runs only leftovers of finished runs go."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    store: str
    dry_run: bool = False
    older_than_seconds: int | None = Field(default=None, ge=0)
    """Finished runs that ended longer ago than this go."""
    keep_last: int | None = Field(default=None, ge=0)
    """All finished runs but the newest so many go."""
    max_bytes: int | None = Field(default=None, ge=0)
    """The oldest finished runs go until all runs together take no more."""
    unfinished_older_than_seconds: int | None = Field(default=None, ge=0)
    """Runs without results that nobody has written to for so long go, too."""
    scheduled: bool = False
    """Runs of schedules, too."""
    batches: bool = False
    """Batches of the batch API whose results are still among its files, too."""
    running: list[str] = []
    """Runs whose workflows run, as Temporal says."""
    asked: list[str] | None = None
    """Runs that Temporal was asked for: no other is removed. None: it does not answer."""


@dataclass(frozen=True)
class ApiBatch:
    """What is known of a batch of the batch API, beside its run."""

    state: Literal["open", "listed", "released"]
    """``listed``: ended, and its results are among the files; ``released``: they were deleted, have
    expired, or there never were any."""
    folder: str
    """Prefix of its records."""
    results: tuple[str, ...]
    """Keys of the records of its result files that are left."""
    modified: datetime
    size: int


@dataclass(frozen=True)
class StoredRun:
    """What is known of a run: enough to decide about it. Sizes are bytes."""

    run_id: str
    finished: bool
    """Whether it has a manifest."""
    modified: datetime
    """When the manifest was written; of an unfinished run, when anything was written last."""
    size: int
    spare: int = 0
    """Bytes of what nobody needs now that it is finished: attempts, journals, leftovers."""
    spare_objects: int = 0
    retry_of: str | None = None
    schedule: str | None = None
    """Name of the schedule whose records name it."""
    batch: ApiBatch | None = None
    """The batch of the batch API that it is."""
    removing: bool = False
    """Whether it is gone already, to readers: a removal was broken off."""
    marked: bool = False
    """Whether a removal was broken off before it did anything."""
    damaged: str | None = None
    """Why its attempts are not to be touched."""


@dataclass(frozen=True)
class Step:
    """One run that goes, or whose leftovers go."""

    run_id: str
    bytes: int
    why: str


@dataclass
class Decision:
    """What is to be done, in this order: runs that go, and then leftovers of those that stay."""

    remove: list[Step] = field(default_factory=list[Step])
    collect: list[Step] = field(default_factory=list[Step])
    unmark: list[str] = field(default_factory=list[str])
    """Runs that stay although a removal of them was begun."""
    kept: dict[str, str] = field(default_factory=dict[str, str])
    """Runs that a rule was for and that stay, each with the reason."""
    left: int = 0
    """Bytes that all runs take afterwards."""


def decide(runs: Iterable[StoredRun], wanted: Wanted, now: datetime) -> Decision:
    """What goes, the oldest first; a run goes after all that retry it, and never before one."""
    known = {run.run_id: run for run in _oldest_first(runs)}
    retries: Retries = {}
    for run in known.values():
        retries.setdefault(run.retry_of, []).append(run.run_id)
    decision = Decision()
    chosen = {run.run_id: "its removal was broken off" for run in known.values() if run.removing}
    ruled = _by_age(known, wanted, now) | _by_number(known, wanted)
    for run_id, why in ruled.items():
        reason = _protection(known[run_id], wanted, now)
        if reason is None:
            chosen[run_id] = why
        else:
            decision.kept[run_id] = reason
    going = _down_to_size(known, retries, chosen, wanted, now)
    for run_id in chosen.keys() - going:
        decision.kept[run_id] = f"{_staying(retries, run_id, going)[0]} retries it"
    decision.remove = [
        Step(run_id, known[run_id].size, chosen[run_id])
        for run_id in _in_order(known, retries, going)
    ]
    decision.unmark = [
        run.run_id for run in known.values() if run.marked and run.run_id not in going
    ]
    for run in known.values():
        if run.run_id in going or not run.finished or run.spare_objects == 0:
            continue
        if run.damaged is None:
            decision.collect.append(Step(run.run_id, run.spare, "its results are whole"))
        else:
            decision.kept.setdefault(run.run_id, run.damaged)
    decision.left = _left(known, going)
    return decision


def _by_age(known: dict[str, StoredRun], wanted: Wanted, now: datetime) -> dict[str, str]:
    found: dict[str, str] = {}
    for run in known.values():
        limit = wanted.older_than_seconds if run.finished else wanted.unfinished_older_than_seconds
        if run.removing or limit is None or now - run.modified <= timedelta(seconds=limit):
            continue
        found[run.run_id] = "it is too old" if run.finished else "nobody has gone on with it"
    return found


def _by_number(known: dict[str, StoredRun], wanted: Wanted) -> dict[str, str]:
    if wanted.keep_last is None:
        return {}
    counted = [run for run in known.values() if run.finished and _owner(run, wanted) is None]
    counted.reverse()
    return {run.run_id: "newer ones are enough" for run in counted[wanted.keep_last :]}


def _down_to_size(
    known: dict[str, StoredRun],
    retries: Retries,
    chosen: dict[str, str],
    wanted: Wanted,
    now: datetime,
) -> set[str]:
    """The chosen runs that may go; adds the oldest to ``chosen`` until the rest is small enough."""
    going = _not_needed(retries, chosen)
    if wanted.max_bytes is None:
        return going
    for run in known.values():
        if _left(known, going) <= wanted.max_bytes:
            break
        if run.finished and run.run_id not in chosen and _protection(run, wanted, now) is None:
            chosen[run.run_id] = "the store is too large"
            going = _not_needed(retries, chosen)
    return going


def _protection(run: StoredRun, wanted: Wanted, now: datetime) -> str | None:
    """Why a run stays whatever rule is for it; None when nothing but a retry may hold it."""
    if run.run_id in wanted.running:
        return "its workflow runs"
    owner = _owner(run, wanted)
    if owner is not None:
        return owner
    if run.finished and now - run.modified < GRACE:
        return "it finished less than an hour ago"
    if wanted.asked is None:
        # A finished run has nothing to lose by it.
        return None if run.finished else "Temporal does not answer, so its workflow may be running"
    return None if wanted.dry_run or run.run_id in wanted.asked else "Temporal was not asked for it"


def _owner(run: StoredRun, wanted: Wanted) -> str | None:
    if run.batch is not None and run.batch.state == "open":
        return "it is a batch of the batch API that has not ended"
    if run.batch is not None and run.batch.state == "listed" and not wanted.batches:
        return "it is a batch of the batch API, whose results are still among its files"
    if run.schedule is not None and not wanted.scheduled:
        return f"it is a run of the schedule {run.schedule}, whose retention removes it"
    return None


def _not_needed(retries: Retries, chosen: Iterable[str]) -> set[str]:
    """The chosen runs without those that a run retries which stays."""
    going = set(chosen)
    while held := {run_id for run_id in going if _staying(retries, run_id, going)}:
        going -= held
    return going


def _staying(retries: Retries, run_id: str, going: set[str]) -> list[str]:
    """The runs that retry a run and stay."""
    return [one for one in retries.get(run_id, []) if one not in going]


def _in_order(known: dict[str, StoredRun], retries: Retries, going: set[str]) -> list[str]:
    """The oldest first, but each after all that retry it."""
    ordered: dict[str, None] = {}

    def add(run_id: str, before: frozenset[str]) -> None:
        for one in retries.get(run_id, []):
            if one not in before:
                add(one, before | {one})
        ordered.setdefault(run_id)

    for run_id in known:
        if run_id in going:
            add(run_id, frozenset({run_id}))
    return list(ordered)


def _left(known: dict[str, StoredRun], going: set[str]) -> int:
    return sum(
        run.size - (run.spare if run.damaged is None else 0)
        for run in known.values()
        if run.run_id not in going
    )


def _oldest_first(runs: Iterable[StoredRun]) -> list[StoredRun]:
    return sorted(runs, key=lambda run: (run.modified, run.run_id))
