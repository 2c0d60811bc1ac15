"""What every store promises."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import MissingKey, Store
from rankflow.store.base import CHUNK_BYTES
from rankflow.store.fence import require_fence


def test_what_was_put_is_read_back(store: Store) -> None:
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert store.read("a/b.json") == b"two"
    assert store.size("a/b.json") == 3
    assert store.exists("a/b.json")
    assert not store.exists("a/c.json")
    assert not store.exists("a")


def test_only_the_first_create_wins_among_racers(store: Store) -> None:
    tokens = [f"token-{number}".encode() for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(partial(store.create, "commits/1.json"), tokens))
    assert won.count(True) == 1
    assert store.read("commits/1.json") == tokens[won.index(True)]
    assert store.list("commits") == ["commits/1.json"]


def test_a_missing_key_is_a_retryable_error_that_names_it(store: Store) -> None:
    def stream(key: str) -> list[bytes]:
        return list(store.stream(key))

    for call in (store.read, store.size, stream, store.read_attempt):
        with pytest.raises(MissingKey) as caught:
            call("runs/none.json")
        assert caught.value.kind is ErrorType.STORE_UNAVAILABLE
        assert "runs/none.json" in str(caught.value)


def test_a_range_is_exact_or_refused(store: Store) -> None:
    store.put("r", b"0123456789")
    assert store.read_range("r", 3, 4) == b"3456"
    assert store.read_range("r", 10, 0) == b""
    with pytest.raises(RankflowError) as caught:
        store.read_range("r", 8, 3)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "", "a/.", "a\0b"])
def test_no_key_leaves_the_store(store: Store, key: str) -> None:
    def put(key: str) -> None:
        store.put(key, b"")

    calls: list[Callable[[str], object]] = [
        store.read,
        store.append,
        put,
        store.delete,
        store.writer,
    ]
    for call in calls:
        with pytest.raises(RankflowError) as caught:
            call(key)
        assert caught.value.kind is ErrorType.PLAN_CORRUPT


def test_listing_is_deep_sorted_and_empty_for_a_missing_folder(store: Store) -> None:
    for key in ("runs/b/plan.json", "runs/a/x/2", "runs/a/x/1", "other/z"):
        store.put(key, b"")
    assert store.list("runs") == ["runs/a/x/1", "runs/a/x/2", "runs/b/plan.json"]
    assert store.list("runs/a/x/") == ["runs/a/x/1", "runs/a/x/2"]
    assert store.list("none") == []
    assert store.folders("runs") == ["a", "b"]
    assert store.folders("none") == []


def test_entries_tell_sizes_and_times(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("runs/b/plan.json", "runs/a/x/1"):
        store.put(key, b"12345")
    found = store.entries("runs")
    assert [(entry.key, entry.size) for entry in found] == [
        ("runs/a/x/1", 5),
        ("runs/b/plan.json", 5),
    ]
    assert all(before <= entry.modified <= datetime.now(UTC) for entry in found)
    assert store.entries("none") == []


def test_emptied_folders_can_be_removed_and_others_stay(store: Store) -> None:
    for key in ("runs/a/x/1", "runs/b/x/1"):
        store.put(key, b"")
    store.delete("runs/a/x/1")
    store.remove_empty_folders("runs")
    store.remove_empty_folders("runs/none")
    assert store.folders("runs") == ["b"]
    assert store.list("runs") == ["runs/b/x/1"]


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(store: Store) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_a_written_object_appears_whole_at_commit_only(store: Store) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128)
    with store.writer("big/one") as writer:
        writer.write(data[:1000])
        assert not store.exists("big/one")
        assert store.list("big") == []
        writer.write(data[1000:])
        writer.commit()
    assert writer.sha256 == hashlib.sha256(data).hexdigest()
    assert writer.size == len(data) == store.size("big/one")
    assert b"".join(store.stream("big/one")) == data


def test_an_abandoned_object_never_appears(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.writer("big/one") as writer:
        writer.write(b"half")
        raise ZeroDivisionError
    assert store.list("big") == []


def test_published_content_can_be_published_again(store: Store) -> None:
    store.put("final/t/out", b"one")
    for _ in range(2):
        store.publish("final/t/out", "out")
        assert store.read("out") == b"one"
    store.put("final/u/out", b"two")
    store.publish("final/u/out", "out")
    assert store.read("out") == b"two"
    assert store.read("final/t/out") == b"one"


def test_flushed_lines_survive_and_others_do_not(store: Store) -> None:
    attempt = store.append("attempts/b/t1.jsonl")
    attempt.write(b"1\n")
    attempt.flush()
    attempt.write(b"2\n")
    attempt.write(b"3\n")
    attempt.flush()
    attempt.flush()
    attempt.write(b"4\n")
    assert store.read_attempt("attempts/b/t1.jsonl") == b"1\n2\n3\n"
    attempt.close()
    attempt.close()
    whole = b"1\n2\n3\n4\n"
    assert store.read_attempt("attempts/b/t1.jsonl") == whole
    assert (attempt.size, attempt.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_attempts_are_listed_by_the_key_they_were_started_with(store: Store) -> None:
    for token in ("t2", "t1"):
        with store.append(f"attempts/b/{token}.jsonl") as attempt:
            for line in (b"1\n", b"2\n"):
                attempt.write(line)
                attempt.flush()
    assert store.list_appended("attempts/b") == ["attempts/b/t1.jsonl", "attempts/b/t2.jsonl"]
    assert store.list_appended("attempts/none") == []


def test_two_writers_never_share_an_attempt(store: Store) -> None:
    with store.append("attempts/b/t1.jsonl") as first:
        first.write(b"1\n")
        first.flush()
        with pytest.raises(RankflowError) as caught, store.append("attempts/b/t1.jsonl") as other:
            other.write(b"2\n")
            other.flush()
        assert caught.value.kind is ErrorType.LEASE_LOST
    assert store.read_attempt("attempts/b/t1.jsonl") == b"1\n"


def test_more_than_a_thousand_segments_stay_in_order(store: Store) -> None:
    with store.append("attempts/b/t1.jsonl") as attempt:
        for number in range(1100):
            attempt.write(b"%d\n" % number)
            if number % 10 == 0 or number > 1050:
                attempt.flush()
    lines = store.read_attempt("attempts/b/t1.jsonl").split()
    assert [int(line) for line in lines] == list(range(1100))


def test_a_store_that_creates_once_is_fit_for_runs(store: Store) -> None:
    require_fence(store, "r")
    assert store.list("runs") == []
