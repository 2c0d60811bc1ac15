"""vLLM's OpenAI request classes: the one module that parses requests with them.

Importing it takes vLLM's 10 to 30 seconds, so import it only where a request has to be checked.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from vllm.config.model import try_match_architecture_defaults
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.exceptions import VLLMError

from rankflow.rows.problems import RowProblem
from rankflow.rows.requests import CHAT, COMPLETIONS

_EMBEDDINGS: Final[TypeAdapter[Any]] = TypeAdapter(EmbeddingRequest)
_SHOWN_FIELDS = 3


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


def parse(url: str, body: dict[str, Any]) -> Parameters:
    """Parse a request body as vLLM's server does, sampling parameters included.

    The body may be changed on the way, as vLLM's validators do.

    Raises:
        RowProblem: ``invalid_parameter`` with the fields and reasons, never with their content.
    """
    texts = _texts(body)
    try:
        if url == CHAT:
            return _chat(ChatCompletionRequest.model_validate(body))
        if url == COMPLETIONS:
            return _completion(CompletionRequest.model_validate(body))
        request = _EMBEDDINGS.validate_python(body)
        request.to_pooling_params()
        return Parameters(max_tokens=0, choices=1)
    except ValidationError as error:
        message = _describe(error)
    except (VLLMError, ValueError, TypeError, KeyError, AttributeError) as error:
        # vLLM's validators look into the raw body and trip over wrong types with any of these.
        message = _reason(error)
    raise RowProblem("invalid_parameter", without_texts(message, texts))


def _chat(request: ChatCompletionRequest) -> Parameters:
    given = request.max_completion_tokens
    # Not the attribute: it is deprecated, and reading it warns for each row.
    limit = request.__dict__.get("max_tokens") if given is None else given
    request.to_sampling_params(1 if limit is None else limit, {})
    return Parameters(limit, 1 if request.n is None else request.n)


def _completion(request: CompletionRequest) -> Parameters:
    if request.prompt is None or request.prompt_embeds is not None:
        raise RowProblem("invalid_parameter", "prompt is missing")
    limit = 16 if request.max_tokens is None else request.max_tokens
    request.to_sampling_params(limit, {})
    prompts = request.prompt
    several = (
        len(prompts) if prompts and isinstance(prompts, list) and not _is_tokens(prompts) else 1
    )
    return Parameters(limit, request.n * several)


def _is_tokens(prompts: list[Any]) -> bool:
    return isinstance(prompts[0], int)


def _describe(error: ValidationError) -> str:
    """The first fields that are wrong, one reason each: a union reports every member it tried."""
    reasons: dict[str, str] = {}
    for detail in error.errors(include_input=False, include_url=False):
        cause = detail.get("ctx", {}).get("error")
        reason = _reason(cause) if isinstance(cause, Exception) else detail["msg"]
        reasons.setdefault(_field(detail["loc"]), reason)
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
    """The message without the value that vLLM adds to it."""
    return str(error.args[0]) if error.args else type(error).__name__


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
