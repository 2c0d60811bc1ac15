"""One address at which a process answers Prometheus, with all that it counts.

Metrics are no reason for anything else to fail: a port that is taken, a name service that hangs or
a mistake in the settings costs the metrics and a line in the log.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

from prometheus_client import REGISTRY, disable_created_metrics, start_http_server

from rankflow.metrics.temporal import use_runtime_with_metrics

log = logging.getLogger(__name__)

WORKER_ADDRESS = "RANKFLOW_METRICS_ADDRESS"
"""``HOST:PORT`` of a worker's metrics; ``off`` for none."""
ENGINE_PORTS = "RANKFLOW_ENGINE_METRICS_PORTS"
"""Ports of the engines of a node, ``9500-9599``; any free one by default; ``off`` for none."""
OFF = "off"


class MetricsEndpoint:
    """Serves the metrics of this process from threads of its own, once it was started."""

    def __init__(self) -> None:
        self.address: str | None = None
        """``host:port`` where it answers; None until it does."""

    def start(self, host: str, ports: Sequence[int]) -> None:
        """Begin, and return at once: at the first of these ports that is free; 0 is any.

        Call it before the first Temporal client, whose metrics would be missing otherwise.
        """
        # When each series began is of no use with a scraper, and doubles what it reads.
        disable_created_metrics()
        temporal = use_runtime_with_metrics()
        if temporal is not None:
            REGISTRY.register(temporal)
        # The server looks up the name of its host, which may take long.
        threading.Thread(
            target=self._serve, args=(host, ports), name="metrics", daemon=True
        ).start()

    def _serve(self, host: str, ports: Sequence[int]) -> None:
        for port in ports:
            try:
                server, _ = start_http_server(port, host, REGISTRY)
            except OSError as error:
                log.info("no metrics at %s port %d: %s", host, port, error)
                continue
            name = f"[{host}]" if ":" in host else host
            self.address = f"{name}:{server.server_port}"
            log.info("metrics at http://%s/metrics", self.address)
            return
        log.warning("no port is free for metrics: this process serves none")


def engine_endpoint(host: str) -> MetricsEndpoint:
    """The endpoint of an engine; ``host`` is its node's address. Never raises."""
    endpoint = MetricsEndpoint()
    setting = os.environ.get(ENGINE_PORTS, "")
    try:
        if setting != OFF:
            endpoint.start(host, ports_of(setting))
    except Exception as error:
        log.warning("this engine serves no metrics: %s", error)
    return endpoint


def worker_endpoint(default: str) -> MetricsEndpoint:
    """The endpoint of a worker, at ``default`` unless the environment says otherwise.

    A taken port is replaced by any other. Never raises.
    """
    endpoint = MetricsEndpoint()
    setting = os.environ.get(WORKER_ADDRESS) or default
    try:
        if setting != OFF:
            host, _, port = setting.rpartition(":")
            endpoint.start(host.strip("[]") or "127.0.0.1", [int(port), 0])
    except Exception as error:
        log.warning("%s=%s: this worker serves no metrics: %s", WORKER_ADDRESS, setting, error)
    return endpoint


def ports_of(setting: str) -> Sequence[int]:
    """The ports of ``9500``, ``9500-9599`` or nothing. Raises ValueError for anything else."""
    if not setting:
        return [0]
    first, _, last = setting.partition("-")
    return range(int(first), int(last or first) + 1)
