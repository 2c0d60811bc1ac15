"""What a store in a bucket promises when the network and the server do not do their best."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import MissingKey, open_store
from rankflow.store import object as bucket
from rankflow.store.commits import Commit, read_commit, try_commit
from rankflow.store.fence import require_fence
from rankflow.store.room import check_room
from tests.bucket_server import BucketServer, Fault


def commit(token: str) -> Commit:
    return Commit(
        token=token,
        path=f"runs/r/attempts/0000-000000/{token}.jsonl",
        sha256="0" * 64,
        rows=2,
        failed_rows=1,
        prompt_tokens=3,
        completion_tokens=4,
        engine="e",
        model_revision=None,
    )


def kind_of(call: Callable[[], object]) -> ErrorType:
    """Kind of the error that a call ends with."""
    with pytest.raises(RankflowError) as caught:
        call()
    return caught.value.kind


def test_a_commit_whose_answer_was_lost_is_known_as_our_own(s3: str, server: BucketServer) -> None:
    server.proxy.faults.append(Fault("lose-answer", path="/commits/"))
    store = open_store(s3)
    assert try_commit(store, "r", 0, 0, commit("mine")).token == "mine"
    assert read_commit(store, "r", 0, 0) == commit("mine")
    assert try_commit(store, "r", 0, 0, commit("late")).token == "mine"


def test_a_commit_that_timed_out_but_arrived_is_known_as_our_own(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    fault = Fault("delay-answer", path="/commits/", seconds=2)
    server.proxy.faults.append(fault)
    assert try_commit(open_store(s3), "r", 0, 0, commit("mine")).token == "mine"
    assert fault.times == 0


def test_whoever_lost_a_race_does_not_win_it_by_a_lost_answer(
    s3: str, server: BucketServer
) -> None:
    store = open_store(s3)
    store.create("commits/1.json", b"first")
    server.proxy.faults.append(Fault("lose-answer", path="/commits/"))
    assert not store.create("commits/1.json", b"second")


def test_every_create_is_conditional_on_the_server(s3: str, server: BucketServer) -> None:
    open_store(s3).create("only/once", b"x")
    sent = [headers for _, path, headers in server.proxy.requests if "only/once" in path]
    assert [headers.get("if-none-match") for headers in sent] == ["*"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed"), (503, "SlowDown")],
)
def test_an_answer_that_asks_for_another_try_gets_one(
    s3: str, server: BucketServer, status: int, code: str
) -> None:
    server.proxy.faults.append(Fault("status", path="/c/1", times=2, status=status, code=code))
    store = open_store(s3)
    assert store.create("c/1", b"x")
    assert store.read("c/1") == b"x"
    assert server.proxy.count("PUT", "/c/1") == 3


def test_a_server_that_stays_in_conflict_is_unavailable(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_CONFLICT_PAUSES", (0.0, 0.0))
    server.proxy.faults.append(
        Fault("status", path="/c/2", times=99, status=409, code="OperationAborted")
    )
    store = open_store(s3)
    assert kind_of(lambda: store.create("c/2", b"x")) is ErrorType.STORE_UNAVAILABLE
    assert server.proxy.count("PUT", "/c/2") == 3


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (507, "XMinioStorageFull"),
        (400, "XMinioAdminBucketQuotaExceeded"),
        (403, "QuotaExceeded"),
    ],
)
def test_a_bucket_without_room_is_told_from_one_that_is_away(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    monkeypatch.setitem(bucket.RETRIES, "max_retries", 1)
    fault = Fault("status", times=99, status=status, code=code)
    server.proxy.faults.append(fault)
    store = open_store(s3)
    calls: list[Callable[[], object]] = [
        lambda: store.create("a", b"x"),
        lambda: store.put("a", b"x"),
        lambda: check_room(store, "r"),
    ]
    for call in calls:
        assert kind_of(call) is ErrorType.STORE_FULL
    fault.status, fault.code = 403, "AccessDenied"
    for call in calls:
        assert kind_of(call) is ErrorType.STORE_UNAVAILABLE
    fault.times = 0
    assert check_room(store, "r") is None
    assert store.list("runs") == []


def test_a_missing_bucket_is_named_and_not_taken_for_an_empty_one(
    s3: str, server: BucketServer
) -> None:
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(RankflowError, match="NoSuchBucket") as caught:
        store.read("runs/r/plan.json")
    assert not isinstance(caught.value, MissingKey)


def test_a_body_that_was_cut_is_read_to_its_end(s3: str, server: BucketServer) -> None:
    store = open_store(s3)
    data = bytes(range(256)) * 16_384
    store.put("big", data)
    calls: list[Callable[[], bytes]] = [
        lambda: store.read("big"),
        lambda: b"".join(store.stream("big")),
        lambda: store.read_range("big", 0, len(data)),
    ]
    for call in calls:
        fault = Fault("cut", method="GET", path="/big")
        server.proxy.faults.append(fault)
        assert call() == data
        assert fault.times == 0


def test_a_large_object_survives_lost_parts_and_a_lost_completion(
    s3: str, server: BucketServer
) -> None:
    store = open_store(s3)
    server.proxy.faults += [
        Fault("lose-answer", path="partNumber=1"),
        Fault("lose", path="partNumber=2"),
        Fault("lose-answer", method="POST", path="?uploadId="),
    ]
    data = bytes(range(256)) * 90_000
    with store.writer("final/large") as writer:
        writer.write(data)
        writer.commit()
    assert store.read("final/large") == data
    assert all(fault.times == 0 for fault in server.proxy.faults)


def test_what_is_too_large_for_one_copy_is_published_all_the_same(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "MAX_COPY_BYTES", 1000)
    store = open_store(s3)
    store.put("final/out", b"x" * 1001)
    store.publish("final/out", "out.jsonl")
    assert store.read("out.jsonl") == b"x" * 1001
    copies = [h for _, path, h in server.proxy.requests if "out.jsonl" in path]
    assert not any("x-amz-copy-source" in headers for headers in copies)


def test_a_flush_that_failed_is_made_up_for_by_the_next_one(
    s3: str, server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bucket.RETRIES, "max_retries", 0)
    store = open_store(s3)
    attempt = store.append("attempts/t.jsonl")
    attempt.write(b"1\n")
    # The put arrives, its answer is lost, and the look at what is there fails as well.
    server.proxy.faults += [
        Fault("lose-answer", path="/attempts/"),
        Fault("status", method="GET", path="/attempts/"),
    ]
    assert kind_of(attempt.flush) is ErrorType.STORE_UNAVAILABLE
    assert not attempt.broken
    attempt.write(b"2\n")
    attempt.flush()
    attempt.write(b"3\n")
    attempt.close()
    assert store.read_attempt("attempts/t.jsonl") == b"1\n2\n3\n"
    assert len(store.list("attempts/t.jsonl")) == 3


def test_a_server_that_ignores_conditions_is_refused(s3: str, server: BucketServer) -> None:
    store = open_store(s3)
    require_fence(store, "r")
    server.proxy.faults.append(Fault("unconditional", times=2))
    with pytest.raises(RankflowError, match="If-None-Match") as caught:
        require_fence(store, "r")
    assert caught.value.kind is ErrorType.UNSUPPORTED_STORE
    assert store.list("runs") == []
