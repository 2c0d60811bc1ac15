"""OpenTelemetry's traces over Temporal's calls, where a collector is named.

The TypeScript side begins them; Temporal carries them to the activities in its headers.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

from temporalio.client import Interceptor
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables; without one of them there are no traces."""


@functools.cache
def interceptors() -> Sequence[Interceptor]:
    """What a client of Temporal needs so that it and its workers are traced; nothing by default.

    A collector that is away, or settings that are wrong, cost the traces only.
    """
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return ()
    try:
        return (_tracing(),)
    except Exception as error:
        log.warning("this process sends no traces: %s", error)
        return ()


def _tracing() -> Interceptor:
    # Loaded only where they are used: they take a second.
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from temporalio.contrib.opentelemetry import TracingInterceptor

    name = os.environ.get("OTEL_SERVICE_NAME", "rankflow-python")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    class OnlyTraced(TracingInterceptor):
        """Traces activities of workflows that are traced: fleets look at engines all the time."""

        def intercept_activity(
            self, next: ActivityInboundInterceptor
        ) -> ActivityInboundInterceptor:
            return _OnlyWithHeader(super().intercept_activity(next), next, self.header_key)

    return OnlyTraced()


class _OnlyWithHeader(ActivityInboundInterceptor):
    def __init__(
        self, traced: ActivityInboundInterceptor, plain: ActivityInboundInterceptor, header: str
    ) -> None:
        super().__init__(traced)
        self._plain = plain
        self._header = header

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        traced = self._header in input.headers
        return await (self.next if traced else self._plain).execute_activity(input)
