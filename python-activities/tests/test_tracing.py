"""Traces go to a collector where one is named, for the activities of workflows that are traced."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from rankflow.tracing import ENDPOINTS, interceptors
from tests.temporal import temporal_server


@contextmanager
def collector() -> Generator[tuple[str, list[Span]]]:
    """A collector on the loopback: its address, and the spans that it got."""
    spans: list[Span] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", spans
        server.shutdown()


async def run_traced(endpoint: str) -> int:
    """Run ``tests.traced`` with this collector, on a Temporal server of its own."""
    async with temporal_server() as server:
        address = server.client.service_client.config.target_host
        environment = os.environ | {"TEMPORAL_ADDRESS": address, ENDPOINTS[0]: endpoint}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.traced", env=environment
        )
        return await process.wait()


async def test_an_activity_is_traced_when_its_workflow_is() -> None:
    with collector() as (endpoint, spans):
        assert await run_traced(endpoint) == 0
    started = [span for span in spans if span.name == "StartWorkflow:Asking"]
    ran = [span for span in spans if span.name == "RunActivity:answer"]
    assert len(started) == len(ran) == 1
    assert ran[0].trace_id == started[0].trace_id


async def test_a_collector_that_is_away_costs_the_traces_only() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert await run_traced(f"http://127.0.0.1:{nobody.getsockname()[1]}") == 0


def test_without_a_collector_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    interceptors.cache_clear()
    assert interceptors() == ()
    interceptors.cache_clear()
