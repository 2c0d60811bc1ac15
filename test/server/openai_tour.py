"""The way of a user through the API with the official Python client, as it is: prints what it met as JSON.

The one argument is a JSON object, see ``TourInput`` in tour.ts; the report is a ``Tour``.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import openai

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "cancelled", "expired")
given = json.loads(sys.argv[1])


def client(key: str) -> openai.OpenAI:
    """A client whose errors come at once: by default it tries some of them again."""
    return openai.OpenAI(base_url=given["baseURL"], api_key=key, max_retries=0)


api = client(given["key"])


def upload(name: str) -> Any:
    with Path(given[name]).open("rb") as file:
        return api.files.create(file=file, purpose="batch")


def batch_of(file_id: str, **more: Any) -> Any:
    return api.batches.create(
        input_file_id=file_id, endpoint=CHAT, completion_window="24h", **more
    )


def wait(batch_id: str, until: Any, statuses: list[str] | None = None) -> Any:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        batch = api.batches.retrieve(batch_id)
        if statuses is not None and batch.status not in statuses:
            statuses.append(batch.status)
        if until(batch):
            return batch
        time.sleep(0.3)
    raise TimeoutError(batch_id)


def over(batch: Any) -> bool:
    return batch.status in OVER


def lines(file_id: str | None) -> list[Any]:
    if file_id is None:
        return []
    return [json.loads(line) for line in api.files.content(file_id).text.splitlines()]


def refused(call: Any) -> dict[str, Any]:
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
        }
    raise AssertionError("nothing was refused")


report: dict[str, Any] = {"models": [model.id for model in api.models.list()]}
uploaded = upload("small")
created = batch_of(uploaded.id, metadata={"night": "7"})
statuses: list[str] = [created.status]
completed = wait(created.id, over, statuses)
report |= {
    "uploaded": uploaded.to_dict(),
    "created": created.to_dict(),
    "statuses": statuses,
    "completed": completed.to_dict(),
    "output": lines(completed.output_file_id),
    "errors": lines(completed.error_file_id),
}

running = batch_of(upload("large").id)
wait(running.id, lambda batch: batch.request_counts.completed > 0)
cancelling = api.batches.cancel(running.id)
cancelled = wait(running.id, over)
report |= {
    "cancelling": cancelling.to_dict(),
    "cancelled": cancelled.to_dict(),
    "partial": lines(cancelled.output_file_id),
    "never": lines(cancelled.error_file_id),
}

failed = wait(batch_of(upload("bad").id).id, over)
missing = wait(batch_of("file-nothing").id, over)
report |= {"failed": failed.to_dict(), "missing": missing.to_dict()}

report |= {
    "batches": [batch.id for batch in api.batches.list(limit=1)],
    "inputs": [file.id for file in api.files.list(limit=1, purpose="batch")],
    "outputs": [file.id for file in api.files.list(limit=1, purpose="batch_output")],
}

stranger = client(given["otherKey"])
with Path(given["huge"]).open("rb") as huge:
    report["refused"] = {
        "key": refused(lambda: client("sk-wrong").models.list()),
        "purpose": refused(lambda: api.files.create(file=b"{}", purpose="vision")),
        "file": refused(lambda: api.files.retrieve("file-nothing")),
        "content": refused(lambda: api.files.content("file-nothing")),
        "batch": refused(lambda: api.batches.retrieve("batch_nothing")),
        "endpoint": refused(
            lambda: api.batches.create(
                input_file_id=uploaded.id,
                endpoint="/v1/moderations",
                completion_window="24h",
            )
        ),
        "ended": refused(lambda: api.batches.cancel(completed.id)),
        "large": refused(lambda: api.files.create(file=huge, purpose="batch")),
        "stranger": refused(lambda: stranger.batches.retrieve(completed.id)),
        "strangersFile": refused(lambda: stranger.files.content(completed.output_file_id)),
    }
report["deleted"] = api.files.delete(uploaded.id).to_dict()
report["refused"]["deleted"] = refused(lambda: api.files.retrieve(uploaded.id))
print(json.dumps(report))
