"""The real model that tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def smollm() -> Path:
    """Folder of SmolLM2-135M-Instruct as set-up leaves it; skips the test where it is missing."""
    default = Path(__file__).resolve().parents[3] / ".rankflow"
    home = Path(os.environ.get("RANKFLOW_HOME", default))
    model = home / "models" / "SmolLM2-135M-Instruct"
    if not (model / "tokenizer.json").exists():
        pytest.skip(f"no model at {model}")
    return model
