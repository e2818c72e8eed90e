"""Settings hold for a thread or task, and for the backward passes that it calls."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor

import ganops
from ganops import _backend
from ganops._setting import REACHES_AUTOGRADS_THREADS

SETTINGS = [
    pytest.param(lambda: ganops.backend("reference"), _backend.is_reference, id="backend"),
    pytest.param(ganops.no_weight_gradients, ganops.weight_gradients_disabled, id="no_weight_gradients"),
]
Enter, IsSet = Callable[[], AbstractContextManager[None]], Callable[[], bool]


@pytest.mark.parametrize(("enter", "is_set"), SETTINGS)
def test_threads_choose_alone(enter: Enter, is_set: IsSet) -> None:
    seen: list[bool] = []
    with enter():
        thread = threading.Thread(target=lambda: seen.append(is_set()))
        thread.start()
        thread.join()
        seen.append(is_set())
    assert seen == [False, True] and not is_set()


@pytest.mark.parametrize(("enter", "is_set"), SETTINGS)
def test_tasks_choose_alone(enter: Enter, is_set: IsSet) -> None:
    async def one() -> bool:
        with enter():
            await asyncio.sleep(0.01)
            return is_set()

    async def other() -> bool:
        await asyncio.sleep(0.005)
        return is_set()

    async def all_three() -> list[bool]:
        return await asyncio.gather(one(), other(), one())

    assert asyncio.run(all_three()) == [True, False, True] and not is_set()


class Nested(torch.autograd.Function):
    """Backward passes within backward passes; the innermost notes its thread and what is set there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, depth: int, note: Callable[[], None]) -> Tensor:
        ctx.depth, ctx.note = depth, note
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        if ctx.depth == 0:
            ctx.note()
        else:
            with torch.enable_grad():
                Nested.apply(torch.ones(1, requires_grad=True), ctx.depth - 1, ctx.note).sum().backward()
        return dy, None, None


@pytest.mark.skipif(not REACHES_AUTOGRADS_THREADS, reason="needs torch 2.13 or newer")
@pytest.mark.parametrize(("enter", "is_set"), SETTINGS)
def test_the_threads_of_autograd_follow(enter: Enter, is_set: IsSet) -> None:
    """Deep nesting makes autograd run on a thread of its own, as it does for a GPU."""
    notes: list[tuple[bool, bool]] = []
    caller = threading.get_ident()
    y = Nested.apply(
        torch.ones(1, requires_grad=True), 70, lambda: notes.append((threading.get_ident() != caller, is_set()))
    )
    with enter():
        y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert notes == [(True, True), (True, False)]
