"""The check of each row by itself; what two rows can have wrong together is ``claims``'s."""

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from rankflow import garbage
from rankflow.contracts.models import ModelSpec, RunSpec
from rankflow.rows.problems import RowProblem, raise_all
from rankflow.rows.readers import Format, RawRow, TextRow, parse
from rankflow.rows.requests import CHAT, EMBEDDINGS, Request, custom_id_of, to_request
from rankflow.rows.tokens import EstimatedTokens, ModelTokens, Prompt, TokenCounter

if TYPE_CHECKING:
    from rankflow.rows.openai import RequestParser

_encoder = msgspec.json.Encoder()


class Finding(NamedTuple):
    """One row, normalised, or what is wrong with it; crosses processes."""

    line: int
    """Its line in the input."""
    custom_id: str | None
    """To name it by in a problem; None when it has no usable one."""
    key: bytes | None
    """Stands for its custom_id among those of all rows; None when it has no usable one."""
    request: bytes
    """JSON with newline, an OpenAI Batch request; empty for a row with problems."""
    prompt_tokens: int = 0
    max_output_tokens: int = 0
    problems: tuple[RowProblem, ...] = ()
    seen_at_once: bool = True
    """Whether the problems show in the row as it stands, before its parameters are looked at."""


class RowCheck:
    """Checks rows against the run's spec, each as if there were no other."""

    def __init__(self, spec: RunSpec) -> None:
        """Load the tokenizer of the model. Raises RankflowError: ENGINE_ARGUMENTS_INVALID."""
        self._spec = spec
        self._simulated = spec.model.backend == "simulated"
        self._tokens: TokenCounter = (
            EstimatedTokens(spec.model) if self._simulated else ModelTokens(spec.model)
        )
        self._pooling: bool | None = None

    def prepare(self) -> None:
        """Import and load all that a row may need, as forked processes should not each do it.

        Raises RankflowError: ENGINE_ARGUMENTS_INVALID.
        """
        if not self._simulated:
            _ = self._parser

    def check(self, kind: Format, rows: list[RawRow | TextRow]) -> list[Finding]:
        """Check rows of the input, tokenised together; one finding each, in order."""
        pending = [_Pending(parse(row)) for row in rows]
        prompts: list[tuple[Prompt, bool]] = []
        for entry in pending:
            try:
                self._prepare(kind, entry)
            except RowProblem as problem:
                # Its traceback would hold the row, in a circle that only a collection ends.
                entry.problem = problem.with_traceback(None)
            else:
                entry.first = len(prompts)
                prompts += entry.prompts
        counts = self._tokens.count(prompts)
        return [self._finding(entry, counts) for entry in pending]

    def _finding(self, entry: "_Pending", counts: list[int]) -> Finding:
        problem = entry.problem
        if problem is None:
            own = counts[entry.first : entry.first + len(entry.prompts)]
            try:
                most = self._fit(entry, own)
            except RowProblem as too_long:
                problem = too_long.with_traceback(None)
            else:
                return Finding(
                    entry.row.line, entry.custom_id, entry.key, entry.line, sum(own), most
                )
        return Finding(
            entry.row.line,
            entry.custom_id,
            entry.key,
            b"",
            problems=tuple(problem.all),
            seen_at_once=not entry.whole,
        )

    def _prepare(self, kind: Format, entry: "_Pending") -> None:
        """Everything but token counts. Raises RowProblem."""
        row = entry.row
        entry.custom_id = _shown_id(row)
        if row.problem is not None:
            raise row.problem
        request, body = self._request(kind, entry)
        entry.whole = True
        try:
            entry.line = encode(
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
            parsed = cast("dict[str, Any]", msgspec.json.decode(encode(body)))
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
        with garbage.put_off():
            from rankflow.rows.openai import RequestParser

        return RequestParser(self._spec.model)

    def _request(self, kind: Format, entry: "_Pending") -> tuple[Request, dict[str, Any]]:
        """The request and its whole body. Raises RowProblem with all that shows without parsing."""
        row = entry.row
        found: list[RowProblem] = []
        custom_id = ""
        try:
            entry.custom_id = custom_id = custom_id_of(kind, row)
            entry.key = key_of(custom_id)
        except RowProblem as problem:
            found += problem.all
        try:
            prompts_are_chat = self._tokens.facts.has_chat_template
            request = to_request(kind, self._spec.input, row, custom_id, prompts_are_chat)
            body = self._body(request)
        except RowProblem as problem:
            found += problem.all
            raise_all(found)
            raise
        raise_all(found)
        return request, body

    def _body(self, request: Request) -> dict[str, Any]:
        """The body with the run's defaults below it and without the model, which is the run's."""
        body = request.body
        found: list[RowProblem] = []
        if body.get("stream"):
            found.append(
                RowProblem("stream_not_supported", "stream is true; results are written whole")
            )
        named = body.get("model")
        if named is not None and not _same_model(self._spec.model, named):
            found.append(
                RowProblem("model_mismatch", f"model is not the run's ({self._spec.model.model})")
            )
        raise_all(found)
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

    def _fit(self, entry: "_Pending", counts: list[int]) -> int:
        """The most output tokens of a row, whose prompts have so many. Raises RowProblem."""
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
        return most * entry.choices


class _Pending:
    """A row on its way through the check."""

    __slots__ = (
        *("choices", "custom_id", "first", "key", "line", "max_tokens", "problem", "prompts"),
        *("row", "truncates", "url", "whole"),
    )

    def __init__(self, row: RawRow) -> None:
        self.row = row
        self.custom_id: str | None = None
        self.key: bytes | None = None
        self.whole = False
        """Whether it is a request as it stands."""
        self.problem: RowProblem | None = None
        self.line = b""
        self.url = ""
        self.prompts: list[tuple[Prompt, bool]] = []
        self.first = 0
        self.max_tokens: int | None = None
        self.choices = 1
        self.truncates = False


def encode(value: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return _encoder.encode(value) + b"\n"


def key_of(custom_id: str) -> bytes:
    """12 bytes of a hash: what a million ids are remembered by."""
    return hashlib.blake2b(custom_id.encode(errors="replace"), digest_size=12).digest()


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
