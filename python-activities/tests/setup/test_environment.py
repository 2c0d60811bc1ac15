"""What set-up leaves behind."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["ray", "temporalio", "torch", "transformers", "vllm"])
def test_packages_have_their_bytecode(package: str) -> None:
    """Also what nothing here imports: where Python may not write, nobody else would compile it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    sources = sorted(Path(spec.origin).parent.glob("*/*.py"))
    assert sources
    without = [
        str(path)
        for path in sources
        if not Path(importlib.util.cache_from_source(str(path))).exists()
    ]
    assert without == []
