"""From committed attempts to one output: every row exactly once, in input order."""

import contextlib
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import FinalizeRunResult
from rankflow.rows.canonical import canonical_json
from rankflow.rows.manifest import (
    Manifest,
    Outcome,
    RankResult,
    ResultFile,
    as_result,
    read_manifest,
)
from rankflow.rows.plan import BatchSlice, Plan, RowHead, load_plan
from rankflow.rows.progress import Commits, check_commits
from rankflow.store import MissingKey, Store, Writer
from rankflow.store.attempt_lines import CommittedLine
from rankflow.store.commits import Commit, list_commits
from rankflow.store.layout import (
    errors_key,
    final_key,
    finals_prefix,
    manifest_key,
    output_key,
    planner_prefix,
    planners_prefix,
    run_prefix,
    success_key,
)
from rankflow.store.room import require_room
from rankflow.store.salvage import salvage

MANIFEST_VERSION = 1
Missing = Literal["refuse", "batch_cancelled", "batch_expired"]
_OUTCOMES: dict[Missing, Outcome] = {
    "refuse": "completed",
    "batch_cancelled": "cancelled",
    "batch_expired": "expired",
}
_REASONS = {
    "batch_cancelled": "The run was cancelled before this request was executed.",
    "batch_expired": "This request could not be executed before the run expired.",
}
_SHOWN_BATCHES = 10


@dataclass
class _Totals:
    succeeded: int = 0
    failed: int = 0
    missing: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ranks: list[RankResult] = field(default_factory=list[RankResult])


def finalize_run(store: Store, run_id: str, missing: Missing = "refuse") -> FinalizeRunResult:
    """Assemble the results of a run and publish its manifest; a finished run is only looked up.

    With ``batch_cancelled`` or ``batch_expired`` rows that no engine finished become error lines of
    that code; rows that an uncommitted attempt finished are kept.

    Raises:
        RankflowError: PLAN_CORRUPT when commits, attempts and plan do not hold the same rows, or a
            batch is missing and ``missing`` is ``refuse``; STORE_UNAVAILABLE, STORE_FULL.
    """
    try:
        manifest = read_manifest(store, run_id)
        if manifest is None:
            manifest = _assemble(store, load_plan(store, run_id), missing)
        # Again for a finished run: the process may have ended between the manifest and these.
        if not store.exists(success_key(run_id)):
            store.publish(manifest.output.path, output_key(run_id))
            store.publish(manifest.errors.path, errors_key(run_id))
            store.put(success_key(run_id), b"")
    except RankflowError as error:
        # Another finalizer was faster: what this one was writing has been tidied away, or the
        # attempts that it was reading have been collected.
        if not isinstance(error, MissingKey) and error.kind is not ErrorType.PLAN_CORRUPT:
            raise
        manifest = read_manifest(store, run_id)
        if manifest is None or not store.exists(success_key(run_id)):
            raise
    _tidy(store, manifest)
    return as_result(store, manifest)


def _tidy(store: Store, manifest: Manifest) -> None:
    """Remove what planners, engines and finalizers that were killed left and nobody reads."""
    run_id = manifest.run_id
    store.sweep(run_prefix(run_id))
    read = (manifest.output.path, manifest.errors.path)
    planned = planner_prefix(run_id, load_plan(store, run_id).document.token) + "/"
    left = [key for key in store.list(finals_prefix(run_id)) if key not in read]
    left += [key for key in store.list(planners_prefix(run_id)) if not key.startswith(planned)]
    for key in left:
        store.delete(key)


def _assemble(store: Store, plan: Plan, missing: Missing) -> Manifest:
    run_id = plan.run_id
    commits = list_commits(store, run_id)
    check_commits(plan, commits)
    if missing == "refuse":
        _refuse_missing(plan, commits)
    _require_room(store, commits)
    # A folder of its own: two finalizers never write one file, the manifest names the winner's.
    token = secrets.token_hex(8)
    output_path = final_key(run_id, token, "output.jsonl")
    errors_path = final_key(run_id, token, "errors.jsonl")
    totals = _Totals()
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(store.writer(output_path))
        errors = stack.enter_context(store.writer(errors_path))
        for rank, entry in enumerate(plan.ranks):
            starts = output.size, errors.size
            for part in plan.batches(rank):
                lines = _batch_lines(plan, part, commits.get((rank, part.batch)))
                _write(plan, part, lines, missing, output, errors, totals)
            totals.ranks.append(
                RankResult(
                    rank=rank,
                    first_row=entry.first_row,
                    rows=entry.rows,
                    output_offset=starts[0],
                    output_length=output.size - starts[0],
                    errors_offset=starts[1],
                    errors_length=errors.size - starts[1],
                )
            )
        output.commit()
        errors.commit()
    manifest = Manifest(
        version=MANIFEST_VERSION,
        run_id=run_id,
        state=_OUTCOMES[missing],
        rows=plan.summary.rows,
        succeeded=totals.succeeded,
        failed=totals.failed,
        missing=totals.missing,
        prompt_tokens=totals.prompt_tokens,
        completion_tokens=totals.completion_tokens,
        model=plan.model.model,
        model_revisions=sorted({c.model_revision for c in commits.values() if c.model_revision}),
        spec_hash=plan.spec_hash,
        run_spec_hash=_run_spec_hash(plan),
        input_sha256=plan.summary.input_sha256,
        output=_result_file(output_path, output, totals.succeeded),
        errors=_result_file(errors_path, errors, totals.failed),
        ranks=totals.ranks,
    )
    if totals.succeeded + totals.failed != plan.summary.rows:
        raise RankflowError(
            ErrorType.PLAN_CORRUPT,
            f"the plan of {run_id} counts {plan.summary.rows} rows, its batches "
            f"{totals.succeeded + totals.failed}",
        )
    if store.create(manifest_key(run_id), manifest.model_dump_json(by_alias=True).encode()):
        return manifest
    store.delete(output_path)
    store.delete(errors_path)
    winner = read_manifest(store, run_id)
    if winner is None:
        raise RankflowError(ErrorType.STORE_UNAVAILABLE, "the manifest is there and cannot be read")
    return winner


def _require_room(store: Store, commits: Commits) -> None:
    """Raise STORE_FULL unless there is room: the output holds about what the attempts hold."""
    if store.space() is not None:
        require_room(store, sum(store.size(commit.path) for commit in commits.values()))


def _refuse_missing(plan: Plan, commits: Commits) -> None:
    absent = [
        f"{rank}-{batch}"
        for rank, entry in enumerate(plan.ranks)
        for batch in range(entry.batches)
        if (rank, batch) not in commits
    ]
    if absent:
        more = ", …" if len(absent) > _SHOWN_BATCHES else ""
        raise RankflowError(
            ErrorType.PLAN_CORRUPT,
            f"{len(absent)} batches of {plan.run_id} have no commit: "
            f"{', '.join(absent[:_SHOWN_BATCHES])}{more}",
        )


def _batch_lines(plan: Plan, part: BatchSlice, commit: Commit | None) -> dict[int, CommittedLine]:
    """Lines of a batch by row: the commit's, or those that its attempts finished without one."""
    if commit is not None:
        return _committed(plan, part, commit)
    found = salvage(plan.store, plan.run_id, part.rank, part.batch, part.row_range)
    return {row: CommittedLine.parse(data) for row, (_, data) in found.items()}


def _committed(plan: Plan, part: BatchSlice, commit: Commit) -> dict[int, CommittedLine]:
    """Lines of a committed attempt. Raises PLAN_CORRUPT unless it holds each row exactly once."""
    data = plan.store.read_attempt(commit.path)
    name = f"batch {part.rank}-{part.batch} of {plan.run_id}"
    if hashlib.sha256(data).hexdigest() != commit.sha256:
        raise RankflowError(
            ErrorType.PLAN_CORRUPT, f"{commit.path}, committed for {name}, was changed"
        )
    lines: dict[int, CommittedLine] = {}
    for text in data.splitlines(keepends=True):
        line = _parsed(text)
        if line is None or line.row in lines or line.row not in part.row_range:
            raise RankflowError(
                ErrorType.PLAN_CORRUPT,
                f"{commit.path} has a line that is no row of {name}, or twice",
            )
        lines[line.row] = line
    if len(lines) != part.rows:
        raise RankflowError(
            ErrorType.PLAN_CORRUPT,
            f"{commit.path} has {len(lines)} of the {part.rows} rows of {name}",
        )
    return lines


def _parsed(text: bytes) -> CommittedLine | None:
    try:
        return CommittedLine.parse(text) if text.endswith(b"\n") else None
    except (msgspec.MsgspecError, ValueError):
        return None


def _write(
    plan: Plan,
    part: BatchSlice,
    lines: dict[int, CommittedLine],
    missing: Missing,
    output: Writer,
    errors: Writer,
    totals: _Totals,
) -> None:
    """Write a batch in row order, each row under the custom_id that was planned.

    Answers are copied as the attempt has them: parsed and written anew they took most of the time.
    """
    for row, head in zip(part.row_range, plan.read_heads(part), strict=True):
        line = lines.get(row)
        if line is None:
            text, failed = _never_generated(plan, row, head, missing), True
            totals.missing += head.error is None
        else:
            text, failed = bytes(line.output), line.failed
            _assert_same(plan, row, head, line)
            totals.prompt_tokens += line.prompt_tokens
            totals.completion_tokens += line.completion_tokens
        (errors if failed else output).write(text + b"\n")
        totals.failed += failed
        totals.succeeded += not failed


def _assert_same(plan: Plan, row: int, head: RowHead, line: CommittedLine) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        if line.custom_id == head.custom_id:
            return
    raise RankflowError(
        ErrorType.PLAN_CORRUPT,
        f"row {row} of {plan.run_id} was answered under another custom_id than planned",
    )


def _never_generated(plan: Plan, row: int, head: RowHead, missing: Missing) -> bytes:
    """The error line of a row without an answer; a row that was invalid from the start says why."""
    line = {
        "id": f"batch_req_{plan.run_id}_{row}",
        "custom_id": head.custom_id,
        "response": None,
        "error": head.error or {"code": missing, "message": _REASONS.get(missing)},
    }
    return msgspec.json.encode(line)


def _result_file(path: str, writer: Writer, rows: int) -> ResultFile:
    return ResultFile(path=path, sha256=writer.sha256, size=writer.size, rows=rows)


def _run_spec_hash(plan: Plan) -> str:
    fields = plan.spec.model_dump(by_alias=True, exclude_none=True)
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()
