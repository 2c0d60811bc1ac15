"""Taking over what earlier attempts of a batch finished before they ended."""

from typing import NamedTuple

from rankflow.faults import faults
from rankflow.store.attempt_lines import AttemptLine, RowCounts
from rankflow.store.base import MissingKey, Store
from rankflow.store.layout import attempts_prefix


class Salvaged(NamedTuple):
    """A line that an earlier attempt finished."""

    counts: RowCounts
    data: bytes
    """All of it, newline included: whoever takes it over keeps it as it is."""


def salvage(
    store: Store, run_id: str, rank: int, batch: int, rows: range | None = None
) -> dict[int, Salvaged]:
    """Complete lines of all earlier attempts of a batch, by row; call it before the own one starts.

    A torn last line, a line of another shape and a row outside ``rows`` are left out. When several
    attempts finished a row, one of them is taken. Lines end with a newline.
    """
    found: dict[int, Salvaged] = {}
    if not faults().salvage:
        return found
    for key in store.list_appended(attempts_prefix(run_id, rank, batch)):
        try:
            lines = store.read_attempt(key).splitlines(keepends=True)
        except MissingKey:
            continue
        for line in lines:
            finished = AttemptLine.parse(line)
            if finished is not None and (rows is None or finished.row in rows):
                found.setdefault(finished.row, Salvaged(finished.counts, line))
    return found
