"""A run of the failed rows of another: its input, and the results of both in one order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.manifest import Manifest, ResultFile, read_manifest
from rankflow.rows.plan import Plan, load_plan
from rankflow.store import MissingKey, Store
from rankflow.store.layout import removing_key, retry_input_key, retry_link_key

_LONGEST_CHAIN = 1000
"""Retries of retries: a chain that is longer goes round in a circle."""


@dataclass(frozen=True)
class _Row:
    """One planned row of a finished run with its result."""

    request: dict[str, Any]
    line: bytes
    failed: bool

    @property
    def retried(self) -> bool:
        """Whether another run may answer it: a row that was invalid would be so again."""
        return self.failed and "error" not in self.request


def write_retry_input(store: Store, run_id: str, retry_id: str) -> dict[str, Any]:
    """Write the requests of the failed rows of a finished run as the input of another run.

    Safe to repeat. Returns ``input`` (its address), ``rows`` in it, ``invalid`` rows that are left
    out because they would fail again, and ``spec``, what the run was planned with. Without rows
    nothing is written. Raises NO_RESULTS when the run is not finished, or is being removed.
    """
    link = retry_link_key(retry_id)
    linked = store.exists(link)
    # Who removes a run marks it first and then looks for links: one of the two sees the other.
    store.put(link, json.dumps({"runId": run_id}).encode())
    rows = 0
    try:
        if store.exists(removing_key(run_id)):
            raise RankflowError(ErrorType.NO_RESULTS, f"the run {run_id} is being removed")
        rows, invalid = _write_input(store, run_id, retry_input_key(retry_id))
    finally:
        if rows == 0 and not linked:
            store.delete(link)
    spec = load_plan(store, run_id).spec.model_dump(by_alias=True, exclude_none=True)
    address = store.uri(retry_input_key(retry_id))
    return {"input": address, "rows": rows, "invalid": invalid, "spec": spec}


def _write_input(store: Store, run_id: str, key: str) -> tuple[int, int]:
    """Write the failed requests, if any; returns how many, and how many were invalid."""
    rows = invalid = 0
    with store.writer(key) as writer:
        for row in _rows(store, run_id):
            if row.retried:
                rows += 1
                writer.write(json.dumps(row.request, separators=(",", ":")).encode() + b"\n")
            elif row.failed:
                invalid += 1
        if rows > 0:
            writer.commit()
    return rows, invalid


def retried_run(store: Store, run_id: str) -> str | None:
    """The run whose failed rows a run retries."""
    try:
        return str(json.loads(store.read(retry_link_key(run_id)))["runId"])
    except MissingKey:
        return None


def combined_lines(store: Store, run_id: str, *, errors: bool = False) -> Iterator[bytes]:
    """The answers (or the error lines) of a run and of those that it retries, in input order.

    A row that a later run answered is no error any more. Raises NO_RESULTS, PLAN_CORRUPT.
    """
    for row in _combined(store, _chain(store, run_id)):
        if row.failed == errors:
            yield row.line


def _chain(store: Store, run_id: str) -> list[str]:
    """The run, the one that it retries and so on: the first one first."""
    chain = [run_id]
    while len(chain) < _LONGEST_CHAIN:
        earlier = retried_run(store, chain[0])
        if earlier is None:
            return chain
        chain.insert(0, earlier)
    raise RankflowError(ErrorType.PLAN_CORRUPT, f"the run {run_id} retries itself")


def _combined(store: Store, chain: list[str]) -> Iterator[_Row]:
    first, *later = chain
    answers = _combined(store, later) if later else None
    for row in _rows(store, first):
        if answers is None or not row.retried:
            yield row
            continue
        found = next(answers, None)
        if found is None or found.request.get("custom_id") != row.request.get("custom_id"):
            raise RankflowError(
                ErrorType.PLAN_CORRUPT, f"{later[0]} does not hold the failed rows of {first}"
            )
        yield found


def _rows(store: Store, run_id: str) -> Iterator[_Row]:
    """Every row of a finished run with its result, in input order."""
    manifest = read_manifest(store, run_id)
    if manifest is None:
        raise RankflowError(
            ErrorType.NO_RESULTS, f"the run {run_id} is not finished: it has no results yet"
        )
    plan = load_plan(store, run_id)
    answers, failures = _Results(store, manifest.output), _Results(store, manifest.errors)
    for request in _requests(plan):
        # Rows that were invalid from the start may share an id with a valid one.
        valid = "error" not in request
        if valid and answers.custom_id == request.get("custom_id"):
            yield _Row(request, answers.take(), failed=False)
        elif failures.custom_id == request.get("custom_id"):
            yield _Row(request, failures.take(), failed=True)
        else:
            raise _corrupt(manifest)
    if answers.line or failures.line:
        raise _corrupt(manifest)


def _corrupt(manifest: Manifest) -> RankflowError:
    return RankflowError(
        ErrorType.PLAN_CORRUPT, f"the results of {manifest.run_id} are not those of its plan"
    )


def _requests(plan: Plan) -> Iterator[dict[str, Any]]:
    for rank in range(len(plan.ranks)):
        for part in plan.batches(rank):
            yield from plan.read_requests(part)


class _Results:
    """The lines of a result file, one at a time."""

    def __init__(self, store: Store, file: ResultFile) -> None:
        self._lines = _lines(store, file)
        self.line = b""
        self.custom_id: object = None
        self._next()

    def take(self) -> bytes:
        """The line that is looked at; goes on to the next one."""
        line = self.line
        self._next()
        return line

    def _next(self) -> None:
        self.line = next(self._lines, b"")
        # No id is None in a file that has ended: nothing matches.
        ended = object()
        parsed = cast("dict[str, Any]", json.loads(self.line)) if self.line else {}
        self.custom_id = parsed.get("custom_id") if self.line else ended


def _lines(store: Store, file: ResultFile) -> Iterator[bytes]:
    rest = b""
    for chunk in store.stream(file.path):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
