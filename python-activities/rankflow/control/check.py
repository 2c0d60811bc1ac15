"""Checks a model spec before anything is started. Runs in a process of its own: it imports vLLM."""

from __future__ import annotations

from pydantic import ValidationError

from rankflow import garbage
from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import (
    CheckEngineArgumentsInput,
    CheckEngineArgumentsResult,
    ModelSpec,
)


def check(given: CheckEngineArgumentsInput) -> CheckEngineArgumentsResult:
    """Have vLLM read the model's configuration with these arguments, as an engine would.

    Raises ENGINE_ARGUMENTS_INVALID (not retryable) with all problems that are found.
    """
    spec = given.model
    return _simulated(spec) if spec.backend == "simulated" else _vllm(spec)


def _invalid(problem: str) -> RankflowError:
    return RankflowError(ErrorType.ENGINE_ARGUMENTS_INVALID, problem)


def _simulated(spec: ModelSpec) -> CheckEngineArgumentsResult:
    from rankflow.engine.simulated import SimulatedBackend

    try:
        backend = SimulatedBackend(spec)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        reasons = [f"--engine-arg {'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems]
        raise _invalid("\n  ".join(reasons)) from error
    return CheckEngineArgumentsResult(max_model_len=backend.max_model_len, architecture="simulated")


def _vllm(spec: ModelSpec) -> CheckEngineArgumentsResult:
    from rankflow.engine.environment import check_model_folder, prepare_environment

    try:
        check_model_folder(spec)
        # Planning needs the model's tokenizer here too, so credentials must be here as well.
        prepare_environment(spec, slot=0)
    except RankflowError as error:
        raise _invalid(str(error)) from error
    # Imports vLLM: many seconds, and only after the environment is set.
    with garbage.put_off():
        from rankflow.engine.arguments import (
            OFFLINE,
            describe,
            engine_arguments,
            model_config,
            same_platform,
        )

    arguments = engine_arguments(spec).engine
    config = model_config(spec, arguments)
    # The whole configuration can be built only where the engine's kind of device is.
    if same_platform(spec):
        try:
            arguments.create_engine_config(OFFLINE)
        except Exception as error:
            raise _invalid(f"{spec.model}: {describe(error)}") from error
    architectures = config.architectures
    return CheckEngineArgumentsResult(
        max_model_len=config.max_model_len,
        architecture=architectures[0] if architectures else "unknown",
    )
