"""Watches one node for notice of preemption; on notice, cordons it and tells the workflows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from rankflow.contracts.models import PreemptionNotice
from rankflow.contracts.names import PREEMPTION_NOTICE_SIGNAL
from rankflow.preemption.http import Trouble
from rankflow.preemption.sources import Notice, Source

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Between two tries of what did not work, and two looks for fleets that have not been told."""
SOONER_SECONDS = 1.0
"""Another notice counts when its deadline is sooner by more than this: clocks are read twice."""
_QUIET_SECONDS = 300.0
"""How often trouble with a source is written to the log while it lasts."""


class Sentinel:
    """Of several notices the one with the earliest deadline counts."""

    def __init__(
        self,
        node_id: str,
        sources: Sequence[Source],
        *,
        cordon: Callable[[Notice], None],
        workflows: Callable[[], set[str]],
        client: Callable[[], Awaitable[Client]],
    ) -> None:
        """What the sentinel needs of the world.

        Args:
            cordon: keeps new engines off the node; blocks, and is called again when it raises.
            workflows: ids of the workflows to tell; asked again and again, as fleets come and go.
            client: connects to Temporal, or raises RuntimeError.
        """
        self._node_id = node_id
        self._sources = sources
        self._cordon = cordon
        self._workflows = workflows
        self._connect = client
        self._client: Client | None = None
        self._notice: Notice | None = None
        self._noticed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._watch(source))
            await self._noticed.wait()
            group.create_task(self._keep_cordoned())
            group.create_task(self._keep_telling())

    async def _watch(self, source: Source) -> None:
        complained = -_QUIET_SECONDS
        while True:
            try:
                notice = await asyncio.to_thread(source.poll)
                if notice is not None:
                    self._take(notice)
            except Trouble as trouble:
                if time.monotonic() - complained >= _QUIET_SECONDS:
                    complained = time.monotonic()
                    log.warning("no word from %s about preemption: %s", source.kind, trouble)
            await asyncio.sleep(source.seconds)

    def _take(self, notice: Notice) -> None:
        known = self._notice
        if known is not None and notice.deadline > known.deadline - SOONER_SECONDS:
            return
        left = notice.deadline - time.time()
        log.warning("%s gives notice: this node goes in %.0f s", notice.source, left)
        self._notice = notice
        self._noticed.set()

    async def _keep_cordoned(self) -> None:
        done: Notice | None = None
        while True:
            notice = self._notice
            if notice is not None and notice != done:
                try:
                    await asyncio.to_thread(self._cordon, notice)
                    done = notice
                except Exception as error:
                    # Whatever Ray says: engines must be drained all the same.
                    log.warning("the node is not cordoned yet: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _keep_telling(self) -> None:
        told: dict[str, Notice] = {}
        while True:
            notice = self._notice
            if notice is not None:
                for workflow in await self._to_tell():
                    if told.get(workflow) != notice and await self._tell(workflow, notice):
                        told[workflow] = notice
            await asyncio.sleep(RETRY_SECONDS)

    async def _to_tell(self) -> set[str]:
        try:
            return await asyncio.to_thread(self._workflows)
        except Exception as error:
            log.warning("the fleets of this cluster are not known yet: %s", error)
            return set()

    async def _tell(self, workflow: str, notice: Notice) -> bool:
        """Whether the workflow knows by now, or is no more."""
        signal = PreemptionNotice(
            node_id=self._node_id, source=notice.source, deadline=int(notice.deadline * 1000)
        )
        try:
            self._client = self._client or await self._connect()
            handle = self._client.get_workflow_handle(workflow)
            await handle.signal(PREEMPTION_NOTICE_SIGNAL, signal)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return True
            log.warning("%s is not told yet: %s", workflow, error.status.name)
            return False
        except RuntimeError as error:
            log.warning("the Temporal server is not there: %s", error)
            return False
        log.info("%s is told", workflow)
        return True
