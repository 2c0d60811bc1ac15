"""Bare vLLM: `LLM.chat` with all prompts at once. The limit."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.parts import Parts, is_part
from bench.protocol import Channel, Result, own_settings, read_rows
from bench.settings import Settings

_SAMPLING = ("max_tokens", "temperature", "ignore_eos")


def serve_vllm(settings: Settings, channel: Channel) -> None:
    """One engine in this process."""
    from vllm import LLM, SamplingParams

    llm = LLM(**settings.vllm_arguments())

    def job(requests: Path, answers: Path) -> Result:
        bodies = [row["body"] for row in read_rows(requests)]
        params = [SamplingParams(**{key: body[key] for key in _SAMPLING}) for body in bodies]
        started = time.monotonic()
        outputs = llm.chat([body["messages"] for body in bodies], params, use_tqdm=False)
        generating = time.monotonic() - started
        return Result(
            rows=len(outputs),
            failed=0,
            prompt_tokens=sum(len(output.prompt_token_ids or []) for output in outputs),
            completion_tokens=sum(len(output.outputs[0].token_ids) for output in outputs),
            generating=generating,
        )

    channel.serve(job)


def serve_simulated(settings: Settings, channel: Channel) -> None:
    """Rankflow's simulated engine without Rankflow, so that the harness can be tried anywhere."""
    from rankflow.contracts.models import ModelSpec
    from rankflow.engine.simulated import SimulatedBackend

    spec = ModelSpec(
        model=settings.model,
        backend="simulated",
        engine_args=settings.engine_args,
        max_num_seqs=settings.max_num_seqs,
    )

    async def generate(rows: list[dict[str, Any]]) -> Result:
        backend = SimulatedBackend(spec)
        await backend.load()
        started = time.monotonic()
        answers = await asyncio.gather(
            *(backend.answer(row["url"], row["body"], row["custom_id"]) for row in rows)
        )
        return Result(
            rows=len(answers),
            failed=sum(answer.failed for answer in answers),
            prompt_tokens=sum(answer.prompt_tokens for answer in answers),
            completion_tokens=sum(answer.completion_tokens for answer in answers),
            generating=time.monotonic() - started,
        )

    channel.serve(lambda requests, answers: asyncio.run(generate(read_rows(requests))))


def main() -> None:
    """One process of several engines, or one engine."""
    settings, channel = own_settings(), Channel()
    if not is_part():
        import sys

        with Parts("bench.contenders.bare", settings, Path(sys.argv[1])) as parts:
            channel.serve(parts.job)
    elif settings.backend == "simulated":
        serve_simulated(settings, channel)
    else:
        serve_vllm(settings, channel)


if __name__ == "__main__":
    main()
