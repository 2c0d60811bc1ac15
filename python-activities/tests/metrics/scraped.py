"""``python -m tests.metrics.scraped``: an engine's endpoint as Prometheus reads it."""

from __future__ import annotations

import asyncio
import http.client

from temporalio.runtime import Runtime

from rankflow.engine import counts
from rankflow.metrics.endpoint import MetricsEndpoint, engine_endpoint


async def address_of(endpoint: MetricsEndpoint) -> str:
    """Where it answers, as soon as it does."""
    for _ in range(200):
        if endpoint.address is not None:
            return endpoint.address
        await asyncio.sleep(0.05)
    raise AssertionError("the endpoint never answered")


def scrape(address: str) -> str:
    """What Prometheus would read."""
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    return answer.read().decode()


def main() -> None:
    """Have an engine and the Temporal SDK count something, and print all that is served."""
    address = asyncio.run(address_of(engine_endpoint("127.0.0.1")))
    counts.RETRIES.inc()
    Runtime.default().metric_meter.create_counter("rankflow_test", "A count.").add(3)
    print(scrape(address))


if __name__ == "__main__":
    main()
