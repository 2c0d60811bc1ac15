"""`npm run bench`: Rankflow and its peers on the same requests, in one run on one machine."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.campaign import (
    CONTENDERS,
    ContenderFailed,
    Entry,
    Measurement,
    Requests,
    run_campaign,
)
from bench.report import markdown, plot, summarize, unequal, write_json
from bench.settings import ROOT, Settings
from bench.workloads import WORKLOADS, write_workload

_SMOKE_TOKENS_PER_SECOND = 20_000


def main() -> int:
    """Measure and write the report; exit code 1 when a contender failed or did other work."""
    options = _parser().parse_args()
    settings = _settings(options)
    options.out.mkdir(parents=True, exist_ok=True)
    entries = [_entry(text, options.engines) for text in options.contenders]
    measurements: list[Measurement] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rankflow-bench-") as temporary:
        files: Requests = {name: {} for name in options.workloads}
        for name, engines in itertools.product(files, {entry.engines for entry in entries}):
            file = Path(temporary) / f"{name}-{engines}.jsonl"
            write_workload(name, file, settings.name, options.scale * engines)
            files[name][engines] = file
        logs = options.out / "logs"
        logs.mkdir(exist_ok=True)
        for event in run_campaign(
            entries,
            files,
            settings,
            logs,
            repetitions=options.repetitions,
            together=options.together,
            limit=options.limit,
        ):
            if isinstance(event, ContenderFailed):
                failures.append(str(event).splitlines()[0])
                print(event, file=sys.stderr, flush=True)
                continue
            measurements.append(event)
            result = event.result
            rate = result.completion_tokens / result.generating
            print(
                f"{event.workload}: {event.entry.title}: {rate:,.0f} tokens/s, "
                f"{result.generating:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            # After each job, so that what was measured is there whatever comes next.
            write_json(options.out / "report.json", settings, measurements, failures)
    lines = summarize(measurements)
    text = markdown(lines)
    (options.out / "report.md").write_text(text)
    if lines:
        plot(options.out / "report.svg", lines)
    print(text, end="")
    problems = unequal(measurements) + failures
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems or not measurements else 0


def _settings(options: argparse.Namespace) -> Settings:
    if options.tensor_parallel > 1 and (options.smoke or options.gpu_share == 0):
        raise SystemExit(
            "--tensor-parallel spreads an engine over GPUs: it needs --gpu-share 1 and as many "
            "GPUs for each engine, and simulated engines have none"
        )
    if options.smoke:
        options.contenders = ["bare", "rankflow"]
        options.workloads = ["equal", "mixed", "tiny"]
        options.scale = 0.2
        return Settings(
            model="simulated",
            backend="simulated",
            ranks=options.ranks,
            engine_args={"tokens_per_second": _SMOKE_TOKENS_PER_SECOND},
        )
    model = Path(options.model)
    if not model.is_absolute():
        model = options.home / "models" / model
    return Settings(
        model=str(model),
        max_num_seqs=options.max_num_seqs,
        max_model_len=options.max_model_len,
        gpu_share=options.gpu_share,
        tensor_parallel=options.tensor_parallel,
        ranks=options.ranks,
        engine_args=dict(options.engine_arg),
    )


def _entry(text: str, engines: int) -> Entry:
    name, _, number = text.partition(":")
    if name not in CONTENDERS:
        raise SystemExit(f"no contender {name}; there are {', '.join(CONTENDERS)}")
    return Entry(name, int(number) if number else engines)


def _key_value(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="npm run bench --", description=__doc__)
    add = parser.add_argument
    add("--contenders", nargs="+", default=list(CONTENDERS), help="NAME or NAME:ENGINES")
    add("--workloads", nargs="+", default=["equal", "mixed"], choices=list(WORKLOADS))
    add("--engines", type=int, default=2)
    add("--repetitions", type=int, default=1)
    add(
        "--scale",
        type=float,
        default=1.0,
        help="times the rows of each workload, which are those of one engine",
    )
    add("--model", default="SmolLM2-135M-Instruct", help="folder, or name of an installed model")
    add("--max-model-len", type=int, default=2048)
    add("--max-num-seqs", type=int, default=256)
    add("--gpu-share", type=float, default=0.0, help="share of a GPU for one engine; 0: the CPU")
    add("--tensor-parallel", type=int, default=1, help="GPUs of one engine")
    add("--ranks", type=int, default=0, help="of Rankflow and the classic script; 0: as engines")
    add("--engine-arg", action="append", type=_key_value, default=[], metavar="KEY=VALUE")
    add("--together", action="store_true", help="load all contenders before the first is measured")
    add("--limit", type=float, default=1800.0, help="seconds for one load, and for one job")
    add("--out", type=Path, default=Path("bench-report"), help="folder of the report")
    add("--home", type=Path, default=ROOT / ".rankflow", help="Rankflow's data folder")
    add("--smoke", action="store_true", help="simulated engines: does the harness itself work?")
    return parser


if __name__ == "__main__":
    sys.exit(main())
