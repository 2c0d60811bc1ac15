"""For contenders that know one engine only: as many processes as engines, and the rows dealt out.

Row i goes to engine i modulo N, so every engine gets the same mix: the best of static shares.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from bench.protocol import Result
from bench.settings import Settings


class Parts:
    """The engine processes of one contender; each runs `module` and speaks the protocol."""

    def __init__(self, module: str, settings: Settings, file: Path) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", module, str(file), "part"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=settings.engine_environment(engine),
            )
            for engine in range(settings.engines)
        ]

    def __enter__(self) -> Parts:
        self._each("ready")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            process.wait(timeout=60)

    def job(self, requests: Path, answers: Path) -> Result:
        """Deal the rows out and generate them side by side; the slowest engine counts."""
        lines = requests.read_text(encoding="utf-8").splitlines(keepends=True)
        engines = len(self._processes)
        orders: list[tuple[Path, Path]] = []
        for engine in range(engines):
            part = answers.with_suffix(f".part-{engine}.jsonl")
            part.write_text("".join(lines[engine::engines]), encoding="utf-8")
            orders.append((part, answers.with_suffix(f".result-{engine}.json")))
        for process, (part, result) in zip(self._processes, orders, strict=True):
            assert process.stdin is not None
            order = {"requests": str(part), "result": str(result)}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        self._each("done")
        results = [Result.read(result) for _, result in orders]
        return Result(
            rows=sum(one.rows for one in results),
            failed=sum(one.failed for one in results),
            prompt_tokens=sum(one.prompt_tokens for one in results),
            completion_tokens=sum(one.completion_tokens for one in results),
            generating=max(one.generating for one in results),
            detail={"generating": [round(one.generating, 3) for one in results]},
        )

    def _each(self, event: str) -> None:
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line or json.loads(line)["event"] != event:
                raise SystemExit("a part of the contender ended")


def is_part() -> bool:
    """Whether this process is one engine of several."""
    return sys.argv[2:] == ["part"]
