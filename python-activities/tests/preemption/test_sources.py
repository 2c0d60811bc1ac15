"""Each source tells a notice from none, and an answer from nonsense."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankflow.preemption.http import Trouble, ask
from rankflow.preemption.sources import Aws, Azure, File, Gcp, RayDrain, Source, Url
from tests.preemption.clouds import AwsService, AzureService, GcpService, iso
from tests.preemption.metadata import Metadata, Reply, metadata_server


@pytest.fixture
def server() -> Iterator[Metadata]:
    """A web server for one test."""
    with metadata_server() as served:
        yield served


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def left(source: Source) -> float:
    """Seconds of notice that the source gives."""
    notice = source.poll()
    assert notice is not None
    assert notice.source == source.kind
    return notice.deadline - time.time()


def test_aws_gives_the_time_of_the_action(server: Metadata) -> None:
    server.answer = service = AwsService()
    source = Aws(server.address)
    assert source.answers()
    assert source.poll() is None
    service.action = json.dumps({"action": "terminate", "time": iso(120)})
    assert left(source) == pytest.approx(120, abs=2)


def test_a_rebalance_recommendation_of_aws_is_never_asked_for(server: Metadata) -> None:
    server.answer = AwsService()
    assert Aws(server.address).poll() is None
    assert not [asked for asked in server.questions if "rebalance" in asked.path]


def test_aws_is_asked_with_a_new_token_when_the_old_one_is_refused(server: Metadata) -> None:
    server.answer = service = AwsService()
    source = Aws(server.address)
    assert source.poll() is None
    service.token = "another"
    service.action = json.dumps({"action": "stop", "time": iso(100)})
    assert left(source) == pytest.approx(100, abs=2)


@pytest.mark.parametrize(
    "action",
    [
        "<html>a proxy's page</html>",
        "[]",
        "{}",
        json.dumps({"action": "terminate"}),
        json.dumps({"action": "terminate", "time": "soon"}),
        json.dumps({"action": "dance", "time": iso(120)}),
    ],
)
def test_nonsense_at_aws_is_no_notice(server: Metadata, action: str) -> None:
    server.answer = service = AwsService()
    service.action = action
    with pytest.raises(Trouble):
        Aws(server.address).poll()


def test_gcp_gives_thirty_seconds(server: Metadata) -> None:
    server.answer = service = GcpService()
    source = Gcp(server.address)
    assert source.answers()
    assert source.poll() is None
    service.preempted = "TRUE"
    assert left(source) == pytest.approx(30, abs=1)


def test_nonsense_at_gcp_is_no_notice(server: Metadata) -> None:
    server.answer = service = GcpService()
    service.preempted = "<html>TRUE</html>"
    with pytest.raises(Trouble):
        Gcp(server.address).poll()


def test_azure_gives_the_earliest_preempt_of_this_machine(server: Metadata) -> None:
    server.answer = service = AzureService()
    source = Azure(server.address)
    assert source.answers()
    assert source.poll() is None
    service.add("Preempt", ["spot_1", "spot_2"], 10)
    service.add("Reboot", ["spot_3"], 10)
    assert source.poll() is None
    service.add("Preempt", ["spot_3"], 60)
    service.add("Preempt", ["spot_0", "spot_3"], 30)
    assert left(source) == pytest.approx(30, abs=2)


def test_an_azure_event_that_has_started_leaves_no_time(server: Metadata) -> None:
    server.answer = service = AzureService()
    service.add("Preempt", ["spot_3"], None, "Started")
    assert left(Azure(server.address)) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("events", [None, "x", [7]])
def test_nonsense_at_azure_is_no_notice(server: Metadata, events: object) -> None:
    server.answer = service = AzureService()
    service.events = events
    with pytest.raises(Trouble):
        Azure(server.address).poll()


def test_a_file_is_notice_by_being_there(tmp_path: Path) -> None:
    path = tmp_path / "preempted"
    source = File(str(path))
    assert source.poll() is None
    path.touch()
    # Perhaps somebody is just about to write the deadline into it.
    assert source.poll() is None
    os.utime(path, (time.time() - 10, time.time() - 10))
    assert left(source) == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("deadline", "expected"), [(120, 110), (0, -10), ("soon", 20), (None, 20)])
def test_a_file_states_its_deadline_in_seconds_from_when_it_was_written(
    tmp_path: Path, deadline: object, expected: float
) -> None:
    path = tmp_path / "preempted"
    path.write_text(json.dumps({"deadline": deadline}))
    os.utime(path, (time.time() - 10, time.time() - 10))
    assert left(File(str(path))) == pytest.approx(expected, abs=2)


def test_a_file_states_its_deadline_as_a_time(tmp_path: Path) -> None:
    path = tmp_path / "preempted"
    path.write_text(json.dumps({"deadline": iso(45)}))
    assert left(File(str(path))) == pytest.approx(45, abs=2)


def test_a_file_that_cannot_be_read_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(Trouble):
        File(str(tmp_path)).poll()


def test_an_address_gives_notice_by_answering_200(server: Metadata) -> None:
    source = Url(f"{server.address}/preempted?node=7")
    assert source.poll() is None
    server.answer = lambda _: Reply(204)
    assert source.poll() is None
    server.answer = lambda _: Reply(500)
    with pytest.raises(Trouble):
        source.poll()
    server.answer = lambda _: Reply(200, json.dumps({"deadline": 90}))
    assert left(source) == pytest.approx(90, abs=1)
    server.answer = lambda _: Reply(200, "yes")
    assert left(source) == pytest.approx(30, abs=1)
    assert {asked.path for asked in server.questions} == {"/preempted?node=7"}


def test_ray_lists_this_node_with_its_deadline_or_without() -> None:
    nodes: dict[str, int] = {"other": 1}
    source = RayDrain("this", lambda: nodes)
    assert source.poll() is None
    nodes["this"] = int((time.time() + 15) * 1000)
    assert left(source) == pytest.approx(15, abs=1)
    nodes["this"] = 0
    # It waits for the work, however long that takes.
    first, second = source.poll(), source.poll()
    assert first == second
    assert left(source) > 3600


def test_a_head_that_does_not_answer_is_trouble() -> None:
    def draining() -> dict[str, int]:
        raise RuntimeError("the GCS is away")

    with pytest.raises(Trouble):
        RayDrain("this", draining).poll()


@pytest.mark.parametrize("cloud", [Aws, Gcp, Azure])
def test_a_service_that_is_away_is_trouble_and_no_cloud(cloud: type[Aws | Gcp | Azure]) -> None:
    source = cloud(nobody())
    assert not source.answers()
    with pytest.raises(Trouble):
        source.poll()


def test_an_address_that_is_away_is_trouble() -> None:
    with pytest.raises(Trouble):
        Url(nobody()).poll()


def test_a_server_that_hangs_is_given_up_in_a_second() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        started = time.monotonic()
        with pytest.raises(Trouble):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        assert time.monotonic() - started < 3


def test_no_proxy_is_asked_about_this_machine(
    server: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", nobody())
    assert ask(f"{server.address}/x").status == 404
