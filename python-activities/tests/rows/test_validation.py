"""Everything wrong with an input is told at once, with line numbers, before any engine starts."""

import gc
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows import readers
from rankflow.rows.checks import RowCheck
from rankflow.rows.planner import validate_run
from rankflow.rows.readers import TextRow
from tests.rows.support import chat, jsonl, problems, spec


def test_all_problems_of_a_file_are_listed_with_their_lines(tmp_path: Path) -> None:
    lines = [
        json.dumps(chat("good")).encode(),
        b"{not json",
        b"[1, 2]",
        b'{"custom_id": "\xff"}',
        b"",
        json.dumps(chat(None)).encode(),
        json.dumps(chat(7)).encode(),
        json.dumps(chat("")).encode(),
        json.dumps(chat("good")).encode(),
        json.dumps({**chat("a"), "method": "GET"}).encode(),
        json.dumps({**chat("b"), "url": "/v1/files"}).encode(),
        json.dumps({**chat("c"), "body": "text"}).encode(),
        json.dumps(chat("d", stream=True)).encode(),
        json.dumps(chat("e", model="another")).encode(),
        b'{"custom_id": "f", "n": NaN}',
        b"[" * 100_000,
        json.dumps({**chat("h"), "body": {"prompt": "\ud800"}}).encode(),
        b'{"custom_id": "i", "n": 1e999}',
        b'{"custom_id": "j", "n": ' + b"9" * 5000 + b"}",
        json.dumps(chat("k\udfff")).encode(),
    ]
    assert problems(spec(tmp_path, b"\n".join(lines))) == [
        (2, "invalid_json"),
        (3, "not_an_object"),
        (4, "invalid_utf8"),
        (6, "missing_custom_id"),
        (7, "invalid_custom_id"),
        (8, "invalid_custom_id"),
        (9, "duplicate_custom_id"),
        (10, "unsupported_method"),
        (11, "unsupported_url"),
        (12, "missing_body"),
        (13, "stream_not_supported"),
        (14, "model_mismatch"),
        (15, "invalid_json"),
        (16, "invalid_json"),
        (17, "invalid_unicode"),
        (18, "invalid_json"),
        (19, "invalid_json"),
        (20, "invalid_unicode"),
    ]


def test_all_that_is_wrong_with_one_row_is_told_at_once(tmp_path: Path) -> None:
    data = jsonl(
        [
            {"custom_id": 7, "method": "GET", "url": "/v1/files", "body": None},
            chat("a"),
            chat("a", stream=True, model="another"),
        ]
    )
    asked = spec(tmp_path, data)
    assert problems(asked) == [
        (1, "invalid_custom_id"),
        (1, "unsupported_method"),
        (1, "unsupported_url"),
        (1, "missing_body"),
        (3, "duplicate_custom_id"),
        (3, "stream_not_supported"),
        (3, "model_mismatch"),
    ]
    # A row with several problems is still one row.
    summary = validate_run(asked.model_copy(update={"on_invalid": "record"}))
    assert (summary.rows, summary.invalid_rows) == (3, 2)


@pytest.mark.parametrize("broken", [b"{not json", b"[1]", b"\xff{}"])
def test_a_broken_first_line_does_not_hide_the_format_of_the_others(
    tmp_path: Path, broken: bytes
) -> None:
    data = broken + b"\n" + jsonl([chat("a"), chat("b")])
    assert [line for line, _ in problems(spec(tmp_path, data))] == [1]


def test_a_duplicate_names_the_first_line(tmp_path: Path) -> None:
    with pytest.raises(RankflowError) as caught:
        validate_run(spec(tmp_path, jsonl([chat("a"), chat("b"), chat("a")])))
    assert caught.value.kind is ErrorType.INVALID_INPUT
    assert caught.value.details is not None
    assert caught.value.details["problems"][0]["message"].endswith("line 1")
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (None, "missing_input"),
        (b"", "empty_input"),
        (b"\n \r\n\n", "empty_input"),
    ],
)
def test_a_missing_or_empty_file_is_one_clear_problem(
    tmp_path: Path, data: bytes | None, code: str
) -> None:
    assert problems(spec(tmp_path, data)) == [(0, code)]


def test_a_folder_is_no_input(tmp_path: Path) -> None:
    assert problems(spec(tmp_path, None, name=".")) == [(0, "missing_input")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n"])
def test_line_ends_byte_order_mark_and_blank_lines_are_harmless(
    tmp_path: Path, ending: bytes, start: bytes, last: bytes
) -> None:
    lines = [json.dumps(chat(name)).encode() for name in "abc"]
    summary = validate_run(spec(tmp_path, start + ending.join(lines) + last))
    assert summary.rows == 3


def test_a_line_over_the_limit_is_told_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "LINE_BYTES", 1000)
    data = jsonl([chat("a"), chat("b", "x" * 5000), {**chat("c"), "url": "/bad"}])
    assert problems(spec(tmp_path, data)) == [(2, "line_too_long"), (3, "unsupported_url")]


def test_thousands_of_problems_are_counted_and_a_thousand_are_listed(tmp_path: Path) -> None:
    with pytest.raises(RankflowError) as caught:
        validate_run(spec(tmp_path, b"x\n" * 2500, input={"format": "openai"}))
    assert caught.value.details is not None
    assert caught.value.details["total"] == 2500
    assert len(caught.value.details["problems"]) == 1000
    assert len(json.dumps(caught.value.details)) < 1_000_000


def test_only_the_first_rows_count_when_a_limit_is_set(tmp_path: Path) -> None:
    data = jsonl([chat("a"), chat("b"), chat("c")]) + b"not json\n"
    assert validate_run(spec(tmp_path, data, input={"limit": 2})).rows == 2


def test_no_garbage_crashes_the_check_or_shows_up_in_a_message(tmp_path: Path) -> None:
    rng = random.Random(11)
    good = json.dumps(chat("id-secretive", "SECRET-PROMPT-TEXT", temperature=0.5)).encode()
    for _ in range(300):
        text = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(text))
            text[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        try:
            validate_run(spec(tmp_path, bytes(text), input={"format": "openai"}))
        except RankflowError as error:
            assert error.kind is ErrorType.INVALID_INPUT
            assert "SECRET-PROMPT" not in json.dumps([str(error), error.details])


def test_any_json_value_in_any_place_is_a_problem_or_fine_but_no_crash(tmp_path: Path) -> None:
    rng = random.Random(5)
    values: list[Any] = [None, True, 0, -1, 1e308, 10**30, "", "text", [], [1], {}, {"a": [None]}]
    rows: list[Any] = []
    for number in range(300):
        row = chat(f"r{number}")
        row[rng.choice(list(row))] = rng.choice(values)
        row["body"] = row["body"] if isinstance(row["body"], dict) else {}
        row["body"][rng.choice(["messages", "prompt", "max_tokens", "n", "tools", "stop"])] = (
            rng.choice(values)
        )
        rows.append(row)
    problems(spec(tmp_path, jsonl(rows)))


def test_what_is_wrong_with_a_row_does_not_hold_it(tmp_path: Path) -> None:
    """Nothing looks for garbage as often as large rows come."""
    check = RowCheck(
        spec(
            tmp_path,
            b"",
            model={"model": "simulated-model", "backend": "simulated", "maxModelLen": 64},
        )
    )
    streams, long = chat("a", stream=True), chat("b", "word " * 1000)
    gc.collect()
    gc.disable()
    try:
        found = check.check("openai", [TextRow(1, jsonl([streams])), TextRow(2, jsonl([long]))])
        left = [one for one in gc.get_objects() if type(one).__name__ == "_Pending"]
    finally:
        gc.enable()
    codes = [problem.code for one in found for problem in one.problems]
    assert codes == ["stream_not_supported", "context_length_exceeded"]
    assert left == []
