"""Nothing looks for garbage while an engine is made, and what was made is not looked at again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from rankflow import garbage
from rankflow.engine.backend import ModelFacts
from rankflow.engine.host import EngineHost
from rankflow.engine.simulated import SimulatedBackend
from tests.engine.conftest import simulated_model


class Cycle:
    """Refers to itself: only a look finds that nobody else does."""

    def __init__(self) -> None:
        self.itself = self


def make_garbage() -> weakref.ref[Cycle]:
    """Something that a look would free, and as much as makes Python look."""
    found = weakref.ref(Cycle())
    objects = [[n] for n in range(2 * garbage.NEW_OBJECTS)]
    assert len(objects) > garbage.NEW_OBJECTS
    return found


@pytest.fixture(autouse=True)
def usual_settings() -> Iterator[None]:
    """What is changed is the whole process's."""
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()
    gc.unfreeze()


def test_nothing_looks_while_it_is_put_off() -> None:
    with garbage.put_off():
        assert make_garbage()() is not None
    assert make_garbage()() is None


def test_what_was_made_is_not_looked_at_again() -> None:
    with garbage.put_off():
        made = [[n] for n in range(1000)]
    assert gc.get_freeze_count() > len(made)
    assert not any(one is made[0] for one in gc.get_objects())


def test_it_looks_as_often_as_before() -> None:
    thresholds = gc.get_threshold()
    with garbage.put_off():
        pass
    assert gc.get_threshold() == thresholds


def test_a_few_objects_more_are_no_reason_to_look_in_an_engine() -> None:
    gc.set_threshold(700, 10, 10)
    garbage.look_seldom()
    gc.collect(0)
    looks = gc.get_stats()[0]["collections"]
    few = [[n] for n in range(garbage.NEW_OBJECTS // 2)]
    assert gc.get_stats()[0]["collections"] == looks
    assert len(few) < garbage.NEW_OBJECTS


def test_it_goes_on_after_a_failure() -> None:
    with pytest.raises(ImportError), garbage.put_off():
        raise ImportError
    assert gc.isenabled()


async def test_an_engine_is_made_without_a_look() -> None:
    class Looked(SimulatedBackend):
        async def load(self) -> ModelFacts:
            seen.append(gc.isenabled())
            return await super().load()

    def factory() -> SimulatedBackend:
        seen.append(gc.isenabled())
        return Looked(simulated_model())

    seen: list[bool] = []
    host = EngineHost(factory)
    host.start()
    await host.wait_loaded()
    assert seen == [False, False]
    assert gc.isenabled()
    host.shutdown()
