"""Checks that need the real model's tokenizer and vLLM's own request classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rankflow.contracts.errors import ErrorType, RankflowError
from rankflow.rows.planner import validate_run
from rankflow.rows.requests import CHAT, COMPLETIONS
from rankflow.rows.tokens import ModelTokens
from tests.rows.support import REPOSITORY, chat, jsonl, model_folder, problems, spec

PROMPT = "SECRET-PROMPT-TEXT of a customer"
CONTEXT = 8192


def real(**fields: Any) -> dict[str, Any]:
    return {"model": {"model": str(model_folder()), **fields}}


def row(number: int, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body}


def schema(wanted: dict[str, Any]) -> dict[str, Any]:
    """A response_format with a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}


BAD: list[tuple[str, dict[str, Any]]] = [
    ("invalid_parameter", chat("a", PROMPT, temperature=-1)),
    ("invalid_parameter", chat("b", PROMPT, max_tokens=0)),
    ("invalid_parameter", chat("c", PROMPT, n=PROMPT)),
    ("invalid_parameter", chat("d", messages=PROMPT)),
    ("invalid_parameter", chat("e", messages=[PROMPT])),
    ("invalid_parameter", chat("f", PROMPT, response_format={"type": PROMPT})),
    ("invalid_parameter", chat("g", PROMPT, logit_bias={PROMPT: 1})),
    ("invalid_parameter", chat("h", PROMPT, tool_choice=PROMPT, tools=[{"type": PROMPT}])),
    ("invalid_parameter", chat("i", PROMPT, chat_template=PROMPT)),
    ("invalid_parameter", row(1, COMPLETIONS, prompt={PROMPT: PROMPT})),
    ("invalid_parameter", row(2, COMPLETIONS)),
    ("invalid_parameter", row(3, CHAT)),
    ("invalid_parameter", chat("n", PROMPT, logprobs=True, top_logprobs=21)),
    ("invalid_parameter", row(6, COMPLETIONS, prompt=PROMPT, logprobs=21)),
    ("invalid_parameter", chat("o", PROMPT, logit_bias={"99999999": 1})),
    ("invalid_parameter", chat("p", PROMPT, stop_token_ids=[99_999_999])),
    ("invalid_parameter", chat("q", PROMPT, structured_outputs={"regex": f"(({PROMPT}"})),
    ("invalid_parameter", chat("s", structured_outputs={"regex": "(("})),
    ("invalid_parameter", chat("r", PROMPT, response_format=schema({"type": PROMPT}))),
    ("invalid_prompt", row(4, COMPLETIONS, prompt=[1, 2, 99_999_999])),
    ("chat_template_error", chat("j", messages=[])),
    ("tool_parser_missing", chat("k", tools=[{"type": "function", "function": {"name": "f"}}])),
    ("embeddings_not_supported", row(5, "/v1/embeddings", input=PROMPT)),
    ("context_length_exceeded", chat("l", f"{PROMPT} " * 4000)),
    ("context_length_exceeded", chat("m", PROMPT, max_tokens=CONTEXT + 1)),
]


def test_everything_vllm_would_refuse_is_told_without_the_prompt(tmp_path: Path) -> None:
    data = jsonl(request for _, request in BAD)
    asked = spec(tmp_path, data, **real())
    assert problems(asked) == [(line, code) for line, (code, _) in enumerate(BAD, 1)]
    with pytest.raises(RankflowError) as caught:
        validate_run(asked)
    assert "SECRET" not in json.dumps([str(caught.value), caught.value.details])
    assert "\\n" not in json.dumps(caught.value.details)


def test_of_a_field_that_may_be_one_thing_or_another_the_fitting_reason_is_told(
    tmp_path: Path,
) -> None:
    rows = [chat("a", stop=["1", "2", "3", "4", "5"]), chat("b", stop=7)]
    with pytest.raises(RankflowError) as caught:
        validate_run(spec(tmp_path, jsonl(rows), **real()))
    assert caught.value.details is not None
    first, second = (found["message"] for found in caught.value.details["problems"])
    assert first.startswith("stop: List should have at most 4 items")
    assert second == "stop: Input should be a valid string"


def test_all_that_vllm_takes_is_accepted(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    rows = [
        chat("a", temperature=0, top_p=0.5, seed=7, stop=["x"], logprobs=True, top_logprobs=2),
        chat("b", tools=[tool]),
        chat("c", tools=[tool], tool_choice="none"),
        chat("d", messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]),
        chat("e", response_format={"type": "json_object"}),
        chat("f", model="SmolLM2-135M-Instruct"),
        *[chat(f"s{n}", response_format=schema({"type": "object"})) for n in range(3)],
        chat("i", structured_outputs={"choice": ["yes", "no"]}),
        chat("j", structured_outputs={"regex": "[0-9]+"}, logit_bias={"3": 1}, stop_token_ids=[2]),
        chat("g", model=str(model_folder())),
        row(1, COMPLETIONS, prompt="Once"),
        row(2, COMPLETIONS, prompt=["a", "b"], n=2, max_tokens=5),
        row(3, COMPLETIONS, prompt=[1, 2, 3]),
        chat("h", "word " * 20_000, truncate_prompt_tokens=100),
    ]
    asked = spec(tmp_path, jsonl(rows), **real(toolCallParser="hermes"))
    assert problems(asked) == []


def test_tokens_are_counted_as_the_engine_counts_them(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": "Grüße, 世界! Tell me a joke."}]
    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder())
    expected = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    rows = [
        chat("a", messages=messages, max_tokens=11, n=3),
        row(1, COMPLETIONS, prompt=[5, 6, 7], max_tokens=4),
        row(2, COMPLETIONS, prompt=[[5], [6, 7]], max_tokens=4),
    ]
    summary = validate_run(spec(tmp_path, jsonl(rows), **real()))
    assert summary.prompt_tokens == len(expected) + 3 + 3
    assert summary.max_output_tokens == 3 * 11 + 4 + 2 * 4


def test_without_a_limit_the_rest_of_the_context_may_be_generated(tmp_path: Path) -> None:
    rows = [row(1, CHAT, messages=[{"role": "user", "content": "Hi"}])]
    summary = validate_run(spec(tmp_path, jsonl(rows), **real()))
    assert summary.max_output_tokens == CONTEXT - summary.prompt_tokens
    small = validate_run(spec(tmp_path, jsonl(rows), **real(maxModelLen=100)))
    assert small.max_output_tokens == 100 - small.prompt_tokens


def test_a_prompt_must_leave_room_for_one_token(tmp_path: Path) -> None:
    for length, expected in ((99, []), (100, [(1, "context_length_exceeded")])):
        rows = [row(1, COMPLETIONS, prompt=[5] * length, max_tokens=50)]
        assert problems(spec(tmp_path, jsonl(rows), **real(maxModelLen=100))) == expected


def test_the_facts_of_a_model_come_from_its_files(tmp_path: Path) -> None:
    facts = ModelTokens(spec(tmp_path, b"", **real()).model).facts
    assert (facts.max_model_len, facts.has_chat_template) == (CONTEXT, True)
    assert facts.architectures == ["LlamaForCausalLM"]


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    asked = spec(tmp_path, jsonl([chat("a")]), model={"model": str(tmp_path / "none")})
    with pytest.raises(RankflowError, match="none") as caught:
        validate_run(asked)
    assert caught.value.kind is ErrorType.ENGINE_ARGUMENTS_INVALID


def rows_command(name: str, value: Any) -> tuple[int, dict[str, Any], str]:
    """Exit code, answer and stderr of ``python -m rankflow.rows``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rankflow.rows", name],
        input=json.dumps(value),
        capture_output=True,
        text=True,
        cwd=REPOSITORY / "python-activities",
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_planned_run_is_returned_without_importing_vllm(tmp_path: Path) -> None:
    asked = spec(tmp_path, jsonl([chat("a")]), **real())
    value = {"spec": asked.model_dump(by_alias=True, exclude_none=True)}
    code, answer, log = rows_command("plan", value)
    assert (code, answer["summary"]["rows"]) == (0, 1)
    assert "vllm.sampling_params" in log
    code, again, log = rows_command("plan", value)
    assert (code, again) == (0, answer)
    for heavy in ("vllm", "torch", "transformers", "pyarrow"):
        assert f" {heavy}\n" not in log


def test_a_refusal_is_json_with_all_problems_and_exit_code_two(tmp_path: Path) -> None:
    asked = spec(tmp_path, b"broken\n\nbroken\n")
    code, answer, _ = rows_command("validate", asked.model_dump(by_alias=True, exclude_none=True))
    assert code == 2
    assert answer["error"] == "InvalidInput"
    assert (answer["total"], [found["line"] for found in answer["problems"]]) == (2, [1, 3])
    recorded = asked.model_copy(update={"on_invalid": "record"})
    value = recorded.model_dump(by_alias=True, exclude_none=True)
    code, answer, _ = rows_command("validate", value)
    assert (code, answer["summary"]["invalidRows"]) == (0, 2)
    assert (answer["total"], [found["line"] for found in answer["problems"]]) == (2, [1, 3])
    code, answer, _ = rows_command("validate", {"runId": "../x"})
    assert code == 2
    assert "runId" in answer["message"]
