"""Prompts are rendered on the loop that asks, through whatever vLLM wrapped around its executor."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from rankflow.engine.rendering import render_on_loop


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
