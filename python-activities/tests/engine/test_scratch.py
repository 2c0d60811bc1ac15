"""Temporary files of an engine go with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

_ACTOR = """
import os, subprocess, sys, time
from multiprocessing import forkserver
from rankflow.engine.guard import guard_process_group
from rankflow.engine.scratch import SHARED, use_scratch
folder = use_scratch()
assert guard_process_group(folder)
forkserver.ensure_running()
child = subprocess.run(
    [sys.executable, "-c", "import tempfile; print(tempfile.mkstemp()[1])"],
    capture_output=True, text=True, check=True,
)
print(SHARED, folder, child.stdout.strip(), os.environ["TORCHINDUCTOR_CACHE_DIR"], flush=True)
time.sleep(60)
"""


def test_of_a_killed_engine_no_temporary_file_is_left() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _ACTOR], stdout=subprocess.PIPE, text=True
    ) as actor:
        assert actor.stdout is not None
        shared, own, file, cache = (Path(word) for word in actor.stdout.readline().split())
        assert shared == Path(tempfile.gettempdir())
        assert own.parent == shared
        assert file.parent == own
        # The fork server's socket is there too.
        assert any(entry.name.startswith("pymp-") for entry in own.iterdir())
        assert cache.parent == shared
        actor.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while own.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not own.exists()


def test_where_paths_of_sockets_would_be_too_long_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankflow.engine import scratch

    monkeypatch.setattr(scratch, "SHARED", tmp_path / ("long" * 20))
    before = tempfile.gettempdir()
    assert scratch.use_scratch() is None
    assert tempfile.gettempdir() == before
