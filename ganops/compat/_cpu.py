"""Scripts that name ``cuda`` as their device, on machines without a GPU."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

BEFORE_TORCHS_OWN = 0
"""torch asks those that place a loaded storage by this number, lowest first; its own begin at 10."""


class _CudaMeansCpu(TorchFunctionMode):
    """Sees every call of torch's functions. A device comes by keyword, or first among those of ``Tensor.to``."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if kwargs and "device" in kwargs:
            kwargs["device"] = _on_cpu(kwargs["device"])
        if function is Tensor.cuda:
            return args[0].cpu()
        if function is Tensor.to:
            args = tuple(map(_on_cpu, args))
        return function(*args, **kwargs) if kwargs else function(*args)


@contextmanager
def cuda_means_cpu() -> Iterator[None]:
    """Inside, tensors and modules that are to be made on, moved to or loaded on CUDA devices are so on the CPU.

    It holds for this thread, and for torch's functions: the ``torch.cuda`` module is not imitated.
    """
    torch.serialization.register_package(BEFORE_TORCHS_OWN, lambda storage: None, _place)
    with _CudaMeansCpu():
        yield


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if _is_cuda(value) else value


def _is_cuda(value: Any) -> bool:
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and re.fullmatch(r"cuda(:\d+)?", value) is not None


def _place(storage: Any, location: str) -> Any:
    return storage if _is_cuda(location) else None
