"""A store is shared when every host finds there what every other wrote, and only then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.control import shared_store
from rankflow.control.shared_store import PLANNER, Ask, travel, users_of_the_store
from rankflow.hosts import store_trip


@pytest.fixture(autouse=True)
def no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here shows up late."""
    monkeypatch.setattr(store_trip, "LAG_SECONDS", 0.1)
    monkeypatch.setattr(store_trip, "PAUSE_SECONDS", 0.02)


def hosts(**folders: Path) -> Ask:
    """Hosts that see these folders under the store's path."""

    def ask(request: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {
            host: store_trip.run({**request, "host": host, "store": str(folder)})
            for host, folder in folders.items()
        }

    return ask


def refusal(store: Path, ask: Ask) -> RankflowError:
    """What a trip of these hosts fails with; the store is as this host sees it."""
    with pytest.raises(RankflowError) as caught:
        travel(str(store), ask)
    return caught.value


def test_a_folder_that_all_hosts_see_is_shared_and_left_empty(tmp_path: Path) -> None:
    assert set(travel(str(tmp_path), hosts(a=tmp_path, b=tmp_path))) == {"a", "b"}
    assert list(tmp_path.iterdir()) == []


def test_a_host_with_a_disk_of_its_own_is_named(tmp_path: Path) -> None:
    for name in ("shared", "own"):
        (tmp_path / name).mkdir()
    shared, own = tmp_path / "shared", tmp_path / "own"
    error = refusal(shared, hosts(a=shared, b=own, c=shared))
    assert error.kind == ErrorType.STORE_NOT_SHARED
    assert error.as_application_error().non_retryable
    assert "b: does not see what a, c wrote" in str(error)
    assert list(shared.iterdir()) == list(own.iterdir()) == []


def test_a_host_without_the_folder_is_named_and_it_is_not_made(tmp_path: Path) -> None:
    error = refusal(tmp_path, hosts(a=tmp_path, b=tmp_path / "unmounted"))
    assert error.kind == ErrorType.STORE_NOT_SHARED
    assert f"b: there is no folder {tmp_path / 'unmounted'}" in str(error)
    assert not (tmp_path / "unmounted").exists()


def test_other_trouble_may_pass(tmp_path: Path) -> None:
    whole = hosts(a=tmp_path, b=tmp_path)

    def ask(request: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {**whole(request), "b": {"problem": "the bucket answers 503"}}

    error = refusal(tmp_path, ask)
    assert error.kind == ErrorType.STORE_UNAVAILABLE
    assert "b: the bucket answers 503" in str(error)
    assert not error.as_application_error().non_retryable


def test_a_host_that_is_lost_on_the_way_is_not_accused_and_leaves_nothing(tmp_path: Path) -> None:
    whole, left = hosts(a=tmp_path, b=tmp_path), hosts(a=tmp_path)

    def ask(request: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return (whole if request["action"] == "write" else left)(request)

    assert set(travel(str(tmp_path), ask)) == {"a"}
    assert list(tmp_path.iterdir()) == []


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    """A node as ``ray.nodes()`` has it."""
    return {"NodeID": f"{name}-id", "NodeName": name, "Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("needed", "asked"),
    [
        ({}, {"head", "small", "w", "g"}),
        ({"CPU": 2.0, "GPU": 0.0}, {"w", "g"}),
        ({"CPU": 2.0, "GPU": 0.5}, {"g"}),
    ],
)
def test_only_nodes_with_room_for_an_engine_are_asked(
    needed: dict[str, float], asked: set[str]
) -> None:
    nodes = [
        node("head"),
        node("small", CPU=1.0),
        node("w", CPU=4.0),
        node("g", CPU=4.0, GPU=1.0),
        node("dead", alive=False, CPU=4.0, GPU=1.0),
    ]
    assert set(users_of_the_store(nodes, needed).values()) == asked


def test_nodes_of_one_name_are_told_apart() -> None:
    nodes = [node("w") | {"NodeID": "a" * 56}, node("w") | {"NodeID": "b" * 56}, node("v")]
    assert set(users_of_the_store(nodes, {}).values()) == {"w-aaaaaaaa", "w-bbbbbbbb", "v"}


class RayOfTwo:
    """Ray with nodes of which one runs its tasks and one is lost."""

    def __init__(self, lost: str) -> None:
        self.lost = lost

    def remote(self, _function: Any) -> Any:
        """A function to be run."""
        return SimpleNamespace(options=self.options)

    def options(self, scheduling_strategy: Any, **_more: Any) -> Any:
        """The same on a node; without options of its own, as in Ray."""

        def remote(request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            return scheduling_strategy.node_id, request

        return SimpleNamespace(remote=remote)

    def wait(self, tasks: list[Any], **_options: Any) -> None:
        """They are there at once."""

    def get(self, task: tuple[str, dict[str, Any]], timeout: float) -> dict[str, Any]:
        """What a node says."""
        node, request = task
        if node == self.lost:
            raise GetTimeoutError(f"nothing within {timeout} s")
        return store_trip.run(request)


def test_a_node_that_cannot_be_asked_says_nothing_and_the_planner_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, lost = "a" * 56, "b" * 56
    monkeypatch.setattr(shared_store, "ray", RayOfTwo(lost))
    ask = shared_store._ask_nodes({there: "there", lost: "lost"})  # pyright: ignore[reportPrivateUsage]
    answers = ask({"action": "write", "store": str(tmp_path), "trip": "t"})
    assert answers == {PLANNER: {"written": True}, "there": {"written": True}}
