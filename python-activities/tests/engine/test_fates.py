"""What is concluded from Ray's nodes and actors about an engine that fell silent."""

from __future__ import annotations

import pytest

from rankflow.engine.fates import RayFates, fate_of
from rankflow.engine.suspicion import Fate

OWN = "models/slot-1/bbbbbbbb-20"
ALIVE = {"aaaaaaaa", "bbbbbbbb"}
PRESENT = {"models/slot-0": "aaaaaaaa-12"}


@pytest.mark.parametrize(
    ("engine", "fate"),
    [
        (OWN, Fate.ALIVE),
        ("models/slot-1/bbbbbbbb-19", Fate.DIED),  # this slot is another process by now
        ("models/slot-1/aaaaaaaa-7", Fate.DIED),
        ("models/slot-1/cccccccc-7", Fate.LOST),
        ("models/slot-0/aaaaaaaa-12", Fate.ALIVE),
        ("models/slot-0/aaaaaaaa-11", Fate.DIED),
        ("models/slot-0/cccccccc-12", Fate.LOST),
        ("models/slot-2/aaaaaaaa-30", Fate.UNKNOWN),
        ("other/slot-0/aaaaaaaa-12", Fate.UNKNOWN),
    ],
)
def test_fates(engine: str, fate: Fate) -> None:
    assert fate_of(engine, OWN, ALIVE, PRESENT.get) is fate


async def test_without_ray_nobody_knows() -> None:
    assert await RayFates(OWN, "spec")(["models/slot-0/aaaaaaaa-11"]) == {
        "models/slot-0/aaaaaaaa-11": Fate.UNKNOWN
    }
