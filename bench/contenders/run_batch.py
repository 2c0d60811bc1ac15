"""`vllm.entrypoints.openai.run_batch`: vLLM's own reader of OpenAI Batch files."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from pathlib import Path
from typing import Any

from bench.parts import Parts, is_part
from bench.protocol import Channel, Result, count_bodies, own_settings, read_rows
from bench.settings import Settings


def _modules() -> tuple[Any, Any]:
    """The module of run_batch and the one that makes its engine; vLLM 0.27 and later moved both."""
    try:
        batch = importlib.import_module("vllm.entrypoints.launchers.run_batch")
        return batch, importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    except ImportError:
        batch = importlib.import_module("vllm.entrypoints.openai.run_batch")
        return batch, importlib.import_module("vllm.entrypoints.openai.api_server")


def serve_part(settings: Settings, channel: Channel) -> None:
    """One engine, kept between files: what is timed is run_batch's own function."""
    batch, server = _modules()
    flags = ["-i", "-", "-o", "-", *settings.vllm_flags()]
    sys.argv[1:] = flags
    args = batch.parse_args()

    async def serve() -> None:
        async with server.build_async_engine_client(args) as client:

            async def one(requests: Path, answers: Path) -> Result:
                args.input_file, args.output_file = str(requests), str(answers)
                started = time.monotonic()
                await batch.run_batch(client, args)
                generating = time.monotonic() - started
                lines = read_rows(answers)
                return count_bodies([line["response"]["body"] for line in lines], generating)

            loop = asyncio.get_running_loop()

            def job(requests: Path, answers: Path) -> Result:
                return asyncio.run_coroutine_threadsafe(one(requests, answers), loop).result()

            await asyncio.to_thread(channel.serve, job)

    asyncio.run(serve())


def main() -> None:
    """One process of several engines, or one engine."""
    settings, channel = own_settings(), Channel()
    if is_part():
        serve_part(settings, channel)
        return
    with Parts("bench.contenders.run_batch", settings, Path(sys.argv[1])) as parts:
        channel.serve(parts.job)


if __name__ == "__main__":
    main()
