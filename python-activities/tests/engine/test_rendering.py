"""Prompts are rendered on the loop that asks, through whatever vLLM wrapped around its executor."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import current_thread
from types import SimpleNamespace
from typing import Any

import pytest

from rankflow.engine.rendering import (
    LONG_CHARACTERS,
    MOST_CHARACTERS,
    MOST_TOGETHER,
    render_on_loop,
)


def renderer(**more: Any) -> SimpleNamespace:
    """With an executor, as vLLM's renderers have one."""
    return SimpleNamespace(_executor=ThreadPoolExecutor(max_workers=1), mm_processor=None, **more)


async def test_work_is_done_in_the_thread_of_the_loop() -> None:
    one = renderer()
    executor = one._executor
    assert render_on_loop(one)
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, threading.get_ident) == threading.get_ident()
    with pytest.raises(ValueError, match="no template"):
        await loop.run_in_executor(executor, fail)
    executor.shutdown()


async def test_images_keep_the_thread_and_an_unknown_renderer_is_left_alone() -> None:
    one = renderer()
    one.mm_processor = object()
    assert not render_on_loop(one)
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(one._executor, threading.get_ident) != threading.get_ident()
    one._executor.shutdown()
    assert not render_on_loop(SimpleNamespace())


def fail() -> None:
    """What a chat template does that refuses its messages."""
    raise ValueError("no template for this role")


class ThreadSafeHFTokenizerMixin:
    """vLLM's has this name."""


class Tokenizer(ThreadSafeHFTokenizerMixin):
    """A token a character; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []

    def __call__(self, text: str | list[str], **arguments: Any) -> dict[str, Any]:
        self.calls.append((1 if isinstance(text, str) else len(text), current_thread().name))
        time.sleep(0.02)
        texts = [text] if isinstance(text, str) else text
        if any("broken" in one for one in texts):
            raise ValueError("the text is broken")
        ids = [[ord(letter) for letter in one[: arguments["max_length"]]] for one in texts]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}


class Renderer:
    """What ``render_on_loop`` uses of vLLM's."""

    def __init__(self, tokenizer: Any = None) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1)
        self.mm_processor = None
        self.tokenizer = tokenizer or Tokenizer()

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def _wants_offsets(self, prompt: dict[str, Any], params: Any) -> bool:
        return params.offsets

    def _build_tokens_prompt(self, ids: list[int], prompt: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_token_ids": ids, **prompt}

    def _tokenize_prompt(self, prompt: dict[str, Any], params: Any) -> dict[str, Any]:
        ids = self.tokenizer(prompt["prompt"], **params.get_encode_kwargs())["input_ids"]
        return self._build_tokens_prompt(ids, prompt)

    async def _tokenize_prompt_async(self, prompt: Any, params: Any) -> dict[str, Any]:
        raise AssertionError("vLLM's own way is left alone")


class Params:
    """vLLM's TokenizeParams."""

    def __init__(self, most: int = 5000, offsets: bool = False) -> None:
        self.most, self.offsets = most, offsets

    def get_encode_kwargs(self) -> dict[str, Any]:
        return {"max_length": self.most}


def long(text: str) -> dict[str, Any]:
    """A prompt that is worth a thread."""
    return {"prompt": text + "." * LONG_CHARACTERS}


async def tokenize(one: Renderer, *prompts: tuple[dict[str, Any], Params]) -> list[Any]:
    """All at once; what is raised is among them."""
    asked = (one._tokenize_prompt_async(*prompt) for prompt in prompts)  # pyright: ignore[reportPrivateUsage]
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_long_prompts_are_tokenized_together_in_a_thread_and_short_ones_at_once() -> None:
    one = Renderer()
    assert render_on_loop(one)
    prompts = [({"prompt": "short"}, Params()), *((long(f"{n} "), Params()) for n in range(100))]
    expected = [one._tokenize_prompt(*prompt) for prompt in prompts]  # pyright: ignore[reportPrivateUsage]
    one.tokenizer.calls.clear()
    assert await tokenize(one, *prompts) == expected
    own = current_thread().name
    counts = [count for count, _ in one.tokenizer.calls]
    assert counts == [1, MOST_TOGETHER, 100 - MOST_TOGETHER]
    assert [name == own for _, name in one.tokenizer.calls] == [True, False, False]


async def test_those_with_other_arguments_are_tokenized_with_their_own() -> None:
    one = Renderer()
    assert render_on_loop(one)
    prompts = [(long(f"{n} "), Params(most=2001 + n % 3)) for n in range(9)]
    found = await tokenize(one, *prompts)
    lengths = [len(prompt["prompt_token_ids"]) for prompt in found]
    assert lengths == [2001, 2002, 2002] * 3
    # Offsets come with one prompt only.
    await tokenize(one, (long("a"), Params(offsets=True)))
    assert one.tokenizer.calls[-1] == (1, current_thread().name)


@pytest.mark.parametrize("third", ["broken", "well"])
async def test_a_broken_prompt_fails_alone_and_one_that_is_given_up_hinders_nobody(
    third: str,
) -> None:
    one = Renderer()
    assert render_on_loop(one)
    texts = ("given up", "a", third, "b")
    given_up, *others = [
        asyncio.ensure_future(tokenize(one, (long(text), Params()))) for text in texts
    ]
    await asyncio.sleep(0.001)
    given_up.cancel()
    first, other, last = [found for (found,) in await asyncio.wait_for(asyncio.gather(*others), 5)]
    assert (first["prompt"][0], last["prompt"][0]) == ("a", "b")
    assert isinstance(other, ValueError) == (third == "broken")
    assert given_up.cancelled()
    # And more can come.
    (later,) = await tokenize(one, (long("c"), Params()))
    assert later["prompt"][0] == "c"


class TooFew(Tokenizer):
    """Gives other than one answer a prompt, as a model's own code might."""

    def __call__(self, text: str | list[str], **arguments: Any) -> dict[str, Any]:
        return {"input_ids": super().__call__(text, **arguments)["input_ids"][1:]}


async def test_whatever_a_tokenizer_gives_nobody_waits_for_ever() -> None:
    one = Renderer(TooFew())
    assert render_on_loop(one)
    asked = tokenize(one, *((long(str(n)), Params()) for n in range(3)))
    assert [type(found) for found in await asyncio.wait_for(asked, 5)] == [ValueError] * 3


async def test_very_long_prompts_are_not_all_tokenized_in_one_call() -> None:
    one = Renderer()
    assert render_on_loop(one)
    prompts = [({"prompt": "x" * (MOST_CHARACTERS // 3)}, Params()) for _ in range(9)]
    await tokenize(one, *prompts)
    assert [count for count, _ in one.tokenizer.calls] == [4, 4, 1]


async def test_a_tokenizer_that_two_threads_must_not_use_stays_on_the_loop() -> None:
    one = Renderer(object())
    assert render_on_loop(one)
    with pytest.raises(AssertionError, match="left alone"):
        await one._tokenize_prompt_async(long("a"), Params())  # pyright: ignore[reportPrivateUsage]
