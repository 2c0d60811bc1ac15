"""A real vLLM engine behind the backend interface: answers, refusals, cancellation and death."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio

from rankflow import garbage
from rankflow.contracts.models import ModelSpec
from rankflow.engine import grouped, rendering
from rankflow.engine.backend import Answer, BackendDead, BackendTrouble
from rankflow.engine.batch import BatchActivities, Served
from rankflow.engine.host import EngineHost, backend_factory
from rankflow.engine.lease import Contact
from rankflow.engine.prefork import COMPUTE_NICENESS
from rankflow.engine.rendering import LongPrompts, render_on_loop
from rankflow.faults import VARIABLE, faults
from rankflow.store.attempt_lines import AttemptLine
from rankflow.store.commits import read_commit
from tests.engine.conftest import RUN, attempt_environment, chat, write_plan
from tests.engine.models import smollm

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def spec() -> ModelSpec:
    """A small context, so that too long a prompt is easily made.

    In float32: what this model says in bfloat16 depends on the processor. Requests begin in groups,
    as they do on GPUs.
    """
    return ModelSpec(
        model=str(smollm()),
        dtype="float32",
        max_model_len=512,
        max_num_seqs=32,
        cpus_per_engine=2,
        engine_args={"scheduler_cls": grouped.NAME},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host() -> AsyncIterator[EngineHost]:
    """One engine for all tests of this file; the last test kills it."""
    started = EngineHost(backend_factory(spec(), 0))
    started.start()
    await started.wait_loaded()
    yield started
    started.shutdown()


def question(text: str, **more: Any) -> dict[str, Any]:
    """A chat body with a greedy answer of a few tokens."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    return body | {"max_tokens": 12, "temperature": 0} | more


async def test_the_model_answers_a_chat(host: EngineHost) -> None:
    answer = await host.answer(CHAT, question("What is the capital of France?"), "a")
    assert "Paris" in answer.body["choices"][0]["message"]["content"]
    assert answer.body["model"] == "SmolLM2-135M-Instruct"
    assert 0 < answer.completion_tokens <= 12


async def test_its_processes_are_forks_that_import_nothing_again(host: EngineHost) -> None:
    children = {child: " ".join(child.cmdline()) for child in psutil.Process().children()}
    (server,) = [
        child for child, title in children.items() if "multiprocessing.forkserver" in title
    ]
    forks = sorted(" ".join(fork.cmdline()).strip() for fork in server.children())
    assert forks == ["VLLM::EngineCore", "VLLM::Worker"]
    # What hands work out, beside them on the same processors, is not to wait for them.
    niceness = psutil.Process().nice()
    assert {fork.nice() for fork in server.children()} == {niceness + COMPUTE_NICENESS}


@pytest.mark.parametrize(
    ("capability", "asked", "taken"),
    [
        ("AVX2", "auto", "float32"),
        ("AVX2", "bfloat16", "bfloat16"),
        ("AVX512", "auto", "auto"),
        ("DEFAULT", "auto", "auto"),
    ],
)
async def test_auto_is_float32_where_bfloat16_is_slow(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch, capability: str, asked: str, taken: str
) -> None:
    # Imports vLLM, in the environment that the engine prepared.
    from rankflow.engine.arguments import engine_arguments

    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    asking = ModelSpec.model_validate(spec().model_dump() | {"dtype": asked})
    assert engine_arguments(asking).engine.dtype == taken


@pytest.mark.usefixtures("host")
async def test_it_looks_for_garbage_seldom_and_never_among_imports() -> None:
    assert gc.get_freeze_count() > 500_000
    assert gc.get_threshold()[0] == garbage.NEW_OBJECTS


@pytest.mark.usefixtures("host")
async def test_long_prompts_have_the_same_tokens_whoever_tokenizes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not before the engine is there: how vLLM starts its processes is changed until it is imported.
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.renderers import renderer_from_config
    from vllm.renderers.params import TokenizeParams

    arguments = AsyncEngineArgs(model=str(smollm()), dtype="float32", max_model_len=2048)
    one = renderer_from_config(arguments.create_engine_config())
    assert render_on_loop(one)
    calls: list[int] = []
    encode = LongPrompts._encode  # pyright: ignore[reportPrivateUsage]

    def counted(self: LongPrompts, texts: list[str], arguments: dict[str, Any]) -> list[list[int]]:
        calls.append(len(texts))
        return encode(self, texts, arguments)

    monkeypatch.setattr(LongPrompts, "_encode", counted)
    prompts = [{"prompt": f"Row {n}: " + "an émigré's naïve 東京 façade, " * 80} for n in range(30)]
    long = TokenizeParams(max_total_tokens=2048)
    short = TokenizeParams(max_total_tokens=2048, truncate_prompt_tokens=100)
    asked = [(prompt, params) for prompt in prompts for params in (long, short)]

    async def tokens() -> list[Any]:
        answers = (one._tokenize_prompt_async({**prompt}, params) for prompt, params in asked)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        return await asyncio.gather(*answers)

    together = await tokens()
    assert calls == [30, 30]
    monkeypatch.setattr(rendering, "LONG_CHARACTERS", 1_000_000)
    assert await tokens() == together
    assert calls == [30, 30]
    assert {len(found["prompt_token_ids"]) for found in together[1::2]} == {100}
    one.shutdown()


async def test_prompts_are_rendered_without_a_thread(host: EngineHost) -> None:
    """A thread that waits for a busy loop's lock feeds an engine slower than it answers."""
    await host.answer(CHAT, question("Say a word."), "rendered")
    backend: Any = vars(host)["_backend"]
    executor = backend._llm.renderer._executor
    assert not getattr(executor, "_inner", executor)._threads


async def test_steps_can_be_counted_without_statistics(host: EngineHost) -> None:
    from rankflow.engine.adapter import Pulse

    backend: Any = vars(host)["_backend"]
    pulse = Pulse()
    pulse.watch(backend._llm.engine_core)
    # The pull that waits now is not counted.
    await host.answer(CHAT, question("Say a word."), "pulled")
    before = (pulse.steps, backend.progress)
    answer = await host.answer(CHAT, question("Count.", ignore_eos=True), "counted")
    await asyncio.sleep(1.0)
    # A token of each step; the statistics count another one, which ends the request.
    assert pulse.steps - before[0] == answer.completion_tokens == 12
    assert backend.progress - before[1] >= 12


async def test_completions_and_their_options_work(host: EngineHost) -> None:
    body = {"prompt": "One two three", "max_tokens": 3, "logprobs": 2, "n": 2, "temperature": 1}
    answer = await host.answer(COMPLETIONS, body, "b")
    assert len(answer.body["choices"]) == 2
    assert answer.body["choices"][0]["logprobs"]["top_logprobs"]


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (CHAT, question("x", temperature=-3)),
        (CHAT, question("word " * 2000)),
        (CHAT, question("x", stream=True)),
        (CHAT, {"messages": "not a list"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/unknown", {}),
    ],
)
async def test_a_bad_request_is_refused_with_a_4xx(
    host: EngineHost, url: str, body: dict[str, Any]
) -> None:
    answer = await host.answer(url, body, "c")
    assert 400 <= answer.status_code < 500
    assert answer.body["error"]["message"]


async def test_a_cancelled_request_is_aborted_and_never_an_answer(host: EngineHost) -> None:
    endless = question("Count.", max_tokens=400, ignore_eos=True)
    task = asyncio.create_task(host.answer(CHAT, endless, "d"))
    before = host.progress
    try:
        while host.progress < before + 5:  # noqa: ASYNC110 -- the engine gives no event for a step
            await asyncio.sleep(0.05)
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Of 400 steps some are left: it would go on if it had not been aborted.
    await asyncio.sleep(1.0)
    resting = host.progress
    assert resting < before + 300
    await asyncio.sleep(2.0)
    assert host.progress == resting


async def test_rows_without_a_token_go_back_while_those_in_decode_are_finished(
    host: EngineHost,
) -> None:
    counting = question("Count.", max_tokens=60, ignore_eos=True)
    rows = [asyncio.create_task(host.answer(CHAT, counting, f"g-{n}")) for n in range(40)]
    # Two completions too: their ids look different inside vLLM.
    more = {"prompt": "One two", "max_tokens": 60, "ignore_eos": True}
    rows += [asyncio.create_task(host.answer(COMPLETIONS, more, f"h-{n}")) for n in range(2)]
    before = host.progress
    while host.progress < before + 5:  # noqa: ASYNC110 -- the engine gives no event for a step
        await asyncio.sleep(0.05)
    waiting, cut = await host.give_back(waiting_only=True)
    results = await asyncio.gather(*rows, return_exceptions=True)
    back = [result for result in results if isinstance(result, BackendTrouble)]
    answers = [result for result in results if isinstance(result, Answer)]
    assert (len(back), cut) == (waiting, 0)
    # As many as the engine decodes at once.
    assert len(answers) == 32
    assert {answer.completion_tokens for answer in answers} == {60}


async def test_rows_in_decode_can_be_given_back_too(host: EngineHost) -> None:
    counting = question("Count.", max_tokens=400, ignore_eos=True)
    rows = [asyncio.create_task(host.answer(CHAT, counting, f"i-{n}")) for n in range(4)]
    before = host.progress
    while host.progress < before + 5:  # noqa: ASYNC110 -- the engine gives no event for a step
        await asyncio.sleep(0.05)
    assert await host.give_back(waiting_only=False) == (0, 4)
    results = await asyncio.gather(*rows, return_exceptions=True)
    assert [type(result) for result in results] == [BackendTrouble] * 4


async def test_a_batch_of_real_rows_is_committed(host: EngineHost, tmp_path: Path) -> None:
    run = write_plan(tmp_path, [chat(n) for n in range(8)], spec())
    engine = BatchActivities(host, Served("test/slot-0/0-1", run.given.spec_hash), Contact())
    result = await attempt_environment().run(engine.generate_batch, run.given)
    commit = read_commit(run.store, RUN, 0, 0)
    assert commit is not None
    rows = [
        msgspec.json.decode(line, type=AttemptLine)
        for line in run.store.read_attempt(commit.path).splitlines()
    ]
    assert sorted(row.output["custom_id"] for row in rows) == sorted(f"c{n}" for n in range(8))
    assert result.failed_rows == 0


async def test_when_engine_core_dies_its_requests_are_not_answered(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"poison": "arsenic"}))
    faults.cache_clear()
    endless = question("Count.", max_tokens=400, ignore_eos=True)
    task = asyncio.create_task(host.answer(CHAT, endless, "e"))
    await asyncio.sleep(0.5)
    assert not host.dead
    for answer in (host.answer(CHAT, question("A spoon of arsenic?"), "f"), task):
        with pytest.raises(BackendDead):
            await asyncio.wait_for(answer, 60)
    assert host.dead
    faults.cache_clear()
