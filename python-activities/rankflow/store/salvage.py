"""Taking over what earlier attempts of a batch finished before they ended."""

import json
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from rankflow.faults import faults
from rankflow.store.base import MissingKey, Store
from rankflow.store.layout import attempts_prefix


class AttemptLine(BaseModel):
    """One finished row in an attempt file: what was answered and what it cost."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    row: int = Field(ge=0, description="0-based row number of the run")
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    failed: bool
    output: dict[str, Any] = Field(description="OpenAI Batch output line")

    def encode(self) -> bytes:
        """The line as an attempt file holds it, newline included."""
        return (
            json.dumps(self.model_dump(by_alias=True), ensure_ascii=False, separators=(",", ":"))
            + "\n"
        ).encode(errors="replace")


def row_of(line: bytes) -> int | None:
    """Row number of a complete attempt line, or None when it is torn or of another shape."""
    if not line.endswith(b"\n"):
        return None
    try:
        value: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, Any]", value)
    row, output = fields.get("row"), fields.get("output")
    counts = (row, fields.get("promptTokens"), fields.get("completionTokens"))
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    if not isinstance(fields.get("failed"), bool) or not isinstance(output, dict):
        return None
    return cast("int", row) if "custom_id" in output else None


def salvage(
    store: Store, run_id: str, rank: int, batch: int, rows: range | None = None
) -> dict[int, bytes]:
    """Complete lines of all earlier attempts of a batch, by row; call it before the own one starts.

    A torn last line, a line of another shape and a row outside ``rows`` are left out. When several
    attempts finished a row, one of them is taken. Lines end with a newline.
    """
    found: dict[int, bytes] = {}
    if not faults().salvage:
        return found
    for key in store.list_appended(attempts_prefix(run_id, rank, batch)):
        try:
            lines = store.read_attempt(key).splitlines(keepends=True)
        except MissingKey:
            continue
        for line in lines:
            row = row_of(line)
            if row is not None and (rows is None or row in rows):
                found.setdefault(row, line)
    return found
