"""vLLM's OpenAI request classes: the one module that parses requests with them.

Importing it takes vLLM's 10 to 30 seconds, so import it only where a request has to be checked.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from vllm.config.model import try_match_architecture_defaults
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.exceptions import VLLMError
from vllm.sampling_params import SamplingParams
from vllm.tokenizers import cached_tokenizer_from_config

from rankflow.contracts.models import ModelSpec
from rankflow.engine.arguments import engine_arguments, model_config
from rankflow.rows.problems import RowProblem
from rankflow.rows.requests import CHAT, COMPLETIONS

_EMBEDDINGS: Final[TypeAdapter[Any]] = TypeAdapter(EmbeddingRequest)
_SHOWN_FIELDS = 3
_KEPT_CONSTRAINTS = 100_000


@dataclass(frozen=True)
class Parameters:
    """What a request asks for, as vLLM reads it."""

    max_tokens: int | None
    """Most output tokens of one choice; None leaves it to the room in the context."""
    choices: int


def is_pooling(architectures: list[str]) -> bool:
    """Whether vLLM serves a model of these architectures for embeddings by default."""
    for architecture in architectures:
        match = try_match_architecture_defaults(architecture)
        if match is not None:
            return match[1][0] == "pooling"
    return False


class RequestParser:
    """Parses requests as vLLM's server does, and asks what its engine would refuse.

    Raises:
        RankflowError: ENGINE_ARGUMENTS_INVALID when vLLM refuses the model spec itself.
    """

    def __init__(self, spec: ModelSpec) -> None:
        arguments = engine_arguments(spec).engine
        self._model = model_config(spec, arguments)
        self._structured = arguments.structured_outputs_config
        self._tokenizer: Any = None
        self._known_constraints: set[bytes] = set()

    def parse(self, url: str, body: dict[str, Any]) -> Parameters:
        """Parse a request body, sampling parameters included.

        The body may be changed on the way, as vLLM's validators do.

        Raises:
            RowProblem: ``invalid_parameter`` with fields and reasons, never with their content.
        """
        texts = _texts(body)
        try:
            if url == CHAT:
                return self._chat(ChatCompletionRequest.model_validate(body))
            if url == COMPLETIONS:
                return self._completion(CompletionRequest.model_validate(body))
            request = _EMBEDDINGS.validate_python(body)
            request.to_pooling_params()
            return Parameters(max_tokens=0, choices=1)
        except ValidationError as error:
            message = _describe(error)
        except (VLLMError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            # vLLM's validators look into the raw body and trip over wrong types with any of
            # these; the libraries below it that compile grammars raise the last one.
            message = _reason(error)
        raise RowProblem("invalid_parameter", without_texts(message, texts))

    def _chat(self, request: ChatCompletionRequest) -> Parameters:
        given = request.max_completion_tokens
        # Not the attribute: it is deprecated, and reading it warns for each row.
        limit = request.__dict__.get("max_tokens") if given is None else given
        self._verify(request.to_sampling_params(1 if limit is None else limit, {}))
        return Parameters(limit, 1 if request.n is None else request.n)

    def _completion(self, request: CompletionRequest) -> Parameters:
        if request.prompt is None or request.prompt_embeds is not None:
            raise RowProblem("invalid_parameter", "prompt is missing")
        limit = 16 if request.max_tokens is None else request.max_tokens
        self._verify(request.to_sampling_params(limit, {}))
        prompts = request.prompt
        several = (
            len(prompts) if prompts and isinstance(prompts, list) and not _is_tokens(prompts) else 1
        )
        return Parameters(limit, request.n * several)

    def _verify(self, wanted: SamplingParams) -> None:
        """What depends on the model: token ids, logprobs, schemas and grammars. Raises any error.

        Runs often have one schema for a million rows, and compiling it takes about a millisecond:
        one that was good is not looked at again.
        """
        constraint = wanted.structured_outputs
        if constraint is not None and self._tokenizer is None:
            self._tokenizer = cached_tokenizer_from_config(self._model)
        key = hashlib.blake2b(repr(constraint).encode(errors="replace"), digest_size=16).digest()
        if key in self._known_constraints:
            wanted.structured_outputs = None
        wanted.verify(self._model, None, self._structured, self._tokenizer)
        if constraint is not None and len(self._known_constraints) < _KEPT_CONSTRAINTS:
            self._known_constraints.add(key)


def _is_tokens(prompts: list[Any]) -> bool:
    return isinstance(prompts[0], int)


def _describe(error: ValidationError) -> str:
    """The first fields that are wrong, one reason each: a union reports every member it tried."""
    reasons: dict[str, str] = {}
    vague: set[str] = set()
    for detail in error.errors(include_input=False, include_url=False):
        cause = detail.get("ctx", {}).get("error")
        reason = _reason(cause) if isinstance(cause, Exception) else detail["msg"]
        field, kind = _field(detail["loc"]), detail["type"]
        other_member = kind.endswith("_type") or kind in ("literal_error", "missing")
        # The member that the value was meant for complains about more than its type.
        if field not in reasons or (field in vague and not other_member):
            reasons[field] = reason
            (vague.add if other_member else vague.discard)(field)
    shown = [f"{field}: {reason}" if field else reason for field, reason in reasons.items()]
    more = f" (and {len(shown) - _SHOWN_FIELDS} more fields)" if len(shown) > _SHOWN_FIELDS else ""
    return "; ".join(shown[:_SHOWN_FIELDS]) + more


def _field(location: tuple[int | str, ...]) -> str:
    """``messages[2]`` for any error inside of it; names of vLLM's classes are left out."""
    names = [part for part in location if isinstance(part, int) or part[:1].islower()]
    if not names or isinstance(names[0], int):
        return ""
    index = f"[{names[1]}]" if len(names) > 1 and isinstance(names[1], int) else ""
    return f"{names[0]}{index}"


def _reason(error: Exception) -> str:
    """The message without the value that vLLM adds to it, on one line: grammars draw pictures."""
    return " ".join(str(error.args[0]).split()) if error.args else type(error).__name__


def _texts(value: Any) -> list[str]:
    """Strings of a body that may be somebody's text: long values, and keys that are no field."""
    if isinstance(value, str):
        return [value] if len(value) > 8 else []
    if isinstance(value, dict):
        keys = [key for key in value if len(key) > 8 and not re.fullmatch("[a-z_]+", key)]
        return keys + [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return []


def without_texts(message: str, texts: list[str]) -> str:
    """The message, unless it quotes the request: then one that does not."""
    if any(text in message or repr(text)[1:-1] in message for text in texts):
        return "the request is not valid (vLLM's message quotes it, so it is left out)"
    return message
