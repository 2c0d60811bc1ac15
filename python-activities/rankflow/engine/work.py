"""What one attempt does while its engine is its own to use: read, judge, answer, commit."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import GenerateBatchResult, RedoneWork
from rankflow.engine.answering import Answering
from rankflow.engine.attempt import AttemptFile
from rankflow.engine.fates import AskFates
from rankflow.engine.host import EngineHost
from rankflow.engine.journal import Journal
from rankflow.engine.redone import redone
from rankflow.engine.supersede import AttemptName
from rankflow.engine.suspicion import (
    MAX_DEATHS,
    Death,
    Trials,
    deaths_alone,
    find_deaths,
    is_suspect,
    plan_trials,
    undecided,
)
from rankflow.engine.watch import Watch
from rankflow.rows.plan import BatchSlice, Plan
from rankflow.store.commits import Commit, try_commit
from rankflow.store.journals import AttemptJournal, read_journals
from rankflow.store.salvage import salvage


@dataclass(frozen=True)
class Served:
    """Which engine this is and what it serves."""

    name: str
    """``<fleet>/slot-<n>/<incarnation>``, also the identity of its Temporal workers."""
    spec_hash: str


@dataclass(frozen=True)
class BatchWork:
    """One attempt of one batch, with everything it uses."""

    host: EngineHost
    served: Served
    fates: AskFates
    plan: Plan
    part: BatchSlice
    name: AttemptName
    alone: bool
    journal: Journal
    watch: Watch

    async def run(self) -> GenerateBatchResult:
        """Generate what is missing and commit; the commit that counts may be another's.

        Raises EngineDied, EngineHung, CommittedElsewhere, SUSPECT_BATCH, TOO_MANY_ENGINE_DEATHS,
        ENGINE_GONE, LEASE_LOST, STORE_UNAVAILABLE, STORE_FULL, PLAN_CORRUPT.
        """
        store, where, watch = self.plan.store, self._where, self.watch
        reading = asyncio.gather(
            asyncio.to_thread(salvage, store, *where, self.part.row_range),
            asyncio.to_thread(self.plan.read_requests, self.part),
            asyncio.to_thread(read_journals, store, *where),
        )
        taken, requests, journals = await watch.through_store(reading)
        deaths = await watch.through_store(self._deaths(journals))
        begun = frozenset[int]().union(*(journal.handed for journal in journals))
        missing = [row for row in self.part.row_range if row not in taken]
        self.journal.remember(death.token for death in deaths)
        if not self.alone and is_suspect(deaths, missing):
            raise RankflowError(
                ErrorType.SUSPECT_BATCH,
                f"batch {self.part.rank}-{self.part.batch} was in work when engines died",
            )
        starting = AttemptFile.start(store, *where, self.name.token)
        async with await watch.through_store(starting) as attempt:
            watch.attempt = attempt
            for counts, data in taken.values():
                attempt.keep(counts, data)
            answering = Answering(
                self.host,
                self.plan,
                self.part,
                requests,
                attempt,
                self.journal,
                watch,
                self.name,
                begun,
            )
            valid = answering.record_invalid(missing)
            if self.alone:
                await answering.in_trials(self._trials(deaths, valid))
            else:
                await answering.side_by_side(valid)
            answering.check()
            sha256 = await watch.through_store(attempt.finish())
        own = self._commit_of(attempt, sha256)
        winner = await watch.through_store(asyncio.to_thread(try_commit, store, *where, own))
        result = committed(self.part.rank, self.part.batch, winner)
        if winner.token != own.token:
            return result
        again = redone(
            journals, valid, {row: got.completion_tokens for row, got in attempt.rows.items()}
        )
        return result.model_copy(
            update={
                "already_committed": False,
                "salvaged_rows": len(taken),
                "generated_rows": len(missing),
                **({"redone": RedoneWork(**asdict(again))} if again.rows else {}),
            }
        )

    @property
    def _where(self) -> tuple[str, int, int]:
        return self.plan.run_id, self.part.rank, self.part.batch

    async def _deaths(self, journals: list[AttemptJournal]) -> list[Death]:
        """The unexplained deaths of engines under earlier attempts; asks Ray where it has to."""
        asked = undecided(journals)
        return find_deaths(journals, await self.fates(asked) if asked else {})

    def _trials(self, deaths: list[Death], missing: list[int]) -> Trials:
        trials = plan_trials(deaths, missing)
        killed = deaths_alone(deaths, activity.info().workflow_run_id or "")
        if trials.groups and killed >= MAX_DEATHS:
            left = sum(map(len, trials.groups))
            raise RankflowError(
                ErrorType.TOO_MANY_ENGINE_DEATHS,
                f"{killed} engines died while they ran batch {self.part.rank}-{self.part.batch} "
                f"alone, and {left} of its {self.part.rows} rows are not answered yet",
            )
        return trials

    def _commit_of(self, attempt: AttemptFile, sha256: str) -> Commit:
        if attempt.rows.keys() != set(self.part.row_range):
            raise RankflowError(ErrorType.ENGINE_GONE, "not every row of the batch was answered")
        totals = attempt.rows.values()
        facts = self.host.facts
        return Commit(
            token=self.name.token,
            path=attempt.key,
            sha256=sha256,
            rows=len(totals),
            failed_rows=sum(row.failed for row in totals),
            prompt_tokens=sum(row.prompt_tokens for row in totals),
            completion_tokens=sum(row.completion_tokens for row in totals),
            engine=self.served.name,
            model_revision=facts.revision if facts is not None else None,
        )


def committed(rank: int, batch: int, commit: Commit) -> GenerateBatchResult:
    """The result of a batch that is committed; ``seconds`` and ``attempt`` are the caller's."""
    return GenerateBatchResult(
        rank=rank,
        batch=batch,
        rows=commit.rows,
        failed_rows=commit.failed_rows,
        prompt_tokens=commit.prompt_tokens,
        completion_tokens=commit.completion_tokens,
        salvaged_rows=0,
        generated_rows=0,
        already_committed=True,
        engine=commit.engine,
        seconds=0,
    )
