"""What an engine needs of the thing that generates; vLLM and the simulation stand behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class BackendDead(Exception):
    """The generating process is gone for good: this engine must end and be replaced."""


class BackendTrouble(Exception):
    """A request got no answer for a reason that is not the request's: it is worth another try."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known once a model is loaded."""

    max_model_len: int
    """Context length in tokens."""
    vllm_version: str
    revision: str | None
    """Commit of the weights, where the model's source has one."""
    max_num_seqs: int
    """Requests that are decoded side by side; more of them wait."""
    grouped: bool = False
    """Whether requests begin in groups, which need more of them to choose from."""


@dataclass(frozen=True)
class Answer:
    """One request's final answer: a response body, or a 4xx error body about the request."""

    status_code: int
    body: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int

    @property
    def failed(self) -> bool:
        """Whether the request itself was refused."""
        return self.status_code >= 400


class ServerError(BackendTrouble):
    """A request was answered with a 5xx by an engine that lives."""

    def __init__(self, answer: Answer, reason: str) -> None:
        """``answer``: what is recorded when the request gets nothing else, try after try."""
        super().__init__(reason)
        self.answer = answer


class Backend(Protocol):
    """Lives on the loop that called ``load``; only ``progress`` and ``dead`` cross threads."""

    @property
    def progress(self) -> int:
        """A count that grows whenever the backend computes; standing still means idle or hung."""
        ...

    @property
    def dead(self) -> bool:
        """Whether the backend can never answer again."""
        ...

    async def load(self) -> ModelFacts:
        """Load the model; raises any exception with the reason when that fails."""
        ...

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """Answer one OpenAI request (``url`` such as ``/v1/chat/completions``).

        Cancelling aborts the request. Raises BackendDead, BackendTrouble or ServerError; never
        turns any of them into an Answer.
        """
        ...

    async def decoding(self) -> set[str]:
        """Ids of the requests that have their first token and not yet their last."""
        ...

    async def probe(self, request_id: str) -> None:
        """Compute the least that proves that the model answers: one token or one embedding."""
        ...

    def shutdown(self) -> None:
        """End the processes of this backend; never raises, may be called twice."""
        ...
