"""The classic script: vLLM engines and data-parallel ranks as Ray actors, driven by one process.

    ray job submit --working-dir examples/classic -- python main.py \\
        --model MODEL --input requests.jsonl --output answers.jsonl --engines 2 --ranks 4

Reads chat requests in OpenAI's Batch format and writes the answers in that format, in input order.
Everything is held in this process until the last rank is done: when an engine, its node or this
process dies, all answers are lost.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import ray
from engines import Row, deploy
from ranks import DPRank, shares


def answer_line(row: Row, text: str, tokens: int) -> Row:
    """One line of OpenAI's Batch output."""
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"message": message}], "usage": {"completion_tokens": tokens}}
    return {"custom_id": row["custom_id"], "response": {"status_code": 200, "body": body}}


def run(given: argparse.Namespace) -> None:
    """Bring the engines up, let the ranks work, and write what they answered."""
    started = time.monotonic()
    lines = given.input.read_text(encoding="utf-8").splitlines()
    rows: list[Row] = [json.loads(line) for line in lines]
    # Without an address: the cluster that RAY_ADDRESS names, as `ray job submit` sets it.
    ray.init(address=given.address)
    engines = deploy(
        given.engines,
        given.backend,
        given.model,
        given.cpus_per_engine,
        given.gpus_per_engine,
        dict(given.engine_arg),
    )
    for index, place in enumerate(ray.get([engine.place.remote() for engine in engines])):
        print(f"engine {index}: {place}", flush=True)

    begun = time.monotonic()
    ranks: list[Any] = [
        DPRank.remote(rank, engines, given.batch_rows) for rank in range(given.ranks)
    ]
    parts = shares(rows, given.ranks)
    work = [rank.run.remote(part) for rank, part in zip(ranks, parts, strict=True)]
    answers = [answer for part in ray.get(work) for answer in part]
    generating = time.monotonic() - begun

    answered = [answer_line(row, *answer) for row, answer in zip(rows, answers, strict=True)]
    given.output.write_text("".join(f"{json.dumps(line)}\n" for line in answered), encoding="utf-8")
    tokens = sum(count for _, count in answers)
    print(f"{len(answers)} rows, {tokens} tokens, {tokens / generating:.0f} tokens/s")
    if given.report is not None:
        report = {
            "rows": len(answers),
            "tokens": tokens,
            "seconds": time.monotonic() - started,
            "generating": generating,
        }
        given.report.write_text(json.dumps(report), encoding="utf-8")


def engine_argument(text: str) -> tuple[str, object]:
    """``max_num_seqs=64`` as a name and a value; what is no JSON is text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description="vLLM engines and ranks as Ray actors")
    parser.add_argument("--model", required=True, help="folder or hub name")
    parser.add_argument("--input", type=Path, required=True, help="OpenAI Batch JSONL, chat rows")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--batch-rows", type=int, default=10)
    parser.add_argument("--cpus-per-engine", type=int, default=1)
    parser.add_argument("--gpus-per-engine", type=float, default=0)
    parser.add_argument(
        "--engine-arg",
        type=engine_argument,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another argument of vLLM's LLM; repeat it for more",
    )
    parser.add_argument("--address", help="of the cluster; `local` starts one of its own")
    parser.add_argument("--backend", choices=["vllm", "simulated"], default="vllm")
    parser.add_argument("--report", type=Path, help="rows, tokens and seconds as JSON")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
