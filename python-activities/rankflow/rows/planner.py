"""Validating an input and cutting it into ranks and batches."""

import hashlib
import json
import secrets
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import PlanSummary, RunSpec
from rankflow.rows.canonical import spec_hash
from rankflow.rows.claims import CheckedRow, RowChecker
from rankflow.rows.identity import check_same_run
from rankflow.rows.plan import PLAN_VERSION, Plan, PlanDocument, RankEntry, find_plan
from rankflow.rows.problems import ProblemLog, whole_input
from rankflow.rows.readers import detect_format
from rankflow.rows.removal import refuse_removed
from rankflow.rows.source import InputFile, open_input
from rankflow.store import Store, open_store
from rankflow.store.fence import require_fence
from rankflow.store.layout import manifest_key, plan_key, rank_table_key, requests_key
from rankflow.store.room import require_room

BATCHES_PER_RANK = 16
"""At least so many, if they get enough rows: the last ones decide how evenly engines end."""
LEAST_BATCH_ROWS = 16
"""A batch costs up to 0.1 s beside its rows, so it is not made smaller to have more of them."""
USUAL_BATCH_ROWS = 256
"""Nor is it made larger to have fewer, as long as a rank has not many of them."""
MANY_BATCHES = 64
_ROW_OVERHEAD_BYTES = 700
_TOKEN_BYTES = 5
_OUTPUT_COPIES = 2


class _Sizes:
    """What the batches are cut from: 12 bytes a row."""

    def __init__(self) -> None:
        self.bytes = array("I")
        """Of the row as the plan stores it."""
        self.tokens = array("Q")
        self.invalid = 0
        self.prompt_tokens = 0
        self.output_tokens = 0

    def add(self, rows: list[CheckedRow]) -> None:
        self.bytes.extend(len(row.line) for row in rows)
        self.tokens.extend(row.prompt_tokens + row.max_output_tokens for row in rows)
        self.invalid += sum(row.invalid for row in rows)
        self.prompt_tokens += sum(row.prompt_tokens for row in rows)
        self.output_tokens += sum(row.max_output_tokens for row in rows)

    @property
    def rows(self) -> int:
        return len(self.tokens)


def plan_run(spec: RunSpec) -> PlanSummary:
    """Plan a run, once: a second call checks that it is the same run and returns the same plan.

    Raises:
        RankflowError: INVALID_INPUT with all problems, RUN_MISMATCH, ENGINE_ARGUMENTS_INVALID,
            UNSUPPORTED_INPUT, UNSUPPORTED_STORE, STORE_UNAVAILABLE, STORE_FULL.
    """
    store = open_store(spec.store)
    refuse_removed(store, spec.run_id)
    plan = find_plan(store, spec.run_id)
    if plan is not None:
        return _existing(store, plan, spec)
    require_fence(store, spec.run_id)
    # An own folder: plan.json, written last and create-only, makes one planner's folder count.
    token = secrets.token_hex(8)
    key = requests_key(spec.run_id, token)
    with open_input(spec.input.uri) as source, store.writer(key) as requests:
        if spec.input.limit is None:
            require_room(store, source.size)
        sizes = _check(spec, source, requests.write)
        requests.commit()
    tables = _tables(spec, sizes)
    encoded = [json.dumps(table, separators=(",", ":")).encode() for table in tables]
    for rank, data in enumerate(encoded):
        store.put(rank_table_key(spec.run_id, token, rank), data)
    document = PlanDocument(
        version=PLAN_VERSION,
        token=token,
        spec=spec,
        spec_hash=spec_hash(spec.model),
        requests_sha256=requests.sha256,
        summary=_summary(spec, source, sizes, [len(table) for table in tables]),
        ranks=[
            RankEntry(
                first_row=first,
                rows=last - first,
                batches=len(table),
                table_sha256=hashlib.sha256(data).hexdigest(),
            )
            for (first, last), table, data in zip(
                _rank_ranges(spec.ranks, sizes.rows), tables, encoded, strict=True
            )
        ],
    )
    text = document.model_dump_json(by_alias=True, exclude_none=True).encode()
    if store.create(plan_key(spec.run_id), text):
        return document.summary
    for name in [key, *(rank_table_key(spec.run_id, token, r) for r in range(spec.ranks))]:
        store.delete(name)
    winner = find_plan(store, spec.run_id)
    if winner is None:
        raise RankflowError(ErrorType.STORE_UNAVAILABLE, "the plan is there and cannot be read")
    return _existing(store, winner, spec)


def validate_run(spec: RunSpec, log: ProblemLog | None = None) -> PlanSummary:
    """The same checks and the same numbers, without a store and without a running stack.

    Args:
        spec: the run.
        log: takes what is wrong with rows that would be recorded as errors.
    """
    with open_input(spec.input.uri) as source:
        sizes = _check(spec, source, lambda lines: None, log)
    tables = _tables(spec, sizes)
    return _summary(spec, source, sizes, [len(table) for table in tables])


def estimate_bytes(summary: PlanSummary) -> int:
    """Most bytes a run adds to its store: requests, and each answer in attempt and output."""
    answers = summary.rows * _ROW_OVERHEAD_BYTES + summary.max_output_tokens * _TOKEN_BYTES
    return summary.input_bytes * 2 + answers * _OUTPUT_COPIES


def _check(
    spec: RunSpec,
    source: InputFile,
    keep: Callable[[bytes], None],
    log: ProblemLog | None = None,
) -> _Sizes:
    log, sizes = log or ProblemLog(), _Sizes()
    kind = detect_format(spec.input, source.path)
    for rows in RowChecker(spec, log).rows(kind, source.path, source.size):
        sizes.add(rows)
        keep(b"".join(row.line for row in rows))
    source.check_unchanged()
    if sizes.rows == 0:
        raise whole_input("empty_input", f"the input {source.uri} has no rows")
    if log.total and spec.on_invalid == "refuse":
        raise log.refusal()
    return sizes


def _existing(store: Store, plan: Plan, spec: RunSpec) -> PlanSummary:
    check_same_run(plan, spec)
    finished = store.exists(manifest_key(spec.run_id))
    return plan.summary.model_copy(update={"finished": finished})


def _rank_ranges(ranks: int, rows: int) -> Iterator[tuple[int, int]]:
    """First row and row after the last of each rank; sizes differ by one at most, 0 included."""
    return pairwise(rows * rank // ranks for rank in range(ranks + 1))


def _tables(spec: RunSpec, sizes: _Sizes) -> list[list[list[int]]]:
    """The batches of each rank: offset and length in bytes, first row, rows, tokens."""
    tables: list[list[list[int]]] = []
    offset = 0
    for first, last in _rank_ranges(spec.ranks, sizes.rows):
        table: list[list[int]] = []
        for start, end, tokens in _cut(spec, sizes.tokens, first, last):
            length = sum(sizes.bytes[start:end])
            table.append([offset, length, start, end - start, tokens])
            offset += length
        tables.append(table)
    return tables


def _cut(
    spec: RunSpec, tokens_of: Sequence[int], first: int, last: int
) -> Iterator[tuple[int, int, int]]:
    """First row, row after the last and tokens of each batch of a rank.

    Batches are as large as the limits allow, and enough of them for engines to share. Never empty;
    a row above the limit on tokens is a batch of its own.
    """
    most_rows = min(spec.batch.max_rows, _even_rows(last - first))
    start = first
    while start < last:
        end, tokens = start, 0
        while end < last and end - start < most_rows:
            if end > start and tokens + tokens_of[end] > spec.batch.max_tokens:
                break
            tokens += tokens_of[end]
            end += 1
        yield start, end, tokens
        start = end


def _even_rows(rows: int) -> int:
    """Rows of a batch for a rank of so many."""
    few = min(USUAL_BATCH_ROWS, -(-rows // BATCHES_PER_RANK))
    return max(LEAST_BATCH_ROWS, few, -(-rows // MANY_BATCHES))


def _summary(spec: RunSpec, source: InputFile, sizes: _Sizes, batches: list[int]) -> PlanSummary:
    return PlanSummary(
        run_id=spec.run_id,
        rows=sizes.rows,
        invalid_rows=sizes.invalid,
        prompt_tokens=sizes.prompt_tokens,
        max_output_tokens=sizes.output_tokens,
        input_bytes=source.size,
        input_sha256=source.sha256,
        batches=batches,
        rows_per_rank=[last - first for first, last in _rank_ranges(spec.ranks, sizes.rows)],
        finished=False,
    )
