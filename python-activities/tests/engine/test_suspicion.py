"""Rows are suspected by deaths that nothing else explains, and convicted only when alone."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from rankflow.engine.suspicion import (
    GROUP_ROWS,
    LONE_DEATHS,
    Death,
    Fate,
    deaths_alone,
    find_deaths,
    is_suspect,
    plan_trials,
    undecided,
)
from rankflow.store.journals import AttemptJournal, End, JournalEntry, as_ranges, summed_up


def journal(
    token: str = "wf-1-1",
    engine: str = "f/slot-0/aaaaaaaa-1",
    *,
    alone: bool = False,
    handed: range | None = None,
    end: End | None = None,
    deaths: tuple[str, ...] = (),
) -> AttemptJournal:
    """What one attempt wrote; by default it handed ten rows to an ordinary engine."""
    rows = frozenset(range(10) if handed is None else handed)
    return AttemptJournal(token, engine, alone, rows, frozenset(deaths), end)


@pytest.mark.parametrize(
    ("end", "fate", "counts"),
    [
        (None, Fate.DIED, True),
        (None, Fate.ALIVE, False),  # a zombie, or one that is cut off from Temporal
        (None, Fate.LOST, False),  # its node is gone: a preemption, say
        (None, Fate.UNKNOWN, False),
        (End.RELEASED, Fate.DIED, False),  # the process ended later, for whatever reason
        (End.RELEASED, Fate.ALIVE, False),
        (End.DIED, Fate.ALIVE, True),  # EngineCore died, its actor did not
        (End.DIED, Fate.DIED, True),
        (End.DIED, Fate.LOST, False),
        (End.DIED, Fate.UNKNOWN, False),
        (End.HUNG, Fate.ALIVE, True),
        (End.HUNG, Fate.DIED, True),
        (End.HUNG, Fate.LOST, False),
    ],
)
def test_only_an_unexplained_death_of_a_process_counts(
    end: End | None, fate: Fate, counts: bool
) -> None:
    one = journal(end=end)
    assert len(find_deaths([one], {one.engine: fate})) == counts


def test_an_attempt_that_handed_nothing_over_is_no_death() -> None:
    one = journal(handed=range(0))
    assert find_deaths([one], {one.engine: Fate.DIED}) == []
    assert undecided([one]) == set()


def test_a_death_that_was_found_out_stays_one_when_the_node_is_lost_later() -> None:
    dead = journal()
    witness = journal("wf-1-2", "f/slot-1/bbbbbbbb-1", end=End.RELEASED, deaths=("wf-1-1",))
    assert undecided([dead, witness]) == set()
    assert [death.token for death in find_deaths([dead, witness], {dead.engine: Fate.LOST})] == [
        "wf-1-1"
    ]


def test_only_engines_that_may_have_died_are_asked_about() -> None:
    journals = [journal("a", "f/slot-0/x-1"), journal("b", "f/slot-1/x-2", end=End.RELEASED)]
    assert undecided(journals) == {"f/slot-0/x-1"}


def death(engine: str, rows: range, *, alone: bool = True, token: str = "wf-1-1") -> Death:
    """An unexplained death."""
    return Death(token, engine, alone, frozenset(rows))


def test_the_first_death_is_a_retry_and_the_second_makes_a_batch_suspect() -> None:
    first, second = death("a", range(10), alone=False), death("b", range(10), alone=False)
    assert not is_suspect([first], range(10))
    assert is_suspect([first, second], range(10))


def test_rows_that_are_finished_by_now_are_nobodys_suspects() -> None:
    deaths = [death("a", range(10), alone=False), death("b", range(4, 8), alone=False)]
    assert not is_suspect(deaths, [8, 9])
    assert is_suspect(deaths, [7, 8])


def test_an_engine_that_took_the_batch_twice_dies_once() -> None:
    hung_twice = [death("a", range(10), alone=False), death("a", range(10), alone=False)]
    assert not is_suspect(hung_twice, range(10))
    lone = [death("a", range(1)), death("a", range(1))]
    assert plan_trials(lone, [0]).convicted == []


def test_suspects_run_in_groups_at_first() -> None:
    ordinary = [death("a", range(40), alone=False), death("b", range(40), alone=False)]
    trials = plan_trials(ordinary, range(40))
    assert trials.convicted == []
    assert [len(group) for group in trials.groups] == [16, 16, 8]
    assert [row for group in trials.groups for row in group] == list(range(40))


def test_after_a_death_only_the_rows_in_flight_run_one_at_a_time_and_last() -> None:
    trials = plan_trials([death("a", range(16))], [3, 4, 15, 16, 17, 40])
    assert trials.groups == [[16, 17, 40], [3], [4], [15]]


def test_a_row_is_convicted_by_two_engines_that_had_it_alone() -> None:
    deaths = [death("a", range(16)), death("b", range(4, 5))]
    assert plan_trials(deaths, [3, 4, 5]).groups == [[3], [5], [4]]
    convicted = plan_trials([*deaths, death("c", range(4, 5))], [3, 4, 5])
    assert (convicted.convicted, convicted.groups) == ([4], [[3], [5]])


def test_the_last_row_of_an_ordinary_attempt_is_not_one_that_was_alone() -> None:
    straggler = [death(engine, range(7, 8), alone=False) for engine in ("a", "b", "c")]
    assert plan_trials(straggler, [7]) == plan_trials([], [7])


def test_deaths_are_counted_for_one_start_of_the_rank() -> None:
    deaths = [
        death("a", range(16), token="wf-1-1"),
        death("b", range(16), token="wf-2-1"),
        death("b", range(16), token="wf-2-2"),
        death("c", range(16), token="other-2-1"),
        death("d", range(16), token="wf-3-1", alone=False),
    ]
    assert deaths_alone(deaths, "wf") == 2


def test_a_journal_is_summed_up_to_what_the_engine_had_last() -> None:
    entries = [
        JournalEntry(engine="e", alone=True, deaths=["t"], handed=as_ranges([5, 1, 2])),
        JournalEntry(engine="e", alone=True, handed=as_ranges([7])),
        JournalEntry(engine="e", alone=True, end=End.HUNG),
    ]
    assert as_ranges([5, 1, 2]) == [(1, 2), (5, 5)]
    assert summed_up("x", entries) == AttemptJournal(
        "x", "e", True, frozenset({7}), frozenset({"t"}), End.HUNG
    )
    given_back = [*entries[:2], JournalEntry(engine="e", alone=True, handed=[])]
    assert summed_up("x", given_back).handed == frozenset()


@dataclass
class Bisection:
    """A batch that is tried, engine after engine, as attempts do: only the journals live on."""

    poison: frozenset[int]
    missing: set[int]
    chance: random.Random
    outside_kills: float
    deaths: list[Death] = field(default_factory=list[Death])
    convicted: set[int] = field(default_factory=set[int])

    def run(self) -> None:
        """Until nothing is missing."""
        while self.missing:
            engine = f"e{len(self.deaths)}"
            alone = is_suspect(self.deaths, self.missing)
            trials = plan_trials(self.deaths, self.missing)
            self.convicted |= set(trials.convicted)
            self.missing -= set(trials.convicted)
            for group in trials.groups if alone else [sorted(self.missing)]:
                if not self._survives(group):
                    self.deaths.append(Death("t", engine, alone, frozenset(group)))
                    break

    def _survives(self, group: list[int]) -> bool:
        """Rows finish in any order until the poison is met, or somebody kills the engine."""
        killed = len(group) > 1 and self.chance.random() < self.outside_kills
        order = self.chance.sample(group, len(group))
        for row in order[: len(order) // 2] if killed else order:
            if row in self.poison:
                return False
            self.missing.discard(row)
        return not killed


@pytest.mark.parametrize("seed", range(40))
def test_exactly_the_poison_is_convicted_in_few_deaths(seed: int) -> None:
    chance = random.Random(seed)
    rows = chance.randrange(1, 300)
    poison = frozenset(chance.sample(range(rows), min(rows, chance.randrange(0, 4))))
    batch = Bisection(poison, set(range(rows)), chance, outside_kills=0.0)
    batch.run()
    assert batch.convicted == poison
    assert len(batch.deaths) <= 2 + len(poison) * (1 + LONE_DEATHS)


@pytest.mark.parametrize("seed", range(40))
def test_engines_that_others_kill_as_well_convict_no_innocent_row(seed: int) -> None:
    chance = random.Random(seed)
    rows = chance.randrange(GROUP_ROWS, 300)
    poison = frozenset(chance.sample(range(rows), 1))
    batch = Bisection(poison, set(range(rows)), chance, outside_kills=0.2)
    batch.run()
    assert batch.convicted == poison
