"""A real Temporal server for tests, on a free port of the loopback."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from rankflow.connection import data_converter

_INSTALLED = Path(__file__).resolve().parents[2] / ".rankflow/bin/temporal"


@asynccontextmanager
async def temporal_server() -> AsyncGenerator[WorkflowEnvironment]:
    """A dev server that ends with the block; the Temporal CLI is the one that set-up installed."""
    command = str(_INSTALLED) if _INSTALLED.exists() else shutil.which("temporal")
    assert command is not None, "No Temporal CLI: run `npm run setup` first."
    async with await WorkflowEnvironment.start_local(
        data_converter=data_converter, dev_server_existing_path=command
    ) as environment:
        yield environment
