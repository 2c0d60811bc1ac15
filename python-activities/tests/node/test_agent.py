"""The agent of a host: what it starts outlives it, is found again, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rankflow.node import agent

SOURCE = Path(agent.__file__).read_text()

FAKE_RAY = """
import os, subprocess, sys, time
print("args", sys.argv[1:], flush=True)
subprocess.Popen(["sleep", "1000"], start_new_session=True)
if "--fail" in sys.argv:
    sys.exit("no such head")
time.sleep(1000)
"""


def call(command: str, given: dict[str, Any], env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run the agent as the control worker does: all of it on standard input."""
    text = f"{SOURCE}\n\nmain({json.dumps(command)}, json.loads({json.dumps(json.dumps(given))}))\n"
    done = subprocess.run(
        [sys.executable, "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return json.loads(done.stdout)


@pytest.fixture
def node(tmp_path: Path) -> Generator[dict[str, Any]]:
    """A node whose ``ray start`` is a script that starts a child and waits."""
    scripts = tmp_path / "package" / "ray" / "scripts"
    scripts.mkdir(parents=True)
    (scripts.parent / "__init__.py").touch()
    (scripts / "__init__.py").touch()
    (scripts / "scripts.py").write_text(FAKE_RAY)
    given = {
        "folder": str(tmp_path / "rf" / "w1"),
        "marker": f"test-{os.getpid()}/{tmp_path.name}",
        "arguments": ["--block", "--address=10.0.0.1:6379"],
        "environment": {"PYTHONPATH": str(tmp_path / "package"), "SECRET": "s3cret"},
        "placement": {"address": "10.0.0.2"},
    }
    yield given
    call("end", given)


def test_outlives_its_connection_and_is_found_again(node: dict[str, Any]) -> None:
    first = call("start", node)
    again = call("start", node)
    assert again["pid"] == first["pid"]
    status = call("status", node)
    assert status["running"] is True
    assert status["address"] == "10.0.0.2"
    # A session of its own: the end of ssh does not reach it.
    assert os.getsid(first["pid"]) == first["pid"]


def test_shows_no_secret_in_a_command_line(node: dict[str, Any]) -> None:
    record = call("start", node)
    line = Path(f"/proc/{record['pid']}/cmdline").read_bytes()
    assert b"s3cret" not in line
    assert b"SECRET=s3cret" in Path(f"/proc/{record['pid']}/environ").read_bytes()


@pytest.mark.parametrize("own", [{}, {"PATH": "/user/first:/user/second"}])
def test_finds_its_python_first_then_what_its_user_says(
    node: dict[str, Any], own: dict[str, str]
) -> None:
    record = call("start", {**node, "environment": {**node["environment"], **own}})
    variables = Path(f"/proc/{record['pid']}/environ").read_bytes().split(b"\0")
    [path] = [one.decode()[5:] for one in variables if one.startswith(b"PATH=")]
    own_folder = Path(os.path.normpath(sys.executable)).parent
    assert path == ":".join([str(own_folder), *own.values(), os.environ["PATH"]])


def test_ends_with_all_that_it_started_and_leaves_nothing(node: dict[str, Any]) -> None:
    call("start", node)
    deadline = time.monotonic() + 20
    while len(agent.marked(node["marker"])) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(agent.marked(node["marker"])) >= 2
    assert "--address=10.0.0.1:6379" in call("end", node)["tail"]
    assert agent.marked(node["marker"]) == []
    assert not Path(node["folder"]).exists()
    assert not Path(node["folder"]).parent.exists()


def test_keeps_what_the_next_start_needs(node: dict[str, Any]) -> None:
    call("start", node)
    (Path(node["folder"]) / "token").write_text("t")
    call("end", {**node, "keep": ["token"]})
    assert [path.name for path in Path(node["folder"]).iterdir()] == ["token"]
    assert agent.marked(node["marker"]) == []


def test_the_state_of_a_head_outlives_it_but_not_its_cluster(node: dict[str, Any]) -> None:
    state = Path(node["folder"]) / "gcs"
    variables = {**node["environment"], "RAY_gcs_storage_path": str(state)}
    head = {**node, "environment": variables}
    call("start", head)
    (state / "log").touch()
    call("end", {**head, "keep": ["gcs", agent.RECORD]})
    call("start", head)
    assert (state / "log").exists()
    call("end", {**head, "keep": ["gcs"]})
    call("start", head)
    assert list(state.iterdir()) == []


def test_tells_why_a_node_has_ended(node: dict[str, Any]) -> None:
    call("start", {**node, "arguments": ["--fail"]})
    deadline = time.monotonic() + 20
    while (status := call("status", node))["running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status["running"] is False
    assert "no such head" in status["tail"]


def test_a_pid_that_belongs_to_another_process_is_not_the_node(node: dict[str, Any]) -> None:
    call("start", node)
    file = Path(node["folder"]) / agent.RECORD
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "pid": os.getpid()}))
    assert call("status", node)["running"] is False


def test_a_node_that_was_killed_before_it_was_recorded_is_ended_first(node: dict[str, Any]) -> None:
    lost = call("start", node)
    (Path(node["folder"]) / agent.RECORD).unlink()
    status = call("status", node)
    assert (status["running"], status["left"]) == (False, True)
    fresh = call("start", node)
    assert fresh["pid"] != lost["pid"]
    assert agent.identity_of(lost["pid"]) is None


def test_reports_everything_that_is_wrong_with_a_host_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "rf" / "h"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = call(
            "check",
            {
                "folder": str(folder),
                "address": "127.0.0.1",
                "expected": {"python": "3.1", "ray": "0.1"},
                "ports": {"gcs": taken.getsockname()[1]},
                "gpus": 99,
            },
        )
    problems = "\n".join(answer["problems"])
    assert "Ray needs the 3.1 of the other nodes" in problems
    assert "and the other nodes have 0.1" in problems
    assert "is taken: set another ports.gcs" in problems
    assert "99 GPUs are asked for" in problems


def test_a_port_that_what_is_left_of_the_node_has_is_not_taken(node: dict[str, Any]) -> None:
    text = (
        "import socket, time; server = socket.create_server(('127.0.0.1', 0)); "
        "print(server.getsockname()[1], flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", text],
        env={**os.environ, agent.MARKER: node["marker"]},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    ports = {"nodeManager": int(child.stdout.readline())}
    given = {**node, "address": "127.0.0.1", "ports": ports}
    taken = [p for p in call("check", given)["problems"] if "is taken" in p]
    assert taken == []
    [taken] = [p for p in call("check", {**given, "marker": "x"})["problems"] if "is taken" in p]
    assert "set another ports.nodeManager" in taken
    child.kill()
    child.wait()


def test_the_patch_version_of_python_is_compared_where_ray_compares_it(tmp_path: Path) -> None:
    def told(python: str) -> list[str]:
        given = {"folder": str(tmp_path / "rf" / "h"), "address": "127.0.0.1"}
        problems = call("check", {**given, "expected": {"python": python}})["problems"]
        return [problem for problem in problems if "Ray needs the" in problem]

    major, minor, patch = sys.version_info[:3]
    assert told(f"{major}.{minor}") == []
    assert told(f"{major}.{minor}.{patch}") == []
    [problem] = told(f"{major}.{minor}.99")
    assert f"is Python {major}.{minor}.{patch}, and Ray needs the {major}.{minor}.99" in problem
    assert f"environment.pythonVersion {major}.{minor}.99" in problem


def test_a_python_without_ray_and_an_address_of_another_host_are_told(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path / "rf" / "h"), "address": "203.0.113.9", "expected": {}}
    text = f"{SOURCE}\n\nmain('check', json.loads({json.dumps(json.dumps(given))}))\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=text, capture_output=True, text=True, check=True
    )
    problems = "\n".join(json.loads(done.stdout)["problems"])
    assert "has no Ray: install it there" in problems
    assert "203.0.113.9 is not an address of this host" in problems


def test_a_python_that_is_not_the_nodes_own_is_not_judged(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path / "rf" / "h"), "address": "203.0.113.9"}
    text = f"{SOURCE}\n\nmain('check', json.loads({json.dumps(json.dumps(given))}))\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=text, capture_output=True, text=True, check=True
    )
    [problem] = json.loads(done.stdout)["problems"]
    assert "203.0.113.9 is not an address of this host" in problem


def test_the_address_is_the_one_that_ssh_came_to(tmp_path: Path) -> None:
    connection = {"SSH_CONNECTION": "10.1.1.1 5000 127.0.0.1 22"}
    answer = call("check", {"folder": str(tmp_path / "rf" / "w")}, connection)
    assert answer["address"] == "127.0.0.1"


def test_a_look_leaves_nothing_behind_unless_the_node_is_about_to_start(tmp_path: Path) -> None:
    given = {"folder": str(tmp_path / "rf" / "w"), "address": "127.0.0.1"}
    call("check", given)
    assert not (tmp_path / "rf").exists()
    call("check", {**given, "make": True})
    assert (tmp_path / "rf" / "w").stat().st_mode & 0o777 == 0o700


def test_looks_that_share_a_file_system_do_not_disturb_one_another(tmp_path: Path) -> None:
    def look(number: int) -> list[str]:
        folder = tmp_path / "rf" / str(number)
        return [
            problem
            for _ in range(50)
            for problem in agent.check({"folder": str(folder), "address": "127.0.0.1"})["problems"]
        ]

    with ThreadPoolExecutor(8) as pool:
        assert [problem for found in pool.map(look, range(8)) for problem in found] == []


def test_a_folder_that_somebody_else_prepared_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rf").mkdir(mode=0o777)
    (tmp_path / "rf").chmod(0o777)
    problems = call("check", {"folder": str(tmp_path / "rf" / "w")})["problems"]
    assert any("is not a private folder of this user" in problem for problem in problems)


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nearly_full(_: Path) -> int:
        return 5 << 20

    monkeypatch.setattr(agent, "_free_bytes", nearly_full)
    problems = agent.check({"folder": str(tmp_path / "rf" / "w"), "address": "127.0.0.1"})
    assert any("has 5 MiB left" in problem for problem in problems["problems"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system with room for one file of a page; mounting needs root."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_has_no_room_is_told_and_nothing_runs_on_it(
    node: dict[str, Any], small_disk: Path
) -> None:
    folder = small_disk / "rf" / "w1"
    on_it = {**node, "folder": str(folder), "address": "127.0.0.1"}
    problems = call("check", {**on_it, "make": True})["problems"]
    assert any("has 0 MiB left, and a node needs 1024" in problem for problem in problems)
    (small_disk / "full").write_bytes(bytes(4096))
    answer = call("start", on_it)
    assert answer == {"refused": f"No space left on device: {folder}"}
    call("end", on_it)
    assert agent.marked(node["marker"]) == []
    assert not folder.exists()


def test_an_error_that_nobody_foresaw_is_an_answer(tmp_path: Path) -> None:
    assert call("start", {"folder": str(tmp_path / "rf" / "w")}) == {
        "refused": "start failed: KeyError: 'marker'"
    }


def container_tool(tmp_path: Path, name: str = "docker") -> dict[str, str]:
    """A tool that writes down what it is told; its containers run until they are ended."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    script = f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n[ "$1" = run ] && sleep 1000\nexit 0\n'
    (tools / name).write_text(script)
    (tools / name).chmod(0o755)
    return {"PATH": f"{tools}:{os.environ['PATH']}"}


def test_a_container_gets_its_variables_in_a_private_file_and_goes_with_its_node(
    node: dict[str, Any], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    path = container_tool(tmp_path)
    mounts = ["/data", "/srv/models:/models:ro", "/srv/hub:ro"]
    given = {**node, "image": "ray:1", "python": "/opt/python", "mounts": mounts}
    call("start", given, path)
    deadline = time.monotonic() + 20
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    line = said.read_text()
    assert "--network host" in line
    assert f"--volume {node['folder']}:{node['folder']}" in line
    assert "--volume /data:/data --volume /srv/models:/models:ro" in line
    assert "--volume /srv/hub:/srv/hub:ro" in line
    assert f"--user {os.getuid()}:{os.getgid()}" in line
    assert "ray:1 /opt/python -m ray.scripts.scripts start --block" in line
    assert "s3cret" not in line
    variables = Path(node["folder"]) / "environment"
    assert "SECRET=s3cret" in variables.read_text()
    assert variables.stat().st_mode & 0o777 == 0o600
    home = Path(node["folder"]) / "home"
    assert f"HOME={home}\n" in variables.read_text()
    assert home.stat().st_mode & 0o777 == 0o700
    call("end", given, path)
    assert f"rm --force rankflow-test-{os.getpid()}" in said.read_text()


@pytest.mark.parametrize(
    ("program", "uid", "said", "expected"),
    [
        ("docker", 0, "", "--user 0:7"),
        ("docker", 1000, '["name=seccomp"]', "--user 1000:7 --group-add 7 --group-add 44"),
        ("docker", 1000, '["name=seccomp","name=rootless"]', "--user 0:0"),
        ("podman", 1000, "", "--userns keep-id --user 1000:7"),
    ],
)
def test_a_container_is_of_the_user_that_logs_in(
    program: str,
    uid: int,
    said: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = tmp_path / program
    tool.write_text(f"#!/bin/sh\necho '{said}'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: uid)
    monkeypatch.setattr(os, "getgid", lambda: 7)
    monkeypatch.setattr(os, "getgroups", lambda: [7, 44])
    variables = {"HOME": "/elsewhere", "A": "b"}
    folder = tmp_path / "node"
    folder.mkdir()
    given = {"image": "ray:1", "marker": "m", "gpus": 0}
    monkeypatch.setenv("PATH", str(tmp_path))
    words = " ".join(agent._container(given, folder, variables))  # pyright: ignore[reportPrivateUsage]
    assert f"run --rm --init --name rankflow-m {expected} --network host" in words
    assert "HOME=/elsewhere\n" in (folder / "environment").read_text()


def test_a_mount_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = container_tool(tmp_path)
    mounts = [f"{tmp_path}:/data:ro", f"{tmp_path}/none"]
    given = {"folder": str(tmp_path / "rf" / "w"), "image": "ray:1", "mounts": mounts}
    problems = call("check", {**given, "address": "127.0.0.1"}, path)["problems"]
    assert [problem.split(" ")[0] for problem in problems] == [f"{tmp_path}/none"]


def test_what_ignores_sigterm_is_killed(
    node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "GRACE_SECONDS", 0.5)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal as s,time; s.signal(15, lambda *_: 0); print(flush=True); time.sleep(9)",
        ],
        env={**os.environ, agent.MARKER: node["marker"]},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.readline()
    folder = Path(node["folder"])
    agent.own_folder(folder)
    identity = agent.identity_of(child.pid)
    record = {"pid": child.pid, "identity": identity, "startedAtMs": 0}
    agent.write_privately(folder / agent.RECORD, json.dumps(record))
    agent.end(node)
    assert child.wait(10) == -signal.SIGKILL
