"""Short-lived child processes: for what must not live in a worker (a Ray driver, vLLM's imports).

A child reads one JSON object on stdin and writes one on stdout. An error of the closed set is
``{"error": <type>, "message": …, <details>}`` with exit status 2, so it arrives as what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.control.spare import Spare

ERROR_STATUS = 2
"""Exit status of a child whose stdout holds an error of the closed set."""
BEAT_SECONDS = 2.0
_TAIL_CHARACTERS = 400
_KILLED = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit statuses that others cause: the kernel when memory runs out, people, a shutdown."""
_KILL_SECONDS = 10.0

Model = TypeVar("Model", bound=BaseModel)


def error_document(error: RankflowError) -> str:
    """The JSON text of an error, as a child writes it; details stand beside the message."""
    return json.dumps({"error": error.kind.value, "message": str(error), **(error.details or {})})


def _raised(document: Any) -> RankflowError | None:
    """The error in a child's answer, or None when there is none."""
    if not isinstance(document, dict) or "error" not in document:
        return None
    fields = cast("dict[str, Any]", document)
    kind, message = fields.pop("error"), fields.pop("message", "")
    try:
        return RankflowError(ErrorType(str(kind)), str(message), fields or None)
    except ValueError:
        return None


async def run_child(
    arguments: list[str],
    given: BaseModel,
    answer: type[Model],
    *,
    otherwise: ErrorType,
    beat: Callable[[], None],
    environment: dict[str, str] | None = None,
    spare: Spare | None = None,
) -> Model:
    """Run ``python -m <arguments>`` and return its answer; cancelling ends its process group.

    Args:
        given: written to the child's stdin, by alias.
        answer: model of the child's stdout.
        otherwise: error type for a child that ends in any other way than the two it should.
        beat: called about every two seconds while the child runs.
        environment: variables to add to this process's own.
        spare: runs it if it is ready, and makes itself ready for the next time.

    Raises:
        RankflowError: what the child raised, or ``otherwise`` with the last words of its stderr.
        RuntimeError: somebody killed the child, which says nothing about its task: worth another
            try.
    """
    text = given.model_dump_json(by_alias=True, exclude_none=True).encode()
    child = spare.take() if spare is not None else None
    if child is not None:
        text = json.dumps(arguments).encode() + b"\n" + text
    else:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
    talk = asyncio.create_task(child.communicate(text))
    try:
        while not (await asyncio.wait({talk}, timeout=BEAT_SECONDS))[0]:
            beat()
        out, err = await talk
    finally:
        await _end(child, talk)
        if spare is not None:
            await spare.prepare()
    return _read(out, err, child.returncode, answer, otherwise)


async def _end(child: asyncio.subprocess.Process, talk: asyncio.Task[tuple[bytes, bytes]]) -> None:
    if child.returncode is not None:
        return
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        done, _ = await asyncio.wait({talk}, timeout=_KILL_SECONDS)
        if done:
            return


def _read(
    out: bytes, err: bytes, status: int | None, answer: type[Model], otherwise: ErrorType
) -> Model:
    last_line = out.strip().rpartition(b"\n")[2]
    try:
        document: Any = json.loads(last_line) if last_line else None
    except ValueError:
        document = None
    error = _raised(document)
    if error is not None:
        raise error
    if status == 0 and document is not None:
        return answer.model_validate(document)
    if status is not None and status in _KILLED:
        raise RuntimeError(f"the child process was killed ({signal.Signals(-status).name})")
    tail = err.decode(errors="replace").strip()[-_TAIL_CHARACTERS:]
    raise RankflowError(otherwise, f"the child process ended with status {status}: {tail}")
