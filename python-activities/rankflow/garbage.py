"""When Python looks for garbage, in processes that import vLLM.

To find what only refers to itself, CPython walks over the objects that there are, of which vLLM's
imports make 750,000 that stay: 0.3 to 0.7 s each time, in which an engine's loop does nothing else.
"""

import gc
from collections.abc import Generator
from contextlib import contextmanager

NEW_OBJECTS = 20_000


@contextmanager
def put_off() -> Generator[None]:
    """Look for none while what stays is made, imports or an engine, and never look there again.

    What is garbage by then stays too: 15 MB of vLLM's imports. That is less than a fork of this
    process would copy if its pages were written to.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def look_seldom() -> None:
    """Look once ``NEW_OBJECTS`` more are there than were freed.

    The usual 700 come with each step of a large batch, and most of them are freed without a look.
    Only for an engine's own process: what refers to itself in a planner can hold a large row.
    """
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])
