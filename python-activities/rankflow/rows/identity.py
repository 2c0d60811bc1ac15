"""Whether a run asked for again is the run that was planned."""

import json
from typing import Any, cast

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import RunSpec
from rankflow.rows.canonical import PLACEMENT_FIELDS, canonical_json
from rankflow.rows.plan import Plan
from rankflow.rows.source import open_input

_SHOWN_CHARACTERS = 80
_SECRET_FIELDS = ("input.template",)
"""Fields that are part of a prompt: that they differ is said, what they are is not."""


def check_same_run(plan: Plan, spec: RunSpec) -> None:
    """Raise RUN_MISMATCH, naming every field that differs, unless the spec is the plan's.

    An input that is gone by now is no mismatch as long as it is asked for at the same address: the
    plan holds all requests.
    """
    old, new = _identity(plan.spec), _identity(spec)
    differences = [
        _difference(field, old.get(field), new.get(field))
        for field in sorted(old.keys() | new.keys())
        if canonical_json(old.get(field)) != canonical_json(new.get(field))
    ]
    now = _input_sha256(plan, spec)
    if now is not None and now != plan.summary.input_sha256:
        differences.insert(
            0, f"input content (sha256): {plan.summary.input_sha256[:12]}… → {now[:12]}…"
        )
    if differences:
        raise RankflowError(
            ErrorType.RUN_MISMATCH,
            f"the run {spec.run_id} was planned with other parameters: {'; '.join(differences)}",
            {"differences": differences},
        )


def _identity(spec: RunSpec) -> dict[str, Any]:
    """Everything that decides the answers, flat: ``model.dtype``, ``sampling.temperature``, …"""
    fields = spec.model_dump(
        by_alias=True,
        exclude_none=True,
        exclude={
            "run_id": True,
            "store": True,
            "input": {"uri"},
            "model": set(PLACEMENT_FIELDS),
        },
    )
    return dict(_flat("", fields))


def _flat(prefix: str, value: dict[str, Any]) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat += _flat(f"{prefix}{key}.", cast("dict[str, Any]", inner))
        elif inner != {}:
            flat.append((f"{prefix}{key}", inner))
    return flat


def _difference(field: str, old: Any, new: Any) -> str:
    if field in _SECRET_FIELDS:
        return f"{field} differs"
    return f"{field}: {_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _input_sha256(plan: Plan, spec: RunSpec) -> str | None:
    try:
        with open_input(spec.input.uri) as source:
            return source.sha256
    except RankflowError:
        if spec.input.uri == plan.spec.input.uri:
            return None
        raise
