"""The closed set of error types; the twin of ``src/contracts/errors.ts``.

They travel as the ``type`` of a Temporal ``ApplicationError``. Messages and details never carry a
prompt, an answer or a secret.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Any

from temporalio.exceptions import ApplicationError


class ErrorType(StrEnum):
    """Name of an error as workflows and users see it."""

    INVALID_REQUEST = "InvalidRequest"
    INVALID_INPUT = "InvalidInput"
    RUN_MISMATCH = "RunMismatch"
    CLUSTER_MISMATCH = "ClusterMismatch"
    IMPOSSIBLE_RESOURCES = "ImpossibleResources"
    ENGINE_ARGUMENTS_INVALID = "EngineArgumentsInvalid"
    ENGINE_LOAD_FAILED = "EngineLoadFailed"
    MODEL_MISMATCH = "ModelMismatch"
    PLAN_CORRUPT = "PlanCorrupt"
    NO_RESULTS = "NoResults"
    UNSUPPORTED_INPUT = "UnsupportedInput"
    INPUT_MISSING = "InputMissing"
    CLUSTER_MISSING = "ClusterMissing"
    KEY_MISMATCH = "KeyMismatch"
    PATH_REFUSED = "PathRefused"
    ENGINE_GONE = "EngineGone"
    LEASE_LOST = "LeaseLost"
    SUSPECT_BATCH = "SuspectBatch"
    TOO_MANY_ENGINE_DEATHS = "TooManyEngineDeaths"
    STORE_UNAVAILABLE = "StoreUnavailable"
    STORE_FULL = "StoreFull"
    UNSUPPORTED_STORE = "UnsupportedStore"
    STORE_NOT_SHARED = "StoreNotShared"
    CLUSTER_UNAVAILABLE = "ClusterUnavailable"
    JOB_FAILED = "JobFailed"
    JOB_LOST = "JobLost"
    JOB_TIMED_OUT = "JobTimedOut"
    JOB_REFUSED = "JobRefused"
    CLUSTER_START_FAILED = "ClusterStartFailed"
    HOST_UNREACHABLE = "HostUnreachable"
    HOST_TIMED_OUT = "HostTimedOut"
    HOST_KEY_REFUSED = "HostKeyRefused"
    HOST_ACCESS_DENIED = "HostAccessDenied"
    HOST_REFUSED = "HostRefused"


RETRYABLE: frozenset[ErrorType] = frozenset(
    {
        ErrorType.INPUT_MISSING,
        ErrorType.CLUSTER_MISSING,
        ErrorType.ENGINE_GONE,
        ErrorType.LEASE_LOST,
        ErrorType.STORE_UNAVAILABLE,
        ErrorType.CLUSTER_UNAVAILABLE,
        ErrorType.HOST_UNREACHABLE,
        ErrorType.HOST_TIMED_OUT,
    }
)


_AT_ONCE = timedelta(milliseconds=1)
"""The SDK takes a delay of zero for none given."""


class RankflowError(Exception):
    """An error of the closed set, raised anywhere below an activity.

    ``details`` are JSON values for the user interface, e.g. ``{"problems": [...], "total": 3}``.
    ``retry_at_once`` says that waiting would not help: the next attempt runs elsewhere.
    """

    def __init__(
        self,
        kind: ErrorType,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_at_once: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details
        self.retry_at_once = retry_at_once

    def as_application_error(self, retryable: bool | None = None) -> ApplicationError:
        """The same error as Temporal carries it, retryable or not: as its kind is, unless told."""
        details = [] if self.details is None else [self.details]
        again = self.kind in RETRYABLE if retryable is None else retryable
        return ApplicationError(
            str(self),
            *details,
            type=self.kind.value,
            non_retryable=not again,
            next_retry_delay=_AT_ONCE if self.retry_at_once else None,
        )
