"""What the end of a child process says about its task."""

import signal

import pytest
from pydantic import BaseModel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.control.process import run_child


class Given(BaseModel):
    sign: int


async def ended_by(signal_number: int) -> None:
    await run_child(
        ["tests.control.killed"],
        Given(sign=signal_number),
        Given,
        otherwise=ErrorType.ENGINE_ARGUMENTS_INVALID,
        beat=lambda: None,
    )


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
async def test_a_child_that_somebody_killed_is_tried_again(sign: signal.Signals) -> None:
    # Temporal repeats every error that is not of the closed set.
    with pytest.raises(RuntimeError, match=sign.name):
        await ended_by(sign)


async def test_a_child_that_crashes_fails_its_task() -> None:
    with pytest.raises(RankflowError) as caught:
        await ended_by(signal.SIGSEGV)
    assert caught.value.kind is ErrorType.ENGINE_ARGUMENTS_INVALID
