"""Ids that come twice are found in little memory, and none is taken for another."""

import random
import subprocess
import sys

import pytest

from rankflow.rows import first_lines
from rankflow.rows.checks import key_of
from rankflow.rows.first_lines import KEY_BYTES, FirstLines


@pytest.mark.parametrize("seed", range(5))
def test_it_says_what_a_dictionary_would(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Grows often, in several parts.
    monkeypatch.setattr(first_lines, "_FIRST_SLOTS", 8)
    monkeypatch.setattr(first_lines, "_MOVED", 64)
    rng, table, known, line = random.Random(seed), FirstLines(), dict[bytes, int](), 1
    for _ in range(400):
        keys = [key_of(str(rng.randrange(6000))) for _ in range(rng.randrange(40))]
        lines = list(range(line, line + len(keys)))
        line += len(keys) + rng.randrange(3)
        expected = [known.setdefault(*pair) for pair in zip(keys, lines, strict=True)]
        assert table.claim(keys, lines) == expected
    assert len(known) > 2000


def test_keys_that_want_the_same_place_are_told_apart() -> None:
    table = FirstLines()
    # Their first 8 bytes are the same, then also the place, but not the key, of some.
    alike = [bytes(8) + bytes([n, 0, 0, 0]) for n in range(50)]
    near = [bytes([0, 0, 0, 0, 0, 0, 0, n]) + bytes(4) for n in range(1, 50)]
    keys = alike + near
    lines = list(range(1, len(keys) + 1))
    assert table.claim(keys, lines) == lines
    later = [line + 1000 for line in lines]
    assert table.claim(keys, later) == lines


def test_the_last_line_that_can_be_told_is_told() -> None:
    last = 2**32 - 1
    key = b"\xff" * KEY_BYTES
    table = FirstLines()
    assert table.claim([key], [last]) == [last]
    assert table.claim([key, key], [1, 2]) == [last, last]


_MILLION = """
from pathlib import Path
from rankflow.rows.checks import key_of
from rankflow.rows.first_lines import FirstLines
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4
table = FirstLines()
table.claim([key_of("")], [1])
before, most = resident(), 0
for start in range(2, 1_000_000, 1000):
    lines = range(start, start + 1000)
    table.claim([key_of(str(line)) for line in lines], list(lines))
    most = max(most, resident())
print(most - before)
"""


def test_a_million_ids_take_a_third_of_what_a_dictionary_takes() -> None:
    command = [sys.executable, "-c", _MILLION]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    # A table of 34 MB in the end; the one before it has half of that.
    assert 30_000 < int(done.stdout) < 60_000, "kB"
