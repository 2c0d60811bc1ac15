"""The rows of one attempt on their way through the engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Collection, Generator, Iterable
from typing import Any

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.attempt import AttemptFile
from rankflow.engine.backend import Answer, BackendDead, BackendTrouble, ServerError
from rankflow.engine.counts import count_row
from rankflow.engine.host import EngineHost
from rankflow.engine.journal import Journal
from rankflow.engine.lines import answered, engine_killer, recorded_error
from rankflow.engine.supersede import AttemptName, superseded
from rankflow.engine.suspicion import LONE_DEATHS, Trials
from rankflow.engine.watch import TICK_SECONDS, EngineDied, Watch
from rankflow.faults import faults
from rankflow.rows.plan import BatchSlice, Plan

log = logging.getLogger(__name__)

SUPERSEDED_SECONDS = 10.0
"""How often an attempt looks for a commit or a newer attempt: two calls to the store."""

SERVER_ERROR_PAUSES = (1.0, 5.0)
"""Seconds before a row that got a 5xx is asked for again: a passing trouble passes in that time."""


class CommittedElsewhere(Exception):
    """Another attempt committed the batch while this one was generating."""


class Answering:
    """Hands rows to the engine, each named in the journal before, and records what comes back.

    Its methods raise EngineDied, EngineHung, CommittedElsewhere, LEASE_LOST, STORE_UNAVAILABLE and
    STORE_FULL.
    """

    def __init__(
        self,
        host: EngineHost,
        plan: Plan,
        part: BatchSlice,
        requests: list[dict[str, Any]],
        attempt: AttemptFile,
        journal: Journal,
        watch: Watch,
        name: AttemptName,
        begun: Collection[int] = (),
    ) -> None:
        """Nothing starts yet.

        Args:
            requests: of all rows of the batch, in order.
            begun: rows that earlier attempts gave to their engines.
        """
        self._host = host
        self._plan = plan
        self._part = part
        self._requests = requests
        self._attempt = attempt
        self._journal = journal
        self._watch = watch
        self._name = name
        self._begun = begun
        self._prefix = f"{plan.run_id}-{part.rank}-{part.batch}-{name.token}"
        self._troubles: list[str] = []

    def record_invalid(self, rows: Iterable[int]) -> list[int]:
        """Record the rows that planning found invalid; returns the others."""
        requests = {row: self._request(row) for row in rows}
        for row, line in requests.items():
            if "error" in line:
                self._attempt.add(recorded_error(row, line, self._name.token))
        return [row for row, line in requests.items() if "error" not in line]

    async def side_by_side(self, rows: list[int]) -> None:
        """Answer rows all at once: vLLM schedules them better than anyone outside."""
        if not rows:
            return
        await self._watch.through_store(self._journal.hand(rows))
        async with self._watched(), asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(self._answer(row))

    async def in_trials(self, trials: Trials) -> None:
        """Run suspects group by group; what kills the engine is then known to the next attempt."""
        for row in trials.convicted:
            custom_id = self._request(row)["custom_id"]
            line = engine_killer(row, custom_id, LONE_DEATHS, self._name.token)
            self._attempt.add(line)
        for rows in trials.groups:
            # What is finished must not be suspected when the next group kills the engine.
            await self._watch.through_store(self._attempt.flush())
            if len(rows) == 1:
                await self._probe(rows[0])
            before = len(self._troubles)
            await self.side_by_side(rows)
            if self._host.closed:
                return
            if len(self._troubles) > before:
                # The engine gave them back, so its death is none of theirs.
                await self._watch.through_store(self._journal.hand([]))

    def check(self) -> None:
        """Raise ENGINE_GONE when a row got no answer for a reason that is not its own."""
        if self._troubles:
            raise RankflowError(
                ErrorType.ENGINE_GONE,
                f"{len(self._troubles)} of {self._part.rows} rows got no answer "
                f"({self._troubles[0]})",
                retry_at_once=self._host.closed,
            )

    async def _probe(self, row: int) -> None:
        """Have the engine answer anything at all: one that is broken would die of any row."""
        async with self._watched():
            try:
                await self._host.probe(f"{self._prefix}-before-{row}")
            except BackendTrouble as trouble:
                raise RankflowError(ErrorType.ENGINE_GONE, str(trouble)) from trouble

    async def _answer(self, row: int) -> None:
        line = self._request(row)
        request_id = f"{self._prefix}-{row}"
        try:
            got = await self._final_answer(line["url"], line["body"], request_id)
        except BackendTrouble as trouble:
            # Not the row's own fault, so not its final error; the others still finish.
            log.warning("row %d of %s: %s", row, self._plan.run_id, trouble)
            self._troubles.append(str(trouble))
            return
        self._attempt.add(answered(row, line["custom_id"], got, request_id))
        count_row(got, begun_before=row in self._begun)

    async def _final_answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """Ask again after a 5xx; it is the row's own when the engine goes on answering others.

        Without an end to it, one row that vLLM cannot serve would keep its batch from ever ending.
        """
        for pause in SERVER_ERROR_PAUSES:
            try:
                return await self._host.answer(url, body, request_id)
            except ServerError as error:
                log.warning("%s: %s, asking again in %g s", request_id, error, pause)
            await asyncio.sleep(pause)
        try:
            return await self._host.answer(url, body, request_id)
        except ServerError as error:
            await self._host.probe(f"{request_id}-after")
            return error.answer

    def _request(self, row: int) -> dict[str, Any]:
        return self._requests[row - self._part.first_row]

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncGenerator[None]:
        """While this lasts the attempt heartbeats, and ends when it has to let go."""
        with _first_error():
            async with asyncio.TaskGroup() as group:
                watchers = [
                    group.create_task(self._keep_beating()),
                    group.create_task(self._look_for_others()),
                ]
                yield
                for watcher in watchers:
                    watcher.cancel()

    async def _keep_beating(self) -> None:
        while True:
            self._watch.beat()
            self._attempt.check()
            await asyncio.sleep(TICK_SECONDS)

    async def _look_for_others(self) -> None:
        if not faults().fence:
            return
        where = (self._plan.run_id, self._part.rank, self._part.batch)
        while True:
            await asyncio.sleep(SUPERSEDED_SECONDS)
            try:
                if await asyncio.to_thread(superseded, self._plan.store, *where, self._name):
                    raise CommittedElsewhere
            except RankflowError as error:
                # A look that fails ends no attempt that works: what it writes itself decides.
                if error.kind is not ErrorType.STORE_UNAVAILABLE:
                    raise
                log.warning("%s-%s of %s: %s", *where[1:], where[0], error)


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
            raise EngineDied(str(error)) from error
        raise error from group
