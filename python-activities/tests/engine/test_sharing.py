"""Engines that share a card take their share of its memory, and load one after the other."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from rankflow.contracts.models import ModelSpec
from rankflow.engine import sharing


def spec(share: float, **given: object) -> ModelSpec:
    """A model on this share of one GPU."""
    return ModelSpec(model="m", gpus_per_engine=share, engine_args=dict(given))


def test_only_a_part_of_a_card_is_a_share() -> None:
    assert sharing.device_share(spec(0)) == 1
    assert sharing.device_share(spec(1)) == 1
    assert sharing.device_share(spec(0.25)) == 0.25
    halves = ModelSpec(model="m", gpus_per_engine=1, tensor_parallel_size=2)
    assert sharing.device_share(halves) == 0.5


def test_what_the_user_gave_stays_and_a_whole_card_is_left_to_vllm() -> None:
    for one in (spec(0.5, gpu_memory_utilization=0.4), spec(1), spec(0)):
        engine = SimpleNamespace(gpu_memory_utilization=0.4)
        sharing.limit_memory(one, engine)
        assert engine.gpu_memory_utilization == 0.4


@pytest.mark.parametrize(
    ("tensor", "pipeline", "gpus", "memory"),
    # 2 of the 80 GiB of each card are not counted by vLLM.
    [(1, 1, 0.5, 0.475), (1, 1, 0.25, 0.225), (2, 1, 1, 0.475), (2, 2, 1, 0.225), (4, 2, 8, None)],
)
def test_an_engine_on_several_gpus_has_its_share_of_each(
    monkeypatch: pytest.MonkeyPatch, tensor: int, pipeline: int, gpus: float, memory: float | None
) -> None:
    card = SimpleNamespace(get_device_total_memory=lambda: 80 << 30)
    platforms = SimpleNamespace(current_platform=card)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    one = ModelSpec(
        model="m",
        gpus_per_engine=gpus,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
    )
    engine = SimpleNamespace(gpu_memory_utilization=0.92)
    sharing.limit_memory(one, engine)
    assert engine.gpu_memory_utilization == (0.92 if memory is None else memory)


def overlap(one: ModelSpec) -> bool:
    """Whether two engines of this kind load at the same time."""
    inside, most = 0, 0
    lock = threading.Lock()

    def load() -> None:
        nonlocal inside, most
        with sharing.turn_on_device(one):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.2)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most > 1


def test_engines_of_one_card_load_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-test")
    assert not overlap(spec(0.25))
    assert overlap(spec(0.25, kv_cache_memory_bytes=1 << 30))
    assert overlap(spec(1))
    assert overlap(spec(0))
