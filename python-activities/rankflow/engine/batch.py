"""The ``generateBatch`` activity: one batch from the store, through the engine, to a commit."""

from __future__ import annotations

import asyncio
import logging
import time

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import GenerateBatchInput, GenerateBatchResult
from rankflow.contracts.names import GENERATE_BATCH
from rankflow.engine.answering import CommittedElsewhere
from rankflow.engine.counts import counted_attempt
from rankflow.engine.fates import AskFates, nobody_knows
from rankflow.engine.host import EngineHost
from rankflow.engine.journal import Journal
from rankflow.engine.lease import Contact, Lease
from rankflow.engine.supersede import AttemptName
from rankflow.engine.turns import Turns
from rankflow.engine.watch import Watch
from rankflow.engine.work import BatchWork, Served, committed
from rankflow.failures import activity_errors
from rankflow.logs import bound
from rankflow.rows.plan import load_plan
from rankflow.store import open_store
from rankflow.store.commits import read_commit

__all__ = ["BatchActivities", "Served"]

log = logging.getLogger(__name__)


class BatchActivities:
    """Holds what the activity needs; register ``generate_batch`` with a worker."""

    def __init__(
        self,
        host: EngineHost,
        served: Served,
        contact: Contact,
        turns: Turns | None = None,
        fates: AskFates = nobody_knows,
    ) -> None:
        self._host = host
        self._served = served
        self._contact = contact
        self._turns = turns or Turns()
        self._fates = fates

    @activity.defn(name=GENERATE_BATCH)
    async def generate_batch(self, given: GenerateBatchInput) -> GenerateBatchResult:
        """Generate the rows of a batch that no earlier attempt finished, and commit the batch.

        Raises (as Temporal errors) MODEL_MISMATCH, PLAN_CORRUPT and TOO_MANY_ENGINE_DEATHS, which
        are final, and ENGINE_GONE, LEASE_LOST and STORE_UNAVAILABLE, after which another attempt
        goes on from what was finished. Two are final for this activity: after STORE_FULL the rank
        pauses until there is room, after SUSPECT_BATCH it asks with ``alone``; then it starts
        another.
        """
        started = time.monotonic()
        attempt = activity.info().attempt
        where = {"run": given.run_id, "rank": given.rank, "batch": given.batch}
        with activity_errors(), counted_attempt() as results, bound(**where, attempt=attempt):
            self._assert_spec(given.spec_hash)
            result = await self._generate(given)
            results.append(result)
            seconds = time.monotonic() - started
            log.info(
                "committed %d rows, %d of them generated here, in %.1f s",
                *(result.rows, result.generated_rows, seconds),
            )
            return result.model_copy(update={"seconds": seconds, "attempt": attempt})

    def _assert_spec(self, spec_hash: str) -> None:
        if spec_hash != self._served.spec_hash:
            raise RankflowError(
                ErrorType.MODEL_MISMATCH,
                f"the engine {self._served.name} serves {self._served.spec_hash[:12]}, "
                f"the batch was planned for {spec_hash[:12]}",
            )

    async def _generate(self, given: GenerateBatchInput) -> GenerateBatchResult:
        store = open_store(given.store)
        where = (given.run_id, given.rank, given.batch)
        info = activity.info()
        timeout = info.heartbeat_timeout
        lease = Lease(self._contact, timeout.total_seconds() if timeout is not None else None)
        watch = Watch(self._host, lease, self._served.name)
        commit = await watch.through_store(asyncio.to_thread(read_commit, store, *where))
        if commit is not None:
            return committed(given.rank, given.batch, commit)
        plan = await watch.through_store(asyncio.to_thread(load_plan, store, given.run_id))
        if plan.spec_hash != given.spec_hash:
            raise RankflowError(
                ErrorType.MODEL_MISMATCH, f"the run {given.run_id} was planned for another model"
            )
        part = await watch.through_store(asyncio.to_thread(plan.batch, given.rank, given.batch))
        watch.rows = part.rows
        name = AttemptName.of(info)
        alone = given.alone is True
        journal = Journal(
            store, *where, name.token, self._served.name, alone, lambda: self._host.closed
        )
        work = BatchWork(
            self._host, self._served, self._fates, plan, part, name, alone, journal, watch
        )
        try:
            async with self._turns.take(alone, watch.beat, watch.unfinished), journal:
                return await work.run()
        except CommittedElsewhere:
            commit = await asyncio.to_thread(read_commit, store, *where)
            if commit is None:
                raise RankflowError(ErrorType.LEASE_LOST, "a commit was there and went") from None
            return committed(given.rank, given.batch, commit)
        finally:
            # The last word, for whoever looks at the batch before its next attempt starts.
            watch.say()
