"""Where vLLM renders chat templates and tokenizes: on the engine's own loop, not in a thread.

vLLM gives each prompt to a thread, so that a server goes on streaming meanwhile. Where the loop is
busy that thread waits for the interpreter's lock, 5 ms for each prompt and each of its steps: a
fast engine then finishes rows faster than new ones come. A batch streams nothing to anybody.

A long prompt takes a tokenizer milliseconds, all the time of a loop that has hundreds of them in a
second. Those are tokenized in a thread after all, but many in one call: it needs the lock once for
all of them, and works without it. Tokenizers that two threads must not use at once, which are those
that vLLM has no pool for, stay on the loop; so do chats of models whose template gives tokens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LONG_CHARACTERS = 2000
"""A shorter prompt is tokenized in less time (0.4 ms) than a thread may wait for the lock."""
MOST_TOGETHER = 64
"""Prompts of one call: the first of them waits for the last."""
MOST_CHARACTERS = 1_000_000
"""Of the prompts of one call, but for the last: half a second of a tokenizer, and 50 MB."""


class AtOnce:
    """``submit`` of an executor that has no threads: it returns when the work is done."""

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Do the work; the future that comes back has its result or its error."""
        future: Future[T] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def render_on_loop(renderer: Any) -> bool:
    """Have a renderer of vLLM's do its work on the loop that asks for it; False: it is left as is.

    One with images or sound keeps its thread: decoding those takes long. So does one that has no
    such thread any more, in a vLLM to come.
    """
    executor = getattr(renderer, "_executor", None)
    if not isinstance(executor, Executor) or getattr(renderer, "mm_processor", None) is not None:
        return False
    # What vLLM wrapped keeps the executor itself, so another one in its place would not be asked.
    executor.submit = AtOnce().submit  # type: ignore[method-assign]
    if _can_be_joined(renderer):
        renderer._tokenize_prompt_async = LongPrompts(renderer).tokenize
    return True


_NEEDED = (
    *("_tokenize_prompt", "_tokenize_prompt_async", "_wants_offsets", "_build_tokens_prompt"),
    "get_tokenizer",
)
_SAFE = "ThreadSafeHFTokenizerMixin"
"""What vLLM has made usable for several threads."""


def _can_be_joined(renderer: Any) -> bool:
    if not all(hasattr(renderer, name) for name in _NEEDED):
        return False
    return any(kind.__name__ == _SAFE for kind in type(renderer.get_tokenizer()).__mro__)


class _Waiting(NamedTuple):
    prompt: dict[str, Any]
    """vLLM's TextPrompt."""
    arguments: dict[str, Any]
    """Of the tokenizer's call."""
    tokenized: asyncio.Future[Any]
    """A TokensPrompt."""


class LongPrompts:
    """In place of a renderer's ``_tokenize_prompt_async``; used on one event loop."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer
        self._thread = ThreadPoolExecutor(1, "tokenizer")
        self._waiting = deque[_Waiting]()
        self._work: asyncio.Task[None] | None = None

    async def tokenize(self, prompt: dict[str, Any], params: Any) -> Any:
        """What the renderer's ``_tokenize_prompt`` gives, or raises."""
        short = len(prompt["prompt"]) < LONG_CHARACTERS
        if short or self._renderer._wants_offsets(prompt, params):
            return self._renderer._tokenize_prompt(prompt, params)
        loop = asyncio.get_running_loop()
        one = _Waiting(prompt, params.get_encode_kwargs(), loop.create_future())
        self._waiting.append(one)
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._tokenize_all())
        return await one.tokenized

    async def _tokenize_all(self) -> None:
        # More come while some are in the thread.
        while together := self._next():
            same: dict[str, list[_Waiting]] = {}
            for one in together:
                same.setdefault(repr(one.arguments), []).append(one)
            for alike in same.values():
                error = await self._tokenize(alike)
                if error is None:
                    continue
                # One of them is to blame: alone it says so, and the others are well.
                for one in alike:
                    error = await self._tokenize([one])
                    if error is not None and not one.tokenized.done():
                        one.tokenized.set_exception(error)

    def _next(self) -> list[_Waiting]:
        together: list[_Waiting] = []
        characters = 0
        while self._waiting and len(together) < MOST_TOGETHER and characters < MOST_CHARACTERS:
            one = self._waiting.popleft()
            characters += len(one.prompt["prompt"])
            together.append(one)
        return together

    async def _tokenize(self, alike: list[_Waiting]) -> Exception | None:
        """Answer all of them, or none; what went wrong then."""
        texts = [one.prompt["prompt"] for one in alike]
        loop = asyncio.get_running_loop()
        try:
            tokens = await loop.run_in_executor(
                self._thread, self._encode, texts, alike[0].arguments
            )
            build = self._renderer._build_tokens_prompt
            made = [build(own, one.prompt) for own, one in zip(tokens, alike, strict=True)]
        except Exception as error:
            return error
        for one, prompt in zip(alike, made, strict=True):
            # It is done where nobody waits any more.
            if not one.tokenized.done():
                one.tokenized.set_result(prompt)
        return None

    def _encode(self, texts: list[str], arguments: dict[str, Any]) -> list[list[int]]:
        return self._renderer.get_tokenizer()(texts, **arguments)["input_ids"]
