"""Temporary files of one engine, in a folder that goes with it.

vLLM and Python's fork server put sockets and files into the temporary folder. Engines are killed as
often as they end, and what they leave there stays for good.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SHARED = Path(tempfile.gettempdir())
"""The temporary folder of all engines of a host; this process's own was changed since."""
LONGEST_PATH = 50
"""Bytes of it: a socket's path may have 107, of which the engine's folder and vLLM take 56."""


def use_scratch() -> Path | None:
    """Have this process and those that it starts put their temporary files into a new folder.

    What makes the next engine quicker stays where it is. None, and nothing done, where the paths of
    sockets in such a folder would be too long.
    """
    if len(os.fsencode(SHARED)) > LONGEST_PATH:
        return None
    folder = Path(tempfile.mkdtemp(prefix="rankflow-", dir=SHARED))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(SHARED / f"torchinductor-{os.getuid()}"))
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder
