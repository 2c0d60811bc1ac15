"""Zero, in a shared library, GPU code that a Hopper card would never run.

``python prune_fatbin.py IN OUT``. In every fatbin that holds an sm_90 image all others are zeroed;
in one that holds none, all but the newest PTX that the card could compile. Sizes and headers stay,
so the library loads unchanged but compresses far better.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CARD = 90
_MAGIC = b"\x50\xed\x55\xba"
_PTX, _ELF = 1, 2
_KINDS = {_PTX, _ELF, 4, 8, 16, 32, 64}
_MOST_HEADER_BYTES = 512


class _Entry(NamedTuple):
    kind: int
    architecture: int
    start: int
    """Where the payload begins."""
    size: int


def _entries(data: bytearray, at: int, end: int) -> Iterator[_Entry]:
    while at < end:
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        if kind not in _KINDS or not 32 <= header <= _MOST_HEADER_BYTES:
            return
        (architecture,) = struct.unpack_from("<I", data, at + 28)
        yield _Entry(kind, architecture, at + header, size)
        at += header + size


def prune(data: bytearray) -> None:
    """Zero what is not needed, in place."""
    at = data.find(_MAGIC)
    while at >= 0:
        _, version, header, size = struct.unpack_from("<IHHQ", data, at)
        end = at + header + size
        if version != 1 or header != 16 or end > len(data):
            at = data.find(_MAGIC, at + 4)
            continue
        entries = list(_entries(data, at + header, end))
        native = any(one.kind == _ELF and one.architecture == CARD for one in entries)
        usable = [e.architecture for e in entries if e.kind == _PTX and e.architecture <= CARD]
        wanted = (_ELF, CARD) if native else (_PTX, max(usable, default=0))
        for one in entries:
            if (one.kind, one.architecture) != wanted:
                data[one.start : one.start + one.size] = bytes(one.size)
        at = data.find(_MAGIC, end)


if __name__ == "__main__":
    library = bytearray(Path(sys.argv[1]).read_bytes())
    prune(library)
    Path(sys.argv[2]).write_bytes(library)
