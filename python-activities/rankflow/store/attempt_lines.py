"""The lines of attempt files: one finished row each."""

import json
from typing import Annotated, Any

import msgspec

from rankflow.store.json_text import as_json

_Count = Annotated[int, msgspec.Meta(ge=0)]


class RowCounts(msgspec.Struct, frozen=True, rename="camel"):
    """What attempt lines begin with, by which a row counts."""

    row: _Count
    """0-based row number of the run."""
    prompt_tokens: _Count
    completion_tokens: _Count
    failed: bool


class AttemptLine(RowCounts, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One finished row in an attempt file: what was answered and what it cost."""

    output: dict[str, Any]
    """OpenAI Batch output line."""

    @property
    def counts(self) -> RowCounts:
        """The line without what was answered."""
        return RowCounts(self.row, self.prompt_tokens, self.completion_tokens, self.failed)

    def encode(self) -> bytes:
        """The line as an attempt file holds it, newline included; NaN and infinities are null."""
        try:
            return _encoder.encode(self) + b"\n"
        except UnicodeEncodeError:
            # Half of a surrogate pair, which is no text in UTF-8.
            text = json.dumps(msgspec.to_builtins(self), ensure_ascii=False)
            return as_json(text.encode(errors="replace")) + b"\n"

    @staticmethod
    def parse(line: bytes) -> "AttemptLine | None":
        """A complete line, or None when it is torn or of another shape."""
        if not line.endswith(b"\n"):
            return None
        try:
            found = _decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            try:
                found = _decoder.decode(as_json(line))
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return None
        return found if "custom_id" in found.output else None


class CommittedLine(RowCounts, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A line that is known to be whole: its answer is copied and not parsed."""

    output: msgspec.Raw
    """JSON text of the OpenAI Batch output line."""

    @property
    def custom_id(self) -> str:
        """Whose answer it is. Raises ``msgspec.MsgspecError`` when it does not say so."""
        return _id_decoder.decode(self.output).custom_id

    @staticmethod
    def parse(line: bytes) -> "CommittedLine":
        """Raises ``msgspec.MsgspecError`` or ValueError for anything else."""
        try:
            return _committed_decoder.decode(line)
        except msgspec.MsgspecError:
            return _committed_decoder.decode(as_json(line))


class _Identified(msgspec.Struct):
    custom_id: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AttemptLine)
_committed_decoder = msgspec.json.Decoder(CommittedLine)
_id_decoder = msgspec.json.Decoder(_Identified)
