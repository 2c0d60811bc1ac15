"""A spare child without vLLM: it waits for its task, and tells it that it was started ahead."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel

from rankflow.control import spare


class Who(BaseModel):
    """Which process answered a task."""

    pid: int
    ahead: bool
    argument: str
    model: Any


if __name__ == "__main__":
    os.environ["STARTED_AHEAD"] = "1"
    spare.wait_and_become()
