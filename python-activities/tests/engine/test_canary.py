"""A canary tells a live engine from one that did not load, hangs or serves another model."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from rankflow.contracts.models import CanaryInput, ModelSpec
from rankflow.engine import canary as canary_module
from rankflow.engine.batch import Served
from rankflow.engine.canary import CanaryActivity
from rankflow.engine.host import EngineHost
from rankflow.engine.simulated import SimulatedBackend
from tests.engine.conftest import attempt_environment, chat, simulated_model


def engine(model: ModelSpec) -> tuple[EngineHost, CanaryActivity]:
    """A simulated engine and its canary activity."""
    host = EngineHost(lambda: SimulatedBackend(model))
    host.start()
    return host, CanaryActivity(host, Served("test/slot-0/0-1", "spec"))


async def test_a_canary_waits_for_the_model_and_reports_it() -> None:
    _, activity = engine(simulated_model(load_seconds=0.8))
    beats: list[object] = []
    environment = attempt_environment()
    environment.on_heartbeat = lambda *_: beats.append(None)
    result = await environment.run(activity.canary, CanaryInput(spec_hash="spec"))
    assert result.load_seconds >= 0.8
    assert result.max_model_len == 4096
    assert beats


async def test_a_model_that_does_not_load_is_reported_with_its_reason() -> None:
    _, activity = engine(simulated_model(load_error="no such file: weights"))
    with pytest.raises(ApplicationError, match="no such file: weights") as caught:
        await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    assert caught.value.type == "EngineLoadFailed"
    assert caught.value.non_retryable
    assert activity.load_failure_reported.is_set()


async def test_a_load_that_another_try_may_do_is_no_failure_of_the_model() -> None:
    _, activity = engine(simulated_model(load_error="port: 101, code: -98, name: EADDRINUSE"))
    with pytest.raises(ApplicationError, match="EADDRINUSE") as caught:
        await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    # The engine is started again; this canary is not, as its process ends.
    assert caught.value.type == "EngineGone"
    assert caught.value.non_retryable


async def test_a_hung_engine_fails_its_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_module, "HUNG_SECONDS", 1.0)
    host, activity = engine(simulated_model(hang_after_rows=0))
    await host.wait_loaded()
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    assert caught.value.type == "EngineGone"


async def test_an_engine_that_died_fails_its_canary() -> None:
    host, activity = engine(simulated_model(die_after_rows=1))
    await host.wait_loaded()
    await host.answer("/v1/chat/completions", chat(1)["body"], "a")
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    assert caught.value.type == "EngineGone"


async def test_a_canary_for_another_model_is_refused() -> None:
    _, activity = engine(simulated_model())
    with pytest.raises(ApplicationError) as caught:
        await attempt_environment().run(activity.canary, CanaryInput(spec_hash="other"))
    assert caught.value.type == "ModelMismatch"
