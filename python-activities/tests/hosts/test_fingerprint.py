"""What a host tells of itself, also where next to nothing is installed."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rankflow import hosts
from tests.hosts.piped import FOLDER, piped


def take(env: dict[str, str] | None = None, isolated: bool = True, **request: Any) -> Any:
    """A fingerprint of this machine."""
    full = {"requirements": [], "folders": {}} | request
    clock, found = piped("fingerprint", json.dumps(full), env=env, isolated=isolated)
    assert abs(clock["clock"] - time.time()) < 60
    return found


def program(folder: Path, name: str, text: str) -> None:
    """Put a program that prints a text into a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\ncase "$*" in {text} esac\n')
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("module", ["fingerprint", "reach"])
def test_what_is_piped_to_hosts_needs_no_more_than_an_old_python(module: str) -> None:
    tree = ast.parse((FOLDER / f"{module}.py").read_text(), feature_version=(3, 8))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
        )
    }
    assert imported <= sys.stdlib_module_names


def test_a_python_without_anything_tells_about_its_host(tmp_path: Path) -> None:
    found = take(requirements=["ray"], folders={"temp": str(tmp_path / "not" / "there")})
    assert found["python"] == platform.python_version()
    assert found["architecture"] == platform.machine()
    assert found["versions"] == {} and found["packages"] == {} and found["rankflowHash"] is None
    assert found["cpus"] >= 1 and found["memory"] > 1 << 28
    free = shutil.disk_usage(tmp_path).free
    assert abs(found["folders"]["temp"]["free"] - free) < 1 << 30


def test_a_tilde_is_the_home_of_the_user_there() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no other disk to be told from")
    found = take(env={"HOME": "/dev/shm"}, folders={"home": "~/not/there"})
    assert found["folders"]["home"]["total"] == shutil.disk_usage("/dev/shm").total
    assert found["folders"]["home"]["path"] == "~/not/there"
    assert {"nofile", "nproc", "memlock"} <= set(found["limits"])


def test_a_host_on_which_no_program_is_found_tells_the_rest() -> None:
    found = take(env={"PATH": "/nowhere"})
    assert found["gpus"] is None and found["addresses"] is None
    assert found["hostname"]


def test_versions_are_those_of_the_environment_that_runs_it() -> None:
    found = take(isolated=False, requirements=["ray", "obstore", "no-such-distribution"])
    assert found["versions"]["ray"] == importlib.metadata.version("ray")
    assert set(found["packages"]) == {"ray", "obstore"}
    other = take(isolated=False, requirements=["ray"])
    assert other["packagesHash"] != found["packagesHash"]


def test_a_changed_file_of_rankflow_shows_in_its_hash(tmp_path: Path) -> None:
    source = Path(hosts.__file__).parents[1]
    for copy in ("same", "changed"):
        shutil.copytree(source, tmp_path / copy / "rankflow")
    with (tmp_path / "changed/rankflow/worker.py").open("a") as file:
        file.write("# another version\n")
    hashes = [
        take(env={**os.environ, "PYTHONPATH": str(folder)}, isolated=False)["rankflowHash"]
        for folder in (source.parent, tmp_path / "same", tmp_path / "changed")
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_gpus_are_those_that_the_driver_lists(tmp_path: Path) -> None:
    program(
        tmp_path / "bin",
        "nvidia-smi",
        "*query*) printf '580.95.05, NVIDIA H100 80GB HBM3, 81559\\n%.0s' 1 2 ;; "
        "*) echo '| Driver Version: 580.95.05   CUDA Version: 13.0 |' ;;",
    )
    gpus = take(env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})["gpus"]
    card = {"name": "NVIDIA H100 80GB HBM3", "memory": 81559 << 20}
    assert gpus == {"driver": "580.95.05", "cuda": "13.0", "cards": [card, card]}
