"""Several engines on one GPU: each has its share of the memory, and they load one by one.

vLLM measures a card's free memory before and after a trial run and takes the difference for its
own, so engines that start beside each other count each other's memory and fail.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Generator
from typing import Any

from rankflow.contracts.models import ModelSpec
from rankflow.engine.scratch import SHARED

UNCOUNTED_BYTES = 2 << 30
"""CUDA context and captured graphs of one engine, which vLLM does not count as its share."""


def device_share(spec: ModelSpec) -> float:
    """Share of each of its GPUs that an engine has; 1 when it is alone, and without GPUs."""
    workers = spec.tensor_parallel_size * spec.pipeline_parallel_size
    return min(1.0, spec.gpus_per_engine / workers) if spec.gpus_per_engine > 0 else 1.0


def spans_devices(spec: ModelSpec) -> bool:
    """Whether an engine has workers on several GPUs, or several on one."""
    return spec.gpus_per_engine > 0 and spec.tensor_parallel_size * spec.pipeline_parallel_size > 1


def limit_memory(spec: ModelSpec, engine: Any) -> None:
    """Lower ``gpu_memory_utilization`` of vLLM's engine arguments to the engine's share of a card.

    What the user gave stays.
    """
    share = device_share(spec)
    if share == 1.0 or "gpu_memory_utilization" in _given(spec):
        return
    from vllm.platforms import current_platform

    uncounted = UNCOUNTED_BYTES / current_platform.get_device_total_memory()
    # vLLM checks it at the start even where the size of the cache is given.
    engine.gpu_memory_utilization = round(max(0.01, share - uncounted), 3)


@contextlib.contextmanager
def turn_on_device(spec: ModelSpec) -> Generator[None]:
    """Wait until no other engine loads on the same card; the kernel ends the turn of a dead one."""
    if device_share(spec) == 1.0 or "kv_cache_memory_bytes" in _given(spec):
        # Alone, or nothing is measured.
        yield
        return
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(",", "-").replace("/", "-")
    name = f"rankflow-device-{os.getuid()}-{devices}.lock"
    with (SHARED / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _given(spec: ModelSpec) -> set[str]:
    return {name.replace("-", "_") for name in spec.engine_args}
