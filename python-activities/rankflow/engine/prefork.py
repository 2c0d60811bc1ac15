"""vLLM's processes as forks of one that has imported vLLM already.

An engine on one core is three processes: the actor, EngineCore and a worker; on one GPU it is the
first two. vLLM spawns all but the actor one after the other, and each imports vLLM anew, which is
much of an engine's start: ``docs/benchmarks.md`` has the figures. A fork server imports it once,
while the actor does, and they are forked from it. It has no other thread of Python's and does not
initialise CUDA, which would work in no fork of it; the actor, which has both, cannot be forked
itself. It is in the actor's process group, and ends with it.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from rankflow.contracts.models import ModelSpec
from rankflow.engine.sharing import spans_devices

PRELOADED = "rankflow.engine.preloaded"
"""What the server imports; not ``__main__``, which is Ray's own script."""
COMPUTE_NICENESS = 5
"""Of vLLM's processes on processors: a quarter of one that others want too, all of it otherwise."""
METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
"""Where a user says how vLLM starts its processes; it is left to do so then."""


def forks(spec: ModelSpec) -> bool:
    """Whether an engine's processes are forked, and not left to vLLM.

    They are not where a user says how they start, or binds them to NUMA nodes, which vLLM does by
    the program that it spawns. Nor across GPUs: Ray starts those workers, and EngineCore learns of
    Ray only when vLLM spawns it. Nor with a GPU on WSL, whose NVML does not bear it.
    """
    wsl = spec.gpus_per_engine > 0 and "microsoft" in " ".join(platform.uname()).lower()
    bound = any(
        name.replace("-", "_") == "numa_bind" and on for name, on in spec.engine_args.items()
    )
    return METHOD not in os.environ and not spans_devices(spec) and not wsl and not bound


def start_server(preloaded: str = PRELOADED) -> None:
    """Start the server, which imports vLLM in the background; returns at once.

    What libraries read from the environment when they are loaded, the server reads now.
    """
    forkserver.set_forkserver_preload([preloaded])
    forkserver.ensure_running()


def fork_from_server() -> None:
    """Have vLLM start its processes by the server. Imports much of vLLM."""
    from vllm.utils import system_utils

    # Those who start processes take it from there by name, when they are imported.
    system_utils.get_mp_context = PreforkContext


class PreforkProcess(ForkServerProcess):
    """Takes the environment along, as a spawned process does and a fork of a server does not."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """Pickle for the child; the environment is there before the arguments are."""
        return _in_environment, (type(self), dict(os.environ)), self.__dict__


class PreforkContext(ForkServerContext):
    """A context of :mod:`multiprocessing` whose processes are forks of the server."""

    Process = PreforkProcess


def _in_environment(kind: type[PreforkProcess], variables: dict[str, str]) -> PreforkProcess:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)
    # A child knows the address of its server but not that it runs: it would start one of its own.
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running  # type: ignore[attr-defined]
    _take_openmp_settings()
    return kind.__new__(kind)


def _take_openmp_settings() -> None:
    """Apply what GNU's OpenMP reads when it is loaded, where it was loaded before the fork.

    Intel's reads its settings anew after a fork.
    """
    torch = sys.modules.get("torch")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and threads.isdigit():
        torch.set_num_threads(int(threads))
    cores = os.environ.get("GOMP_CPU_AFFINITY", "").split()
    if cores and all(core.isdigit() for core in cores):
        os.sched_setaffinity(0, {int(core) for core in cores})
