"""Attempt lines in the shape of OpenAI Batch output lines."""

from __future__ import annotations

from typing import Any

from rankflow.engine.backend import Answer
from rankflow.store.attempt_lines import AttemptLine

ENGINE_DIED = "engine_died"
"""Error code of a request that killed its engines."""


def answered(row: int, custom_id: str, answer: Answer, request_id: str) -> AttemptLine:
    """The line of a row that the engine answered, or refused with a 4xx about the request."""
    return AttemptLine(
        row=row,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        failed=answer.failed,
        output={
            "id": f"batch_req_{request_id}",
            "custom_id": custom_id,
            "response": {
                "status_code": answer.status_code,
                "request_id": request_id,
                "body": answer.body,
            },
            "error": None,
        },
    )


def recorded_error(row: int, line: dict[str, Any], token: str) -> AttemptLine:
    """The error line of a row that planning found invalid and recorded."""
    return AttemptLine(
        row=row,
        prompt_tokens=0,
        completion_tokens=0,
        failed=True,
        output={
            "id": f"batch_req_{token}-{row}",
            "custom_id": line.get("custom_id"),
            "response": None,
            "error": line["error"],
        },
    )


def engine_killer(row: int, custom_id: str, deaths: int, token: str) -> AttemptLine:
    """The error line of a row that killed every engine that had it alone."""
    message = f"{deaths} engines died while they ran this request and nothing else."
    line = {"custom_id": custom_id, "error": {"code": ENGINE_DIED, "message": message}}
    return recorded_error(row, line, token)
