"""Memory formats."""

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """What an op's output takes over from x: channels_last where x is that and nothing else."""
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def like_format(y: Tensor, x: Tensor) -> Tensor:
    return y.contiguous(memory_format=memory_format(x))
