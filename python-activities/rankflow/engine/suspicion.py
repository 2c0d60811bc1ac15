"""Which rows are suspected of killing engines, from what the earlier attempts of a batch wrote.

Pure: no store, no clock, no Ray. The rule above all is that no innocent row is ever recorded as
failed, so a row is convicted only by deaths that nothing else explains, of engines that had nothing
but this row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rankflow.store.journals import AttemptJournal, End

SUSPECT_DEATHS = 2
"""Deaths that make a batch suspect: the first is an ordinary retry, as most engines die of other
causes, and a retry costs no more than the death did."""
LONE_DEATHS = 2
"""Deaths of engines that had one row alone, until that row counts as the cause."""
GROUP_ROWS = 16
"""Suspects run 16 at a time, then one at a time. Halving would cost an engine's death, a model load
of minutes, at each of eight steps; a group only costs batching."""
MAX_DEATHS = 64
"""Engines that a batch may kill while it runs alone, for one start of its rank: enough for 20 rows
in different groups. Where more die it is hardly the rows, and a person has to look."""


class Fate(StrEnum):
    """What became of an engine's process, as far as Ray knows."""

    DIED = "died"
    """The process is gone, its node is there."""
    ALIVE = "alive"
    LOST = "lost"
    """Its node is gone, which explains everything."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Death:
    """An engine that died under an attempt, and nothing explains it."""

    token: str
    engine: str
    alone: bool
    rows: frozenset[int]
    """The rows that it had last, those it finished among them."""


@dataclass(frozen=True)
class Trials:
    """What a suspect batch does next on an engine of its own."""

    convicted: list[int]
    """Rows that are recorded as the cause."""
    groups: list[list[int]]
    """Rows to run, one group after the other."""


def find_deaths(journals: Collection[AttemptJournal], fates: Mapping[str, Fate]) -> list[Death]:
    """The unexplained deaths in the journals of a batch's earlier attempts.

    What an attempt once found out stays: the node may be lost by the time that the next one looks.
    """
    known = frozenset(token for journal in journals for token in journal.deaths)
    return [
        Death(journal.token, journal.engine, journal.alone, journal.handed)
        for journal in journals
        if journal.handed
        and (journal.token in known or _died(journal.end, fates.get(journal.engine, Fate.UNKNOWN)))
    ]


def undecided(journals: Collection[AttemptJournal]) -> set[str]:
    """Engines whose fate has to be asked for."""
    known = frozenset(token for journal in journals for token in journal.deaths)
    return {
        journal.engine
        for journal in journals
        if journal.handed and journal.end is not End.RELEASED and journal.token not in known
    }


def _died(end: End | None, fate: Fate) -> bool:
    if end is End.RELEASED:
        return False
    if end is None:
        # A process that is still there may yet write its end: a zombie, or one that is cut off.
        return fate is Fate.DIED
    return fate in (Fate.DIED, Fate.ALIVE)


def is_suspect(deaths: Collection[Death], missing: Iterable[int]) -> bool:
    """Whether a row that is still missing was in flight when several engines died."""
    return any(_engines(deaths, row) >= SUSPECT_DEATHS for row in missing)


def plan_trials(deaths: Collection[Death], missing: Collection[int]) -> Trials:
    """How the missing rows of a suspect batch are to be run.

    Those that were in a group when an engine died run one at a time, after all the others: what is
    innocent is finished first. Rows that killed an engine alone come last.
    """
    alone = [death for death in deaths if death.alone]
    lone = [death for death in alone if len(death.rows) == 1]
    killed = {row: _engines(lone, row) for row in missing}
    convicted = sorted(row for row in missing if killed[row] >= LONE_DEATHS)
    rest = sorted(set(missing) - set(convicted))
    singles = [row for row in rest if _engines(alone, row) > 0]
    others = [row for row in rest if _engines(alone, row) == 0]
    groups = [others[at : at + GROUP_ROWS] for at in range(0, len(others), GROUP_ROWS)]
    groups += [[row] for row in sorted(singles, key=lambda row: (killed[row], row))]
    return Trials(convicted, groups)


def deaths_alone(deaths: Collection[Death], start: str) -> int:
    """Engines that died under attempts that ran alone and whose token begins with ``start``."""
    return len({death.engine for death in deaths if death.alone and death.token.startswith(start)})


def _engines(deaths: Collection[Death], row: int) -> int:
    """Engines that died with a row in flight; one that took the batch twice dies once."""
    return len({death.engine for death in deaths if row in death.rows})
