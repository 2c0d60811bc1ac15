"""Deploying tells at once that a cluster is away, which is worth another try."""

from __future__ import annotations

import socket

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    ClusterAddress,
    ExecuteFleetPlanInput,
    ExecuteFleetPlanResult,
    FleetSpec,
    ModelSpec,
)
from rankflow.control.process import run_child


def unused_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_cluster_that_is_away_is_told_at_once_and_may_be_retried() -> None:
    address = f"127.0.0.1:{unused_port()}"
    fleet = FleetSpec(
        name="f",
        cluster=ClusterAddress(name="c", address=address, dashboard_url="http://127.0.0.1"),
        model=ModelSpec(model="m", backend="simulated"),
        spec_hash="0" * 64,
        engines=1,
    )
    with pytest.raises(RankflowError, match=address) as caught:
        await run_child(
            ["rankflow.control", "deploy"],
            ExecuteFleetPlanInput(fleet=fleet, start=[0], stop=[], restart=[]),
            ExecuteFleetPlanResult,
            otherwise=ErrorType.ENGINE_GONE,
            beat=lambda: None,
        )
    assert caught.value.kind == ErrorType.CLUSTER_UNAVAILABLE
    assert not caught.value.as_application_error().non_retryable
