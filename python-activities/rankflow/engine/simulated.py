"""A deterministic stand-in for vLLM, for scale and chaos tests; every answer says that it is one.

Answers depend on the request alone. Throughput is one shared rate: as many requests as
``maxNumSeqs`` says (one, unless it is given) are decoded side by side in virtual time and share it,
so N engines together give N times the rate. Fault points end or hang the engine after a number of
answers, counted anew in each incarnation. A ledger says what was decoded, also of rows that were
lost, so that what a fault costs can be counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankflow.contracts.models import ModelSpec
from rankflow.engine.backend import Answer, BackendDead, ModelFacts
from rankflow.faults import faults

FINGERPRINT = "simulated"
URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
_DEFAULT_MAX_TOKENS = 16
_DEFAULT_MODEL_LEN = 4096
_EMBEDDING_SIZE = 8
_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)
"""``json.dumps`` with these makes one for every row."""


class SimulatedArgs(BaseModel):
    """The ``engineArgs`` of the simulated backend; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid")

    tokens_per_second: float = Field(default=1000.0, gt=0)
    load_seconds: float = Field(default=0.0, ge=0)
    die_after_rows: int | None = Field(default=None, ge=0)
    hang_after_rows: int | None = Field(default=None, ge=0)
    load_error: str | None = None
    ledger: str | None = None


class Ledger:
    """Which requests were decoded: one JSON line when decoding begins and one when it ends.

    ``{"request", "at", "tokens", "seconds"}`` (epoch seconds; tokens to come and the time they
    take) and ``{"request", "decoded"}``. Without the second line the process was killed. One file
    a process in the folder; what was written survives the process.
    """

    def __init__(self, folder: str) -> None:
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        self._file = (path / f"{os.getpid()}.jsonl").open("ab", buffering=0)

    def begin(self, request_id: str, tokens: int, seconds: float) -> None:
        """The first token is about to come."""
        self._write(request=request_id, at=time.time(), tokens=tokens, seconds=seconds)

    def end(self, request_id: str, decoded: int) -> None:
        """The last token came, or the request was aborted after ``decoded`` tokens."""
        self._write(request=request_id, decoded=decoded)

    def _write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields).encode() + b"\n")


def _prompt_text(body: dict[str, Any]) -> str:
    for key in ("messages", "prompt", "input"):
        if key in body:
            return _ENCODER.encode(body[key])
    return ""


def _refusal(message: str) -> Answer:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return Answer(400, {"error": error}, 0, 0)


class SimulatedBackend:
    """Implements :class:`rankflow.engine.backend.Backend`."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._args = SimulatedArgs.model_validate(spec.engine_args)
        # A heap: when each place is free, the next one first.
        self._free_at = [0.0] * (spec.max_num_seqs or 1)
        self._decoding: set[str] = set()
        self._ledger = None if self._args.ledger is None else Ledger(self._args.ledger)
        self._rows = 0
        self._progress = 0
        self._dead = False
        self._poisoned = False

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
        return ModelFacts(self.max_model_len, FINGERPRINT, self._spec.revision, len(self._free_at))

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """Answer deterministically after the time the rate asks for."""
        self._pass_fault_points()
        if faults().is_poison(body):
            self._swallow_poison()
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
        await self._spend(request_id, completion_tokens or prompt_tokens)
        self._rows += 1
        self._progress += 1
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        response = self._response(url, request_id, digest, completion_tokens, usage)
        return Answer(200, response, prompt_tokens, completion_tokens)

    async def decoding(self) -> set[str]:
        """The requests whose turn has come."""
        return set(self._decoding)

    async def probe(self, request_id: str) -> None:
        """Answer as a hung or dead engine would: never, or with BackendDead."""
        self._pass_fault_points()
        if self._hangs():
            await asyncio.Event().wait()

    def shutdown(self) -> None:
        """Nothing to end."""

    def _swallow_poison(self) -> None:
        if not faults().poison_hangs:
            os.kill(os.getpid(), signal.SIGKILL)
        self._poisoned = True

    def _hangs(self) -> bool:
        limit = self._args.hang_after_rows
        return self._poisoned or (limit is not None and self._rows >= limit)

    def _pass_fault_points(self) -> None:
        limit = self._args.die_after_rows
        if limit is not None and self._rows >= limit:
            self._dead = True
        if self._dead:
            raise BackendDead("simulated engine death")

    async def _spend(self, request_id: str, tokens: int) -> None:
        begin = max(time.monotonic(), self._free_at[0])
        seconds = tokens * len(self._free_at) / self._args.tokens_per_second
        heapq.heapreplace(self._free_at, begin + seconds)
        await asyncio.sleep(begin - time.monotonic())
        await self._decode(request_id, tokens, begin, seconds)
        if self._hangs():
            await asyncio.Event().wait()
        self._pass_fault_points()

    async def _decode(self, request_id: str, tokens: int, begin: float, seconds: float) -> None:
        if self._ledger is not None:
            self._ledger.begin(request_id, tokens, seconds)
        self._decoding.add(request_id)
        try:
            await asyncio.sleep(begin + seconds - time.monotonic())
        finally:
            self._decoding.discard(request_id)
            if self._ledger is not None:
                share = min(1.0, (time.monotonic() - begin) / seconds) if seconds > 0 else 1.0
                self._ledger.end(request_id, round(tokens * share))

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
