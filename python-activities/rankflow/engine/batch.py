"""The ``generateBatch`` activity: one batch from the store, through the engine, to a commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import GenerateBatchInput, GenerateBatchResult
from rankflow.contracts.names import GENERATE_BATCH
from rankflow.engine.attempt import AttemptFile
from rankflow.engine.backend import BackendDead, BackendTrouble
from rankflow.engine.host import EngineHost
from rankflow.engine.lease import Contact, Lease
from rankflow.engine.lines import answered, recorded_error
from rankflow.engine.supersede import AttemptName, superseded
from rankflow.engine.watch import TICK_SECONDS, Watch
from rankflow.failures import activity_errors
from rankflow.rows.plan import BatchSlice, Plan, load_plan
from rankflow.store import open_store
from rankflow.store.commits import Commit, read_commit, try_commit
from rankflow.store.salvage import AttemptLine, salvage

log = logging.getLogger(__name__)

SUPERSEDED_SECONDS = 10.0
"""How often an attempt looks for a commit or a newer attempt: two calls to the store."""


class _CommittedElsewhere(Exception):
    """Another attempt committed the batch while this one was generating."""


@dataclass(frozen=True)
class Served:
    """Which engine this is and what it serves."""

    name: str
    """``<fleet>/slot-<n>/<incarnation>``, also the identity of its Temporal workers."""
    spec_hash: str


class BatchActivities:
    """Holds what the activity needs; register ``generate_batch`` with a worker."""

    def __init__(self, host: EngineHost, served: Served, contact: Contact) -> None:
        self._host = host
        self._served = served
        self._contact = contact

    @activity.defn(name=GENERATE_BATCH)
    async def generate_batch(self, given: GenerateBatchInput) -> GenerateBatchResult:
        """Generate the rows of a batch that no earlier attempt finished, and commit the batch.

        Raises (as Temporal errors) MODEL_MISMATCH and PLAN_CORRUPT, which are final, and
        ENGINE_GONE, LEASE_LOST and STORE_UNAVAILABLE, after which another attempt goes on from
        what was finished. STORE_FULL is final for this activity: the rank pauses until there is
        room, and then starts another.
        """
        started = time.monotonic()
        with activity_errors():
            try:
                return await self._generate(given, started)
            except _CommittedElsewhere:
                store = open_store(given.store)
                commit = await asyncio.to_thread(
                    read_commit, store, given.run_id, given.rank, given.batch
                )
                if commit is None:
                    raise RankflowError(
                        ErrorType.LEASE_LOST, "a commit was there and went"
                    ) from None
                return _committed(given, commit, started)

    async def _generate(self, given: GenerateBatchInput, started: float) -> GenerateBatchResult:
        self._assert_spec(given.spec_hash)
        store = open_store(given.store)
        where = (given.run_id, given.rank, given.batch)
        info = activity.info()
        timeout = info.heartbeat_timeout
        lease = Lease(self._contact, timeout.total_seconds() if timeout is not None else None)
        watch = Watch(self._host, lease, self._served.name)
        commit = await watch.through_store(asyncio.to_thread(read_commit, store, *where))
        if commit is not None:
            return _committed(given, commit, started)
        plan = await watch.through_store(asyncio.to_thread(load_plan, store, given.run_id))
        if plan.spec_hash != given.spec_hash:
            raise RankflowError(
                ErrorType.MODEL_MISMATCH, f"the run {given.run_id} was planned for another model"
            )
        part = await watch.through_store(asyncio.to_thread(plan.batch, given.rank, given.batch))
        name = AttemptName.of(info)
        watch.rows = part.rows
        reading = asyncio.gather(
            asyncio.to_thread(salvage, store, *where, part.row_range),
            asyncio.to_thread(plan.read_requests, part),
        )
        taken, requests = await watch.through_store(reading)
        starting = AttemptFile.start(store, *where, name.token)
        async with await watch.through_store(starting) as attempt:
            watch.attempt = attempt
            for data in taken.values():
                attempt.add(AttemptLine.model_validate_json(data), data)
            missing = [row for row in part.row_range if row not in attempt.rows]
            await self._answer_all(plan, part, requests, missing, attempt, watch, name)
            sha256 = await watch.through_store(attempt.finish())
        own = self._own_commit(attempt, part, name.token, sha256)
        winner = await watch.through_store(asyncio.to_thread(try_commit, store, *where, own))
        if winner.token != own.token:
            return _committed(given, winner, started)
        result = _committed(given, own, started)
        return result.model_copy(
            update={
                "already_committed": False,
                "salvaged_rows": len(taken),
                "generated_rows": len(missing),
            }
        )

    def _assert_spec(self, spec_hash: str) -> None:
        if spec_hash != self._served.spec_hash:
            raise RankflowError(
                ErrorType.MODEL_MISMATCH,
                f"the engine {self._served.name} serves {self._served.spec_hash[:12]}, "
                f"the batch was planned for {spec_hash[:12]}",
            )

    def _own_commit(
        self, attempt: AttemptFile, part: BatchSlice, token: str, sha256: str
    ) -> Commit:
        if attempt.rows.keys() != set(part.row_range):
            raise RankflowError(ErrorType.ENGINE_GONE, "not every row of the batch was answered")
        totals = attempt.rows.values()
        facts = self._host.facts
        return Commit(
            token=token,
            path=attempt.key,
            sha256=sha256,
            rows=len(totals),
            failed_rows=sum(row.failed for row in totals),
            prompt_tokens=sum(row.prompt_tokens for row in totals),
            completion_tokens=sum(row.completion_tokens for row in totals),
            engine=self._served.name,
            model_revision=facts.revision if facts is not None else None,
        )

    async def _answer_all(
        self,
        plan: Plan,
        part: BatchSlice,
        requests: list[dict[str, Any]],
        missing: list[int],
        attempt: AttemptFile,
        watch: Watch,
        name: AttemptName,
    ) -> None:
        """Answer the missing rows, all at once: vLLM schedules them better than anyone outside."""
        troubles: list[str] = []

        async def answer(row: int) -> None:
            line = requests[row - part.first_row]
            if "error" in line:
                attempt.add(recorded_error(row, line, name.token))
                return
            request_id = f"{plan.run_id}-{part.rank}-{part.batch}-{name.token}-{row}"
            try:
                got = await self._host.answer(line["url"], line["body"], request_id)
            except BackendTrouble as trouble:
                # Not the row's own fault, so not its final error; the others still finish.
                log.warning("row %d of %s: %s", row, plan.run_id, trouble)
                troubles.append(str(trouble))
                return
            attempt.add(answered(row, line["custom_id"], got, request_id))

        with _first_error():
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(self._watch(attempt, watch)),
                    group.create_task(self._look_for_others(plan, part, name)),
                ]
                rows = [group.create_task(answer(row)) for row in missing]
                if rows:
                    await asyncio.wait(rows)
                for watcher in watchers:
                    watcher.cancel()
        if troubles:
            raise RankflowError(
                ErrorType.ENGINE_GONE,
                f"{len(troubles)} of {part.rows} rows got no answer ({troubles[0]})",
                retry_at_once=self._host.closed,
            )

    async def _watch(self, attempt: AttemptFile, watch: Watch) -> None:
        while True:
            watch.beat()
            attempt.check()
            await asyncio.sleep(TICK_SECONDS)

    async def _look_for_others(self, plan: Plan, part: BatchSlice, name: AttemptName) -> None:
        where = (plan.run_id, part.rank, part.batch)
        while True:
            await asyncio.sleep(SUPERSEDED_SECONDS)
            try:
                if await asyncio.to_thread(superseded, plan.store, *where, name):
                    raise _CommittedElsewhere
            except RankflowError as error:
                # A look that fails ends no attempt that works: what it writes itself decides.
                if error.kind is not ErrorType.STORE_UNAVAILABLE:
                    raise
                log.warning("%s-%s of %s: %s", part.rank, part.batch, plan.run_id, error)


def _committed(given: GenerateBatchInput, commit: Commit, started: float) -> GenerateBatchResult:
    return GenerateBatchResult(
        rank=given.rank,
        batch=given.batch,
        rows=commit.rows,
        failed_rows=commit.failed_rows,
        prompt_tokens=commit.prompt_tokens,
        completion_tokens=commit.completion_tokens,
        salvaged_rows=0,
        generated_rows=0,
        already_committed=True,
        engine=commit.engine,
        attempt=activity.info().attempt,
        seconds=time.monotonic() - started,
    )


@contextlib.contextmanager
def _first_error() -> Generator[None]:
    """Unwrap the errors of a task group; a dead backend becomes ENGINE_GONE."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, BackendDead):
            raise RankflowError(ErrorType.ENGINE_GONE, str(error)) from error
        raise error from group
