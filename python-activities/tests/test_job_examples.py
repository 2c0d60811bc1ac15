"""The examples of jobs compile and know their options; they run in `npm run test:examples`."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "jobs"
SCRIPTS = sorted(file.name for file in FOLDER.glob("*.py") if "main()" in file.read_text())

# In place of packages that take half a minute to import, and that not every environment has.
WITHOUT_PACKAGES = """
import importlib.abc, importlib.machinery, runpy, sys, types

PACKAGES = {"datasets", "ray", "torch", "torchmetrics", "transformers", "xgboost"}

class Empty(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return Empty(spec.name)
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a script up to where it would need its packages."""
    command = [sys.executable, "-c", WITHOUT_PACKAGES, script, *options]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_tells_its_options_and_refuses_others(script: str):
    told = run(script, "--help")
    assert told.returncode == 0, told.stderr
    refused = run(script, "--no-such-option")
    assert refused.returncode == 2
    assert "usage:" in refused.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_command_of_an_example_is_one_that_it_takes(script: str):
    said = ast.get_docstring(ast.parse((FOLDER / script).read_text())) or ""
    [command] = re.findall(rf"python {re.escape(script)}(.*)", said)
    known = run(script, "--help").stdout
    for option in re.findall(r"--[a-z-]+", command):
        assert option in known


def test_every_example_is_in_the_guide():
    guide = (ROOT / "docs" / "jobs.md").read_text()
    assert len(SCRIPTS) == 6
    for script in SCRIPTS:
        assert f"(../examples/jobs/{script})" in guide


def test_what_a_killed_worker_had_begun_to_report_is_removed(tmp_path: Path):
    run = tmp_path / "moons"
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        (run / name).mkdir(parents=True)
        (run / name / "optimizer-1.pt").touch()
    (run / "checkpoint_manager_snapshot.json").touch()
    kept = [
        (SimpleNamespace(path=str(run / name)), {}) for name in ("checkpoint_1", "checkpoint_3")
    ]
    tidy = runpy.run_path(str(FOLDER / "outcome.py"))["tidy"]
    result = SimpleNamespace(path=str(run), best_checkpoints=kept)
    assert tidy(result) == ["checkpoint_2"]
    assert sorted(one.name for one in run.iterdir()) == [
        "checkpoint_1",
        "checkpoint_3",
        "checkpoint_manager_snapshot.json",
    ]
    assert tidy(result) == []
