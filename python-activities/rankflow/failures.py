"""Errors on their way out of an activity."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rankflow.contracts.errors import RankflowError


@contextmanager
def activity_errors() -> Generator[None]:
    """Turn an error of the closed set into Temporal's, so that its type and retryability travel."""
    try:
        yield
    except RankflowError as error:
        raise error.as_application_error() from error
