"""Checks values of vLLM's engine arguments one by one, so that all wrong ones are told at once."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_origin

import vllm.config
from pydantic import TypeAdapter, ValidationError
from vllm.engine.arg_utils import AsyncEngineArgs

_PLAIN: set[Any] = {int, float, bool, str, type(None)}


def wrong_values(extra: dict[str, Any]) -> list[str]:
    """One problem for each argument whose value vLLM's configuration classes refuse.

    Only numbers, flags, texts and choices are looked at: what is made of other parts is checked
    when vLLM builds the whole configuration.
    """
    problems: list[str] = []
    for name, value in extra.items():
        reasons = [_reason(annotation, value) for annotation in _annotations(name)]
        # Several classes may have a field of this name: one of them is the argument's.
        if reasons and None not in reasons:
            problems.append(f"--engine-arg {name}: {reasons[0]}")
    return problems


def _annotations(name: str) -> list[Any]:
    """Types that an argument may have, with their bounds; none when one of them is not plain."""
    own = [f.type for f in dataclasses.fields(AsyncEngineArgs) if f.name == name]
    found: list[Any] = []
    for config in vars(vllm.config).values():
        fields: dict[str, Any] = getattr(config, "__pydantic_fields__", {})
        if isinstance(config, type) and name in fields:
            field = fields[name]
            own.append(field.annotation)
            bounds = tuple(field.metadata)
            found.append(Annotated[field.annotation, *bounds] if bounds else field.annotation)
    return found if all(_is_plain(annotation) for annotation in own) else []


def _is_plain(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return True
    members = get_args(annotation)
    return annotation in _PLAIN if not members else all(_is_plain(member) for member in members)


def _reason(annotation: Any, value: Any) -> str | None:
    """Why a value is refused. None, an argument's usual default, is always left to vLLM."""
    if value is None:
        return None
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)[0]["msg"]
    return None
