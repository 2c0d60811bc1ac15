"""Runs a module of ``rankflow.hosts`` as on a host: piped to a Python that knows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rankflow import hosts

FOLDER = Path(hosts.__file__).parent


def command(*arguments: str, isolated: bool = True) -> list[str]:
    """``-I -S``: no environment, no site-packages, no current folder."""
    return [sys.executable, *(["-I", "-S"] if isolated else []), "-", *arguments]


def piped(
    module: str, *arguments: str, env: dict[str, str] | None = None, isolated: bool = True
) -> list[Any]:
    """The JSON lines that it prints."""
    with (FOLDER / f"{module}.py").open("rb") as script:
        done = subprocess.run(
            command(*arguments, isolated=isolated),
            stdin=script,
            capture_output=True,
            env=env,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]
