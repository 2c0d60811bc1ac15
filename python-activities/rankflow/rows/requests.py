"""From a row of any format to one request of the OpenAI Batch format."""

import re
from typing import Any, NamedTuple, cast

from rankflow.contracts.models import InputSpec
from rankflow.rows.problems import RowProblem, raise_all
from rankflow.rows.readers import Format, RawRow

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
URLS = (CHAT, COMPLETIONS, EMBEDDINGS)

CUSTOM_ID_CHARACTERS = 512

PARAMETERS = frozenset(
    {
        "allowed_token_ids",
        "bad_words",
        "chat_template_kwargs",
        "dimensions",
        "echo",
        "encoding_format",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "min_tokens",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_logprobs",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "skip_special_tokens",
        "stop",
        "stop_token_ids",
        "stream",
        "structured_outputs",
        "suffix",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncate_prompt_tokens",
        "user",
    }
)
"""Keys of a simple JSONL row that become request parameters; other keys are the user's own."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}!:]+)\}")


class Request(NamedTuple):
    """One request: where it goes and its body, sampling defaults not merged yet."""

    custom_id: str
    url: str
    body: dict[str, Any]


def custom_id_of(kind: Format, row: RawRow) -> str:
    """The row's custom_id; in the simple formats ``id`` will do, or else it is ``row-<line>``.

    Raises:
        RowProblem: it is missing where it must not be, or is no usable text.
    """
    value = row.value or {}
    given = value.get("custom_id")
    if kind == "openai":
        return _custom_id(given)
    if given is None:
        given = value.get("id")
    if given is None:
        return f"row-{row.line}"
    # Ids of tables and databases are often numbers.
    return _custom_id(str(given) if type(given) is int else given)


def to_request(
    kind: Format, spec: InputSpec, row: RawRow, custom_id: str, prompts_are_chat: bool
) -> Request:
    """Make a request of a row.

    A bare prompt (a prompt column, a template) becomes a chat message when the model has a chat
    template (``prompts_are_chat``), else a completion; a ``prompt`` key of simple JSONL is always a
    completion, as ``messages`` is always a chat.

    Raises:
        RowProblem: what is wrong, all of it.
    """
    value = row.value or {}
    if kind == "openai":
        return _openai(custom_id, value)
    body = (
        {key: inner for key, inner in value.items() if key in PARAMETERS} if kind == "jsonl" else {}
    )
    table = kind in ("csv", "parquet")
    if spec.template is not None or spec.prompt_column is not None or table:
        prompt = _prompt(spec, value)
        if prompts_are_chat:
            return Request(
                custom_id, CHAT, {**body, "messages": [{"role": "user", "content": prompt}]}
            )
        return Request(custom_id, COMPLETIONS, {**body, "prompt": prompt})
    for key, url in (("messages", CHAT), ("prompt", COMPLETIONS), ("input", EMBEDDINGS)):
        if key in value:
            return Request(custom_id, url, {**body, key: value[key]})
    raise RowProblem("missing_prompt", "the row has neither messages, prompt nor input")


def _openai(custom_id: str, value: dict[str, Any]) -> Request:
    url, body = value.get("url"), value.get("body")
    found: list[RowProblem] = []
    if value.get("method") != "POST":
        found.append(RowProblem("unsupported_method", 'method is not "POST"'))
    if url not in URLS:
        found.append(RowProblem("unsupported_url", f"url is none of {', '.join(URLS)}"))
    if not isinstance(body, dict):
        found.append(RowProblem("missing_body", "body is not an object"))
    raise_all(found)
    return Request(custom_id, cast("str", url), dict(cast("dict[str, Any]", body)))


def _custom_id(value: Any) -> str:
    if value is None:
        raise RowProblem("missing_custom_id", "custom_id is missing")
    if not isinstance(value, str):
        raise RowProblem("invalid_custom_id", "custom_id is not a string")
    if not 0 < len(value) <= CUSTOM_ID_CHARACTERS:
        raise RowProblem(
            "invalid_custom_id",
            f"custom_id has {len(value)} characters, not 1 to {CUSTOM_ID_CHARACTERS}",
        )
    if _HALF_PAIR.search(value):
        raise RowProblem("invalid_unicode", "custom_id has half of a surrogate pair")
    return value


def _prompt(spec: InputSpec, value: dict[str, Any]) -> str:
    if spec.template is not None:

        def fill(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            if value.get(match[1]) is None:
                raise RowProblem(
                    "missing_prompt", f"{match[1]!r}, which the template uses, is empty"
                )
            return str(value[match[1]])

        return _PLACEHOLDER.sub(fill, spec.template)
    column = spec.prompt_column or "prompt"
    prompt = value.get(column)
    if prompt is None or prompt == "":
        raise RowProblem("missing_prompt", f"{column!r} is empty")
    if not isinstance(prompt, str):
        raise RowProblem("invalid_prompt", f"{column!r} is not text")
    return prompt
