"""A suspect batch has its engine for itself, and the others go elsewhere meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.admission import Admission
from rankflow.engine.turns import Turns
from tests.engine.test_admission import places


def nothing() -> None:
    """What waiting does here."""


def no_rows() -> int:
    """Rows that a batch has left here."""
    return 0


async def hold(turns: Turns, alone: bool, until: asyncio.Event, log: list[str], name: str) -> None:
    """Take a turn, and keep it until told."""
    async with turns.take(alone, nothing, no_rows):
        log.append(f"{name} on")
        await until.wait()
        log.append(f"{name} off")


async def test_a_suspect_waits_for_the_others_and_then_is_alone() -> None:
    turns, log = Turns(), list[str]()
    end_first, end_alone = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(hold(turns, False, end_first, log, "first"))
    await asyncio.sleep(0)
    alone = asyncio.create_task(hold(turns, True, end_alone, log, "alone"))
    await asyncio.sleep(0.7)
    assert log == ["first on"]
    with pytest.raises(RankflowError) as caught:
        async with turns.take(False, nothing, no_rows):
            pass
    assert caught.value.kind is ErrorType.ENGINE_GONE
    end_first.set()
    await first
    await asyncio.sleep(0.7)
    assert log == ["first on", "first off", "alone on"]
    end_alone.set()
    await alone
    async with turns.take(False, nothing, no_rows):
        pass


async def test_suspects_take_turns() -> None:
    turns, log = Turns(), list[str]()
    ends = [asyncio.Event(), asyncio.Event()]
    tasks = [
        asyncio.create_task(hold(turns, True, end, log, str(number)))
        for number, end in enumerate(ends)
    ]
    ends[1].set()
    await asyncio.sleep(0.7)
    assert log == ["0 on"]
    ends[0].set()
    await asyncio.gather(*tasks)
    assert log == ["0 on", "0 off", "1 on", "1 off"]


async def test_nothing_is_pulled_while_a_suspect_has_the_engine_or_waits_for_it() -> None:
    admission = Admission(4)
    turns, queue = Turns(admission), places(admission)
    other = asyncio.Event()
    first = asyncio.create_task(hold(turns, False, other, [], "first"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(hold(turns, True, asyncio.Event(), [], "alone"))
    await asyncio.sleep(0.1)
    assert queue.try_reserve_slot(None) is None
    waiting.cancel()
    await asyncio.wait([waiting])
    assert queue.try_reserve_slot(None) is not None
    other.set()
    await first
