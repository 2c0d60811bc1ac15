"""Whether the nodes of a cluster share a store with this host, which plans into it.

Runs in a process of its own, as every Ray driver does.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import CheckStoreSharedInput, StoreSharedBy
from rankflow.control.deploy import connected, python_path
from rankflow.hosts import store_trip
from rankflow.store import Store, open_store
from rankflow.store.local import LocalStore

log = logging.getLogger(__name__)

PLANNER = "python-worker"
"""This host on the trip."""
ANSWER_SECONDS = 60.0
"""For a process of Ray to start on each node, and what network file systems take to catch up."""

Answers = Mapping[str, Mapping[str, Any]]
"""What each host says, by name; one that cannot be asked says nothing."""
Ask = Callable[[dict[str, Any]], Answers]
"""Gives every host the same request, to which each adds its name."""


def users_of_the_store(nodes: list[dict[str, Any]], needed: Mapping[str, float]) -> dict[str, str]:
    """Names by Ray's node id, of nodes that have room for what uses the store."""
    users = {
        str(node["NodeID"]): str(node.get("NodeName") or node["NodeManagerAddress"])
        for node in nodes
        if node["Alive"]
        and all(node["Resources"].get(resource, 0) >= much for resource, much in needed.items())
    }
    # Whoever names nodes may give two the same name.
    often = Counter(users.values())
    return {
        node: name if often[name] == 1 else f"{name}-{node[:8]}" for node, name in users.items()
    }


def travel(store: str, ask: Ask) -> Iterable[str]:
    """Have every host write and every host read; returns who did.

    Raises:
        RankflowError: STORE_NOT_SHARED when a host misses the folder or what others wrote;
            STORE_UNAVAILABLE for any other trouble, which may pass.
    """
    trip = {"store": store, "trip": secrets.token_hex(8)}
    wrote: Answers = {}
    try:
        wrote = ask({**trip, "action": "write"})
        writers = [host for host, answer in wrote.items() if answer.get("written")]
        read = ask({**trip, "action": "read", "hosts": writers}) if writers else {}
    finally:
        # Where it is shared this host sees what others wrote: nothing of lost ones stays.
        _forget(open_store(store), trip["trip"], wrote)
        ask({**trip, "action": "remove"})
    apart: dict[str, str] = {}
    trouble: dict[str, str] = {}
    for host, answer in wrote.items():
        problem = answer.get("problem") or read.get(host, {}).get("problem")
        found = cast("dict[str, bool]", read.get(host, {}).get("found", {}))
        unseen = [writer for writer, seen in found.items() if not seen]
        if problem:
            (apart if answer.get("missing") else trouble)[host] = str(problem)
        elif unseen:
            apart[host] = f"does not see what {', '.join(unseen)} wrote"
    if apart:
        raise _failure(ErrorType.STORE_NOT_SHARED, store, apart)
    if trouble:
        raise _failure(ErrorType.STORE_UNAVAILABLE, store, trouble)
    return read


def _forget(store: Store, trip: str, hosts: Iterable[str]) -> None:
    for host in hosts:
        with contextlib.suppress(RankflowError):
            store_trip.remove(store, trip, host)


def _failure(kind: ErrorType, store: str, by_host: dict[str, str]) -> RankflowError:
    each = "; ".join(f"{host}: {what}" for host, what in by_host.items())
    return RankflowError(kind, f"not all hosts share the store {store}: {each}")


def _ask_nodes(names: dict[str, str]) -> Ask:
    """Asks this host directly, and each node in a Ray task that is placed there."""
    task = ray.remote(store_trip.run)
    options: dict[str, Any] = {
        "num_cpus": 0,
        "max_retries": 0,
        "runtime_env": {"env_vars": {"PYTHONPATH": python_path()}},
    }

    def ask(request: dict[str, Any]) -> Answers:
        asked = {
            name: task.options(
                **options,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            ).remote({**request, "host": name})
            for node_id, name in names.items()
        }
        answers = {PLANNER: store_trip.run({**request, "host": PLANNER})}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS)
        for name, answer in asked.items():
            try:
                answers[name] = ray.get(answer, timeout=0)
            except RayError as error:
                # An engine could not run there either, and says why itself.
                last = str(error).strip().rpartition("\n")[2]
                log.warning("%s was not asked about the store: %s", name, last)
        return answers

    return ask


def _make_folder(store: str) -> None:
    """Planning makes it too; nodes never do, because there it may be a mount that is missing."""
    opened = open_store(store)
    if isinstance(opened, LocalStore):
        try:
            opened.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RankflowError(ErrorType.STORE_UNAVAILABLE, f"{store}: {error}") from error


def check(given: CheckStoreSharedInput) -> StoreSharedBy:
    """Look whether this host and all nodes that use it see one store.

    A node that cannot be asked says nothing.

    Raises:
        RankflowError: as `travel`; CLUSTER_UNAVAILABLE when Ray does not answer.
    """
    _make_folder(given.store)
    needed = {"CPU": given.cpus, "GPU": given.gpus}
    with connected(given.cluster):
        names = users_of_the_store(
            cast("list[dict[str, Any]]", ray.nodes()),
            {resource: much for resource, much in needed.items() if much is not None},
        )
        asked = travel(given.store, _ask_nodes(names)) if names else []
    return StoreSharedBy(nodes=sorted(set(asked) - {PLANNER}))
