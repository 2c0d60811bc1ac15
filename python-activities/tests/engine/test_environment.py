"""Engines of one host do not fight for cores, and secrets come from where they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.contracts.models import SecretRef
from rankflow.engine.environment import cpu_binding, read_secret
from rankflow.engine.loadfailure import root_cause


@pytest.mark.parametrize(
    ("cpus", "workers", "slot", "cores", "binding"),
    [
        (1, 1, 0, [0, 1], "0"),
        (1, 1, 1, [0, 1], "1"),
        (1, 1, 2, [0, 1], "0"),
        (2, 1, 1, [0, 1], "0,1"),
        (8, 1, 0, [0, 1], "0,1"),
        (2, 1, 1, [4, 5, 6, 7], "6,7"),
        (4, 2, 0, [0, 1, 2, 3], "0,1|2,3"),
        (1, 2, 0, [3], "3|3"),
    ],
)
def test_slots_share_out_the_cores(
    cpus: float, workers: int, slot: int, cores: list[int], binding: str
) -> None:
    assert cpu_binding(cpus, workers, slot, cores) == binding


def test_a_secret_is_read_by_reference_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("value-of-file\n")
    monkeypatch.setenv("HUB_TOKEN", "value-of-env")
    assert read_secret(SecretRef(file=str(file))) == "value-of-file"
    assert read_secret(SecretRef(env="HUB_TOKEN")) == "value-of-env"
    with pytest.raises(RankflowError, match="MISSING_TOKEN") as caught:
        read_secret(SecretRef(env="MISSING_TOKEN"))
    assert caught.value.kind == ErrorType.ENGINE_LOAD_FAILED


def test_the_cause_of_a_load_failure_is_told_from_its_consequences() -> None:
    tail = (
        b"(EngineCore pid=7) ERROR ValueError: No available memory for the cache blocks\n"
        b"RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert root_cause(tail) == "ValueError: No available memory for the cache blocks"
    assert root_cause(b"INFO all is well\n") is None
