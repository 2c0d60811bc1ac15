"""The classic script: an engine in each Ray actor, batches of rank r to `r % engines`, and wait."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.protocol import Channel, Result, own_settings, read_rows
from bench.settings import Settings

BATCH_ROWS = 256


class Engine:
    """One engine in an actor."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**arguments)

    def ready(self) -> bool:
        """Answers once the model is loaded."""
        return True

    def generate(self, bodies: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """Prompt and completion tokens of each request."""
        from vllm import SamplingParams

        keys = ("max_tokens", "temperature", "ignore_eos")
        params = [SamplingParams(**{key: body[key] for key in keys}) for body in bodies]
        outputs = self._llm.chat([body["messages"] for body in bodies], params, use_tqdm=False)
        return [(len(o.prompt_token_ids or []), len(o.outputs[0].token_ids)) for o in outputs]


def _actors(settings: Settings) -> list[Any]:
    import ray

    ray.init(
        address="local",
        num_cpus=settings.engines + 1,
        num_gpus=settings.gpus,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )
    actor = ray.remote(Engine)
    actors: list[Any] = []
    for engine in range(settings.engines):
        names = ("USE_TF", "HF_HUB_OFFLINE", "VLLM_CPU_KVCACHE_SPACE", "VLLM_CPU_OMP_THREADS_BIND")
        environment = settings.engine_environment(engine)
        variables = {name: environment[name] for name in names if name in environment}
        options = actor.options(
            num_cpus=1, num_gpus=settings.gpus_per_engine, runtime_env={"env_vars": variables}
        )
        actors.append(options.remote(settings.vllm_arguments()))
    ray.get([one.ready.remote() for one in actors])
    return actors


def main() -> None:
    """The driver."""
    settings, channel = own_settings(), Channel()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    actors = _actors(settings)

    def rank(number: int, bodies: list[dict[str, Any]]) -> list[tuple[int, int]]:
        engine = actors[number % len(actors)]
        tokens: list[tuple[int, int]] = []
        for start in range(0, len(bodies), BATCH_ROWS):
            tokens += ray.get(engine.generate.remote(bodies[start : start + BATCH_ROWS]))
        return tokens

    def job(requests: Path, answers: Path) -> Result:
        bodies = [row["body"] for row in read_rows(requests)]
        ranks = settings.all_ranks
        started = time.monotonic()
        with ThreadPoolExecutor(ranks) as pool:
            parts = [bodies[number::ranks] for number in range(ranks)]
            tokens = [pair for part in pool.map(rank, range(ranks), parts) for pair in part]
        return Result(
            rows=len(tokens),
            failed=0,
            prompt_tokens=sum(prompt for prompt, _ in tokens),
            completion_tokens=sum(completion for _, completion in tokens),
            generating=time.monotonic() - started,
        )

    channel.serve(job)
    ray.shutdown()


if __name__ == "__main__":
    main()
