"""Counting prompt tokens as the engine will: the model's own tokenizer and chat template."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import ModelSpec
from rankflow.rows.problems import RowProblem
from rankflow.rows.requests import CHAT, COMPLETIONS

Prompt = str | list[int]
_UNSCALED_ROPE = {None, "default", "su", "longrope", "llama3", "mrope"}
_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_target_positions",
)


@dataclass(frozen=True)
class ModelFacts:
    """What the planner has to know about a model."""

    max_model_len: int
    """Context length in tokens, prompt and output together."""
    has_chat_template: bool
    architectures: list[str]
    vocabulary: int


class TokenCounter(Protocol):
    """Turns requests into prompts and counts their tokens."""

    facts: ModelFacts

    def prompts(self, url: str, body: dict[str, Any]) -> list[tuple[Prompt, bool]]:
        """Prompts of a request, each with whether special tokens are added. Raises RowProblem."""
        ...

    def count(self, prompts: list[tuple[Prompt, bool]]) -> list[int]:
        """Tokens of each prompt."""
        ...


class ModelTokens:
    """The tokenizer of a real model, loaded from its folder or from the hub.

    Raises:
        RankflowError: ENGINE_ARGUMENTS_INVALID when config or tokenizer cannot be loaded.
    """

    def __init__(self, model: ModelSpec) -> None:
        if Path(model.model).is_absolute() and not Path(model.model, "config.json").is_file():
            raise RankflowError(
                ErrorType.ENGINE_ARGUMENTS_INVALID, f"there is no model at {model.model}"
            )
        if Path(model.model).is_dir():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        if model.endpoint is not None:
            os.environ["HF_ENDPOINT"] = model.endpoint
        token = _token(model)
        if token is not None:
            # vLLM, which checks the requests, reads the model's configuration too.
            os.environ["HF_TOKEN"] = token
        # After the environment is set: transformers reads it at import, which takes seconds.
        from transformers import AutoConfig, AutoTokenizer

        options: dict[str, Any] = {
            "revision": model.revision,
            "cache_dir": model.cache_dir,
            "token": token,
            "trust_remote_code": bool(model.engine_args.get("trust_remote_code", False)),
        }
        try:
            config: Any = AutoConfig.from_pretrained(model.model, **options)
            tokenizer: Any = AutoTokenizer.from_pretrained(
                model.tokenizer or model.model, **options
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise RankflowError(
                ErrorType.ENGINE_ARGUMENTS_INVALID,
                f"the tokenizer of {model.model} cannot be loaded: {str(error)[:300]}",
            ) from error
        self._tokenizer = tokenizer
        self.facts = ModelFacts(
            max_model_len=_max_model_len(model, config.to_dict(), tokenizer.model_max_length),
            has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
            architectures=list(getattr(config, "architectures", None) or []),
            vocabulary=max(len(tokenizer), getattr(config, "vocab_size", 0) or 0),
        )

    def prompts(self, url: str, body: dict[str, Any]) -> list[tuple[Prompt, bool]]:
        if "messages" in body:
            return [(self._render(body), bool(body.get("add_special_tokens", False)))]
        given = body.get("prompt" if url == COMPLETIONS else "input")
        special = bool(body.get("add_special_tokens", True))
        prompts = _several(given)
        for prompt in prompts:
            if not isinstance(prompt, str) and any(t >= self.facts.vocabulary for t in prompt):
                raise RowProblem(
                    "invalid_prompt", "the prompt has a token that is not in the vocabulary"
                )
        return [(prompt, special) for prompt in prompts]

    def count(self, prompts: list[tuple[Prompt, bool]]) -> list[int]:
        counts = [0 if isinstance(prompt, str) else len(prompt) for prompt, _ in prompts]
        for special in (False, True):
            places = [
                place
                for place, (prompt, wants) in enumerate(prompts)
                if wants is special and isinstance(prompt, str)
            ]
            if not places:
                continue
            encoded = self._tokenizer(
                [prompts[place][0] for place in places],
                add_special_tokens=special,
                return_attention_mask=False,
                verbose=False,
            )
            for place, ids in zip(places, encoded["input_ids"], strict=True):
                counts[place] = len(ids)
        return counts

    def _render(self, body: dict[str, Any]) -> str:
        if not self.facts.has_chat_template:
            raise RowProblem("chat_template_missing", "the model has no chat template for messages")
        if body.get("chat_template") is not None:
            raise RowProblem("invalid_parameter", "chat_template of a request is not accepted")
        try:
            return cast(
                "str",
                self._tokenizer.apply_chat_template(
                    _text_messages(body["messages"]),
                    tools=body.get("tools"),
                    documents=body.get("documents"),
                    tokenize=False,
                    add_generation_prompt=body.get("add_generation_prompt", True),
                    continue_final_message=body.get("continue_final_message", False),
                    **(body.get("chat_template_kwargs") or {}),
                ),
            )
        except Exception as error:
            # Templates are the model's own code: they raise anything, and quote messages.
            raise RowProblem(
                "chat_template_error",
                f"the model's chat template refuses the messages ({type(error).__name__})",
            ) from error


class EstimatedTokens:
    """Four bytes a token, for the simulated engine, which has neither tokenizer nor template."""

    def __init__(self, model: ModelSpec) -> None:
        self.facts = ModelFacts(model.max_model_len or 4096, True, [], 1 << 31)

    def prompts(self, url: str, body: dict[str, Any]) -> list[tuple[Prompt, bool]]:
        if url == CHAT:
            return [(msgspec.json.encode(body.get("messages")).decode(), False)]
        return [(p, False) for p in _several(body.get("prompt", body.get("input")))]

    def count(self, prompts: list[tuple[Prompt, bool]]) -> list[int]:
        return [
            len(prompt.encode()) // 4 + 1 if isinstance(prompt, str) else len(prompt)
            for prompt, _ in prompts
        ]


def _several(given: Any) -> list[Prompt]:
    """The prompts of a completion or embedding: text, tokens, or a list of either."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise RowProblem("invalid_prompt", "the prompt is empty")
    items = cast("list[Any]", given)
    if all(type(item) is int for item in items):
        return [cast("list[int]", items)]
    for item in items:
        tokens = isinstance(item, list) and all(type(t) is int for t in cast("list[Any]", item))
        if not isinstance(item, str) and not tokens:
            raise RowProblem("invalid_prompt", "the prompt is neither text nor tokens")
    return items


def _text_messages(messages: list[Any]) -> list[Any]:
    """Messages with their text parts joined by newlines, as vLLM joins them for plain templates."""
    plain: list[Any] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            parts = [
                part if isinstance(part, str) else str(part.get("text", ""))
                for part in cast("list[Any]", content)
            ]
            message = {**message, "content": "\n".join(parts)}
        plain.append(message)
    return plain


def _token(model: ModelSpec) -> str | None:
    """The hub token that the spec refers to; None when it is not on this machine."""
    reference = model.credentials
    if reference is None:
        return None
    if reference.env is not None:
        return os.environ.get(reference.env)
    if reference.file is not None and Path(reference.file).is_file():
        return Path(reference.file).read_text(encoding="utf-8").strip()
    return None


def _max_model_len(model: ModelSpec, config: dict[str, Any], tokenizer_limit: int) -> int:
    """Context length as vLLM derives it: the spec's, else the smallest the model's files name."""
    asked = model.max_model_len or model.engine_args.get("max_model_len")
    if isinstance(asked, int):
        return asked
    text = cast("dict[str, Any]", config.get("text_config") or config)
    lengths = [text[key] for key in _LENGTH_KEYS if isinstance(text.get(key), int)]
    derived = min(lengths, default=2048)
    rope = cast("dict[str, Any]", text.get("rope_scaling") or text.get("rope_parameters") or {})
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in _UNSCALED_ROPE and isinstance(rope.get("factor"), int | float):
        base = rope.get("original_max_position_embeddings", derived) if kind == "yarn" else derived
        derived = int(base * rope["factor"])
    return min(derived, int(tokenizer_limit))
