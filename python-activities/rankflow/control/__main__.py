"""``python -m rankflow.control COMMAND``: JSON on stdin, JSON on stdout."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from pydantic import BaseModel

from rankflow.contracts.errors import RankflowError
from rankflow.contracts.models import (
    CheckEngineArgumentsInput,
    CheckStoreSharedInput,
    ClusterAddress,
    ExecuteFleetPlanInput,
)
from rankflow.control.process import ERROR_STATUS, error_document

USAGE_STATUS = 2


def _authenticate(cluster: ClusterAddress) -> None:
    """Ray reads its authentication mode once, at import: set later, the head refuses it."""
    if cluster.token_file is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = cluster.token_file


def _deploy(text: str) -> BaseModel:
    given = ExecuteFleetPlanInput.model_validate_json(text)
    _authenticate(given.fleet.cluster)
    from rankflow.control.deploy import execute

    return execute(given)


def _check_store_shared(text: str) -> BaseModel:
    given = CheckStoreSharedInput.model_validate_json(text)
    _authenticate(given.cluster)
    from rankflow.control.shared_store import check

    return check(given)


def _check_engine_args(text: str) -> BaseModel:
    from rankflow.control.check import check

    return check(CheckEngineArgumentsInput.model_validate_json(text))


COMMANDS = {
    "deploy": _deploy,
    "check-engine-args": _check_engine_args,
    "check-store-shared": _check_store_shared,
}


def _take_stdout() -> TextIO:
    """Keep stdout for the answer: what Ray and vLLM print, in children too, goes to stderr."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answer


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print(f"usage: python -m rankflow.control {'|'.join(COMMANDS)}", file=sys.stderr)
        return USAGE_STATUS
    with _take_stdout() as answer:
        try:
            result = COMMANDS[arguments[0]](sys.stdin.read())
        except RankflowError as error:
            answer.write(error_document(error) + "\n")
            return ERROR_STATUS
        answer.write(result.model_dump_json(by_alias=True, exclude_none=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
