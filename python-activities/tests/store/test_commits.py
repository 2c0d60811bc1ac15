"""Commits and salvage: the first commit wins, and finished rows are never lost."""

import json
import random

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.store import Store
from rankflow.store.attempt_lines import AttemptLine, CommittedLine, RowCounts
from rankflow.store.commits import Commit, list_commits, read_commit, try_commit
from rankflow.store.layout import attempt_key, commit_key, parse_commit_key, plan_key
from rankflow.store.salvage import salvage


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


def line(row: int, custom_id: str = "x") -> bytes:
    return AttemptLine(
        row=row,
        prompt_tokens=1,
        completion_tokens=2,
        failed=False,
        output={"custom_id": custom_id},
    ).encode()


def write(store: Store, token: str, *parts: bytes, batch: int = 0) -> None:
    with store.append(attempt_key("r", 0, batch, token)) as attempt:
        for part in parts:
            attempt.write(part)
            attempt.flush()


def test_the_first_commit_counts_and_the_second_gets_it_back(store: Store) -> None:
    assert read_commit(store, "r", 0, 0) is None
    assert try_commit(store, "r", 0, 0, commit("first")).token == "first"
    assert try_commit(store, "r", 0, 0, commit("second")).token == "first"
    assert read_commit(store, "r", 0, 0) == commit("first")


def test_commits_are_listed_by_rank(store: Store) -> None:
    for rank, batch in ((0, 0), (0, 11), (3, 2)):
        try_commit(store, "r", rank, batch, commit("t"))
    store.put("runs/r/commits/notes.txt", b"somebody's own file")
    assert sorted(list_commits(store, "r")) == [(0, 0), (0, 11), (3, 2)]
    assert sorted(list_commits(store, "r", 0)) == [(0, 0), (0, 11)]
    assert list_commits(store, "none") == {}


def test_a_damaged_commit_is_refused(store: Store) -> None:
    store.put(commit_key("r", 0, 0), b'{"token":')
    with pytest.raises(RankflowError) as caught:
        read_commit(store, "r", 0, 0)
    assert caught.value.kind is ErrorType.PLAN_CORRUPT


def test_salvage_takes_complete_lines_of_all_attempts(store: Store) -> None:
    write(store, "t1", line(0), line(1), line(2)[:-5])
    write(store, "t2", line(3), b"not json\n", b'{"row": 4}\n', b"[]\n", line(9))
    found = salvage(store, "r", 0, 0, range(0, 6))
    assert {row: taken.data for row, taken in found.items()} == {n: line(n) for n in (0, 1, 3)}
    assert all(taken.counts == RowCounts(row, 1, 2, False) for row, taken in found.items())
    assert 9 in salvage(store, "r", 0, 0)
    assert salvage(store, "r", 0, 1) == {}


def test_lines_are_valid_json_in_utf_8_whatever_an_engine_answers() -> None:
    answer = {"custom_id": "x", "text": "half \ud83d", "logprobs": [float("-inf"), float("nan")]}
    encoded = AttemptLine(0, 1, 2, False, answer).encode()
    assert json.loads(encoded, parse_constant=pytest.fail)["output"]["text"] == "half ?"
    whole = AttemptLine(0, 1, 2, False, answer | {"text": "é 😀 \u2028"}).encode()
    assert json.loads(whole)["output"]["text"] == "é 😀 \u2028"
    assert json.loads(whole)["output"]["logprobs"] == [None, None]


def test_lines_of_earlier_releases_may_have_nan_in_them(store: Store) -> None:
    old = line(3).replace(b'"x"', b'"x","p":[NaN,-Infinity]')
    write(store, "t", old)
    assert salvage(store, "r", 0, 0)[3].data == old
    assert CommittedLine.parse(old).custom_id == "x"
    assert bytes(CommittedLine.parse(old).output) == b'{"custom_id":"x","p":[null,null]}'


def test_a_kill_at_any_byte_never_salvages_a_torn_row(store: Store) -> None:
    whole = b"".join(line(row, "é" * row) for row in range(4))
    for cut in random.Random(7).sample(range(len(whole)), 60):
        write(store, "t", whole[:cut], batch=cut)
        for row, taken in salvage(store, "r", 0, cut).items():
            assert taken.data == line(row, "é" * row)
            assert json.loads(taken.data)["row"] == row


def test_ids_that_could_name_another_folder_are_refused() -> None:
    for run_id in ("../other", "a/b", "", ".hidden", "a" * 129):
        with pytest.raises(RankflowError):
            plan_key(run_id)
    for token in ("../t", "a/b", ""):
        with pytest.raises(RankflowError):
            attempt_key("r", 0, 0, token)
    assert parse_commit_key(commit_key("r", 12345, 1234567)) == (12345, 1234567)
