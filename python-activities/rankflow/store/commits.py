"""Commits: the small create-only objects that say which attempt file of a batch counts."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.faults import faults
from rankflow.store.base import MissingKey, Store
from rankflow.store.layout import commit_key, commits_prefix, parse_commit_key

_READERS = 16
"""Commits read at once: a bucket answers in some 30 ms, so 10,000 commits take about 20 seconds."""


class Commit(BaseModel):
    """What one batch came to: the attempt file that counts and its totals."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    token: str
    path: str = Field(description="Store key of the attempt file (as given to Store.append)")
    sha256: str = Field(description="Hex sha256 of the whole attempt file")
    rows: int = Field(ge=0)
    failed_rows: int = Field(ge=0)
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    engine: str
    model_revision: str | None = None


def read_commit(store: Store, run_id: str, rank: int, batch: int) -> Commit | None:
    """The commit of a batch, or None. Raises PLAN_CORRUPT when it is not a commit."""
    try:
        return _parse(store, commit_key(run_id, rank, batch))
    except MissingKey:
        return None


def try_commit(store: Store, run_id: str, rank: int, batch: int, commit: Commit) -> Commit:
    """Commit a batch unless that happened before; returns the commit that counts.

    The attempt file must be closed before. The caller has won if the returned token is its own.
    """
    key = commit_key(run_id, rank, batch)
    data = commit.model_dump_json(by_alias=True).encode()
    if not faults().fence:
        store.put(key, data)
        return commit
    if store.create(key, data):
        return commit
    return _parse(store, key)


def list_commits(
    store: Store, run_id: str, rank: int | None = None
) -> dict[tuple[int, int], Commit]:
    """All commits of a run, or of one rank, by (rank, batch)."""
    found = {
        name: key
        for key in store.list(commits_prefix(run_id))
        if (name := parse_commit_key(key)) is not None and rank in (None, name[0])
    }
    with ThreadPoolExecutor(_READERS) as pool:
        commits = pool.map(partial(_parse, store), found.values())
        return dict(zip(found, commits, strict=True))


def _parse(store: Store, key: str) -> Commit:
    try:
        return Commit.model_validate_json(store.read(key))
    except ValidationError as error:
        raise RankflowError(ErrorType.PLAN_CORRUPT, f"{key} is not a commit") from error
