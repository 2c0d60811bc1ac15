"""The check of every row, in input order, with flat memory; rows come out normalised."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from rankflow.contracts.models import ModelSpec, RunSpec
from rankflow.rows.problems import ProblemLog, RowProblem, RowProblems
from rankflow.rows.readers import Format, RawRow, read_rows
from rankflow.rows.requests import CHAT, EMBEDDINGS, Request, custom_id_of, to_request
from rankflow.rows.tokens import EstimatedTokens, ModelTokens, Prompt, TokenCounter

if TYPE_CHECKING:
    from rankflow.rows.openai import RequestParser

_encoder = msgspec.json.Encoder()
_CHUNK_ROWS = 256
"""Rows tokenised together: enough for the tokenizer's threads, small enough to hold."""


@dataclass(frozen=True)
class CheckedRow:
    """One row as the plan stores it."""

    line: bytes
    """JSON with newline: an OpenAI Batch request, or {"custom_id", "error"} for an invalid row."""
    prompt_tokens: int
    max_output_tokens: int
    invalid: bool


class RowChecker:
    """Checks rows against the run's spec. Problems go to ``log``; rows come out all the same."""

    def __init__(self, spec: RunSpec, log: ProblemLog) -> None:
        self._spec = spec
        self._log = log
        self._simulated = spec.model.backend == "simulated"
        self._tokens: TokenCounter = (
            EstimatedTokens(spec.model) if self._simulated else ModelTokens(spec.model)
        )
        self._pooling: bool | None = None
        self._seen: dict[bytes, int] = {}

    def rows(self, kind: Format, path: Path) -> Iterator[CheckedRow]:
        """All rows of the input, an invalid one as its error line."""
        raw_rows = read_rows(kind, self._spec.input, path)
        while chunk := list(islice(raw_rows, _CHUNK_ROWS)):
            yield from self._chunk(kind, chunk)

    def _chunk(self, kind: Format, chunk: list[RawRow]) -> Iterator[CheckedRow]:
        pending = [_Pending(row) for row in chunk]
        prompts: list[tuple[Prompt, bool]] = []
        for entry in pending:
            try:
                self._prepare(kind, entry)
            except RowProblem as problem:
                entry.problem = problem
            else:
                entry.first = len(prompts)
                prompts += entry.prompts
        counts = self._tokens.count(prompts)
        for entry in pending:
            if entry.problem is None:
                own = counts[entry.first : entry.first + len(entry.prompts)]
                try:
                    yield self._fit(entry, own)
                    continue
                except RowProblem as problem:
                    entry.problem = problem
            yield self._refused(entry, entry.problem)

    def _prepare(self, kind: Format, entry: "_Pending") -> None:
        """Everything but token counts. Raises RowProblem."""
        row = entry.row
        entry.custom_id = _shown_id(row)
        if row.problem is not None:
            raise row.problem
        request, body = self._request(kind, entry)
        try:
            entry.line = _encode(
                {
                    "custom_id": request.custom_id,
                    "method": "POST",
                    "url": request.url,
                    "body": body,
                }
            )
        except UnicodeEncodeError as error:
            raise RowProblem("invalid_unicode", "the row has half of a surrogate pair") from error
        self._check_kind(request.url)
        if not self._simulated:
            parsed = cast("dict[str, Any]", msgspec.json.decode(_encode(body)))
            parameters = self._parser.parse(request.url, parsed)
            entry.max_tokens, entry.choices = parameters.max_tokens, parameters.choices
        else:
            limit = body.get("max_completion_tokens", body.get("max_tokens"))
            entry.max_tokens = limit if isinstance(limit, int) else 16
        if request.url == CHAT and self._spec.model.tool_call_parser is None:
            _refuse_tools(body)
        entry.prompts = self._tokens.prompts(request.url, body)
        entry.url = request.url
        entry.truncates = body.get("truncate_prompt_tokens") is not None

    @cached_property
    def _parser(self) -> "RequestParser":
        # Not at the top: only a row to be checked is worth vLLM's import.
        from rankflow.rows.openai import RequestParser

        return RequestParser(self._spec.model)

    def _request(self, kind: Format, entry: "_Pending") -> tuple[Request, dict[str, Any]]:
        """The request and its whole body. Raises RowProblem with all that shows without parsing."""
        row, problems = entry.row, RowProblems()
        with problems:
            custom_id = custom_id_of(kind, row)
            entry.custom_id = custom_id
            self._claim(custom_id, row.line)
            entry.claimed = True
        made: tuple[Request, dict[str, Any]] | None = None
        with problems:
            prompts_are_chat = self._tokens.facts.has_chat_template
            custom_id = entry.custom_id or ""
            request = to_request(kind, self._spec.input, row, custom_id, prompts_are_chat)
            made = request, self._body(request)
        problems.raise_any()
        assert made is not None, "a problem was collected and not raised"
        return made

    def _claim(self, custom_id: str, line: int) -> None:
        """Raise RowProblem for an id that an earlier line has; 12 bytes of a hash stand for it."""
        key = hashlib.blake2b(custom_id.encode(errors="replace"), digest_size=12).digest()
        first = self._seen.setdefault(key, line)
        if first != line:
            raise RowProblem("duplicate_custom_id", f"custom_id is the same as on line {first}")

    def _body(self, request: Request) -> dict[str, Any]:
        """The body with the run's defaults below it and without the model, which is the run's."""
        body, problems = request.body, RowProblems()
        with problems:
            if body.get("stream"):
                raise RowProblem(
                    "stream_not_supported", "stream is true; results are written whole"
                )
        with problems:
            named = body.get("model")
            if named is not None and not _same_model(self._spec.model, named):
                raise RowProblem(
                    "model_mismatch", f"model is not the run's ({self._spec.model.model})"
                )
        problems.raise_any()
        defaults = {} if request.url == EMBEDDINGS else dict(self._spec.sampling)
        if body.get("max_tokens") is not None or body.get("max_completion_tokens") is not None:
            for key in ("max_tokens", "max_completion_tokens"):
                defaults.pop(key, None)
        if request.url != CHAT and "max_completion_tokens" in defaults:
            defaults.setdefault("max_tokens", defaults.pop("max_completion_tokens"))
        merged = {**defaults, **body}
        merged.pop("model", None)
        merged.pop("stream", None)
        return merged

    def _check_kind(self, url: str) -> None:
        """Raise RowProblem when the model does not serve this kind of request."""
        if self._simulated:
            return
        if self._pooling is None:
            from rankflow.rows.openai import is_pooling

            runner = self._spec.model.engine_args.get("runner", "auto")
            self._pooling = (
                runner == "pooling"
                if runner != "auto"
                else is_pooling(self._tokens.facts.architectures)
            )
        if url == EMBEDDINGS and not self._pooling:
            raise RowProblem(
                "embeddings_not_supported", "the run's model generates text; it has no embeddings"
            )
        if url != EMBEDDINGS and self._pooling:
            raise RowProblem(
                "generation_not_supported", "the run's model makes embeddings; it generates no text"
            )

    def _fit(self, entry: "_Pending", counts: list[int]) -> CheckedRow:
        """Hold the tokens against the context length, with the engine's own limits."""
        limit = self._tokens.facts.max_model_len
        embeds = entry.url == EMBEDDINGS
        room = 0
        for count in counts:
            if count == 0:
                raise RowProblem("invalid_prompt", "the prompt has no tokens")
            if not entry.truncates and count >= limit + embeds:
                raise RowProblem(
                    "context_length_exceeded",
                    f"the prompt has {count} tokens, the model's context {limit}, output included",
                )
            room = max(room, limit - min(count, limit - 1))
        if entry.max_tokens is not None and entry.max_tokens > limit:
            raise RowProblem(
                "context_length_exceeded",
                f"{entry.max_tokens} output tokens are asked for, the model's context is {limit}",
            )
        most = 0 if embeds else min(room, room if entry.max_tokens is None else entry.max_tokens)
        return CheckedRow(entry.line, sum(counts), most * entry.choices, invalid=False)

    def _refused(self, entry: "_Pending", problem: RowProblem) -> CheckedRow:
        line = entry.row.line
        for one in (problem, *problem.also):
            self._log.add(line, one, entry.custom_id)
        custom_id = entry.custom_id
        if custom_id is None or not entry.claimed:
            custom_id = self._own_id(line)
        error = {"code": problem.code, "message": problem.message, "line": line}
        return CheckedRow(_encode({"custom_id": custom_id, "error": error}), 0, 0, invalid=True)

    def _own_id(self, line: int) -> str:
        """An id for a row without a usable one: ``line-<n>``, lengthened when somebody has that."""
        custom_id = f"line-{line}"
        while True:
            try:
                self._claim(custom_id, line)
            except RowProblem:
                custom_id += "-invalid"
            else:
                return custom_id


class _Pending:
    """A row on its way through the check."""

    def __init__(self, row: RawRow) -> None:
        self.row = row
        self.custom_id: str | None = None
        self.claimed = False
        self.problem: RowProblem | None = None
        self.line = b""
        self.url = ""
        self.prompts: list[tuple[Prompt, bool]] = []
        self.first = 0
        self.max_tokens: int | None = None
        self.choices = 1
        self.truncates = False


def _encode(value: dict[str, Any]) -> bytes:
    return _encoder.encode(value) + b"\n"


def _shown_id(row: RawRow) -> str | None:
    """The id to name a row by in a problem, before it is known to be good."""
    value = None if row.value is None else row.value.get("custom_id")
    if not isinstance(value, str) or not 0 < len(value) <= 512:
        return None
    return value.encode(errors="replace").decode()


def _refuse_tools(body: dict[str, Any]) -> None:
    """Raise RowProblem for tools that vLLM needs a parser for; without a choice it is "auto"."""
    if body.get("tools") and body.get("tool_choice", "auto") not in (None, "none"):
        raise RowProblem(
            "tool_parser_missing",
            "tools need the model's tool call parser (--tool-call-parser), or tool_choice none",
        )


def _same_model(spec: ModelSpec, named: Any) -> bool:
    """Whether a body's model is the run's: its name, path or the last part of either."""
    if not isinstance(named, str):
        return False
    own, other = spec.model.rstrip("/"), named.rstrip("/")
    return other in (own, own.rpartition("/")[2], spec.engine_args.get("served_model_name"))
