"""What the commits of a rank say."""

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import BatchRange, RankProgress, RowCounts
from rankflow.rows.plan import Plan, load_plan
from rankflow.store import Store
from rankflow.store.commits import Commit, list_commits

Commits = dict[tuple[int, int], Commit]


def rank_progress(store: Store, run_id: str, rank: int) -> RankProgress:
    """Totals of the committed batches of a rank, and the batches that are still missing.

    Raises:
        RankflowError: PLAN_CORRUPT when there is no plan or a commit does not fit it.
    """
    plan = load_plan(store, run_id)
    batches = plan.batches(rank)
    commits = list_commits(store, run_id, rank)
    check_commits(plan, commits)
    counted = list(commits.values())
    return RankProgress(
        committed=RowCounts(
            batches=len(counted),
            rows=sum(commit.rows for commit in counted),
            failed_rows=sum(commit.failed_rows for commit in counted),
            prompt_tokens=sum(commit.prompt_tokens for commit in counted),
            completion_tokens=sum(commit.completion_tokens for commit in counted),
        ),
        pending=_ranges([part.batch for part in batches if (rank, part.batch) not in commits]),
    )


def check_commits(plan: Plan, commits: Commits) -> None:
    """Raise PLAN_CORRUPT for a commit of no planned batch, or with another number of rows."""
    for (rank, batch), commit in commits.items():
        rows = plan.batch(rank, batch).rows
        if commit.rows != rows:
            raise RankflowError(
                ErrorType.PLAN_CORRUPT,
                f"batch {rank}-{batch} of {plan.run_id} has {rows} rows, its commit {commit.rows}",
            )


def _ranges(batches: list[int]) -> list[BatchRange]:
    """Ascending numbers as ranges, both ends included."""
    ranges: list[BatchRange] = []
    for batch in batches:
        if ranges and ranges[-1].last == batch - 1:
            ranges[-1] = BatchRange(first=ranges[-1].first, last=batch)
        else:
            ranges.append(BatchRange(first=batch, last=batch))
    return ranges
