"""Finds out which host reaches which on which port.

Piped to a host's Python: ``python - listen REQUEST < reach.py`` and, while that runs on every host,
``python - connect REQUEST < reach.py``. A listener greets with a nonce of its host, so that one is
told from whatever else has its address or port; then it sends more than fits into one packet, which
a path with a too small MTU swallows.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

NONCE_BYTES = 32
"""A nonce is so many characters (ASCII)."""
PADDING = b"." * 65_536
AT_ONCE = 64
"""Connections that one host tries at the same time."""

UNROUTABLE = {
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL),
    # What Linux says of routes of type `blackhole` and `prohibit`, and of a packet filter's rule.
    *(errno.EINVAL, errno.EACCES, errno.EPERM),
}
PATIENT = {errno.ETIMEDOUT, errno.EAGAIN}


def family_of(address: str) -> socket.AddressFamily:
    """IPv6 when it is written as such."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bind(address: str, port: int) -> socket.socket:
    """A listening socket. Raises OSError; the address is one of this host's interfaces or fails."""
    server = socket.socket(family_of(address))
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(128)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server


def open_ports(request: dict[str, Any]) -> tuple[list[socket.socket], list[dict[str, Any]]]:
    """Bind what is asked for.

    Returns the sockets, and for each asked port ``{"port", "bound"}``, or ``{"port", "problem"}``:
    ``taken`` by another program, ``not-here`` where no interface has the address, else ``denied``.
    """
    servers: list[socket.socket] = []
    told: list[dict[str, Any]] = []
    problems = {errno.EADDRINUSE: "taken", errno.EADDRNOTAVAIL: "not-here"}
    for port in request["ports"]:
        try:
            server = bind(request["address"], port)
        except OSError as error:
            problem = problems.get(error.errno or 0, "denied")
            told.append({"port": port, "problem": problem})
        else:
            servers.append(server)
            told.append({"port": port, "bound": server.getsockname()[1]})
    return servers, told


def greet(client: socket.socket, nonce: str) -> None:
    """Say who this is. A peer that goes away is its own business."""
    with client:
        client.settimeout(2)
        try:
            client.sendall(nonce.encode())
            client.sendall(PADDING)
        except OSError:
            return


def listen(request: dict[str, Any]) -> None:
    """Print which ports are open, then greet everybody for ``seconds``, or while somebody reads."""
    servers, told = open_ports(request)
    print(json.dumps({"listening": told}), flush=True)
    deadline = time.monotonic() + request["seconds"]
    poll = select.poll()
    for server in servers:
        poll.register(server, select.POLLIN)
    # Whoever asked has gone when nobody reads this any more: over ssh nothing else tells.
    poll.register(1, select.POLLERR | select.POLLHUP)
    by_number = {server.fileno(): server for server in servers}
    with ThreadPoolExecutor(AT_ONCE) as greeters:
        while time.monotonic() < deadline:
            for number, _ in poll.poll(500):
                server = by_number.get(number)
                if server is None:
                    return
                try:
                    client, _ = server.accept()
                except OSError:
                    continue
                greeters.submit(greet, client, request["nonce"])


def read(client: socket.socket, size: int, deadline: float) -> bytes:
    """Up to ``size`` bytes, fewer when the peer closes. Raises ``socket.timeout``."""
    data = b""
    while len(data) < size:
        client.settimeout(max(0.01, deadline - time.monotonic()))
        piece = client.recv(size - len(data))
        if not piece:
            break
        data += piece
    return data


def outcome_of(error: OSError) -> str:
    """What an error of connecting means."""
    if isinstance(error, socket.gaierror):
        return "unresolved"
    if isinstance(error, socket.timeout) or error.errno in PATIENT:
        return "timed-out"
    if error.errno == errno.ECONNREFUSED:
        return "refused"
    return "unroutable" if error.errno in UNROUTABLE else "failed"


def connect(target: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Try one target: ``host``, ``port`` and, where a listener greets, its ``nonce``.

    Returns ``outcome`` (``reached``, ``refused``, ``timed-out``, ``unroutable``, ``unresolved``,
    ``wrong-answer``, ``stalled``, ``failed``) and ``milliseconds`` until it was connected.
    """
    started = time.monotonic()
    deadline = started + seconds
    nonce = target.get("nonce")
    try:
        client = socket.create_connection((target["host"], target["port"]), timeout=seconds)
    except OSError as error:
        return {"outcome": outcome_of(error), "detail": error.strerror or str(error)}
    took = {"milliseconds": round((time.monotonic() - started) * 1000, 2)}
    with client:
        if nonce is None:
            return dict(took, outcome="reached")
        try:
            if read(client, len(nonce), deadline) != nonce.encode():
                return dict(took, outcome="wrong-answer")
        except OSError:
            return dict(took, outcome="wrong-answer")
        try:
            whole = len(read(client, len(PADDING), deadline)) == len(PADDING)
        except OSError:
            whole = False
        return dict(took, outcome="reached" if whole else "stalled")


def connect_all(request: dict[str, Any]) -> None:
    """Try all targets, and print the outcomes in their order."""
    targets: list[dict[str, Any]] = request["targets"]
    seconds: list[float] = [request["seconds"]] * len(targets)
    with ThreadPoolExecutor(AT_ONCE) as tries:
        outcomes = list(tries.map(connect, targets, seconds))
    print(json.dumps({"outcomes": outcomes}), flush=True)


if __name__ == "__main__":
    {"listen": listen, "connect": connect_all}[sys.argv[1]](json.loads(sys.argv[2]))
