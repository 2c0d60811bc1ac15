"""How the campaign and a contender's process talk: one JSON line a message.

A contender says `{"event": "ready"}` when it could begin, then takes jobs `{"requests", "result"}`
on stdin until it ends; each job's result is written to its file before `{"event": "done"}`. So
engines are loaded once for several workloads, and none loads while another is measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.settings import Settings


@dataclass
class Result:
    """What one contender did with one request file. Seconds are of a monotonic clock."""

    rows: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    generating: float
    """From the first request given to an engine to the last answer."""
    job: float = 0.0
    """From the order to do it to the written results: reading, planning and writing included."""
    detail: dict[str, Any] = field(default_factory=dict[str, Any])

    @staticmethod
    def read(file: Path) -> Result:
        """A result as a contender left it."""
        return Result(**json.loads(file.read_text()))


class Channel:
    """The contender's end; what libraries print goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def serve(self, job: Callable[[Path, Path], Result]) -> None:
        """Say that the engines are ready; do every job: requests, file for answers → result."""
        self._say("ready")
        for requests, result in _jobs():
            started = time.monotonic()
            done = job(requests, result.with_suffix(".answers.jsonl"))
            done.job = time.monotonic() - started
            result.write_text(json.dumps(asdict(done)))
            self._say("done")

    def _say(self, event: str) -> None:
        print(json.dumps({"event": event}), file=self._out, flush=True)


def _jobs() -> Iterator[tuple[Path, Path]]:
    for line in sys.stdin:
        order = json.loads(line)
        yield Path(order["requests"]), Path(order["result"])


def own_settings() -> Settings:
    """The settings a contender was started with: its only argument."""
    return Settings.read(Path(sys.argv[1]))


def read_rows(requests: Path) -> list[dict[str, Any]]:
    """The lines of a request file."""
    return [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]


def count_bodies(bodies: list[dict[str, Any]], generating: float) -> Result:
    """A result from OpenAI response bodies."""
    usage = [body["usage"] for body in bodies]
    return Result(
        rows=len(bodies),
        failed=0,
        prompt_tokens=sum(one["prompt_tokens"] for one in usage),
        completion_tokens=sum(one["completion_tokens"] for one in usage),
        generating=generating,
    )
