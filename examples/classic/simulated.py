"""A stand-in for vLLM: answers are made up, at a set rate. It shows what fails without a model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

TOKENS_PER_SECOND = 100


@dataclass(frozen=True)
class SamplingParams:
    """The part of vLLM's class that the script uses."""

    temperature: float
    max_tokens: int


@dataclass(frozen=True)
class Completion:
    """One answer."""

    text: str
    token_ids: range


@dataclass(frozen=True)
class Output:
    """What is generated for one prompt."""

    outputs: list[Completion] = field(default_factory=list[Completion])


class LLM:
    """Answers like vLLM's ``LLM.chat``; any argument is taken."""

    def __init__(self, **arguments: Any) -> None:
        pass

    def chat(self, messages: Any, parameters: list[SamplingParams], use_tqdm: bool) -> list[Output]:
        """As many tokens as each request may have, at the set rate for the whole batch."""
        time.sleep(sum(one.max_tokens for one in parameters) / TOKENS_PER_SECOND)
        return [Output([Completion("simulated", range(one.max_tokens))]) for one in parameters]
