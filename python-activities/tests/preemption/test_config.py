"""A node is watched through what its environment says, and asks no cloud that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rankflow.preemption import config
from rankflow.preemption.config import sources_of
from tests.preemption.clouds import AwsService, AzureService, GcpService
from tests.preemption.metadata import Answerer, Metadata, metadata_server

LOOPBACK, OUTSIDE = "127.0.0.3", "10.0.0.3"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """The one address where all clouds would answer; the real one is out of reach."""
    with metadata_server() as served:
        monkeypatch.setattr(config, "LINK_LOCAL", served.address)
        yield served


def kinds(environment: dict[str, str], address: str = OUTSIDE) -> list[str]:
    """Kinds of the sources."""
    return [source.kind for source in sources_of(environment, address)]


@pytest.mark.parametrize(
    ("service", "found"), [(AwsService(), "aws"), (GcpService(), "gcp"), (AzureService(), "azure")]
)
def test_by_default_the_cloud_that_answers_is_watched(
    server: Metadata, service: Answerer, found: str
) -> None:
    server.answer = service
    assert kinds({}) == [found]


def test_where_no_cloud_answers_none_is_asked_again(server: Metadata) -> None:
    assert kinds({}) == []


def test_nothing_is_asked_on_the_loopback_or_when_it_is_off(server: Metadata) -> None:
    assert kinds({}, LOOPBACK) == []
    assert kinds({"RANKFLOW_PREEMPTION": "off"}) == []
    assert server.questions == []


def test_clouds_by_name_are_watched_without_being_asked_first(server: Metadata) -> None:
    assert kinds({"RANKFLOW_PREEMPTION": "aws, gcp"}, LOOPBACK) == ["aws", "gcp"]
    assert kinds({"RANKFLOW_PREEMPTION": "azure,mars"}) == ["azure"]
    assert server.questions == []


def test_hooks_are_watched_whatever_the_cloud(server: Metadata) -> None:
    hooks = {"RANKFLOW_PREEMPTION_FILE": "/run/preempted", "RANKFLOW_PREEMPTION_URL": "http://x"}
    assert kinds({"RANKFLOW_PREEMPTION": "off"} | hooks) == ["file", "url"]


def test_services_are_where_the_environment_says(server: Metadata) -> None:
    server.answer = GcpService()
    host = server.address.removeprefix("http://")
    assert kinds({"RANKFLOW_PREEMPTION": "auto", "GCE_METADATA_HOST": host}, LOOPBACK) == ["gcp"]
    server.answer = AwsService()
    elsewhere = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{server.address}/"}
    assert kinds({"RANKFLOW_PREEMPTION": "auto"} | elsewhere) == ["aws"]
    server.answer = AzureService()
    elsewhere = {"RANKFLOW_AZURE_METADATA_ENDPOINT": server.address}
    assert kinds({"RANKFLOW_PREEMPTION": "auto"} | elsewhere) == ["azure"]
