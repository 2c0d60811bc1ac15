"""No process of an engine outlives its actor, however the actor ends.

vLLM's processes watch their parents, but not while they are still importing, and orphans that keep
a GPU's memory after a SIGKILL are reported (vLLM issue 55510). A tiny process watches the actor and
ends the actor's process group when the actor is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

# Forks once more, so that it is no child of the actor: a Ray worker that loses its raylet kills its
# direct children before it ends, the watcher among them, and leaves their children to nobody.
# A descriptor of the process, not its number: numbers are used again.
_WATCHER = """
import os, select, signal, sys
group = int(sys.argv[1])
actor = os.pidfd_open(group)
if os.fork():
    os._exit(0)
waiting = select.poll()
waiting.register(actor, select.POLLIN)
waiting.poll()
try:
    os.killpg(group, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def guard_process_group() -> bool:
    """Make this process lead a group of its own and start its watcher; returns once it watches.

    False when there is no watcher: this process cannot lead a group (it belongs to somebody else's,
    which must not be ended), or the kernel is older than 5.3.
    """
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    if os.getpgid(0) != os.getpid():
        return False
    started = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    return started.returncode == 0
