"""What a folder store promises beyond the common promises."""

import errno
import os
from pathlib import Path

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import local_files, open_store
from rankflow.store.base import Space
from rankflow.store.local import LocalStore
from rankflow.store.room import RESERVE_BYTES, check_room


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


def test_a_system_that_takes_few_bytes_at_once_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.write

    def few(descriptor: int, data: bytes) -> int:
        return original(descriptor, data[:3])

    monkeypatch.setattr(os, "write", few)
    store = LocalStore(tmp_path)
    store.put("a", b"0123456789")
    with store.append("b") as attempt:
        attempt.write(b"0123456789\n")
    assert (store.read("a"), store.read_attempt("b")) == (b"0123456789", b"0123456789\n")


def test_room_is_a_reserve_or_what_the_work_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    space = Space(free=RESERVE_BYTES - 1, total=1 << 40)

    def present(_: LocalStore) -> Space:
        return space

    monkeypatch.setattr(LocalStore, "space", present)
    with pytest.raises(RankflowError, match=r"64.0 MiB are needed and 64.0 MiB are free") as caught:
        check_room(store, "r")
    assert caught.value.kind is ErrorType.STORE_FULL
    space = Space(free=RESERVE_BYTES, total=1 << 40)
    assert check_room(store, "r") == RESERVE_BYTES
    with pytest.raises(RankflowError) as caught:
        check_room(store, "r", needed=3 * RESERVE_BYTES)
    assert caught.value.details == {"neededBytes": 3 * RESERVE_BYTES}
    # A small disk is not asked for more than a share of it.
    space = Space(free=1 << 20, total=10 << 20)
    assert check_room(store, "r") == 1 << 20
    assert store.list("runs") == []


def test_a_quota_that_no_number_shows_is_found_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quota(descriptor: int, data: bytes) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr("rankflow.store.local.write_all", quota)
    with pytest.raises(RankflowError, match="quota") as caught:
        check_room(LocalStore(tmp_path), "r")
    assert caught.value.kind is ErrorType.STORE_FULL
    monkeypatch.undo()
    assert check_room(LocalStore(tmp_path), "r")


def test_a_file_with_two_names_takes_its_room_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("final/out", b"12345")
    store.publish("final/out", "out")
    assert [(entry.key, entry.size) for entry in store.entries("final")] == [("final/out", 5)]
    store.put("all/final/out", b"12345")
    store.publish("all/final/out", "all/out")
    assert sum(entry.size for entry in store.entries("all")) == 5
