"""Why a model did not load, in one line that a person can act on."""

from __future__ import annotations

import re
from pathlib import Path

from rankflow.contracts.errors import ErrorType, RankflowError

_TAIL_BYTES = 65_536
_MAX_CHARACTERS = 500
_ERROR_LINE = re.compile(rb"\b([A-Z]\w*(?:Error|Exception)): (\S.*)")
_PASSES = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
"""What another try does not meet: engines that load at once may choose the same free port."""
_FOLLOW_UP = (b"Engine core initialization failed", b"EngineCore failed to start", b"WorkerProc")


def log_file() -> Path | None:
    """The file that this process's standard error goes to, if it is a file (as in a Ray actor)."""
    path = Path("/proc/self/fd/2").readlink()
    return path if path.is_file() else None


def root_cause(tail: bytes) -> str | None:
    """The first error line of a log's tail that is not a mere consequence of another one."""
    for match in _ERROR_LINE.finditer(tail):
        if not any(text in match.group(0) for text in _FOLLOW_UP):
            return match.group(0).decode(errors="replace")[:_MAX_CHARACTERS]
    return None


def load_failure(error: BaseException) -> RankflowError:
    """ENGINE_LOAD_FAILED with the reason and the log file to read; ENGINE_GONE for what passes.

    vLLM's own processes report only to the log why they ended; at load time it holds no prompts.
    """
    if isinstance(error, RankflowError):
        return error
    reason = f"{type(error).__name__}: {error}"[:_MAX_CHARACTERS]
    path = log_file()
    where = ""
    if path is not None:
        where = f" (log on the engine's node: {path})"
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            reason = root_cause(file.read()) or reason
    kind = ErrorType.ENGINE_GONE if _PASSES.search(reason) else ErrorType.ENGINE_LOAD_FAILED
    return RankflowError(kind, f"the model did not load: {reason}{where}")
