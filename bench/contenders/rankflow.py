"""Rankflow through its command line: warm on a fleet that is up, or cold with all to be started.

`generating` is from the start of the first rank to the end of the last, so Temporal, commits and
fsyncs are in it; a job has planning, assembling and the command itself in it, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client

from bench.protocol import Channel, Result, own_settings
from bench.settings import ROOT, Settings
from bench.workloads import write_workload

_CLI = ["node", str(ROOT / "dist/cli/main.js")]


class Rankflow:
    """One cluster and one fleet of this benchmark's own, in a store that is removed afterwards."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        model = re.sub("[^a-z0-9]", "", settings.name.lower())[:16]
        self._name = f"bench-{model}-{settings.engines}"
        self._store = Path(tempfile.mkdtemp(prefix="rankflow-bench-"))
        self._given = "TEMPORAL_ADDRESS" in os.environ
        self._target = (
            {"address": os.environ["TEMPORAL_ADDRESS"], "namespace": "default"}
            if self._given
            else json.loads(_run(["up", "--json"]))
        )

    def run(self, requests: Path, *extra: str) -> Result:
        """Generate a request file to the end."""
        settings = self._settings
        flags = [
            *("run", str(requests), "--model", settings.model, "--json", "--new"),
            *("--engines", str(settings.engines), "--ranks", str(settings.all_ranks)),
            *("--dtype", settings.dtype),
            *("--max-model-len", str(settings.max_model_len)),
            *("--max-num-seqs", str(settings.max_num_seqs)),
            *("--store", str(self._store), "--fleet", self._name),
            *("--cluster", self._name, "--nodes", "0"),
            *("--backend", settings.backend),
            *(
                ["--gpus-per-engine", str(settings.gpus_per_engine)]
                if settings.gpu_share > 0
                else []
            ),
            *(
                ["--tensor-parallel-size", str(settings.tensor_parallel)]
                if settings.tensor_parallel > 1
                else []
            ),
            *(["--no-start"] if self._given else []),
        ]
        for name, value in settings.engine_args.items():
            flags += ["--engine-arg", f"{name}={json.dumps(value)}"]
        begun = datetime.now(UTC)
        lines = [line for line in _run([*flags, *extra]).splitlines() if line.startswith("{")]
        ended = datetime.now(UTC)
        (end,) = [event for event in map(json.loads, lines) if event["event"] == "result"]
        seconds = asyncio.run(self._phases(end["runId"], begun, ended))
        return Result(
            rows=end["rows"],
            failed=end["failed"],
            prompt_tokens=end["promptTokens"],
            completion_tokens=end["completionTokens"],
            generating=seconds["generating"],
            detail=seconds,
        )

    def few_rows(self) -> Path:
        """A request file that brings the fleet up and warms it."""
        file = self._store / "first.jsonl"
        write_workload("tiny", file, self._settings.name, scale=0.003)
        return file

    def down(self) -> None:
        """Take everything down that this benchmark brought up."""
        _run(["fleet", "stop", self._name, "--json"], check=False)
        _run(["cluster", "down", self._name, "--json"], check=False)
        shutil.rmtree(self._store)

    async def _phases(self, run_id: str, asked: datetime, told: datetime) -> dict[str, float]:
        """Seconds of each phase of a finished run, from the times of its workflows.

        Before and after it are the command's own: it reads and checks, and prints the result.
        """
        client = await Client.connect(self._target["address"], namespace=self._target["namespace"])
        run = await client.get_workflow_handle(f"run/{run_id}").describe()
        handles = (
            client.get_workflow_handle(f"run/{run_id}/rank-{rank}")
            for rank in range(self._settings.all_ranks)
        )
        ranks = [await handle.describe() for handle in handles]
        begun = min(one.start_time for one in ranks)
        ended = max(_closed(one) for one in ranks)
        return {
            "before": (run.start_time - asked).total_seconds(),
            "planning": (begun - run.start_time).total_seconds(),
            "generating": (ended - begun).total_seconds(),
            "finalizing": (_closed(run) - ended).total_seconds(),
            "after": (told - _closed(run)).total_seconds(),
        }


def _closed(execution: Any) -> datetime:
    assert execution.close_time is not None
    return execution.close_time


def _run(arguments: list[str], check: bool = True) -> str:
    done = subprocess.run([*_CLI, *arguments], stdout=subprocess.PIPE, text=True)
    if check and done.returncode != 0:
        raise SystemExit(f"rankflow {arguments[0]} ended with exit code {done.returncode}")
    return done.stdout


def main() -> None:
    """Warm unless told `cold`; a warm one is ready when its fleet has answered a few rows."""
    settings, channel = own_settings(), Channel()
    rankflow = Rankflow(settings)
    try:
        if sys.argv[2:] == ["cold"]:
            channel.serve(lambda requests, answers: rankflow.run(requests))
        else:
            rankflow.run(rankflow.few_rows(), "--keep")
            channel.serve(lambda requests, answers: rankflow.run(requests, "--keep"))
    finally:
        rankflow.down()


if __name__ == "__main__":
    main()
