"""Reading what a finished run answered, and what there is in a store."""

import json
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import RowCounts
from rankflow.roots import check_allowed, check_opened
from rankflow.rows.manifest import Manifest, read_manifest
from rankflow.rows.plan import find_plan
from rankflow.rows.progress import rank_progress
from rankflow.rows.removal import is_removed
from rankflow.rows.retry import combined_lines
from rankflow.store import Store
from rankflow.store.base import CHUNK_BYTES
from rankflow.store.layout import RUNS

_PARQUET_ROWS = 1024


def show_run(store: Store, run_id: str) -> dict[str, Any]:
    """The manifest of a finished run, else its plan in numbers, each with a ``state``.

    Raises NO_RESULTS when the store holds neither.
    """
    manifest = read_manifest(store, run_id)
    if manifest is not None:
        return manifest.model_dump(by_alias=True)
    plan = None if is_removed(store, run_id) else find_plan(store, run_id)
    if plan is None:
        raise RankflowError(ErrorType.NO_RESULTS, f"the run {run_id} is not in {store.root}")
    return {"state": "in_progress", **plan.summary.model_dump(by_alias=True)}


def stored_run(store: Store, run_id: str) -> dict[str, Any]:
    """Everything a client asks of a run that no workflow answers for.

    Returns:
        ``plan`` (its spec and summary), ``manifest``, and ``committed`` (counts over all ranks) for
        a run that is planned and not finished; what is not there is absent.
    """
    found: dict[str, Any] = {}
    manifest = read_manifest(store, run_id)
    if manifest is None and is_removed(store, run_id):
        return found
    plan = find_plan(store, run_id)
    if plan is not None:
        document = plan.document.model_dump(by_alias=True, exclude_none=True)
        found["plan"] = {name: document[name] for name in ("spec", "summary")}
    if manifest is not None:
        found["manifest"] = manifest.model_dump(by_alias=True)
    elif plan is not None:
        counted = [rank_progress(store, run_id, rank) for rank in range(len(plan.ranks))]
        names = RowCounts.model_fields
        found["committed"] = RowCounts(
            **{name: sum(getattr(part.committed, name) for part in counted) for name in names}
        ).model_dump(by_alias=True)
    return found


def list_runs(store: Store) -> list[dict[str, str]]:
    """Ids of all runs in a store and how far each is: as its files say, not as Temporal does."""
    runs: list[dict[str, str]] = []
    for run_id in store.folders(RUNS):
        manifest = read_manifest(store, run_id)
        if manifest is not None:
            state = str(manifest.state)
        elif is_removed(store, run_id):
            continue
        else:
            state = "validating" if find_plan(store, run_id) is None else "in_progress"
        runs.append({"runId": run_id, "state": state})
    return runs


def write_results(
    store: Store,
    run_id: str,
    stdout: BinaryIO,
    *,
    rank: int | None = None,
    errors: bool = False,
    kind: Literal["jsonl", "parquet"] = "jsonl",
    out: Path | None = None,
    combined: bool = False,
) -> None:
    """Write the answers (or the error lines) of a run or of one rank to a file or to stdout.

    ``combined``: together with the runs whose failed rows it retries, as one output.

    Raises:
        RankflowError: NO_RESULTS when the run is not finished or has no such rank;
            UNSUPPORTED_INPUT for Parquet to stdout; STORE_UNAVAILABLE when out is not writable.
    """
    manifest = read_manifest(store, run_id)
    if manifest is None:
        raise RankflowError(
            ErrorType.NO_RESULTS, f"the run {run_id} is not finished: it has no results yet"
        )
    chunks = (
        combined_lines(store, run_id, errors=errors)
        if combined
        else _chunks(store, manifest, rank, errors)
    )
    if kind == "jsonl":
        with _target(out, stdout) as file:
            for chunk in chunks:
                file.write(chunk)
        return
    if out is None:
        raise RankflowError(ErrorType.UNSUPPORTED_INPUT, "Parquet needs a file to go to: --out")
    with _target(out, stdout) as file:
        _write_parquet(_rows(chunks), file)


def _chunks(store: Store, manifest: Manifest, rank: int | None, errors: bool) -> Iterator[bytes]:
    file = manifest.errors if errors else manifest.output
    offset, end = 0, file.size
    if rank is not None:
        if not 0 <= rank < len(manifest.ranks):
            raise RankflowError(
                ErrorType.NO_RESULTS,
                f"the run {manifest.run_id} has no rank {rank}: "
                f"its ranks are 0 to {len(manifest.ranks) - 1}",
            )
        part = manifest.ranks[rank]
        offset = part.errors_offset if errors else part.output_offset
        end = offset + (part.errors_length if errors else part.output_length)
    while offset < end:
        length = min(CHUNK_BYTES, end - offset)
        yield store.read_range(file.path, offset, length)
        offset += length


def _rows(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield cast("dict[str, Any]", json.loads(line))


@contextmanager
def _target(out: Path | None, stdout: BinaryIO) -> Generator[BinaryIO]:
    """The file to write to; a named one appears whole, when everything is in it."""
    if out is None:
        yield stdout
        stdout.flush()
        return
    check_allowed(str(out.absolute()))
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(8)}.part")
    try:
        # A name that nobody can know, and nothing that is there already: no link leads elsewhere.
        with temporary.open("xb") as file:
            check_opened(file.fileno())
            yield file
        temporary.replace(out)
    except OSError as error:
        raise RankflowError(
            ErrorType.STORE_UNAVAILABLE, f"{out} cannot be written: {error.strerror}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(rows: Iterator[dict[str, Any]], file: BinaryIO) -> None:
    # Not at the top: pyarrow takes a second to import and only this needs it.
    import pyarrow
    import pyarrow.parquet

    text, count = pyarrow.string(), pyarrow.int64()
    schema = pyarrow.schema(
        [
            ("custom_id", text),
            ("text", text),
            ("finish_reason", text),
            ("prompt_tokens", count),
            ("completion_tokens", count),
            ("status_code", count),
            ("error_code", text),
            ("error_message", text),
            ("response", text),
        ]
    )
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(_flat(row))
            if len(waiting) == _PARQUET_ROWS:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
                waiting.clear()
        if waiting:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """An output line as columns; the whole response stays in one as JSON."""
    response = cast("dict[str, Any]", row.get("response") or {})
    body = cast("dict[str, Any]", response.get("body") or {})
    choices = cast("list[dict[str, Any]]", body.get("choices") or [{}])
    usage = cast("dict[str, Any]", body.get("usage") or {})
    error = cast("dict[str, Any]", row.get("error") or body.get("error") or {})
    message = cast("dict[str, Any]", choices[0].get("message") or {})
    code = error.get("code")
    return {
        "custom_id": row.get("custom_id"),
        "text": message.get("content", choices[0].get("text")),
        "finish_reason": choices[0].get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "status_code": response.get("status_code"),
        "error_code": None if code is None else str(code),
        "error_message": error.get("message"),
        "response": json.dumps(body, ensure_ascii=False) if body else None,
    }
