"""A deterministic stand-in for vLLM, for scale and chaos tests; every answer says that it is one.

Answers depend on the request alone. Throughput is one shared rate: requests are served one after
the other in virtual time, so N engines together give N times the rate. Fault points end or hang
the engine after a number of answers, counted anew in each incarnation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankflow.contracts.models import ModelSpec
from rankflow.engine.backend import Answer, BackendDead, ModelFacts

FINGERPRINT = "simulated"
URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_DEFAULT_MAX_TOKENS = 16
_DEFAULT_MODEL_LEN = 4096
_EMBEDDING_SIZE = 8


class SimulatedArgs(BaseModel):
    """The ``engineArgs`` of the simulated backend; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")

    tokens_per_second: float = Field(default=1000.0, gt=0)
    load_seconds: float = Field(default=0.0, ge=0)
    die_after_rows: int | None = Field(default=None, ge=0)
    hang_after_rows: int | None = Field(default=None, ge=0)
    load_error: str | None = None


def _prompt_text(body: dict[str, Any]) -> str:
    for key in ("messages", "prompt", "input"):
        if key in body:
            return json.dumps(body[key], sort_keys=True, ensure_ascii=False)
    return ""


def _refusal(message: str) -> Answer:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return Answer(400, {"error": error}, 0, 0)


class SimulatedBackend:
    """Implements :class:`rankflow.engine.backend.Backend`."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._args = SimulatedArgs.model_validate(spec.engine_args)
        self._free_at = 0.0
        self._rows = 0
        self._progress = 0
        self._dead = False

    @property
    def progress(self) -> int:
        """Requests answered so far."""
        return self._progress

    @property
    def dead(self) -> bool:
        """Whether the ``die_after_rows`` fault point was passed."""
        return self._dead

    @property
    def max_model_len(self) -> int:
        """Context length in tokens, from the spec."""
        return self._spec.max_model_len or _DEFAULT_MODEL_LEN

    async def load(self) -> ModelFacts:
        """Wait ``load_seconds``; raises RuntimeError when ``load_error`` is set."""
        await asyncio.sleep(self._args.load_seconds)
        if self._args.load_error is not None:
            raise RuntimeError(self._args.load_error)
        return ModelFacts(self.max_model_len, FINGERPRINT, self._spec.revision)

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """Answer deterministically after the time the rate asks for."""
        self._pass_fault_points()
        if url not in URLS:
            return _refusal(f"Unsupported url {url}")
        text = _prompt_text(body)
        prompt_tokens = max(1, len(text) // 4)
        if prompt_tokens > self.max_model_len:
            return _refusal(f"This model's maximum context length is {self.max_model_len} tokens.")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if url == "/v1/embeddings":
            completion_tokens = 0
        else:
            limit = body.get("max_completion_tokens") or body.get("max_tokens")
            limit = limit if isinstance(limit, int) else _DEFAULT_MAX_TOKENS
            completion_tokens = 1 + int(digest[:8], 16) % max(1, limit)
        await self._spend(completion_tokens or prompt_tokens)
        self._rows += 1
        self._progress += 1
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        response = self._response(url, request_id, digest, completion_tokens, usage)
        return Answer(200, response, prompt_tokens, completion_tokens)

    async def probe(self, request_id: str) -> None:
        """Answer as a hung or dead engine would: never, or with BackendDead."""
        self._pass_fault_points()
        if self._hangs():
            await asyncio.Event().wait()

    def shutdown(self) -> None:
        """Nothing to end."""

    def _hangs(self) -> bool:
        limit = self._args.hang_after_rows
        return limit is not None and self._rows >= limit

    def _pass_fault_points(self) -> None:
        limit = self._args.die_after_rows
        if limit is not None and self._rows >= limit:
            self._dead = True
        if self._dead:
            raise BackendDead("simulated engine death")

    async def _spend(self, tokens: int) -> None:
        self._free_at = max(time.monotonic(), self._free_at) + tokens / self._args.tokens_per_second
        await asyncio.sleep(self._free_at - time.monotonic())
        if self._hangs():
            await asyncio.Event().wait()
        self._pass_fault_points()

    def _response(
        self, url: str, request_id: str, digest: str, tokens: int, usage: dict[str, int]
    ) -> dict[str, Any]:
        words = " ".join(digest[i % 56 : i % 56 + 8] for i in range(tokens))
        text = f"simulated {words}"
        common: dict[str, Any] = {
            "id": request_id,
            "created": 0,
            "model": self._spec.model,
            "system_fingerprint": FINGERPRINT,
            "usage": usage,
        }
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
        if url == "/v1/chat/completions":
            message = {"role": "assistant", "content": text}
            return common | {
                "object": "chat.completion",
                "choices": [choice | {"message": message}],
            }
        if url == "/v1/completions":
            return common | {"object": "text_completion", "choices": [choice | {"text": text}]}
        vector = [int(digest[i * 4 : i * 4 + 4], 16) / 65535 for i in range(_EMBEDDING_SIZE)]
        data = [{"object": "embedding", "index": 0, "embedding": vector}]
        return common | {"object": "list", "data": data}
