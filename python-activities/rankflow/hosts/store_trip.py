"""Whether hosts share a store: each writes a token, and each reads those of all the others.

``python -m rankflow.hosts.store_trip`` reads one JSON object from standard input: ``action``
(``write``, ``read`` or ``remove``), ``store``, ``trip`` (its name), ``host`` (who is asked),
``hosts`` (all of them), and ``environment`` (variables with the store's settings and credentials,
which belong into no command line). It prints one JSON object.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rankflow.contracts.errors import RankflowError
from rankflow.store import MissingKey, Store, open_store
from rankflow.store.local import LocalStore

LAG_SECONDS = 5.0
"""Network file systems show what another host wrote late: NFS caches folders for seconds."""
PAUSE_SECONDS = 0.25


def key_of(trip: str, host: str) -> str:
    """One file for each host, directly in the store: nothing else is left to be removed."""
    return f"trip-{trip}-{host}"


def token_of(trip: str, host: str) -> bytes:
    """What a host writes: others can tell whose it is."""
    return f"{trip} {host}\n".encode()


def write(store: Store, trip: str, host: str) -> dict[str, Any]:
    """Write this host's token. A folder that is missing is not made: it may be a mount."""
    if isinstance(store, LocalStore) and not Path(store.folder).is_dir():
        return {"written": False, "missing": True, "problem": f"there is no folder {store.folder}"}
    store.create(key_of(trip, host), token_of(trip, host))
    return {"written": True}


def read(store: Store, trip: str, hosts: list[str]) -> dict[str, Any]:
    """Read the tokens of ``hosts``; returns for each whether it was the right one."""
    deadline = time.monotonic() + LAG_SECONDS
    found = {host: False for host in hosts}
    while True:
        for host in [host for host, there in found.items() if not there]:
            try:
                found[host] = store.read(key_of(trip, host)) == token_of(trip, host)
            except MissingKey:
                continue
        if all(found.values()) or time.monotonic() > deadline:
            return {"found": found}
        time.sleep(PAUSE_SECONDS)


def remove(store: Store, trip: str, host: str) -> dict[str, Any]:
    """Remove this host's token."""
    store.delete(key_of(trip, host))
    return {"removed": True}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; trouble with the store is part of the answer."""
    os.environ.update(request.get("environment", {}))
    action, trip, host = request["action"], request["trip"], request["host"]
    try:
        store = open_store(request["store"])
        if action == "write":
            return write(store, trip, host)
        if action == "read":
            return read(store, trip, request["hosts"])
        return remove(store, trip, host)
    except RankflowError as error:
        return {"problem": str(error)}


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
