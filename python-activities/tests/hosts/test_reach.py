"""Who reaches whom, on real sockets: each way in which a connection can fail is told apart."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.hosts.piped import FOLDER, command, piped

NONCE = "0123456789abcdef"


@contextmanager
def listener(
    address: str, *ports: int, seconds: float = 30
) -> Generator[tuple[subprocess.Popen[bytes], list[dict[str, Any]]]]:
    """A listening host, and what it says of its ports."""
    request = {"address": address, "ports": ports, "nonce": NONCE, "seconds": seconds}
    with (FOLDER / "reach.py").open("rb") as script:
        child = subprocess.Popen(
            command("listen", json.dumps(request)), stdin=script, stdout=subprocess.PIPE
        )
    assert child.stdout is not None
    try:
        yield child, json.loads(child.stdout.readline())["listening"]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def tries(*targets: tuple[str, int, str | None], seconds: float = 3) -> list[dict[str, Any]]:
    """Outcomes of connecting."""
    wanted = [{"host": host, "port": port, "nonce": nonce} for host, port, nonce in targets]
    (answer,) = piped("reach", "connect", json.dumps({"targets": wanted, "seconds": seconds}))
    return answer["outcomes"]


@contextmanager
def server(greeting: bytes | None) -> Generator[int]:
    """Something else that listens: it sends a greeting and keeps the connection; None: nothing."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    kept.append(client)
                    client.sendall(greeting or b"")

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for client in kept:
        client.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.4", 0))
        yield bound.getsockname()[1]


def test_hosts_that_listen_are_reached_with_their_latency() -> None:
    with listener("127.0.0.2", 0, 0) as (_, two), listener("127.0.0.3", 0) as (_, three):
        ports = [("127.0.0.2", one["bound"], NONCE) for one in two]
        outcomes = tries(*ports, ("127.0.0.3", three[0]["bound"], NONCE))
    assert [one["outcome"] for one in outcomes] == ["reached"] * 3
    assert all(0 < one["milliseconds"] < 3000 for one in outcomes)


def test_each_way_to_fail_is_told_apart(closed_port: int) -> None:
    with (
        listener("127.0.0.2", 0) as (_, told),
        server(b"SSH-2.0-another program") as other,
        server(None) as silent,
        server(NONCE.encode() + b"." * 100) as small,
    ):
        outcomes = tries(
            ("127.0.0.4", closed_port, NONCE),
            ("127.0.0.2", told[0]["bound"], NONCE[::-1]),
            ("127.0.0.1", other, NONCE),
            ("127.0.0.1", silent, NONCE),
            ("127.0.0.1", small, NONCE),
            ("127.0.0.1", other, None),
            ("no-such-host.invalid", 1, NONCE),
        )
    assert [one["outcome"] for one in outcomes] == [
        *("refused", "wrong-answer", "wrong-answer", "wrong-answer", "stalled", "reached"),
        "unresolved",
    ]


def test_packets_that_are_swallowed_are_a_time_out() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        # Linux drops connections to a socket whose queue is full, as a firewall would.
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        (outcome,) = tries(("127.0.0.1", full.getsockname()[1], NONCE), seconds=1)
    assert outcome["outcome"] == "timed-out"


def test_ports_that_cannot_be_opened_are_told_with_the_reason() -> None:
    with socket.create_server(("127.0.0.5", 0)) as taken:
        port = taken.getsockname()[1]
        with listener("127.0.0.5", port, 0) as (_, told):
            assert told[0] == {"port": port, "problem": "taken"}
            assert told[1]["bound"] > 0
    # An address of the documentation: no interface has it.
    with listener("192.0.2.77", 0) as (_, told):
        assert told == [{"port": 0, "problem": "not-here"}]


def test_a_listener_goes_when_nobody_reads_it_any_more() -> None:
    with listener("127.0.0.2", 0, seconds=300) as (child, _):
        assert child.stdout is not None
        child.stdout.close()
        assert child.wait(timeout=5) == 0


def test_a_listener_goes_after_its_time() -> None:
    started = time.monotonic()
    with listener("127.0.0.2", 0, seconds=1) as (child, _):
        assert child.wait(timeout=10) == 0
    assert time.monotonic() - started > 1
