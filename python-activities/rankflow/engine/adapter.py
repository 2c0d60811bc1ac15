"""The one module that runs vLLM: an ``AsyncLLM`` behind vLLM's own OpenAI serving classes.

Every body field works because vLLM itself parses, renders and answers. Import it late and off the
event loop: it takes 13 to 30 seconds, and the environment must be prepared before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
from argparse import Namespace
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Protocol, cast

import vllm
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import State
from starlette.responses import Response
from vllm.config import VllmConfig
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.cli_args import BaseFrontendArgs
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from rankflow import garbage
from rankflow.contracts.models import ModelSpec
from rankflow.engine import sharing
from rankflow.engine.arguments import OFFLINE, engine_arguments
from rankflow.engine.backend import (
    Answer,
    BackendDead,
    BackendTrouble,
    ModelFacts,
    ServerError,
)
from rankflow.engine.grouped import let_begin_in_groups
from rankflow.engine.rendering import render_on_loop
from rankflow.faults import faults

log = logging.getLogger(__name__)

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_PARSERS: dict[str, TypeAdapter[Any]] = {
    CHAT: TypeAdapter(ChatCompletionRequest),
    COMPLETIONS: TypeAdapter(CompletionRequest),
    EMBEDDINGS: TypeAdapter(EmbeddingRequest),
}
_Handler = Callable[[Any], Awaitable[Any]]


class Core(Protocol):
    """What vLLM's front end pulls the outputs of each step from."""

    get_output_async: Callable[[], Awaitable[Any]]


class Pulse:
    """Counts engine steps in which requests ran, the only sight of decoding in FINAL_ONLY mode."""

    def __init__(self) -> None:
        self.steps = 0

    def logger(self, vllm_config: VllmConfig, engine_index: int = 0) -> StatLoggerBase:
        """Factory as AsyncLLM takes it; one logger for each EngineCore, all on this pulse."""
        pulse = self

        class PulseLogger(StatLoggerBase):
            def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
                pass

            def record(
                self,
                scheduler_stats: Any,
                iteration_stats: Any,
                mm_cache_stats: Any = None,
                engine_idx: int = 0,
            ) -> None:
                running = scheduler_stats is not None and scheduler_stats.num_running_reqs > 0
                if iteration_stats is not None or running:
                    pulse.steps += 1

            def log_engine_initialized(self) -> None:
                pass

        return PulseLogger(vllm_config, engine_index)

    def watch(self, core: Core) -> None:
        """Count what EngineCore sends instead: steps that only read a long prompt send nothing."""
        pull = core.get_output_async

        async def get_output_async() -> Any:
            outputs = await pull()
            if outputs.outputs:
                self.steps += 1
            return outputs

        core.get_output_async = get_output_async


class VllmBackend:
    """Implements :class:`rankflow.engine.backend.Backend`."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._pulse = Pulse()
        self._llm: AsyncLLM | None = None
        self._handlers: dict[str, _Handler | None] = {}

    @property
    def progress(self) -> int:
        """Engine steps so far in which requests ran."""
        return self._pulse.steps

    @property
    def dead(self) -> bool:
        """Whether EngineCore ended."""
        return self._llm is not None and self._llm.errored

    async def load(self) -> ModelFacts:
        """Start EngineCore and the serving classes on the running loop; takes a minute or more."""
        arguments = engine_arguments(self._spec)
        engine = arguments.engine
        with_statistics = not engine.disable_log_stats
        engine.disable_log_stats = True  # the pulse is the only logger that is added
        with sharing.turn_on_device(self._spec):
            sharing.limit_memory(self._spec, engine)
            config = engine.create_engine_config(OFFLINE)
            grouped = let_begin_in_groups(config)
            llm = AsyncLLM.from_vllm_config(
                config,
                usage_context=OFFLINE,
                stat_loggers=[self._pulse.logger] if with_statistics else None,
                disable_log_stats=True,
                enable_log_requests=False,
            )
        if not with_statistics:
            self._pulse.watch(cast(Core, llm.engine_core))
        self._llm = llm
        if not render_on_loop(llm.renderer):
            log.info("prompts are rendered in a thread")
        tasks = await llm.get_supported_tasks()
        fields = vars(BaseFrontendArgs(**arguments.frontend)) | vars(engine)
        names = engine.served_model_name
        fields["served_model_name"] = [names] if isinstance(names, str) else names
        fields["structured_outputs_config"] = config.structured_outputs_config
        state = State()
        await init_app_state(llm, state, Namespace(**fields), tasks)
        chat = getattr(state, "openai_serving_chat", None)
        completion = getattr(state, "openai_serving_completion", None)
        self._handlers = {
            CHAT: chat.create_chat_completion if chat is not None else None,
            COMPLETIONS: completion.create_completion if completion is not None else None,
            EMBEDDINGS: getattr(state, "serving_embedding", None),
        }
        model = config.model_config
        commit = getattr(model.hf_config, "_commit_hash", None) or self._spec.revision
        sequences = config.scheduler_config.max_num_seqs
        garbage.look_seldom()
        return ModelFacts(model.max_model_len, vllm.__version__, commit, sequences, grouped)

    async def answer(self, url: str, body: dict[str, Any], request_id: str) -> Answer:
        """Answer one request through vLLM's serving class for ``url``; see the protocol."""
        handler = self._handlers.get(url)
        if handler is None:
            return _refusal(f"The model does not support {url}.")
        try:
            request = _PARSERS[url].validate_python(body)
        except (ValidationError, ValueError) as error:
            return _refusal(_validation_message(error))
        if getattr(request, "stream", False):
            return _refusal("Streaming is not possible in a batch.")
        request.request_id = request_id
        if faults().is_poison(body):
            _poison_engine_core()
        try:
            response = await handler(request)
        except EngineDeadError as error:
            raise BackendDead("EngineCore ended") from error
        except Exception as error:
            response = create_error_response(error)
        task = asyncio.current_task()
        if task is not None and task.cancelling() > 0:
            # The chat class answers a cancellation with an error response of its own.
            raise asyncio.CancelledError
        return self._judge(response)

    async def decoding(self) -> set[str]:
        """Requests that vLLM's output processor has seen a token of."""
        if self._llm is None:
            return set()
        states = self._llm.output_processor.request_states.values()
        return {_own_id(state.external_req_id) for state in states if not state.is_prefilling}

    async def probe(self, request_id: str) -> None:
        """One token, or one embedding of a pooling model."""
        if self._handlers.get(COMPLETIONS) is not None:
            body: dict[str, Any] = {"prompt": [1], "max_tokens": 1, "ignore_eos": True}
            answer = await self.answer(COMPLETIONS, body, request_id)
        else:
            answer = await self.answer(EMBEDDINGS, {"input": [1]}, request_id)
        if answer.failed:
            raise BackendTrouble(f"the probe was refused with status {answer.status_code}")

    def shutdown(self) -> None:
        """End EngineCore and its workers."""
        if self._llm is not None:
            self._llm.shutdown(timeout=5.0)

    def _judge(self, response: Any) -> Answer:
        """Tell a final answer from trouble. Raises BackendDead, BackendTrouble or ServerError."""
        if isinstance(response, ErrorResponse):
            status = response.error.code
            if self.dead:
                raise BackendDead("EngineCore ended")
            # 501 says that vLLM cannot do what the body asks for: no other attempt could.
            answer = Answer(status, response.model_dump(mode="json"), 0, 0)
            if status < 500 or status == HTTPStatus.NOT_IMPLEMENTED:
                return answer
            raise ServerError(answer, f"vLLM answered {status} {response.error.type}")
        if isinstance(response, BaseModel):
            body = response.model_dump(mode="json")
        elif isinstance(response, Response) and response.media_type == "application/json":
            body = cast("dict[str, Any]", json.loads(bytes(response.body)))
        else:
            return _refusal("Only JSON answers can be recorded.")
        choices = cast("list[dict[str, Any]]", body.get("choices") or [])
        if any(choice.get("finish_reason") == "abort" for choice in choices):
            raise BackendTrouble("the engine aborted the request")
        usage = cast("dict[str, Any]", body.get("usage") or {})
        return Answer(
            200, body, usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        )


def _own_id(external: str) -> str:
    """The request id as it was given: vLLM's chat and completion classes put it into theirs."""
    if external.startswith("cmpl-"):
        return external.removeprefix("cmpl-").rpartition("-")[0]
    return external.removeprefix("chatcmpl-")


def _poison_engine_core() -> None:
    """Do to EngineCore, in a test, what a request does that crashes or hangs it."""
    for child in multiprocessing.active_children():
        if "EngineCore" in child.name and child.pid is not None:
            os.kill(child.pid, signal.SIGSTOP if faults().poison_hangs else signal.SIGKILL)


def _refusal(message: str) -> Answer:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return Answer(400, {"error": error}, 0, 0)


def _validation_message(error: Exception) -> str:
    """What is wrong with a body, without the values that pydantic would quote."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}" for p in problems[:5])
