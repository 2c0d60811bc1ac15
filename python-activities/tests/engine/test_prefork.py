"""A fork of the server is as a spawned process would be: with its parent's environment."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.models import ModelSpec
from rankflow.engine.prefork import METHOD, forks

SCRIPT = """
import json, os, sys
from multiprocessing import forkserver

from rankflow.engine.prefork import PreforkContext, start_server


def facts(given):
    return {
        "given": given,
        "server": os.getppid(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "variables": {name: os.environ.get(name) for name in ("ADDED", "CHANGED", "REMOVED")},
        "preloaded": "xml.dom.minidom" in sys.modules,
    }


def child(folder, given):
    with open(os.path.join(folder, "child.json"), "w") as file:
        json.dump(facts(given), file)
    os.environ["CHANGED"] = "by the child"
    start(grandchild, folder, given + 1)


def grandchild(folder, given):
    with open(os.path.join(folder, "grandchild.json"), "w") as file:
        json.dump(facts(given), file)


def start(target, *arguments):
    process = PreforkContext().Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode


if __name__ == "__main__":
    start_server("xml.dom.minidom")
    os.environ["ADDED"] = "later"
    os.environ["CHANGED"] = "later"
    del os.environ["REMOVED"]
    os.environ["GOMP_CPU_AFFINITY"] = sys.argv[2]
    start(child, sys.argv[1], 1)
    server = forkserver._forkserver._forkserver_pid
    print(server, os.getpgid(server))
"""


FORKS = ("child", "grandchild")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the server says of itself, and what a child and a child of it see."""
    folder = tmp_path_factory.mktemp("prefork")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    core = str(max(os.sched_getaffinity(0)))
    ended = subprocess.run(
        [sys.executable, str(script), str(folder), core],
        env=os.environ | {"CHANGED": "before", "REMOVED": "before"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    server, group = ended.stdout.split()
    read = {name: json.loads((folder / f"{name}.json").read_text()) for name in FORKS}
    return read | {"server": {"pid": int(server), "group": int(group), "core": int(core)}}


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_comes_from_the_server_with_what_it_has_imported(
    seen: dict[str, dict[str, Any]], fork: str
) -> None:
    assert seen[fork]["server"] == seen["server"]["pid"]
    assert seen[fork]["preloaded"] is True


def test_a_fork_has_the_environment_and_the_arguments_of_who_starts_it(
    seen: dict[str, dict[str, Any]],
) -> None:
    variables = {"ADDED": "later", "CHANGED": "later", "REMOVED": None}
    assert (seen["child"]["given"], seen["child"]["variables"]) == (1, variables)
    variables["CHANGED"] = "by the child"
    assert (seen["grandchild"]["given"], seen["grandchild"]["variables"]) == (2, variables)


def test_a_fork_runs_on_the_cores_that_openmp_would_have_read(
    seen: dict[str, dict[str, Any]],
) -> None:
    assert seen["child"]["affinity"] == [seen["server"]["core"]]


def test_the_server_is_in_the_group_that_the_guard_ends_and_ends_with_it(
    seen: dict[str, dict[str, Any]],
) -> None:
    assert seen["server"]["group"] == os.getpgid(0)
    ended = time.monotonic() + 10
    while Path(f"/proc/{seen['server']['pid']}/exe").exists():
        assert time.monotonic() < ended
        time.sleep(0.1)


@pytest.mark.vllm
def test_what_the_server_imports_of_vllm_is_no_garbage_for_its_forks() -> None:
    script = (
        "import gc; import rankflow.engine.preloaded; print(gc.get_freeze_count(), gc.isenabled())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    frozen, collecting = ended.stdout.split()[-2:]
    assert int(frozen) > 500_000
    assert collecting == "True"


@pytest.mark.parametrize("gpus", [0, 0.5, 1])
def test_the_processes_of_an_engine_on_one_device_are_forked(
    monkeypatch: pytest.MonkeyPatch, gpus: float
) -> None:
    monkeypatch.delenv(METHOD, raising=False)
    assert forks(ModelSpec(model="m", gpus_per_engine=gpus))
    monkeypatch.setenv(METHOD, "spawn")
    assert not forks(ModelSpec(model="m", gpus_per_engine=gpus))


def test_vllm_starts_the_processes_that_a_fork_of_the_server_would_not_do_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(METHOD, raising=False)
    one = ModelSpec(model="m", gpus_per_engine=1)
    wsl = platform.uname()._replace(release="5.15.90.1-microsoft-standard-WSL2")
    with monkeypatch.context() as patch:
        patch.setattr("rankflow.engine.prefork.platform.uname", lambda: wsl)  # pyright: ignore[reportUnknownLambdaType]
        assert not forks(one)
        assert forks(ModelSpec(model="m"))
    bound = {"numa-bind": True}
    assert not forks(ModelSpec(model="m", gpus_per_engine=1, engine_args=bound))
    assert not forks(ModelSpec(model="m", gpus_per_engine=2, tensor_parallel_size=2))
    assert not forks(ModelSpec(model="m", gpus_per_engine=2, pipeline_parallel_size=2))
    assert forks(ModelSpec(model="m", gpus_per_engine=0, tensor_parallel_size=2))
