"""Runs contenders on workloads: loaded once, measured one at a time, in an order that rotates."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from bench.protocol import Result
from bench.settings import ROOT, Settings


@dataclass(frozen=True)
class Contender:
    """One way to generate a request file."""

    module: str
    title: str
    arguments: tuple[str, ...] = ()


CONTENDERS = {
    "bare": Contender("bare", "bare vLLM"),
    "run-batch": Contender("run_batch", "vLLM run_batch"),
    "ray-data": Contender("ray_data", "Ray Data LLM"),
    "classic": Contender("classic", "classic script"),
    "rankflow": Contender("rankflow", "Rankflow, warm"),
    "rankflow-cold": Contender("rankflow", "Rankflow, cold", ("cold",)),
}


@dataclass(frozen=True)
class Entry:
    """A contender with a number of engines."""

    name: str
    engines: int

    @property
    def title(self) -> str:
        """As a reader sees it."""
        engines = f"{self.engines} engine{'' if self.engines == 1 else 's'}"
        return f"{CONTENDERS[self.name].title}, {engines}"


@dataclass(frozen=True)
class Measurement:
    """One job of one contender."""

    entry: Entry
    workload: str
    repetition: int
    loading: float
    """Seconds from the start of the contender's process until it was ready."""
    result: Result


Requests = dict[str, dict[int, Path]]
"""Request files by workload and number of engines: twice the engines get twice the rows."""


class ContenderFailed(Exception):
    """A contender ended or did not answer in time; its log says why."""


class _Running:
    """The process of one contender."""

    def __init__(self, entry: Entry, settings: Settings, folder: Path, limit: float) -> None:
        self.entry = entry
        self._folder = folder
        self._limit = limit
        contender = CONTENDERS[entry.name]
        name = f"{entry.name}-{entry.engines}"
        file = folder / f"{name}.settings.json"
        replace(settings, engines=entry.engines).write(file)
        self._log = folder / f"{name}.log"
        self._started = time.monotonic()
        module = f"bench.contenders.{contender.module}"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(file), *contender.arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": _python_path()},
            )
        self.loading = 0.0

    def __enter__(self) -> _Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def wait_ready(self) -> None:
        """Wait until its engines are loaded."""
        self._expect("ready")
        self.loading = self.loading or time.monotonic() - self._started

    def measure(self, workload: str, requests: Path, repetition: int) -> Measurement:
        """Have it do one job."""
        name = f"{self.entry.name}-{self.entry.engines}-{workload}-{repetition}.json"
        result = self._folder / name
        order = {"requests": str(requests), "result": str(result)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._expect("done")
        return Measurement(self.entry, workload, repetition, self.loading, Result.read(result))

    def _expect(self, event: str) -> None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            there = selector.select(self._limit)
        line = self._process.stdout.readline() if there else ""
        if not line or json.loads(line)["event"] != event:
            if not there:
                self._process.kill()
            tail = self._log.read_text(errors="replace")[-2000:]
            raise ContenderFailed(f"{self.entry.title} gave no {event!r}:\n{tail}")


def _python_path() -> str:
    own = [str(ROOT), str(ROOT / "python-activities")]
    return os.pathsep.join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])


def rotated(entries: list[Entry], by: int) -> list[Entry]:
    """The order of a repetition: nobody is always first, when caches are cold."""
    by %= len(entries)
    return entries[by:] + entries[:by]


def run_campaign(
    entries: list[Entry],
    workloads: Requests,
    settings: Settings,
    folder: Path,
    *,
    repetitions: int = 1,
    together: bool = False,
    limit: float = 1800.0,
) -> Iterator[Measurement | ContenderFailed]:
    """Every entry on every workload, `repetitions` times; one that fails is told and left out.

    Args:
        workloads: request file of each, by the number of engines.
        folder: takes logs and results.
        together: load all contenders beside each other before the first is measured. For machines
            with memory for all of them; loading is not comparable then.
        limit: seconds a contender may take to load, and for one job.
    """
    if together:
        with ExitStack() as stack:
            running = {
                entry: stack.enter_context(_Running(entry, settings, folder, limit))
                for entry in entries
            }
            yield from _jobs(running, entries, workloads, range(repetitions))
        return
    for repetition in range(repetitions):
        for entry in rotated(entries, repetition):
            with _Running(entry, settings, folder, limit) as running:
                yield from _jobs(
                    {entry: running}, [entry], workloads, range(repetition, repetition + 1)
                )


def _jobs(
    running: dict[Entry, _Running],
    entries: list[Entry],
    workloads: Requests,
    repetitions: range,
) -> Iterator[Measurement | ContenderFailed]:
    ready: list[Entry] = []
    for entry in entries:
        try:
            running[entry].wait_ready()
            ready.append(entry)
        except ContenderFailed as failure:
            yield failure
    for repetition in repetitions:
        for workload, files in workloads.items():
            for entry in rotated(ready, repetition) if ready else []:
                try:
                    yield running[entry].measure(workload, files[entry.engines], repetition)
                except ContenderFailed as failure:
                    ready.remove(entry)
                    yield failure
