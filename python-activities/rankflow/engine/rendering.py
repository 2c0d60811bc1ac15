"""Where vLLM renders chat templates and tokenizes: on the engine's own loop, not in a thread.

vLLM gives each prompt to a thread, so that a server goes on streaming meanwhile. Where the loop is
busy that thread waits for the interpreter's lock, 5 ms for each prompt and each of its steps: a
fast engine then finishes rows faster than new ones come. A batch streams nothing to anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")


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
    return True
