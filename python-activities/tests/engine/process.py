"""Attempts in engine processes of their own, to be killed or hung by the request that they run.

What became of earlier engines is asked of the system instead of Ray.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from temporalio.exceptions import ApplicationError

from rankflow.contracts.models import GenerateBatchInput
from rankflow.engine import watch
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Contact
from rankflow.engine.simulated import SimulatedBackend
from rankflow.engine.suspicion import Fate
from rankflow.faults import VARIABLE
from rankflow.rows.plan import load_plan
from rankflow.store import open_store
from tests.engine.conftest import RUN, attempt_environment

# A server that has everything imported forks each engine in milliseconds.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended."""

    killed: bool
    """Whether its process died."""
    error: str | None
    """Type of the error it raised."""


async def fates_of_processes(engines: Collection[str]) -> dict[str, Fate]:
    """Whether the processes in the incarnations are there."""

    def fate(engine: str) -> Fate:
        try:
            os.kill(int(engine.rpartition("-")[2]), 0)
        except ProcessLookupError:
            return Fate.DIED
        return Fate.ALIVE

    return {engine: fate(engine) for engine in engines}


def run_attempt(
    root: str, number: int, alone: bool, faults: dict[str, Any], stalled_seconds: float
) -> Outcome:
    """Run attempt ``number`` of the only batch in a fresh engine process."""
    here, there = _CONTEXT.Pipe(duplex=False)
    arguments = (root, number, alone, json.dumps(faults), stalled_seconds, there)
    process = _CONTEXT.Process(target=_in_child, args=arguments)
    process.start()
    there.close()
    process.join(60)
    assert process.exitcode is not None, "the attempt neither ended nor died"
    killed = process.exitcode == -signal.SIGKILL
    process.close()
    return Outcome(killed, None if killed else here.recv())


def _in_child(
    root: str, number: int, alone: bool, faults: str, stalled_seconds: float, there: Connection
) -> None:
    os.environ[VARIABLE] = faults
    watch.STALLED_SECONDS = stalled_seconds
    try:
        asyncio.run(_attempt(root, number, alone))
    except ApplicationError as error:
        there.send(error.type)
    else:
        there.send(None)
    os._exit(0)


async def _attempt(root: str, number: int, alone: bool) -> None:
    plan = load_plan(open_store(root), RUN)
    host = EngineHost(lambda: SimulatedBackend(plan.model))
    host.start()
    await host.wait_loaded()
    served = Served(f"test/slot-0/node-{os.getpid()}", plan.spec_hash)
    activities = BatchActivities(host, served, Contact(), fates=fates_of_processes)
    given = GenerateBatchInput(
        run_id=RUN, store=root, rank=0, batch=0, spec_hash=plan.spec_hash, alone=alone
    )
    await attempt_environment(number).run(activities.generate_batch, given)
