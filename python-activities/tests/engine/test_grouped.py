"""Which engines let requests begin in groups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.platforms import current_platform

from rankflow.engine.grouped import NAME, let_begin_in_groups


def config(
    scheduler_cls: str | None = None,
    *,
    ahead: bool = True,
    runner: str = "generate",
    eager: bool = False,
) -> Any:
    """What vLLM made of its arguments, as far as it is looked at."""
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(scheduler_cls=scheduler_cls, async_scheduling=ahead),
        model_config=SimpleNamespace(runner_type=runner, enforce_eager=eager),
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with NVIDIA's."""

    def is_cuda(platform: object) -> bool:
        return True

    monkeypatch.setattr(type(current_platform), "is_cuda", is_cuda)


@pytest.mark.usefixtures("gpu")
def test_engines_on_gpus_do() -> None:
    given = config()
    assert let_begin_in_groups(given)
    assert given.scheduler_config.scheduler_cls == NAME


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "given",
    [
        config("mine.Scheduler"),
        config(ahead=False),
        config(runner="pooling"),
        config(eager=True),
    ],
)
def test_others_keep_the_scheduler_that_they_have(given: Any) -> None:
    before = given.scheduler_config.scheduler_cls
    assert not let_begin_in_groups(given)
    assert given.scheduler_config.scheduler_cls == before


def test_engines_on_cpus_do_when_they_are_asked_to() -> None:
    assert not let_begin_in_groups(config())
    assert let_begin_in_groups(config(NAME))
