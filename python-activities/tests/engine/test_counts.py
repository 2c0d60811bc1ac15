"""What an engine counts for Prometheus is what happened to its rows, and never what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest
from temporalio.exceptions import ApplicationError

from rankflow.contracts.models import CanaryInput
from rankflow.engine.batch import Served
from rankflow.engine.canary import CanaryActivity
from rankflow.engine.host import EngineHost
from rankflow.engine.simulated import SimulatedBackend
from tests.engine.conftest import (
    StartEngine,
    TroubledAtOneRow,
    attempt_environment,
    chat,
    simulated_model,
    start_engine,
    write_plan,
)

CANARY = "a-prompt-that-nobody-may-see"


class Counted:
    """How much was counted since."""

    def __init__(self) -> None:
        self._before = self._now()

    def __call__(self, name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return self._now().get(key, 0) - self._before.get(key, 0)

    @staticmethod
    def _now() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in REGISTRY.collect()
            for sample in family.samples
        }


async def test_rows_tokens_and_attempts_are_counted(tmp_path: Path, start: StartEngine) -> None:
    model = simulated_model()
    model.max_model_len = 20
    long = chat(9)
    long["body"]["messages"][0]["content"] = "x" * 500
    run = write_plan(tmp_path, [chat(0), chat(1), long], model)
    counted = Counted()
    engine = await start(run)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    await attempt_environment(2).run(engine.generate_batch, run.given)
    assert counted("rankflow_rows_total", state="answered") == 2
    assert counted("rankflow_rows_total", state="failed") == 1
    assert counted("rankflow_tokens_total", kind="completion") == result.completion_tokens > 0
    assert counted("rankflow_tokens_total", kind="prompt") == result.prompt_tokens > 0
    assert counted("rankflow_batch_attempts_total", result="committed") == 1
    assert counted("rankflow_batch_attempts_total", result="already_committed") == 1
    assert counted("rankflow_batch_retries_total") == 1
    assert counted("rankflow_batch_duration_seconds_count") == 1
    assert counted("rankflow_redone_rows_total") == 0


async def test_what_a_lost_attempt_had_begun_counts_as_redone(tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(3)], simulated_model())

    counted = Counted()
    troubled = await start_engine(run, TroubledAtOneRow(run.model))
    with pytest.raises(ApplicationError):
        await attempt_environment(1).run(troubled.generate_batch, run.given)
    assert counted("rankflow_batch_attempts_total", result="EngineGone") == 1
    assert counted("rankflow_redone_rows_total") == 0
    healthy = await start_engine(run, SimulatedBackend(run.model))
    result = await attempt_environment(2).run(healthy.generate_batch, run.given)
    assert counted("rankflow_rows_total", state="answered") == 3
    assert counted("rankflow_salvaged_rows_total") == 2
    assert counted("rankflow_redone_rows_total") == 1
    assert counted("rankflow_redone_tokens_total") > 0
    assert result.redone is not None
    assert (result.redone.rows, result.redone.left_tokens) == (1, 0)
    assert result.redone.tokens == counted("rankflow_redone_tokens_total")


async def test_no_prompt_is_in_the_metrics_or_in_the_logs(
    tmp_path: Path, start: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret, refused = chat(0), chat(1)
    secret["body"]["messages"][0]["content"] = CANARY
    refused["body"]["messages"][0]["content"] = CANARY * 2000
    run = write_plan(tmp_path, [secret, refused], simulated_model())
    engine = await start(run)
    result = await attempt_environment().run(engine.generate_batch, run.given)
    assert result.failed_rows == 1
    assert CANARY not in caplog.text
    assert CANARY not in generate_latest(REGISTRY).decode()


async def test_a_canary_says_where_the_metrics_are() -> None:
    host = EngineHost(lambda: SimulatedBackend(simulated_model()))
    host.start()
    where = {"address": None}
    activity = CanaryActivity(
        host, Served("test/slot-0/0-1", "spec"), metrics=lambda: where["address"]
    )
    result = await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    assert result.metrics is None
    where = {"address": "10.0.0.3:9500"}
    result = await attempt_environment().run(activity.canary, CanaryInput(spec_hash="spec"))
    assert result.metrics == "10.0.0.3:9500"
