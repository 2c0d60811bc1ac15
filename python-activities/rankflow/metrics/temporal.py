"""The metrics of Temporal's SDK, brought to the address of the process that it works in.

The SDK's core serves them itself, and only where it is told to. So it is told a free port of the
loopback, and what it says there is read whenever somebody asks the process for its metrics.
"""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_TRIES = 5
"""Somebody else may take a port between the moment it is seen to be free and its use."""
_ANSWER_SECONDS = 2.0
"""The core answers from memory, in a millisecond."""


class TemporalMetrics(Collector):
    """What the SDK's core serves at a port of the loopback; nothing when it does not answer."""

    def __init__(self, port: int) -> None:
        self._port = port

    def collect(self) -> Iterable[Metric]:
        """The core's metrics as they are now."""
        connection = http.client.HTTPConnection(_LOOPBACK, self._port, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            return list(text_string_to_metric_families(text))
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.warning("no metrics of the Temporal SDK: %s", error)
            return []
        finally:
            connection.close()


def use_runtime_with_metrics() -> TemporalMetrics | None:
    """Make the SDK of this process count; before the first client. None when it cannot be had."""
    for _ in range(_TRIES):
        port = _free_port()
        serving = PrometheusConfig(
            bind_address=f"{_LOOPBACK}:{port}",
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
        )
        telemetry = TelemetryConfig(metrics=serving, attach_service_name=False)
        try:
            Runtime.set_default(Runtime(telemetry=telemetry))
        except ValueError as error:
            log.info("the Temporal SDK cannot serve metrics at port %d: %s", port, error)
        except RuntimeError as error:
            log.warning("the Temporal SDK is in use already, without metrics: %s", error)
            return None
        else:
            return TemporalMetrics(port)
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return probe.getsockname()[1]
