"""From a model spec to vLLM's own argument classes; all problems of a spec are found at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from vllm.config import ModelConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import BaseFrontendArgs
from vllm.platforms import current_platform
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.usage.usage_lib import UsageContext

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import ModelSpec
from rankflow.engine.argument_values import wrong_values

_OWNED = {
    "model": "--model",
    "revision": "--revision",
    "tokenizer": "--tokenizer",
    "dtype": "--dtype",
    "max_model_len": "--max-model-len",
    "tensor_parallel_size": "--tensor-parallel-size",
    "pipeline_parallel_size": "--pipeline-parallel-size",
    "max_num_seqs": "--max-num-seqs",
    "download_dir": "--cache-dir",
    "reasoning_parser": "--reasoning-parser",
    "tool_call_parser": "--tool-call-parser",
    "hf_token": "--hf-token-env or --hf-token-file",
}
"""vLLM arguments that have a field of their own in the spec, by the option that sets it."""

_REFUSED = {
    "data_parallel_size": "Rankflow runs data-parallel ranks itself: use --engines",
    "distributed_executor_backend": "chosen by Rankflow from the parallel sizes and the platform",
    "enable_log_requests": "prompts must not reach the logs",
    "enable_log_outputs": "answers must not reach the logs",
}


OFFLINE = UsageContext.LLM_CLASS
"""How vLLM is told that nobody waits for a first token: it then decodes up to four times as many
sequences at once by default. Without a context it takes the values of its smallest machines."""


@dataclass(frozen=True)
class EngineArguments:
    """What one engine is started with."""

    engine: AsyncEngineArgs
    frontend: dict[str, Any]
    """Fields of vLLM's BaseFrontendArgs: chat template, parsers, names."""


def _names(spec: ModelSpec) -> list[str]:
    """Model names that request bodies may use; the first one is what answers carry."""
    short = Path(spec.model).name
    local = Path(spec.model).is_absolute()
    names = [short, spec.model] if local else [spec.model, short]
    return list(dict.fromkeys(names))


def invalid(problems: list[str]) -> RankflowError:
    """ENGINE_ARGUMENTS_INVALID with every problem on a line of its own."""
    message = problems[0]
    if len(problems) > 1:
        message = "\n  ".join([f"{len(problems)} engine arguments are wrong:", *problems])
    return RankflowError(ErrorType.ENGINE_ARGUMENTS_INVALID, message)


def _check_names(spec: ModelSpec, extra: dict[str, Any], known: set[str]) -> list[str]:
    problems: list[str] = []
    for name in extra:
        if name in _OWNED:
            problems.append(f"--engine-arg {name}: it has an option of its own, {_OWNED[name]}")
        elif name in _REFUSED:
            problems.append(f"--engine-arg {name}: {_REFUSED[name]}")
        elif name not in known:
            near = ", ".join(get_close_matches(name, known - _REFUSED.keys(), 2))
            problems.append(
                f"--engine-arg {name}: vLLM has no such argument"
                + (f"; it has {near}" if near else "")
            )
    parsers = (
        ("--tool-call-parser", spec.tool_call_parser, ToolParserManager),
        ("--reasoning-parser", spec.reasoning_parser, ReasoningParserManager),
    )
    for option, name, manager in parsers:
        if name is not None and name not in manager.list_registered():
            has = ", ".join(sorted(manager.list_registered()))
            problems.append(f"{option}: vLLM has no {name!r}; it has {has}")
    return problems


def describe(error: Exception) -> str:
    """What is wrong, a line for each field: pydantic's errors are pages with links."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False):
        field = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{field}: {message}" if field else message)
    return "\n  ".join(lines)


def model_config(spec: ModelSpec, arguments: AsyncEngineArgs) -> ModelConfig:
    """What vLLM reads of the model itself. Raises ENGINE_ARGUMENTS_INVALID."""
    try:
        return arguments.create_model_config()
    except Exception as error:
        raise invalid([f"{spec.model}: {describe(error)}"]) from error


def same_platform(spec: ModelSpec) -> bool:
    """Whether this process sees the kind of device that the spec's engines use."""
    return current_platform.is_cpu() == (spec.gpus_per_engine == 0)


def bfloat16_is_slow() -> bool:
    """Whether this processor computes in float32 several times as fast as in bfloat16.

    Without AVX-512 each product is converted forth and back: 23 tokens/s against 98 were measured.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX2"


def engine_arguments(spec: ModelSpec) -> EngineArguments:
    """Build vLLM's arguments. Raises ENGINE_ARGUMENTS_INVALID listing every wrong one."""
    extra = {name.replace("-", "_"): value for name, value in spec.engine_args.items()}
    engine_fields = {f.name for f in dataclasses.fields(AsyncEngineArgs) if f.init}
    frontend_fields = set(vars(BaseFrontendArgs()))
    problems = _check_names(spec, extra, engine_fields | frontend_fields)
    free = {n: v for n, v in extra.items() if n not in _OWNED and n not in _REFUSED}
    problems += wrong_values(free)
    if problems:
        raise invalid(problems)
    values: dict[str, Any] = {
        "model": spec.model,
        "dtype": spec.dtype,
        "tensor_parallel_size": spec.tensor_parallel_size,
        "pipeline_parallel_size": spec.pipeline_parallel_size,
        "served_model_name": _names(spec),
        "revision": spec.revision,
        "tokenizer": spec.tokenizer,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "download_dir": spec.cache_dir,
        "reasoning_parser": spec.reasoning_parser,
    }
    values = {name: value for name, value in values.items() if value is not None}
    if current_platform.is_cpu():
        # vLLM's Ray executor refuses the CPU; compiling takes minutes there and gains little.
        values |= {"distributed_executor_backend": "mp", "enforce_eager": True}
        if spec.dtype == "auto" and bfloat16_is_slow():
            values["dtype"] = "float32"
    elif spec.tensor_parallel_size * spec.pipeline_parallel_size > 1:
        # Workers go into the actor's placement group, so that an engine may span nodes.
        values["distributed_executor_backend"] = "ray"
    values |= {name: value for name, value in extra.items() if name in engine_fields}
    frontend = {name: value for name, value in extra.items() if name in frontend_fields}
    frontend["tool_call_parser"] = spec.tool_call_parser
    frontend["enable_auto_tool_choice"] = spec.tool_call_parser is not None
    try:
        return EngineArguments(AsyncEngineArgs(**values), frontend)
    except Exception as error:
        raise invalid([f"{spec.model}: {describe(error)}"]) from error
