"""What Prometheus gets from a Python process, and that nothing waits for it or fails with it."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rankflow.metrics.endpoint import (
    ENGINE_PORTS,
    WORKER_ADDRESS,
    engine_endpoint,
    ports_of,
    worker_endpoint,
)
from tests.metrics.scraped import address_of, scrape


def test_one_address_serves_what_rankflow_and_the_temporal_sdk_count() -> None:
    # A process of its own: the SDK's runtime of this one is in use already.
    text = subprocess.run(
        [sys.executable, "-m", "tests.metrics.scraped"], capture_output=True, check=True, text=True
    ).stdout
    counted = {family.name: family for family in text_string_to_metric_families(text)}
    assert [sample.value for sample in counted["rankflow_test"].samples] == [3.0]
    assert [sample.value for sample in counted["rankflow_batch_retries"].samples] == [1.0]
    assert counted["process_cpu_seconds"].samples
    assert "_created" not in text


async def test_engines_of_one_host_never_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENGINE_PORTS, raising=False)
    first, second = engine_endpoint("127.0.0.1"), engine_endpoint("127.0.0.1")
    assert await address_of(first) != await address_of(second)


async def test_ports_that_are_taken_cost_the_metrics_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(ENGINE_PORTS, str(taken.getsockname()[1]))
        endpoint = engine_endpoint("127.0.0.1")
        for _ in range(100):
            if "no port is free" in caplog.text:
                break
            await asyncio.sleep(0.05)
        assert "no port is free" in caplog.text
        assert endpoint.address is None


async def test_a_worker_takes_another_port_when_its_own_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asked = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(WORKER_ADDRESS, asked)
        address = await address_of(worker_endpoint("127.0.0.1:1"))
        assert address != asked
        assert "process_cpu_seconds_total" in await asyncio.to_thread(scrape, address)


@pytest.mark.parametrize("setting", ["off", "nonsense", "127.0.0.1:http"])
async def test_settings_turn_it_off_and_mistakes_end_no_worker(
    setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv(WORKER_ADDRESS, setting)
    assert worker_endpoint("127.0.0.1:0").address is None
    assert (setting in caplog.text) == (setting != "off")


def test_ports_are_one_a_range_or_any() -> None:
    assert list(ports_of("")) == [0]
    assert list(ports_of("9500")) == [9500]
    assert list(ports_of("9500-9502")) == [9500, 9501, 9502]
    with pytest.raises(ValueError, match="invalid literal"):
        ports_of("any")
