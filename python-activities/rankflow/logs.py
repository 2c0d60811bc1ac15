"""Log lines as JSON, with the run, rank, batch and engine that they are about.

The fields are pino's, as the TypeScript side writes them, so one reader understands both. No line
ever holds a prompt or an answer.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, cast

_bound: ContextVar[Mapping[str, Any]] = ContextVar("rankflow_log_fields")
_RANK = re.compile(r"run/(?P<run>[^/]+)(?:/rank-(?P<rank>\d+))?")


@contextmanager
def bound(**fields: Any) -> Generator[None]:
    """Every line that is logged in this block, and in tasks and threads begun in it, has these."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line: ``level`` (10 to 60), ``time`` (epoch ms), ``name``, ``msg``."""

    def __init__(self, name: str, **fields: Any) -> None:
        """``fields``: of every line of this process."""
        super().__init__()
        self._common = {"pid": os.getpid(), "name": name, **fields}

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line; the trace of an exception is in ``err``."""
        line: dict[str, Any] = {
            # Of Python's 10 to 50, 20 is pino's 30.
            "level": min(60, record.levelno // 10 * 10 + 10),
            "time": int(record.created * 1000),
            **self._common,
            "logger": record.name,
            **_of_activity(record),
            **_bound.get({}),
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["err"] = {"stack": self.formatException(record.exc_info)}
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(name: str, stream: TextIO | None = None, **fields: Any) -> None:
    """Make all loggers of this process write JSON lines to ``stream``, stderr by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(name, **fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _of_activity(record: logging.LogRecord) -> dict[str, Any]:
    """What a line of the Temporal SDK about an activity says about the run."""
    info = getattr(record, "temporal_activity", None)
    if not isinstance(info, dict):
        return {}
    workflow = cast("dict[str, Any]", info).get("workflow_id")
    match = _RANK.fullmatch(workflow) if isinstance(workflow, str) else None
    if match is None:
        return {}
    rank = match["rank"]
    return {"run": match["run"], **({} if rank is None else {"rank": int(rank)})}
