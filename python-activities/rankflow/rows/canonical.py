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


PLACEMENT_FIELDS = frozenset({"cpus_per_engine", "gpus_per_engine"})
"""What one engine takes of its node: it changes no answer, so it is no part of an identity."""


def spec_hash(model: ModelSpec) -> str:
    """Hex sha256 of what a spec serves: names the fleet's queue and is asserted by every batch."""
    left_out = {"engine_args", *PLACEMENT_FIELDS}
    fields = model.model_dump(by_alias=True, exclude_none=True, exclude=left_out)
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
