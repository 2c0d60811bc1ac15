"""What must be in an engine process's environment before vLLM is imported."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import ModelSpec, SecretRef

DEFAULT_CPU_KVCACHE_GIB = "1"


def read_secret(reference: SecretRef) -> str:
    """The secret behind a reference, read on this node.

    Raises ENGINE_LOAD_FAILED (not retryable) naming the variable or file, never the value.
    """
    if reference.env is not None:
        value = os.environ.get(reference.env, "")
        if not value:
            raise RankflowError(
                ErrorType.ENGINE_LOAD_FAILED,
                f"environment variable {reference.env} (credentials) is not set on this node",
            )
        return value
    if reference.file is None:
        raise RankflowError(ErrorType.ENGINE_LOAD_FAILED, "credentials name neither env nor file")
    try:
        return Path(reference.file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise RankflowError(
            ErrorType.ENGINE_LOAD_FAILED,
            f"credentials file {reference.file} cannot be read on this node: {error.strerror}",
        ) from error


def cpu_binding(cpus_per_engine: float, workers: int, slot: int, cores: list[int]) -> str:
    """Value of VLLM_CPU_OMP_THREADS_BIND: one core list a worker process, separated by ``|``.

    Engines of one host take neighbouring cores in the order of their slots, so that two engines
    of one core each do not share a core; an engine that asks for all cores or more gets all of
    them.
    """
    wanted = min(len(cores), max(workers, math.ceil(cpus_per_engine)))
    first = slot * wanted % len(cores)
    own = [cores[(first + i) % len(cores)] for i in range(wanted)]
    share = max(1, wanted // workers)
    groups = [[own[(w * share + i) % len(own)] for i in range(share)] for w in range(workers)]
    return "|".join(",".join(str(core) for core in sorted(set(group))) for group in groups)


def check_model_folder(spec: ModelSpec) -> None:
    """Raise ENGINE_LOAD_FAILED when the model is a folder that this node does not have.

    vLLM would take the path for a hub name and complain about its form.
    """
    path = Path(spec.model)
    if path.is_absolute() and not (path / "config.json").is_file():
        raise RankflowError(
            ErrorType.ENGINE_LOAD_FAILED, f"no model in the folder {spec.model} on this node"
        )


def prepare_environment(spec: ModelSpec, slot: int) -> None:
    """Set what vLLM, torch and the model hub read at import. What the node already sets wins.

    Raises ENGINE_LOAD_FAILED when the credentials cannot be read.
    """
    os.environ.setdefault(
        "USE_TF", "0"
    )  # transformers would import TensorFlow: seconds for nothing
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if spec.endpoint is not None:
        os.environ["HF_ENDPOINT"] = spec.endpoint
    if spec.credentials is not None:
        os.environ["HF_TOKEN"] = read_secret(spec.credentials)
    if spec.gpus_per_engine == 0:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", DEFAULT_CPU_KVCACHE_GIB)
        workers = spec.tensor_parallel_size * spec.pipeline_parallel_size
        cores = sorted(os.sched_getaffinity(0))
        binding = cpu_binding(spec.cpus_per_engine, workers, slot, cores)
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", binding)
        _preload_fast_libraries()


def _preload_fast_libraries() -> None:
    """Preload tcmalloc and Intel's OpenMP into vLLM's worker processes where both are installed.

    About a tenth more tokens a second on CPU; processes that already run are not affected.
    """
    if "LD_PRELOAD" in os.environ:
        return
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    allocators = sorted(Path("/usr/lib").glob("*/libtcmalloc_minimal.so.4"))
    if openmp.exists() and allocators:
        os.environ["LD_PRELOAD"] = f"{allocators[0]}:{openmp}"
