"""Making inputs, specs and finished batches for the tests of rows."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rankflow.contracts.errors import RankflowError
from rankflow.contracts.models import RunSpec
from rankflow.rows.plan import BatchSlice, Plan
from rankflow.rows.planner import validate_run
from rankflow.store import Store
from rankflow.store.attempt_lines import AttemptLine
from rankflow.store.commits import Commit, try_commit
from rankflow.store.layout import attempt_key

REPOSITORY = Path(__file__).parents[3]


def model_folder() -> Path:
    """The real small model. Fails, rather than skips, when it was not fetched."""
    home = Path(os.environ.get("RANKFLOW_HOME", REPOSITORY / ".rankflow"))
    given = os.environ.get("RANKFLOW_TEST_MODEL", home / "models" / "SmolLM2-135M-Instruct")
    folder = Path(given)
    if not (folder / "tokenizer.json").is_file():
        raise AssertionError(f"no model at {folder}: run setup, or set RANKFLOW_TEST_MODEL")
    return folder


def chat(custom_id: Any, text: str = "Name a colour.", **body: Any) -> dict[str, Any]:
    """One OpenAI Batch chat line."""
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [{"role": "user", "content": text}], "max_tokens": 8, **body},
    }


def jsonl(rows: Iterable[Any]) -> bytes:
    """Values as JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def spec(folder: Path, data: bytes | None, name: str = "input.jsonl", **fields: Any) -> RunSpec:
    """A spec over an input of ``data``; the simulated engine unless another model is given."""
    if data is not None:
        (folder / name).write_bytes(data)
    options = fields.pop("input", {})
    return RunSpec.model_validate(
        {
            "runId": "run-1",
            "input": {"uri": str(folder / name), **options},
            "store": str(folder / "store"),
            "model": {"model": "simulated-model", "backend": "simulated"},
            "batch": {},
            **fields,
        }
    )


def problems(asked: RunSpec) -> list[tuple[int, str]]:
    """Line and code of everything wrong with an input; empty when nothing is."""
    try:
        validate_run(asked)
    except RankflowError as error:
        assert error.details is not None, str(error)
        return [(found["line"], found["code"]) for found in error.details["problems"]]
    return []


def answer(row: int, request: dict[str, Any]) -> AttemptLine:
    """What an engine would write for a request; an invalid one becomes an error line."""
    failed = "error" in request
    return AttemptLine(
        row=row,
        prompt_tokens=0 if failed else 5,
        completion_tokens=0 if failed else 3,
        failed=failed,
        output={
            "id": f"batch_req_{row}",
            "custom_id": request["custom_id"],
            "response": None
            if failed
            else {
                "status_code": 200,
                "request_id": f"q{row}",
                "body": {
                    "choices": [{"message": {"content": f"answer {row}"}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 5, "completion_tokens": 3},
                },
            },
            "error": request.get("error"),
        },
    )


def attempt(
    store: Store, plan: Plan, part: BatchSlice, token: str, rows: list[int] | None = None
) -> Commit:
    """Write an attempt file as an engine does, last row first; returns the commit that fits."""
    key = attempt_key(plan.run_id, part.rank, part.batch, token)
    requests = dict(zip(part.row_range, plan.read_requests(part), strict=True))
    lines = [answer(row, requests[row]) for row in reversed(rows or list(part.row_range))]
    with store.append(key) as file:
        for line in lines:
            file.write(line.encode())
    return Commit(
        token=token,
        path=key,
        sha256=hashlib.sha256(store.read_attempt(key)).hexdigest(),
        rows=part.rows,
        failed_rows=sum(line.failed for line in lines),
        prompt_tokens=sum(line.prompt_tokens for line in lines),
        completion_tokens=sum(line.completion_tokens for line in lines),
        engine="fleet/0/test",
        model_revision="rev-1",
    )


def finish(store: Store, plan: Plan, part: BatchSlice) -> None:
    """Generate and commit one batch."""
    try_commit(store, plan.run_id, part.rank, part.batch, attempt(store, plan, part, "t"))
