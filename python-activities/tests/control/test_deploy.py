"""Deploying tells at once that a cluster is away; an engine gets a GPU bundle for each worker."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    ClusterAddress,
    ExecuteFleetPlanInput,
    ExecuteFleetPlanResult,
    FleetSpec,
    ModelSpec,
)
from rankflow.control import deploy
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


def parallel(tensor: int, pipeline: int, gpus: float) -> ModelSpec:
    """A model whose engine has so many workers on so many GPUs, and two CPUs."""
    return ModelSpec(
        model="m",
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        gpus_per_engine=gpus,
        cpus_per_engine=2,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray is asked for, in its place."""
    groups: list[dict[str, Any]] = []

    def group(bundles: list[dict[str, float]], **more: Any) -> object:
        groups.append({"bundles": bundles, **more})
        return object()

    monkeypatch.setattr(deploy, "placement_group", group)
    monkeypatch.setattr(deploy, "_find_group", {}.get)
    return groups


@pytest.mark.parametrize(
    ("tensor", "pipeline", "gpus", "share"),
    [
        (2, 1, 2, 1.0),
        (4, 1, 4, 1.0),
        (4, 2, 8, 1.0),
        (1, 2, 2, 1.0),
        (2, 1, 1, 0.5),
        (2, 2, 1, 0.25),
    ],
)
def test_each_worker_of_an_engine_has_a_bundle_and_the_first_one_its_cpus(
    asked: list[dict[str, Any]], tensor: int, pipeline: int, gpus: float, share: float
) -> None:
    spec = parallel(tensor, pipeline, gpus)
    assert deploy.spans_devices(spec)
    deploy.devices_of("e", spec)
    (group,) = asked
    first, *others = group["bundles"]
    assert first == {"GPU": share, "CPU": 2}
    assert others == [{"GPU": share}] * (tensor * pipeline - 1)
    # It outlives the driver that made it, as the engine's actor does.
    assert (group["strategy"], group["lifetime"]) == ("PACK", "detached")


def test_one_worker_or_none_on_a_gpu_needs_no_group() -> None:
    assert not deploy.spans_devices(parallel(1, 1, 1))
    assert not deploy.spans_devices(parallel(1, 1, 0.25))
    assert not deploy.spans_devices(parallel(2, 1, 0))


def test_an_engine_that_starts_again_keeps_its_devices(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = object()
    monkeypatch.setattr(deploy, "_find_group", {"e": kept}.get)
    assert deploy.devices_of("e", parallel(2, 1, 2)) is kept
    assert asked == []


@pytest.mark.parametrize("avoid", [[], ["a" * 56], ["a" * 56, "b" * 56]])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_engine_is_kept_from_cordoned_nodes_with_all_of_its_devices(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, avoid: list[str], workers: int
) -> None:
    told: dict[str, Any] = {}

    class Remote:
        def options(self, **options: Any) -> Remote:
            told.update(options)
            return self

        def remote(self, *_: object) -> None: ...

    def remote(_: object) -> Remote:
        return Remote()

    monkeypatch.setattr("ray.remote", remote)
    fleet = FleetSpec(
        name="f",
        cluster=ClusterAddress(name="c", address="h:1", dashboard_url="http://127.0.0.1"),
        model=parallel(workers, 1, workers),
        spec_hash="0" * 64,
        engines=1,
    )
    deploy.start_engine(fleet, 0, 0, {}, avoid)
    selector = {"ray.io/node-id": f"!in({','.join(avoid)})"} if avoid else None
    # Ray keeps to it when it restarts the engine, which it does by itself.
    assert told.get("label_selector") == selector
    assert told["max_restarts"] == -1
    groups = [group.get("bundle_label_selector") for group in asked]
    assert groups == ([[selector] * 2 if avoid else None] if workers > 1 else [])


@pytest.mark.parametrize("avoid", [["a" * 56], ["a" * 56, "b" * 56]])
def test_ray_takes_the_selector(avoid: list[str]) -> None:
    from ray._private.label_utils import validate_label_selector

    assert validate_label_selector(deploy.elsewhere(avoid)) is None
