"""Several vLLM engines, each in a Ray actor of its own."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import ray

Row = dict[str, Any]
"""One line of an OpenAI Batch file."""


@ray.remote
class Engine:
    """One vLLM engine. It answers one batch at a time; a batch that comes meanwhile waits."""

    def __init__(self, backend: str, model: str, arguments: dict[str, Any]) -> None:
        """Load the model. Takes a minute on a CPU; calls wait until it is loaded."""
        # Imported here, so that neither the driver nor the ranks pay for it.
        library: Any = import_module("vllm" if backend == "vllm" else "simulated")
        self._sampling = library.SamplingParams
        self._llm = library.LLM(model=model, **arguments)

    def place(self) -> str:
        """Where this engine runs; answers once the model is loaded."""
        return f"node {ray.util.get_node_ip_address()}, pid {os.getpid()}"

    def generate(self, bodies: list[dict[str, Any]]) -> list[tuple[str, int]]:
        """Answer a batch of chat requests: the text and the number of its tokens, in order."""
        parameters = [
            self._sampling(
                temperature=body.get("temperature", 1.0), max_tokens=body.get("max_tokens", 64)
            )
            for body in bodies
        ]
        messages = [body["messages"] for body in bodies]
        outputs = self._llm.chat(messages, parameters, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        return [(answer.text, len(answer.token_ids)) for answer in answers]


def cpu_environment(index: int, cores: int, of_host: int) -> dict[str, str]:
    """Environment of an engine that computes on ``cores`` of the ``of_host`` cores of its host."""
    first = index * cores % of_host
    return {
        # GiB of KV cache. Without it each engine takes a share of all the memory of its host.
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # Engines that share a core are slower than one engine.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(str((first + i) % of_host) for i in range(cores)),
        # Ray would set it to the actor's CPUs; vLLM binds its own threads.
        "OMP_NUM_THREADS": str(cores),
    }


def deploy(count: int, backend: str, model: str, cpus: int, gpus: float, more: Row) -> list[Any]:
    """Create the engines and return their actors without waiting for them.

    Ray places an engine where ``cpus`` and ``gpus`` are free, and waits, silently, while they are
    not. ``more`` are further arguments of vLLM's ``LLM``.
    """
    arguments: Row = {"dtype": "bfloat16", "max_model_len": 2048}
    if gpus == 0:
        # Compiling takes minutes on a CPU, and vLLM's Ray executor refuses it.
        arguments |= {"enforce_eager": True, "distributed_executor_backend": "mp"}
    common = {
        "USE_TF": "0",
        "HF_HUB_OFFLINE": "1",
        # Ray runs actors at niceness 15: beside anything else that computes they would starve.
        "RAY_worker_niceness": "0",
    }
    engines: list[Any] = []
    for index in range(count):
        own = cpu_environment(index, cpus, os.cpu_count() or 1) if gpus == 0 else {}
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "runtime_env": {"env_vars": common | own},
        }
        engines.append(Engine.options(**options).remote(backend, model, arguments | more))
    return engines
