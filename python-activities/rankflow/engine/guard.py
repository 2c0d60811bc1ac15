"""No process of an engine outlives its actor, however the actor ends.

vLLM's own processes watch their parent, but orphans that keep a GPU's memory after a SIGKILL are
reported (https://github.com/vllm-project/vllm/issues/55510). A tiny process in a session of its
own watches the actor and ends the actor's process group when the actor is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

# Polls instead of reading a pipe: a forked engine process would inherit the pipe and keep it open.
# 0.5 s is the time an orphan may keep memory that the restarted engine wants.
_WATCHER = """
import os, signal, sys, time
actor = int(sys.argv[1])
while os.getppid() == actor:
    time.sleep(0.5)
try:
    os.killpg(actor, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def guard_process_group() -> subprocess.Popen[bytes] | None:
    """Make this process lead a group of its own and start its watcher.

    Returns the watcher, or None when this process cannot lead a group (it then belongs to
    somebody else's, which must not be ended).
    """
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    if os.getpgid(0) != os.getpid():
        return None
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
