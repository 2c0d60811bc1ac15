"""JSON text and hashes that are equal in both languages; the twin of ``src/contracts/hash.ts``."""

import hashlib
import json
from typing import Any, cast

from rankflow.contracts.models import ModelSpec


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and JavaScript's numbers (1.0 is ``1``): equal values, equal text."""
    return json.dumps(
        _as_javascript(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def spec_hash(model: ModelSpec) -> str:
    """Hex sha256 of a model spec: names the fleet's queue and is asserted by every batch."""
    fields = model.model_dump(by_alias=True, exclude_none=True, exclude={"engine_args"})
    fields["engineArgs"] = model.engine_args
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def _as_javascript(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _as_javascript(inner) for key, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_as_javascript(inner) for inner in cast("list[Any]", value)]
    return value
