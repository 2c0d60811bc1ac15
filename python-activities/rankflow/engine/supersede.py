"""The name of an attempt, and whether it still is the one that should work."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import Store
from rankflow.store.layout import attempts_prefix, commit_key


@dataclass(frozen=True)
class AttemptName:
    """``<workflow run id>-<activity id>-<attempt>``: unique, ordered among tries of an activity."""

    activity: str
    attempt: int

    @classmethod
    def of(cls, info: activity.Info) -> AttemptName:
        """The name of the attempt that runs with this activity info."""
        return cls(f"{info.workflow_run_id}-{info.activity_id}", info.attempt)

    @property
    def token(self) -> str:
        """The attempt's token in the store."""
        return f"{self.activity}-{self.attempt}"


def superseded(store: Store, run_id: str, rank: int, batch: int, name: AttemptName) -> bool:
    """Whether the batch is committed by now.

    Raises LEASE_LOST when a newer attempt of the same workflow run has started its file,
    STORE_UNAVAILABLE.
    """
    if store.exists(commit_key(run_id, rank, batch)):
        return True
    own = _order(name.token)
    for key in store.list_appended(attempts_prefix(run_id, rank, batch)):
        token = key.rpartition("/")[2].removesuffix(".jsonl")
        other = _order(token)
        if own and other and other[0] == own[0] and other[1:] > own[1:]:
            raise RankflowError(
                ErrorType.LEASE_LOST, f"attempt {token} of batch {rank}-{batch} has started"
            )
    return False


def _order(token: str) -> tuple[str, int, int] | None:
    """Workflow run, activity and attempt of a token, the latter two as the SDK counts them."""
    run_and_activity, _, attempt = token.rpartition("-")
    run, _, number = run_and_activity.rpartition("-")
    return (run, int(number), int(attempt)) if number.isdigit() and attempt.isdigit() else None
