"""What a folder store promises beyond the common promises."""

import errno
import os
from pathlib import Path

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import local_files, open_store
from rankflow.store.local import LocalStore


def test_addresses_that_are_no_absolute_path_are_refused(tmp_path: Path) -> None:
    for root in ("relative/folder", "/data/../etc", "", "nonsense://bucket/x"):
        with pytest.raises(RankflowError) as caught:
            open_store(root)
        assert caught.value.kind is ErrorType.UNSUPPORTED_INPUT
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert open_store((tmp_path / "a b").as_uri()).uri("x") == f"{tmp_path}/a b/x"


def test_every_create_is_fsynced_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    original = os.fsync

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    assert LocalStore(tmp_path).create("runs/a/plan.json", b"x")
    assert any(".tmp-" in name for name in synced)
    for folder in (tmp_path, tmp_path / "runs", tmp_path / "runs/a"):
        assert str(folder) in synced


def test_a_full_disk_is_told_apart_and_leaves_no_half_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    attempt = store.append("attempts/a.jsonl")
    attempt.write(b"1\n")
    attempt.flush()

    def full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local_files, "write_all", full)
    monkeypatch.setattr("rankflow.store.local.write_all", full)
    for call in (store.create, store.put):
        with pytest.raises(RankflowError, match="No space left") as caught:
            call("runs/plan.json", b"long enough")
        assert caught.value.kind is ErrorType.STORE_FULL
    attempt.write(b"22222222\n")
    with pytest.raises(RankflowError, match="No space left"):
        attempt.flush()
    monkeypatch.undo()
    # A torn attempt takes nothing more: it could never be committed.
    with pytest.raises(RankflowError):
        attempt.flush()
    attempt.close()
    assert store.read_attempt("attempts/a.jsonl") == b"1\n2222"
    assert store.list("runs") == []
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp-")]


def test_a_link_call_repeated_by_nfs_counts_as_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.link

    def twice(source: Path, target: Path) -> None:
        original(source, target)
        original(source, target)

    monkeypatch.setattr(os, "link", twice)
    store = LocalStore(tmp_path)
    assert store.create("a", b"mine")
    assert not store.create("a", b"mine")


def test_a_file_where_a_folder_should_be_is_the_store_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RankflowError) as caught:
        LocalStore(tmp_path).put("runs/a/plan.json", b"x")
    assert caught.value.kind is ErrorType.STORE_UNAVAILABLE
