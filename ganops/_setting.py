"""A setting in force inside a ``with`` block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

# Torch before 2.13 miscounts the references of what is stashed, and cannot remove it.
REACHES_AUTOGRADS_THREADS = hasattr(torch._C, "_remove_obj_from_tls")


class Setting(Generic[T]):
    """A value for one thread or asynchronous task, and for the backward passes it calls, on whatever thread they run.

    Autograd runs a backward pass of a GPU, and a deeply nested one, on threads of its own. It hands them what it calls
    the thread-local objects of the thread that called it; no context variable is among these by itself. Before torch
    2.13 those threads see the default.
    """

    def __init__(self, name: str, default: T) -> None:
        self._key, self._default = f"ganops_{name}", default
        self._variable = ContextVar(self._key, default=default)

    def get(self) -> T:
        if torch._C._is_key_in_tls(self._key):
            thread, value = torch._C._get_obj_in_tls(self._key)
            if thread != threading.get_ident():
                return value  # type: ignore[no-any-return]
        return self._variable.get()

    @contextmanager
    def use(self, value: T) -> Iterator[None]:
        token = self._variable.set(value)
        self._hand_on()
        try:
            yield
        finally:
            self._variable.reset(token)
            self._hand_on()

    def _hand_on(self) -> None:
        if not REACHES_AUTOGRADS_THREADS:
            return
        torch._C._stash_obj_in_tls(self._key, (threading.get_ident(), self._variable.get()))
        if self._variable.get() == self._default:  # a thread must not end with an object stashed
            torch._C._remove_obj_from_tls(self._key)
