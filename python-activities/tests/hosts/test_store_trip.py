"""Whether hosts share a store is found out by what they read, not by what it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankflow.hosts import store_trip
from rankflow.store import open_store


def ask(action: str, store: str, host: str = "a", **more: Any) -> dict[str, Any]:
    """Ask one host."""
    return store_trip.run({"action": action, "store": store, "trip": "t1", "host": host} | more)


@pytest.fixture(autouse=True)
def no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here shows up late."""
    monkeypatch.setattr(store_trip, "LAG_SECONDS", 0.1)
    monkeypatch.setattr(store_trip, "PAUSE_SECONDS", 0.02)


@pytest.fixture(params=["folder", "bucket"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that all hosts share."""
    return str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3")


def test_hosts_that_share_a_store_read_each_other_and_leave_nothing(shared: str) -> None:
    for host in ("a", "b"):
        assert ask("write", shared, host) == {"written": True}
    assert ask("read", shared, "b", hosts=["a", "b"]) == {"found": {"a": True, "b": True}}
    for host in ("a", "b"):
        assert ask("remove", shared, host) == {"removed": True}
    assert ask("read", shared, "b", hosts=["a"]) == {"found": {"a": False}}
    store = open_store(shared)
    assert not store.exists(store_trip.key_of("t1", "a"))


def test_folders_of_the_same_name_on_two_disks_are_no_shared_store(tmp_path: Path) -> None:
    for host in ("a", "b"):
        (tmp_path / host).mkdir()
        ask("write", str(tmp_path / host), host)
    found = ask("read", str(tmp_path / "b"), "b", hosts=["a", "b"])["found"]
    assert found == {"a": False, "b": True}


def test_a_folder_that_is_missing_is_told_and_not_made(tmp_path: Path) -> None:
    answer = ask("write", str(tmp_path / "not-mounted"))
    assert answer["missing"] and "not-mounted" in answer["problem"]
    assert not (tmp_path / "not-mounted").exists()


def test_a_bucket_that_is_not_there_is_part_of_the_answer(s3: str) -> None:
    answer = ask("write", s3.replace("bucket-", "other-"))
    assert "problem" in answer and "written" not in answer


def test_a_host_is_asked_over_standard_input(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {name: value for name, value in store_trip.os.environ.items() if "AWS_" in name}
    for name in settings:
        monkeypatch.delenv(name)
    request = {"action": "write", "store": s3, "trip": "t1", "host": "a", "environment": settings}
    done = subprocess.run(
        [sys.executable, "-m", "rankflow.hosts.store_trip"],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == {"written": True}
