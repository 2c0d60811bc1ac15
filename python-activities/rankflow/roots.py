"""Where inputs are read and outputs are written: the roots that ``RANKFLOW_ALLOWED_ROOTS`` lists.

Folders and prefixes of buckets, with commas between them; everything is allowed when it is not
set. The setting of the process that touches a file counts. The twin of ``src/roots.ts``.
"""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from rankflow.contracts.errors import ErrorType, RankflowError

ROOTS = "RANKFLOW_ALLOWED_ROOTS"
_LEADS = re.compile(r"[/\\?#\x00-\x1f\x7f-\x9f]")
"""In a part of a key: a parser of addresses drops what follows ``?`` and ``#``, and tabs."""


def allowed_roots() -> tuple[str, ...] | None:
    """The roots of this process; None when everything is allowed.

    Raises PATH_REFUSED for a root that is neither an absolute path nor a bucket: nothing is read
    or written then, rather than everything.
    """
    return _parsed(os.environ.get(ROOTS, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> tuple[str, ...] | None:
    roots = tuple(root for part in text.split(",") if (root := part.strip()))
    for root in roots:
        local = _local(root)
        good = _segments(root) is not None if local is None else _is_plain(local)
        if not good:
            raise RankflowError(
                ErrorType.PATH_REFUSED,
                f"{ROOTS} has {root!r}, which is no absolute path without '..' and no bucket",
            )
    return roots or None


def check_allowed(location: str) -> None:
    """Refuse a location that is below none of the roots, ``..``, and links that lead out.

    Args:
        location: an absolute path, a ``file://`` address or an address in a bucket.

    Raises:
        RankflowError: PATH_REFUSED (not retryable), naming the roots.
    """
    roots = allowed_roots()
    if roots is not None and not any(_is_below(location, root) for root in roots):
        raise refused(location, roots)


def check_opened(descriptor: int) -> None:
    """Refuse an open file that lies below none of the roots.

    What a name leads to may change between a look and the opening; what is open stays what it is.
    Raises PATH_REFUSED.
    """
    if allowed_roots() is None:
        return
    path = _path_of(descriptor)
    if path is not None:
        check_allowed(path)


def refused(location: str, roots: tuple[str, ...]) -> RankflowError:
    """The one error for a location outside the roots."""
    return RankflowError(
        ErrorType.PATH_REFUSED,
        f"{location} is not below an allowed root ({', '.join(roots)})",
    )


def _is_below(location: str, root: str) -> bool:
    here, there = _local(location), _local(root)
    if here is None or there is None:
        inside, outside = _segments(location), _segments(root)
        if here is not None or there is not None or inside is None or outside is None:
            return False
        return inside[: len(outside)] == outside
    return _is_plain(here) and Path(os.path.realpath(here)).is_relative_to(os.path.realpath(there))


def _is_plain(path: str) -> bool:
    return path.startswith("/") and "\0" not in path and ".." not in path.split("/")


def _local(location: str) -> str | None:
    """The path of a local location; None for an address of another kind."""
    if "://" not in location:
        return location
    scheme, _, rest = location.partition("://")
    return unquote(rest) if scheme.lower() == "file" else None


def _segments(address: str) -> list[str] | None:
    """Scheme, bucket and the parts of the key; None when one of them could lead elsewhere."""
    scheme, _, rest = address.partition("://")
    parts = rest.rstrip("/").split("/")
    names = [unquote(part) for part in parts]
    if any(name.strip() in ("", ".", "..") or _LEADS.search(name) for name in names):
        return None
    return [scheme.lower(), *parts]


def _path_of(descriptor: int) -> str | None:
    if sys.platform == "darwin":
        import fcntl

        name = fcntl.fcntl(descriptor, fcntl.F_GETPATH, b"\0" * 1024)
        return name.partition(b"\0")[0].decode()
    link = Path(f"/proc/self/fd/{descriptor}")
    return str(link.readlink()).removesuffix(" (deleted)") if link.is_symlink() else None
