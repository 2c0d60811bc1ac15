"""Every input format becomes the same requests."""

from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.plan import find_plan
from rankflow.rows.planner import plan_run, validate_run
from rankflow.store import open_store
from tests.rows.support import chat, jsonl, problems, spec


def planned(folder: Path, data: bytes | None, name: str, **fields: Any) -> list[dict[str, Any]]:
    """The requests that a plan holds for an input."""
    asked = spec(folder, data, name, **fields)
    plan_run(asked)
    plan = find_plan(open_store(asked.store), asked.run_id)
    assert plan is not None
    return [row for part in plan.batches(0) for row in plan.read_requests(part)]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_simple_jsonl_rows_become_requests(tmp_path: Path) -> None:
    data = jsonl(
        [
            {"prompt": "Once", "temperature": 0.5, "note": "the user's own"},
            {"messages": user("Hi"), "id": 7, "max_tokens": 3},
            {"input": "embed me", "custom_id": "mine"},
        ]
    )
    assert planned(tmp_path, data, "in.jsonl") == [
        {
            "custom_id": "row-1",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"temperature": 0.5, "prompt": "Once"},
        },
        {
            "custom_id": "7",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"max_tokens": 3, "messages": user("Hi")},
        },
        {
            "custom_id": "mine",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": "embed me"},
        },
    ]


def test_run_defaults_fill_in_and_never_override_a_row(tmp_path: Path) -> None:
    data = jsonl(
        [
            {"messages": user("a"), "temperature": 0.0},
            {"messages": user("b"), "max_completion_tokens": 5},
            {"prompt": "c"},
        ]
    )
    rows = planned(tmp_path, data, "in.jsonl", sampling={"temperature": 0.9, "max_tokens": 64})
    assert [row["body"].get("temperature") for row in rows] == [0.0, 0.9, 0.9]
    assert [row["body"].get("max_tokens") for row in rows] == [64, None, 64]


def test_csv_records_are_filled_into_a_template(tmp_path: Path) -> None:
    data = b'id,word,language\n1,"cat, ""the""",French\n2,"two\nlines",German\n'
    rows = planned(tmp_path, data, "in.csv", input={"template": "{{in}} {language}: {word} {word}"})
    assert [row["body"]["messages"] for row in rows] == [
        user('{in} French: cat, "the" cat, "the"'),
        user("{in} German: two\nlines two\nlines"),
    ]
    assert [row["custom_id"] for row in rows] == ["1", "2"]


def test_a_value_with_braces_is_not_a_placeholder(tmp_path: Path) -> None:
    rows = planned(tmp_path, b"a,b\n{b},x\n", "in.csv", input={"template": "{a}-{b}"})
    assert rows[0]["body"]["messages"] == user("{b}-x")


def test_csv_problems_name_the_line(tmp_path: Path) -> None:
    data = b'prompt,id\n"one\nmore",a\nshort\n\xff\xfe,b\n,c\nfine,d\n"open,e\n'
    assert problems(spec(tmp_path, data, "in.csv")) == [
        (4, "invalid_csv"),
        (5, "invalid_utf8"),
        (6, "missing_prompt"),
        (8, "invalid_csv"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "{word} {nowhere}"}, "'nowhere'"),
        ({"promptColumn": "nowhere"}, "'nowhere'"),
        ({}, "'prompt'"),
    ],
)
def test_an_unknown_column_is_one_problem_that_names_the_columns(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    asked = spec(tmp_path, b"word,other\na,b\nc,d\n", "in.csv", input=options)
    assert problems(asked) == [(0, "unknown_column")]
    with pytest.raises(RankflowError) as caught:
        validate_run(asked)
    assert said in str(caught.value)
    assert "word, other" in str(caught.value)


@pytest.mark.parametrize("template", ["{", "{}", "a } b", "{word"])
def test_a_malformed_template_is_one_problem(tmp_path: Path, template: str) -> None:
    asked = spec(tmp_path, b"word\na\n", "in.csv", input={"template": template})
    assert problems(asked) == [(0, "invalid_template")]


def test_parquet_is_streamed_with_row_numbers(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": f"prompt {n}", "id": n, "unused": b"x"} for n in range(3000)
    ]
    rows[2000]["text"] = None
    rows[2500]["text"] = ""
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=700
    )
    options = {"promptColumn": "text"}
    asked = spec(tmp_path, None, "in.parquet", input=options)
    assert problems(asked) == [(2001, "missing_prompt"), (2501, "missing_prompt")]
    found = planned(tmp_path, None, "in.parquet", input={**options, "limit": 1500})
    assert len(found) == 1500
    assert found[1499]["custom_id"] == "1499"
    assert found[1499]["body"]["messages"] == user("prompt 1499")


def test_a_broken_parquet_file_is_one_problem(tmp_path: Path) -> None:
    assert problems(spec(tmp_path, b"PAR1 broken", "in.bin")) == [(0, "invalid_parquet")]


def test_options_that_do_not_fit_the_format_are_refused(tmp_path: Path) -> None:
    batch = jsonl([chat("a")])
    for options in ({"template": "{x}"}, {"promptColumn": "x"}):
        assert problems(spec(tmp_path, batch, input=options)) == [(0, "conflicting_options")]
    both = {"template": "{x}", "promptColumn": "x"}
    assert problems(spec(tmp_path, b"x\n1\n", "in.csv", input=both)) == [(0, "conflicting_options")]


def test_an_unknown_format_asks_for_its_name(tmp_path: Path) -> None:
    with pytest.raises(RankflowError, match="--input-format") as caught:
        validate_run(spec(tmp_path, b"some text\n", "in.txt"))
    assert caught.value.kind is ErrorType.UNSUPPORTED_INPUT
    with pytest.raises(RankflowError) as caught:
        validate_run(
            spec(tmp_path, None).model_copy(
                update={"input": spec(tmp_path, None).input.model_copy(update={"uri": "in.jsonl"})}
            )
        )
    assert caught.value.kind is ErrorType.UNSUPPORTED_INPUT
