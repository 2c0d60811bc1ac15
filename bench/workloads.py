"""Request files made from a seed: OpenAI Batch JSONL with chat rows, which all contenders take.

Every row asks for an exact number of tokens (`ignore_eos`), so that all do the same work.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()


class Row(NamedTuple):
    """One request: what it says and how many tokens its answer has."""

    prompt: str
    tokens: int


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(_WORDS, k=count))


def _between(low: int, high: int, value: float) -> int:
    return max(low, min(high, round(value)))


def _equal(rng: random.Random) -> Iterator[Row]:
    while True:
        yield Row(_words(rng, 64), 128)


def _mixed(rng: random.Random) -> Iterator[Row]:
    """Real-life lengths: log-normal, with a tail of long prompts and of long answers."""
    while True:
        prompt = _between(4, 700, rng.lognormvariate(4.4, 0.9))
        yield Row(_words(rng, prompt), _between(8, 512, rng.lognormvariate(4.4, 0.8)))


def _prefix(rng: random.Random) -> Iterator[Row]:
    shared = _words(rng, 600)
    while True:
        yield Row(f"{shared}. {_words(rng, 24)}", 64)


def _tiny(rng: random.Random) -> Iterator[Row]:
    while True:
        yield Row(_words(rng, 6), 4)


def _huge(rng: random.Random) -> Iterator[Row]:
    while True:
        yield Row(_words(rng, 1000), 768)


class Workload(NamedTuple):
    """A generator of rows, and how many of them are about as much work as those of the others."""

    make: Callable[[random.Random], Iterator[Row]]
    rows: int
    about: str


WORKLOADS = {
    "equal": Workload(_equal, 256, "64 words in, 128 tokens out"),
    "mixed": Workload(_mixed, 300, "log-normal: median 81 words in, 81 tokens out"),
    "prefix": Workload(_prefix, 256, "600 words shared, 24 own, 64 tokens out"),
    "tiny": Workload(_tiny, 3000, "6 words in, 4 tokens out"),
    "huge": Workload(_huge, 24, "1,000 words in, 768 tokens out"),
}


def write_workload(name: str, file: Path, model: str, scale: float = 1.0, seed: int = 1) -> int:
    """Write the requests of a workload; returns how many. The same seed gives the same bytes."""
    workload = WORKLOADS[name]
    rows = max(1, round(workload.rows * scale))
    source = workload.make(random.Random(f"{name}-{seed}"))
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            row = next(source)
            body = {
                "model": model,
                "messages": [{"role": "user", "content": row.prompt}],
                "max_tokens": row.tokens,
                "temperature": 0,
                "ignore_eos": True,
            }
            line = {
                "custom_id": f"{name}-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
            out.write(json.dumps(line) + "\n")
    return rows
