"""A real S3 server (moto's) behind a proxy that does what networks and busy servers do.

``python -m tests.bucket_server BUCKET [ADDRESS]`` serves one bucket, on the loopback or another
address, prints the settings of its clients as JSON, and ends with its standard input.
"""

from __future__ import annotations

import http.client
import json
import logging
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from moto.server import ThreadedMotoServer

Kind = Literal["lose", "lose-answer", "status", "delay", "delay-answer", "cut", "unconditional"]
"""``lose``: the request never arrives; ``lose-answer``: it is carried out and nobody is told;
``status``: refused; ``delay``, ``delay-answer``: slow, before or after it is carried out; ``cut``:
the connection ends in the middle of the answer's body; ``unconditional``: its condition is
ignored."""


@dataclass
class Fault:
    """What happens to the next requests of a kind; ``times`` counts down."""

    kind: Kind
    method: str = "PUT"
    path: str = ""
    """Part of the path that the request must have."""
    times: int = 1
    status: int = 503
    code: str = "SlowDown"
    seconds: float = 0.0


@dataclass
class Proxy:
    """Forwards requests to the server; ``faults`` say which ones fare badly."""

    upstream: tuple[str, int]
    faults: list[Fault] = field(default_factory=list[Fault])
    requests: list[tuple[str, str, dict[str, str]]] = field(
        default_factory=list[tuple[str, str, dict[str, str]]]
    )
    """Method, path and headers (lower case) of every request, in the order of arrival."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    conditional: threading.Lock = field(default_factory=threading.Lock)
    """moto looks and puts in two steps, a real bucket in one: conditional puts queue here."""

    def take(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        """Note a request; returns the fault that it meets."""
        with self.lock:
            self.requests.append((method, path, headers))
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, path: str) -> int:
        """Requests so far whose path has this part."""
        with self.lock:
            return sum(m == method and path in p for m, p, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.proxy.take(self.command, self.path, headers)
        kind = fault.kind if fault is not None else None
        if fault is not None and kind == "lose":
            self.close_connection = True
        elif fault is not None and kind == "status":
            text = f"<Error><Code>{fault.code}</Code><Message>as told</Message></Error>"
            self._answer(fault.status, {"content-type": "application/xml"}, text.encode())
        else:
            if fault is not None and kind == "delay":
                time.sleep(fault.seconds)
            if kind == "unconditional":
                headers.pop("if-none-match", None)
            status, answer, data = self._forward(body, headers)
            if fault is not None and kind == "delay-answer":
                time.sleep(fault.seconds)
            if kind == "lose-answer":
                self.close_connection = True
            elif kind == "cut":
                self._answer(status, answer, data, cut=len(data) // 2)
            else:
                self._answer(status, answer, data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _forward(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        guard = self.proxy.conditional if "if-none-match" in headers else threading.Lock()
        try:
            with guard:
                upstream.request(self.command, self.path, body, headers | {"connection": "close"})
                response = upstream.getresponse()
                return response.status, dict(response.getheaders()), response.read()
        finally:
            upstream.close()

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        # The answer to HEAD tells the size of what it does not send.
        told = {k.lower(): v for k, v in headers.items()}.get("content-length", "0")
        self.send_header("content-length", told if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            # Who asked may have given up by now.
            with suppress(ConnectionError):
                self.wfile.write(data[:cut])
        self.close_connection |= cut is not None

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what failed shows in the test."""


@dataclass(frozen=True)
class BucketServer:
    """A running server; ``proxy`` is how faults are set."""

    endpoint: str
    proxy: Proxy

    @property
    def config(self) -> dict[str, str]:
        """Options of ``obstore``'s S3 store, named as in the environment but for ``AWS_``."""
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
        }

    @property
    def environment(self) -> dict[str, str]:
        """What a user would set."""
        settings = {f"AWS_{name.upper()}": value for name, value in self.config.items()}
        return settings | {"AWS_ALLOW_HTTP": "true"}

    def make_bucket(self, name: str) -> None:
        """Create an empty bucket, past the proxy."""
        connection = http.client.HTTPConnection(*self.proxy.upstream, timeout=30)
        connection.request("PUT", f"/{name}", headers={"host": "localhost"})
        assert connection.getresponse().status == 200
        connection.close()


@contextmanager
def bucket_server(address: str = "127.0.0.1") -> Generator[BucketServer]:
    """Start moto's server on the loopback, and the proxy on this address; on free ports."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        proxy = Proxy(moto.get_host_and_port())
        handler = type("Handler", (_Handler,), {"proxy": proxy})
        server = ThreadingHTTPServer((address, 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield BucketServer(f"http://{address}:{server.server_port}", proxy)
        finally:
            server.shutdown()
            server.server_close()
    finally:
        moto.stop()


if __name__ == "__main__":
    with bucket_server(*sys.argv[2:]) as running:
        running.make_bucket(sys.argv[1])
        print(json.dumps(running.environment), flush=True)
        sys.stdin.read()
