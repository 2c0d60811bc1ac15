"""An engine that was frozen or cut off lets go of its batch."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.engine.lease import Contact, Lease
from rankflow.engine.supersede import AttemptName, superseded
from rankflow.store import open_store
from rankflow.store.layout import attempt_key, commit_key


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_frozen_engine_loses_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock(monkeypatch)
    lease = Lease(Contact(), 30)
    now[0] += 29
    lease.check()
    now[0] += 31
    with pytest.raises(RankflowError) as caught:
        lease.check()
    assert caught.value.kind == ErrorType.LEASE_LOST


def test_an_engine_cut_off_from_the_server_loses_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = clock(monkeypatch)
    lease = Lease(Contact(), 30)
    for _ in range(30):
        now[0] += 1
        lease.check()
    now[0] += 1
    with pytest.raises(RankflowError, match="has not answered"):
        lease.check()


def test_without_a_heartbeat_timeout_there_is_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock(monkeypatch)
    lease = Lease(Contact(), None)
    now[0] += 10_000
    lease.check()


def test_a_newer_attempt_takes_the_batch(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.append(attempt_key("r", 0, 0, "wf-7-3")).close()
    assert not superseded(store, "r", 0, 0, AttemptName("wf-7", 3))
    assert not superseded(store, "r", 0, 0, AttemptName("wf-8", 1))
    with pytest.raises(RankflowError) as caught:
        superseded(store, "r", 0, 0, AttemptName("wf-7", 2))
    assert caught.value.kind == ErrorType.LEASE_LOST


def test_a_commit_ends_the_attempt(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.create(commit_key("r", 0, 0), b"{}")
    assert superseded(store, "r", 0, 0, AttemptName("wf-7", 1))
