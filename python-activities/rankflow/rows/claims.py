"""The check of all rows: each by itself, then their ids against each other, in input order."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rankflow.contracts.models import RunSpec
from rankflow.rows.checks import Finding, RowCheck, encode, key_of
from rankflow.rows.problems import ProblemLog, RowProblem
from rankflow.rows.processes import in_order, processes_for
from rankflow.rows.readers import Format, RawRow, TextRow, read_rows, size_of

_CHUNK_ROWS = 256
"""Rows checked together: enough for the tokenizer's threads, small enough to hold."""
_CHUNK_BYTES = 1024 * 1024


class CheckedRow(NamedTuple):
    """One row as the plan stores it."""

    line: bytes
    """JSON with newline: an OpenAI Batch request, or {"custom_id", "error"} for an invalid row."""
    prompt_tokens: int
    max_output_tokens: int
    invalid: bool


class RowChecker:
    """Checks all rows of a run. Problems go to ``log``; rows come out all the same.

    Memory stays flat but for 27 to 80 bytes a row, for its id.
    """

    def __init__(self, spec: RunSpec, log: ProblemLog) -> None:
        self._spec = spec
        self._log = log
        self._check = RowCheck(spec)
        # Not at the top: numpy, which most commands on rows can do without.
        from rankflow.rows.first_lines import FirstLines

        self._firsts = FirstLines()

    def rows(self, kind: Format, path: Path, size: int) -> Iterator[list[CheckedRow]]:
        """All rows of an input of ``size`` bytes, in order, an invalid one as its error line.

        Those of a large one are checked in as many processes as there are processors.
        """
        chunks = _chunks(read_rows(kind, self._spec.input, path))
        check = partial(self._check.check, kind)
        processes = processes_for(size, self._spec.input.limit)
        if processes:
            self._check.prepare()
            found = in_order(check, chunks, processes)
        else:
            found = map(check, chunks)
        yield from map(self._settle, found)

    def _settle(self, findings: list[Finding]) -> list[CheckedRow]:
        # First all that have an id of their own: none must lose it to one that gets any.
        own = [(one.key, one.line) for one in findings if one.key is not None]
        firsts = iter(self._firsts.claim([key for key, _ in own], [line for _, line in own]))
        twins = [None if one.key is None else _twin(next(firsts), one.line) for one in findings]
        nameless = self._names(
            [
                one.line
                for one, twin in zip(findings, twins, strict=True)
                if twin is not None or (one.problems and (one.key is None or not one.custom_id))
            ]
        )
        return [
            CheckedRow(one.request, one.prompt_tokens, one.max_output_tokens, invalid=False)
            if twin is None and not one.problems
            else self._refused(one, twin, nameless.get(one.line))
            for one, twin in zip(findings, twins, strict=True)
        ]

    def _refused(self, one: Finding, twin: RowProblem | None, name: str | None) -> CheckedRow:
        problems = one.problems
        if twin is not None:
            problems = (twin, *(problems if one.seen_at_once else ()))
        for problem in problems:
            self._log.add(one.line, problem, one.custom_id)
        error = {"code": problems[0].code, "message": problems[0].message, "line": one.line}
        line = encode({"custom_id": name or one.custom_id, "error": error})
        return CheckedRow(line, 0, 0, invalid=True)

    def _names(self, lines: list[int]) -> dict[int, str]:
        """Ids for rows without a usable one: ``line-<n>``, lengthened when somebody has that."""
        names: dict[int, str] = {}
        end = ""
        while lines:
            tried = [f"line-{line}{end}" for line in lines]
            owners = self._firsts.claim([key_of(name) for name in tried], lines)
            claims = list(zip(lines, tried, owners, strict=True))
            names |= {line: name for line, name, owner in claims if owner == line}
            lines = [line for line, _, owner in claims if owner != line]
            end += "-invalid"
        return names


def _twin(first: int, line: int) -> RowProblem | None:
    """What is wrong with an id that an earlier line has."""
    if first == line:
        return None
    return RowProblem("duplicate_custom_id", f"custom_id is the same as on line {first}")


def _chunks(rows: Iterator[RawRow | TextRow]) -> Iterator[list[RawRow | TextRow]]:
    chunk: list[RawRow | TextRow] = []
    held = 0
    for row in rows:
        chunk.append(row)
        held += size_of(row)
        if len(chunk) == _CHUNK_ROWS or held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
