"""What an engine's process keeps does not grow with the rows that it has answered."""

from __future__ import annotations

import pytest

from rankflow.engine.host import EngineHost
from rankflow.engine.simulated import SimulatedBackend
from tests.engine.conftest import chat, simulated_model


async def test_it_does_not_remember_when_it_answered_each_of_all_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankflow.engine.host.RATE_SECONDS", 0.0)
    host = EngineHost(lambda: SimulatedBackend(simulated_model()))
    host.start()
    await host.wait_loaded()
    line = chat(0)
    for row in range(50):
        await host.answer(line["url"], line["body"], f"request-{row}")
    assert len(host._answered_at) <= 1  # pyright: ignore[reportPrivateUsage]
    assert await host.decode_seconds() == 0.0
    host.shutdown()
