"""The manifest of a finished run: the only pointer to its results that readers trust."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import FinalizeRunResult
from rankflow.store import MissingKey, Store
from rankflow.store.layout import errors_key, manifest_key, output_key

Outcome = Literal["completed", "cancelled", "expired"]


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ResultFile(_Part):
    """One assembled file."""

    path: str = Field(description="Store key")
    sha256: str
    size: int = Field(ge=0, description="Bytes")
    rows: int = Field(ge=0)


class RankResult(_Part):
    """Where the rows of one rank are: rows of the input, and byte ranges of the two files."""

    rank: int
    first_row: int
    rows: int
    output_offset: int
    output_length: int
    errors_offset: int
    errors_length: int


class Manifest(_Part):
    """``manifest.json``, written once, after the files that it names."""

    version: int
    run_id: str
    state: Outcome
    rows: int
    succeeded: int
    failed: int
    missing: int = Field(description="Rows that were never generated; counted in failed")
    prompt_tokens: int
    completion_tokens: int
    model: str
    model_revisions: list[str]
    spec_hash: str = Field(description="Hex sha256 of the model spec")
    run_spec_hash: str = Field(description="Hex sha256 of the whole run spec")
    input_sha256: str
    output: ResultFile
    errors: ResultFile
    ranks: list[RankResult]


def read_manifest(store: Store, run_id: str) -> Manifest | None:
    """The manifest of a run, or None while it is not finished. Raises PLAN_CORRUPT."""
    key = manifest_key(run_id)
    try:
        return Manifest.model_validate_json(store.read(key))
    except MissingKey:
        return None
    except ValidationError as error:
        raise RankflowError(ErrorType.PLAN_CORRUPT, f"{key} is not a manifest") from error


def as_result(store: Store, manifest: Manifest) -> FinalizeRunResult:
    """What ``finalizeRun`` reports of a manifest."""
    return FinalizeRunResult(
        rows=manifest.rows,
        succeeded=manifest.succeeded,
        failed=manifest.failed,
        prompt_tokens=manifest.prompt_tokens,
        completion_tokens=manifest.completion_tokens,
        output_uri=store.uri(output_key(manifest.run_id)),
        errors_uri=store.uri(errors_key(manifest.run_id)),
        manifest_uri=store.uri(manifest_key(manifest.run_id)),
    )
