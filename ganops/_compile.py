"""What torch.compile is told."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_result(function: Function) -> Function:
    """Mark a function whose result a compiled function may keep, as ``torch.compiler.assume_constant_result`` does.

    That imports all of the compiler for this one mark, and takes as long as the rest of torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
