"""What an engine counts for Prometheus, beside what vLLM and Temporal's SDK count themselves.

No label names a run, a batch or a row: there would be no end of them. Which engine it is, and of
which fleet, is known from the address that is asked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from prometheus_client import Counter, Gauge, Histogram
from temporalio import activity

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import GenerateBatchResult
from rankflow.engine.backend import Answer

ROWS = Counter("rankflow_rows", "Rows that the engine answered, by what they got.", ["state"])
TOKENS = Counter("rankflow_tokens", "Tokens of the rows that were answered.", ["kind"])
SALVAGED_ROWS = Counter(
    "rankflow_salvaged_rows", "Rows that were taken over from earlier attempts, not generated."
)
REDONE_ROWS = Counter(
    "rankflow_redone_rows",
    "Rows answered that an earlier attempt had given to an engine and not finished.",
)
REDONE_TOKENS = Counter(
    "rankflow_redone_tokens",
    "Completion tokens of redone rows: at most so many were generated twice.",
)
GIVEN_BACK_ROWS = Counter(
    "rankflow_given_back_rows",
    "Rows that an engine gave back when it left, before and after their first token.",
    ["phase"],
)
ATTEMPTS = Counter("rankflow_batch_attempts", "Attempts of batches that ended.", ["result"])
RETRIES = Counter("rankflow_batch_retries", "Attempts that began and were not a batch's first.")
SECONDS = Histogram(
    "rankflow_batch_duration_seconds",
    "Time of an attempt that committed its batch.",
    # From the smallest batches of a fast engine to the long answers of a large model.
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600),
)
BATCHES = Gauge("rankflow_batches_in_work", "Batches that the engine works on.")
LOAD_SECONDS = Gauge("rankflow_engine_load_seconds", "How long the model took to load.")

# What has not happened yet is 0 and not absent, so that its rate is right from the first time.
_ANSWERED, _FAILED = ROWS.labels("answered"), ROWS.labels("failed")
_PROMPT, _COMPLETION = TOKENS.labels("prompt"), TOKENS.labels("completion")
for _phase in ("waiting", "decoding"):
    GIVEN_BACK_ROWS.labels(_phase)
for _result in ("committed", "already_committed", ErrorType.ENGINE_GONE, ErrorType.LEASE_LOST):
    ATTEMPTS.labels(_result)


def count_row(answer: Answer, *, begun_before: bool) -> None:
    """A row has its final answer; ``begun_before``: an earlier attempt had it in work."""
    (_FAILED if answer.failed else _ANSWERED).inc()
    _PROMPT.inc(answer.prompt_tokens)
    _COMPLETION.inc(answer.completion_tokens)
    if begun_before:
        REDONE_ROWS.inc()
        REDONE_TOKENS.inc(answer.completion_tokens)


def count_given_back(waiting: int, cut: int) -> None:
    """An engine that leaves gave rows back: without a token yet, and in decode."""
    GIVEN_BACK_ROWS.labels("waiting").inc(waiting)
    GIVEN_BACK_ROWS.labels("decoding").inc(cut)


@contextlib.contextmanager
def counted_attempt() -> Generator[list[GenerateBatchResult]]:
    """Count an attempt of a batch by how it ends; append its result to what is yielded."""
    started = time.monotonic()
    if activity.info().attempt > 1:
        RETRIES.inc()
    results: list[GenerateBatchResult] = []
    outcome = "other"
    try:
        yield results
        outcome = "already_committed"
        if results and not results[0].already_committed:
            outcome = "committed"
            SALVAGED_ROWS.inc(results[0].salvaged_rows)
            SECONDS.observe(time.monotonic() - started)
    except RankflowError as error:
        outcome = error.kind.value
        raise
    finally:
        ATTEMPTS.labels(outcome).inc()
