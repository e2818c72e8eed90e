"""``torch_utils.ops.fma``."""

import torch
from torch import Tensor


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c."""
    return torch.addcmul(c, a, b)
