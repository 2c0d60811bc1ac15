"""The plan of a run as it lies in the store: written once, never changed."""

import hashlib
import json
import socket
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import ModelSpec, PlanSummary, RunSpec
from rankflow.store.base import MissingKey, Store
from rankflow.store.json_text import as_json
from rankflow.store.layout import plan_key, rank_table_key, requests_key

PLAN_VERSION = 1


class RankEntry(BaseModel):
    """One rank: consecutive rows in input order, and the table that cuts them into batches."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    first_row: int = Field(ge=0)
    rows: int = Field(ge=0)
    batches: int = Field(ge=0)
    table_sha256: str


class PlanDocument(BaseModel):
    """``plan.json``. The token names the folder that holds the requests and the rank tables."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    version: int
    token: str
    spec: RunSpec
    spec_hash: str = Field(description="Hex sha256 of the model spec")
    requests_sha256: str
    summary: PlanSummary
    ranks: list[RankEntry]


@dataclass(frozen=True)
class BatchSlice:
    """Where the rows of one batch are: a byte range of the requests."""

    rank: int
    batch: int
    offset: int
    length: int
    first_row: int
    rows: int
    tokens: int
    """Prompt tokens plus the most output tokens, summed over the rows."""

    @property
    def row_range(self) -> range:
        """Row numbers of the batch."""
        return range(self.first_row, self.first_row + self.rows)


class RowHead(msgspec.Struct, frozen=True):
    """What is known of a planned row without its request's body."""

    custom_id: str
    error: dict[str, Any] | None = None
    """Of a row that is invalid: {"code", "message", "line"}."""


T = TypeVar("T")
_requests = msgspec.json.Decoder(dict[str, Any])
_heads = msgspec.json.Decoder(RowHead)


def _decode_lines(decoder: msgspec.json.Decoder[T], data: bytes) -> list[T]:
    try:
        return decoder.decode_lines(data)
    except msgspec.MsgspecError:
        return [decoder.decode(as_json(line)) for line in data.splitlines()]


class Plan:
    """A plan with its tables, read when first asked for and checked against their sha256."""

    def __init__(self, store: Store, document: PlanDocument) -> None:
        self.store = store
        self.document = document
        self._tables: dict[int, list[BatchSlice]] = {}

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.document.spec.run_id

    @property
    def spec(self) -> RunSpec:
        """What the run was planned for."""
        return self.document.spec

    @property
    def model(self) -> ModelSpec:
        """The model the run was planned for."""
        return self.document.spec.model

    @property
    def spec_hash(self) -> str:
        """Hex sha256 of the model spec, for an engine to assert."""
        return self.document.spec_hash

    @property
    def summary(self) -> PlanSummary:
        """The plan in numbers, as of planning (``finished`` is always false here)."""
        return self.document.summary

    @property
    def ranks(self) -> list[RankEntry]:
        """All ranks, in order; a rank may be empty."""
        return self.document.ranks

    @cached_property
    def requests_key(self) -> str:
        """Store key of the normalised requests."""
        return requests_key(self.run_id, self.document.token)

    def batches(self, rank: int) -> list[BatchSlice]:
        """All batches of a rank, in order. Raises PLAN_CORRUPT."""
        if rank not in self._tables:
            self._tables[rank] = self._read_table(rank)
        return self._tables[rank]

    def batch(self, rank: int, batch: int) -> BatchSlice:
        """One batch. Raises PLAN_CORRUPT when the plan has no such batch."""
        table = self.batches(rank)
        if not 0 <= batch < len(table):
            raise RankflowError(
                ErrorType.PLAN_CORRUPT, f"the plan of {self.run_id} has no batch {rank}-{batch}"
            )
        return table[batch]

    def read_requests(self, part: BatchSlice) -> list[dict[str, Any]]:
        """The requests of a batch, in row order: OpenAI Batch lines or ``{"custom_id", "error"}``.

        Raises PLAN_CORRUPT when the stored lines are not as many as planned or are not JSON.
        """
        return self._read(part, _requests)

    def read_heads(self, part: BatchSlice) -> list["RowHead"]:
        """The rows of a batch, in order, without their requests. Raises PLAN_CORRUPT."""
        return self._read(part, _heads)

    def _read(self, part: BatchSlice, decoder: msgspec.json.Decoder[T]) -> list[T]:
        data = self.store.read_range(self.requests_key, part.offset, part.length)
        try:
            lines = _decode_lines(decoder, data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._corrupt(part) from error
        if len(lines) != part.rows or not data.endswith(b"\n"):
            raise self._corrupt(part)
        return lines

    def _corrupt(self, part: BatchSlice) -> RankflowError:
        return RankflowError(
            ErrorType.PLAN_CORRUPT,
            f"{self.requests_key} does not hold the {part.rows} planned rows of batch "
            f"{part.rank}-{part.batch}",
        )

    def _read_table(self, rank: int) -> list[BatchSlice]:
        if not 0 <= rank < len(self.ranks):
            raise RankflowError(
                ErrorType.PLAN_CORRUPT, f"the plan of {self.run_id} has no rank {rank}"
            )
        key = rank_table_key(self.run_id, self.document.token, rank)
        data = self.store.read(key)
        if hashlib.sha256(data).hexdigest() != self.ranks[rank].table_sha256:
            raise RankflowError(
                ErrorType.PLAN_CORRUPT, f"{key} was changed since the plan was made"
            )
        entries = cast("list[list[int]]", json.loads(data))
        return [BatchSlice(rank, number, *entry) for number, entry in enumerate(entries)]


def find_plan(store: Store, run_id: str) -> Plan | None:
    """The plan of a run, or None when it has none. Raises PLAN_CORRUPT."""
    try:
        data = store.read(plan_key(run_id))
    except MissingKey:
        return None
    return _parse(store, run_id, data)


def load_plan(store: Store, run_id: str) -> Plan:
    """The plan of a run that has one. Raises PLAN_CORRUPT.

    Raises STORE_NOT_SHARED when it is not there: batches come after it, so this host sees another
    store, or it was deleted.

    Plans never change, so one that was read keeps its tables; but a run whose folder was deleted
    may be planned anew under its id, so the small document is read each time.
    """
    plan = find_plan(store, run_id)
    if plan is None:
        raise RankflowError(
            ErrorType.STORE_NOT_SHARED,
            f"{socket.gethostname()} finds no plan of run {run_id} in the store {store.root}",
        )
    return plan


@lru_cache(maxsize=64)
def _parse(store: Store, run_id: str, data: bytes) -> Plan:
    key = plan_key(run_id)
    try:
        document = PlanDocument.model_validate_json(data)
    except ValidationError as error:
        raise RankflowError(ErrorType.PLAN_CORRUPT, f"{key} is not a plan") from error
    if document.version != PLAN_VERSION:
        raise RankflowError(
            ErrorType.PLAN_CORRUPT,
            f"{key} has version {document.version}, this Rankflow reads {PLAN_VERSION}",
        )
    return Plan(store, document)
