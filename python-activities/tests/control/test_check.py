"""A model spec is checked by vLLM before anything is started, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    CheckEngineArgumentsInput,
    CheckEngineArgumentsResult,
    ModelSpec,
)
from rankflow.control.process import run_child
from tests.engine.models import smollm


async def check(spec: ModelSpec) -> CheckEngineArgumentsResult:
    """Run the child as the worker does."""
    beats: list[None] = []
    return await run_child(
        ["rankflow.control", "check-engine-args"],
        CheckEngineArgumentsInput(model=spec),
        CheckEngineArgumentsResult,
        otherwise=ErrorType.ENGINE_ARGUMENTS_INVALID,
        beat=lambda: beats.append(None),
    )


@pytest.mark.vllm
async def test_a_good_spec_tells_context_length_and_architecture() -> None:
    result = await check(ModelSpec(model=str(smollm()), max_model_len=512))
    assert (result.max_model_len, result.architecture) == (512, "LlamaForCausalLM")


@pytest.mark.vllm
async def test_all_wrong_arguments_are_named_at_once() -> None:
    extra: dict[str, Any] = {"gpu_memory": 0.5, "max_model_len": 3, "data_parallel_size": 2}
    extra |= {"kv_cache_dtype": "int1", "block_size": 0, "max_num_batched_tokens": "many"}
    spec = ModelSpec(
        model=str(smollm()), engine_args=extra, tool_call_parser="nope", reasoning_parser="nada"
    )
    with pytest.raises(RankflowError) as caught:
        await check(spec)
    assert caught.value.kind == ErrorType.ENGINE_ARGUMENTS_INVALID
    lines = str(caught.value).split("\n")
    assert lines[0] == "8 engine arguments are wrong:"
    for line, part in zip(
        lines[1:],
        (
            ", gpu_memory_utilization",
            "max_model_len: it has an option of its own, --max-model-len",
            "data_parallel_size: Rankflow runs",
            "--tool-call-parser: vLLM has no 'nope'; it has ",
            "--reasoning-parser: vLLM has no 'nada'; it has ",
            "kv_cache_dtype: Input should be 'auto', ",
            "block_size: Input should be greater than 0",
            "max_num_batched_tokens: Input should be a valid integer",
        ),
        strict=True,
    ):
        assert part in line


@pytest.mark.vllm
async def test_what_only_the_whole_configuration_tells_names_the_model() -> None:
    with pytest.raises(RankflowError, match=r"SmolLM2.*max_model_len \(99999999\) is greater"):
        await check(ModelSpec(model=str(smollm()), max_model_len=99_999_999))


@pytest.mark.vllm
async def test_values_that_vllm_takes_are_not_refused() -> None:
    extra: dict[str, Any] = {
        "seed": 3,
        "kv_cache_dtype": "auto",
        "max_num_batched_tokens": 4096,
        "enable_prefix_caching": False,
        "hf_overrides": {"rope_theta": 20000},
        "structured_outputs_config": {"backend": "xgrammar"},
    }
    result = await check(ModelSpec(model=str(smollm()), max_model_len=512, engine_args=extra))
    assert result.max_model_len == 512


@pytest.mark.vllm
async def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RankflowError) as caught:
        await check(ModelSpec(model=str(tmp_path / "absent")))
    assert caught.value.kind == ErrorType.ENGINE_ARGUMENTS_INVALID
    assert "absent" in str(caught.value)


async def test_a_simulated_spec_is_checked_without_vllm() -> None:
    good = ModelSpec(model="any", backend="simulated", engine_args={"tokens_per_second": 5})
    assert (await check(good)).architecture == "simulated"
    bad = ModelSpec(model="any", backend="simulated", engine_args={"speed": 5})
    with pytest.raises(RankflowError, match="--engine-arg speed"):
        await check(bad)


async def test_a_child_that_breaks_says_so_with_its_last_words() -> None:
    with pytest.raises(RankflowError, match="No module named") as caught:
        await run_child(
            ["rankflow.no_such_module"],
            CheckEngineArgumentsInput(model=ModelSpec(model="m")),
            CheckEngineArgumentsResult,
            otherwise=ErrorType.CLUSTER_UNAVAILABLE,
            beat=lambda: None,
        )
    assert caught.value.kind == ErrorType.CLUSTER_UNAVAILABLE
