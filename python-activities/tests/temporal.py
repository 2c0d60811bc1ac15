"""A real Temporal server for tests, on a free port of the loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from rankflow.connection import contract_converter

_REPOSITORY = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def temporal_server() -> AsyncGenerator[WorkflowEnvironment]:
    """A dev server that ends with the block; the Temporal CLI is the one that set-up installed."""
    async with await _started() as environment:
        yield environment


async def _started(tries: int = 5) -> WorkflowEnvironment:
    """The SDK gives a server 5 s, which is not always enough on a busy machine."""
    home = Path(os.environ.get("RANKFLOW_HOME", _REPOSITORY / ".rankflow"))
    cli = home / "bin" / "temporal"
    try:
        return await WorkflowEnvironment.start_local(
            data_converter=contract_converter(),
            dev_server_existing_path=str(cli) if cli.exists() else "temporal",
            ip="127.0.0.1",
        )
    except RuntimeError:
        if tries == 1:
            raise
        return await _started(tries - 1)
