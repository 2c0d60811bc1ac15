"""One engine's life: a canary worker at once, the model, then workers for batches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from rankflow.connection import TemporalTarget, connect
from rankflow.contracts.models import FleetSpec
from rankflow.contracts.names import engine_queue, fleet_queue, slot_queue
from rankflow.engine.admission import Admission, rows_wanted
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.canary import CanaryActivity
from rankflow.engine.counts import BATCHES, LOAD_SECONDS
from rankflow.engine.drain import Drain, DrainActivity
from rankflow.engine.fates import AskFates, nobody_knows
from rankflow.engine.host import BackendFactory, EngineHost, GivenBack
from rankflow.engine.lease import Contact
from rankflow.engine.predecessor import give_back
from rankflow.engine.turns import Turns

log = logging.getLogger(__name__)

CONNECT_SECONDS = 300.0
"""How long the Temporal server may be away at the start of an engine before the process ends."""
REPORT_SECONDS = 60.0
"""How long an engine whose model did not load waits for a canary to ask why."""
LAST_WORDS_SECONDS = 5.0
"""Time for running batches to report ENGINE_GONE after the backend died."""
LEAVE_SECONDS = 4.0
"""Time to flush a few rows and tell Temporal, which takes milliseconds. Who asks a process to end
gives it some seconds before it kills it; Ray gives 5."""
CANARIES = 4
"""Canaries served at once: one a health check; more only when earlier ones time out."""


class EngineService:
    """Serves one incarnation of one slot. ``run`` returns when the process should end."""

    def __init__(
        self,
        fleet: FleetSpec,
        slot: int,
        incarnation: str,
        target: TemporalTarget,
        factory: BackendFactory,
        fates: Callable[[str, str], AskFates] | None = None,
        index: int | None = None,
        metrics: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Nothing starts before ``run``.

        Args:
            fates: from the engine's name and spec hash to what knows of other engines.
            index: which ranks it serves under rank affinity; by default its slot.
            metrics: ``host:port`` where this process serves its metrics, if it does.
        """
        self._fleet = fleet
        self._slot = slot
        self._index = slot if index is None else index
        self._incarnation = incarnation
        self._target = target
        self._slot_name = f"{fleet.name}/slot-{slot}"
        name = f"{self._slot_name}/{incarnation}"
        self.served = Served(name, fleet.spec_hash)
        self._fates = fates(name, fleet.spec_hash) if fates is not None else nobody_knows
        self._host = EngineHost(factory)
        self._metrics = metrics
        self._contact = Contact()
        self._admission = Admission(fleet.max_concurrent_batches)
        self._batch_workers: list[Worker] = []
        self._drain = Drain(self._host)
        self._draining: asyncio.Future[GivenBack] | None = None

    async def run(self) -> None:
        """Serve until the backend dies or loading fails; raises when a worker fails for good."""
        self._host.start()
        client = await self._connect()
        working = self._working
        canary = CanaryActivity(self._host, self.served, working, self._metrics)
        BATCHES.set_function(working)
        drain = DrainActivity(self.served, self.begin_drain)
        fleet, spec_hash = self._fleet.name, self._fleet.spec_hash
        own = engine_queue(fleet, spec_hash, self._slot, self._incarnation)
        probes = Worker(
            client,
            task_queue=own,
            activities=[canary.canary, drain.drain],
            identity=self.served.name,
            max_concurrent_activities=CANARIES,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(probes.run()),
                group.create_task(self._contact.keep(client)),
            ]
            # Before the model is loaded: other engines take up what this one was killed with.
            await give_back(client, self._slot_name, self.served.name)
            await self._life(client, canary, group, tasks)
            for task in tasks:
                task.cancel()

    def begin_drain(self, seconds: float) -> asyncio.Future[GivenBack]:
        """Take no more batches and be done with those in work in ``seconds``; see Drain."""
        self._drain.limit(seconds)
        if self._draining is None:
            shutdowns = [asyncio.create_task(worker.shutdown()) for worker in self._batch_workers]
            self._draining = asyncio.create_task(self._drain.run(shutdowns))
        return self._draining

    async def drain(self, seconds: float) -> bool:
        """Drain the engine; True when its batches have ended in ``seconds``."""
        ended, _ = await asyncio.wait({self.begin_drain(seconds)}, timeout=seconds)
        return bool(ended)

    async def leave(self) -> None:
        """Give everything back at once, and wait ``LEAVE_SECONDS`` until Temporal knows."""
        await asyncio.wait({self.begin_drain(0)}, timeout=LEAVE_SECONDS)

    async def _life(
        self,
        client: Client,
        canary: CanaryActivity,
        group: asyncio.TaskGroup,
        tasks: list[asyncio.Task[None]],
    ) -> None:
        try:
            facts = await self._host.wait_loaded()
        except BaseException:
            if self._host.load_error is None:
                raise
            await self._until_reported(canary)
            return
        log.info(
            "%s loaded its model in %.1f s, %.1f s of it for imports",
            *(self.served.name, self._host.load_seconds, self._host.import_seconds),
        )
        LOAD_SECONDS.set(self._host.load_seconds)
        if self._draining is None:
            seats = None if facts.grouped else facts.max_num_seqs
            self._admission.want(rows_wanted(facts.max_num_seqs, facts.grouped), seats)
            turns = Turns(self._admission)
            batches = BatchActivities(self._host, self.served, self._contact, turns, self._fates)
            self._batch_workers = self._workers_for_batches(client, batches)
            tasks += [group.create_task(worker.run()) for worker in self._batch_workers]
        await self._host.wait_dead()
        log.error("%s lost its backend", self.served.name)
        await asyncio.sleep(LAST_WORDS_SECONDS)

    def _working(self) -> int:
        return self._admission.working

    def _workers_for_batches(self, client: Client, batches: BatchActivities) -> list[Worker]:
        fleet, spec_hash = self._fleet.name, self._fleet.spec_hash
        queues: Sequence[str] = (
            fleet_queue(fleet, spec_hash),
            slot_queue(fleet, spec_hash, self._index),
        )
        return [
            Worker(
                client,
                task_queue=queue,
                activities=[batches.generate_batch],
                identity=self.served.name,
                tuner=self._admission.tuner(),
                # One poll at a time keeps the shared limit exact to one batch.
                max_concurrent_activity_task_polls=1,
                # A drain gives its own deadline; this bounds only what is left behind by it.
                graceful_shutdown_timeout=timedelta(hours=1),
            )
            for queue in queues
        ]

    async def _until_reported(self, canary: CanaryActivity) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(canary.load_failure_reported.wait(), REPORT_SECONDS)
        await asyncio.sleep(LAST_WORDS_SECONDS)

    async def _connect(self) -> Client:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return await connect(self._target)
            except RuntimeError as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("the Temporal server is not there yet: %s", error)
                await asyncio.sleep(2.0)
