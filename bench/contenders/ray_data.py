"""Ray Data LLM: `ray.data.llm`, with the settings that run on a small machine.

Engines are loaded by each execution, so a job's seconds have the load in them; `generating` is from
the first request that an engine took to the last answer, as the rows tell.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.protocol import Channel, Result, own_settings, read_rows
from bench.settings import Settings

BATCH_ROWS = 256
LEAST_CPUS = 8
"""Its stages hold a CPU each: with fewer it waits for ever, silently."""


def _processor(settings: Settings) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    arguments = settings.vllm_arguments()
    model = arguments.pop("model")
    arguments.pop("served_model_name")
    bundle = {"GPU": settings.gpu_share} if settings.gpu_share > 0 else {"CPU": 1}
    bundles = [bundle] * settings.tensor_parallel
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=arguments,
        # All from the beginning: a plain number is a pool that grows from one.
        concurrency=(settings.engines, settings.engines),
        batch_size=BATCH_ROWS,
        log_engine_metrics=False,
        chat_template_stage={"enabled": True, "num_cpus": 0.5},
        tokenize_stage={"enabled": False},
        detokenize_stage={"enabled": False},
        placement_group_config={"bundles": bundles},
    )
    return build_processor(config, preprocess=_before, postprocess=_after)


def _before(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "messages": row["messages"],
        "sampling_params": {
            "max_tokens": row["max_tokens"],
            "temperature": row["temperature"],
            "ignore_eos": row["ignore_eos"],
            "detokenize": True,
        },
    }


def _after(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "ended": time.time(),
        "taken": row["time_taken_llm"],
        "prompt": row["num_input_tokens"],
        "completion": row["num_generated_tokens"],
    }


def main() -> None:
    """The whole contender."""
    settings, channel = own_settings(), Channel()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray
    import ray.data

    ray.init(
        address="local",
        num_cpus=max(LEAST_CPUS, os.cpu_count() or 1) + settings.engines,
        num_gpus=settings.gpus,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {"USE_TF": "0", "HF_HUB_OFFLINE": "1"}},
    )
    processor = _processor(settings)

    def job(requests: Path, answers: Path) -> Result:
        bodies = [row["body"] for row in read_rows(requests)]
        for body in bodies:
            del body["model"]  # Ray takes any name but the folder's for a LoRA adapter.
        dataset = ray.data.from_items(bodies)
        rows = processor(dataset).take_all()
        return Result(
            rows=len(rows),
            failed=0,
            prompt_tokens=sum(row["prompt"] for row in rows),
            completion_tokens=sum(row["completion"] for row in rows),
            generating=max(row["ended"] for row in rows)
            - min(row["ended"] - row["taken"] for row in rows),
        )

    channel.serve(job)
    ray.shutdown()


if __name__ == "__main__":
    main()
