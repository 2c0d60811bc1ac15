"""What is promised of calls to another thread's event loop."""

import asyncio
import contextvars
import threading
from collections.abc import Generator
from typing import Any

import pytest

from rankflow.engine.crossing import Crossing, Outbox

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who")


class CountedLoop(asyncio.SelectorEventLoop):
    """Counts how often it is woken from outside."""

    woken = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(*args, **kwargs)


@pytest.fixture
def there() -> Generator[CountedLoop]:
    """An event loop that runs in a thread of its own."""
    loop = CountedLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_results_and_errors_come_back(there: CountedLoop) -> None:
    crossing = Crossing(there)

    async def where(fails: bool) -> int:
        await asyncio.sleep(0)
        if fails:
            raise KeyError("over there")
        return threading.get_ident()

    assert await crossing.run(where(False)) != threading.get_ident()
    with pytest.raises(KeyError, match="over there"):
        await crossing.run(where(True))


async def test_many_calls_at_once_wake_the_other_loop_once(there: CountedLoop) -> None:
    crossing = Crossing(there)
    answers = asyncio.gather(*(crossing.run(asyncio.sleep(0, number)) for number in range(500)))
    woken = there.woken
    assert await answers == list(range(500))
    # More often only if it got to work before all were there.
    assert woken < 50


async def test_cancelling_ends_the_work_over_there(there: CountedLoop) -> None:
    started, ended = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    future = Crossing(there).run(work())
    assert await asyncio.to_thread(started.wait, 10)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
    assert await asyncio.to_thread(ended.wait, 10)


async def test_work_that_is_cancelled_over_there_is_cancelled_here(there: CountedLoop) -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Crossing(there).run(work())


async def test_each_call_keeps_the_context_of_its_caller(there: CountedLoop) -> None:
    crossing = Crossing(there)

    async def who() -> str:
        return WHO.get()

    async def ask(name: str) -> str:
        WHO.set(name)
        return await crossing.run(who())

    names = [f"caller-{number}" for number in range(20)]
    assert await asyncio.gather(*map(ask, names)) == names


async def test_a_callback_that_fails_keeps_no_other_from_its_turn() -> None:
    loop, called, told = asyncio.get_running_loop(), asyncio.Event(), list[Any]()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    outbox = Outbox(loop)

    def fails() -> None:
        raise KeyError("callback")

    outbox.put(fails)
    outbox.put(called.set)
    await asyncio.wait_for(called.wait(), 10)
    assert [str(error) for error in told] == ["'callback'"]
