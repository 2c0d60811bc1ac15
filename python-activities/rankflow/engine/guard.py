"""Nothing of an engine outlives its actor, however that ends: no process, shared memory or file.

vLLM's processes watch their parents, but not while they are still importing, and orphans that keep
a GPU's memory after a SIGKILL are reported (vLLM issue 55510). A tiny process watches the actor and
ends the actor's process group when the actor is gone.

Python removes shared memory at the end of the process that made it; after a SIGKILL that is too
late, and up to a quarter of a gigabyte a time stays in ``/dev/shm``. So the watcher notes what the
group has there while it lives, and removes it afterwards.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

# Forks once more, so that it is no child of the actor: a Ray worker that loses its raylet kills its
# direct children before it ends, the watcher among them, and leaves their children to nobody.
# A descriptor of the process, not its number: numbers are used again.
_WATCHER = """
import glob, os, re, select, shutil, signal, sys, time
group = int(sys.argv[1])
actor = os.pidfd_open(group)
if os.fork():
    os._exit(0)

def used(only_group):
    inodes = set()
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if not only_group or os.getpgid(int(folder[6:])) == group:
                with open(folder + "/maps") as maps:
                    inodes.update(re.findall(r" (\\d+) +/dev/shm/", maps.read()))
        except OSError:
            pass
    # By inode: who makes a semaphore has it mapped under a name that it had at first only.
    found = set()
    for file in glob.glob("/dev/shm/psm_*") + glob.glob("/dev/shm/sem.mp-*"):
        try:
            inode = str(os.stat(file).st_ino)
        except OSError:
            continue
        if inode in inodes:
            found.add((file, inode))
    return found

noted = set()
waiting = select.poll()
waiting.register(actor, select.POLLIN)
while True:
    noted |= used(only_group=True)
    if waiting.poll(5000):
        break
noted |= used(only_group=True)
try:
    os.killpg(group, signal.SIGKILL)
except ProcessLookupError:
    pass
for _ in range(100):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        break
    time.sleep(0.1)
for file, inode in noted - used(only_group=False):
    try:
        if str(os.stat(file).st_ino) == inode:
            os.unlink(file)
    except OSError:
        pass
for folder in sys.argv[2:]:
    shutil.rmtree(folder, ignore_errors=True)
"""
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PATH")
"""Of the actor's: whoever ends all processes of a node finds them by their other variables, and the
watcher has its work to do just then."""


def guard_process_group(*folders: Path) -> bool:
    """Make this process lead a group of its own and start its watcher; returns once it watches.

    The watcher removes the folders as well.

    False when there is no watcher: this process cannot lead a group (it belongs to somebody else's,
    which must not be ended), or the kernel is older than 5.3.
    """
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    if os.getpgid(0) != os.getpid():
        return False
    started = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WATCHER, str(os.getpid()), *map(str, folders)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        check=False,
    )
    return started.returncode == 0
