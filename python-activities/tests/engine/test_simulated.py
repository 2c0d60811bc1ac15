"""The stand-in is deterministic, keeps its rate and says what it is."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import ValidationError

from rankflow.engine.backend import BackendDead
from rankflow.engine.simulated import FINGERPRINT, SimulatedBackend
from tests.engine.conftest import chat, simulated_model

CHAT = "/v1/chat/completions"


async def test_answers_depend_on_the_request_alone_and_say_what_they_are() -> None:
    body = chat(1)["body"]
    first = await SimulatedBackend(simulated_model()).answer(CHAT, body, "a")
    second = await SimulatedBackend(simulated_model()).answer(CHAT, body, "b")
    assert first.body["choices"] == second.body["choices"]
    assert first.body["system_fingerprint"] == FINGERPRINT


async def test_throughput_is_the_rate_however_many_requests_run_at_once() -> None:
    backend = SimulatedBackend(simulated_model(tokens_per_second=100))
    started = time.monotonic()
    rows = [backend.answer(CHAT, chat(n)["body"], str(n)) for n in range(20)]
    tokens = sum(answer.completion_tokens for answer in await asyncio.gather(*rows))
    assert time.monotonic() - started == pytest.approx(tokens / 100, abs=0.15)


async def test_a_dead_engine_answers_nothing_more() -> None:
    backend = SimulatedBackend(simulated_model(die_after_rows=1))
    with pytest.raises(BackendDead):
        await backend.answer(CHAT, chat(1)["body"], "a")
        await backend.answer(CHAT, chat(2)["body"], "b")
    assert backend.dead


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError):
        SimulatedBackend(simulated_model(tokens_per_minute=3))
