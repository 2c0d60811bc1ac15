"""A real Temporal server for tests, on a free port of the loopback."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from rankflow.connection import data_converter

_REPOSITORY = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def temporal_server() -> AsyncGenerator[WorkflowEnvironment]:
    """A dev server that ends with the block; the Temporal CLI is the one that set-up installed."""
    home = Path(os.environ.get("RANKFLOW_HOME", _REPOSITORY / ".rankflow"))
    cli = home / "bin" / "temporal"
    async with await WorkflowEnvironment.start_local(
        data_converter=data_converter,
        dev_server_existing_path=str(cli) if cli.exists() else "temporal",
        ip="127.0.0.1",
    ) as environment:
        yield environment
